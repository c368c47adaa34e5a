// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Telemetry

/// What a ``NodeStream`` counts. The cases' names are those that statistics and metrics show.
enum StreamCounter: Int, CounterIndex {
    case dropped, installed, kept, distrusted, swept, confirmed, stale, failed

    /// What metrics say of it.
    var help: String {
        switch self {
        case .dropped: "Records that dropped a copy, or fills under way."
        case .installed: "Records whose value was cached."
        case .kept: "Records that found a copy as new as they."
        case .distrusted: "Copies that were not shown, because the stream was behind or their slot in quarantine."
        case .swept: "Copies that quarantines removed."
        case .confirmed:
            "Reads of replica regions that the store answered, as these may know of more than copies here."
        case .stale: "Reads of copies that were shown as stale, because the stream was behind."
        case .failed: "Reads that failed because the stream was behind."
        }
    }
}
