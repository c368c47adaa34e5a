// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Telemetry

/// What is counted of the way to the home region. The cases' names are those of `stats storage` behind `region_`.
enum RegionCounter: Int, CounterIndex {
    case reads, readsFailed, writes, writesFailed, writesUnknown, writesDisowned, refused
    case connectionsMade, connectionsLost

    var name: String {
        switch self {
        case .reads: "reads"
        case .readsFailed: "reads_failed"
        case .writes: "writes"
        case .writesFailed: "writes_failed"
        case .writesUnknown: "writes_unknown"
        case .writesDisowned: "writes_disowned"
        case .refused: "refused"
        case .connectionsMade: "connections_made"
        case .connectionsLost: "connections_lost"
        }
    }

    var help: String {
        switch self {
        case .reads: "Reads that the home region answered."
        case .readsFailed: "Reads that it did not answer, or answered with an error."
        case .writes: "Writes that the home region answered, those that changed nothing included."
        case .writesFailed: "Writes that were not done, because of an error or for want of a connection."
        case .writesUnknown: "Writes of which nobody knew whether they happened."
        case .writesDisowned: "Writes that were done while their key's owner changed, and are not said to be."
        case .refused: "Reads and writes that found no room in the queue to the home region."
        case .connectionsMade: "Connections to the home region that came to stand."
        case .connectionsLost: "Connections to it that broke, or did not come to stand."
        }
    }
}
