// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Telemetry

/// What a ``NodeOwnership`` counts. The cases' names are those that statistics and metrics show.
enum OwnershipCounter: Int, CounterIndex {
    /// Requests for keys of others that were answered with their owner's address, and that were passed on.
    case moved, forwarded
    /// Copies that were not shown because the lease was over, or the key had been another's.
    case withheld
    /// Copies that were removed as their keys went to others.
    case swept
    /// Exchanges with the authority, and those of them that failed.
    case exchanges, failures
}
