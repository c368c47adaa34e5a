// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// What keeps the promises of docs/streams.md: without one of these, stale reads happen.
package struct StreamGuards: NamedGuards {
    /// A bit for each guard.
    package let rawValue: UInt32

    /// The guards of these bits.
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// A record behind a gap does not count as the next one.
    package static let contiguity = StreamGuards(rawValue: 1 << 0)
    /// The answer to a probe is compared with what was received: a lost tail is a gap.
    package static let tails = StreamGuards(rawValue: 1 << 1)
    /// Another epoch or source quarantines everything.
    package static let epochs = StreamGuards(rawValue: 1 << 2)
    /// A stream that begins behind where it was left quarantines the slot.
    package static let trims = StreamGuards(rawValue: 1 << 3)
    /// A gap that is not repaired in time quarantines the slot.
    package static let repairs = StreamGuards(rawValue: 1 << 4)
    /// A record changes only what is older than it.
    package static let versions = StreamGuards(rawValue: 1 << 5)
    /// A proof counts from when its probe was sent, not from when its answer came.
    package static let proofs = StreamGuards(rawValue: 1 << 6)
    /// Past the bound no copy is shown.
    package static let bound = StreamGuards(rawValue: 1 << 7)
    /// A quarantined slot is trusted again only when what was loaded before is gone.
    package static let sweeps = StreamGuards(rawValue: 1 << 8)
    /// A quarantine voids the fills that are under way.
    package static let fills = StreamGuards(rawValue: 1 << 9)
    /// Nothing is shown before the stream was joined.
    package static let joins = StreamGuards(rawValue: 1 << 10)

    /// What a promotion did not take over quarantines its slot.
    package static let successions = StreamGuards(rawValue: 1 << 11)

    /// What empties caches is in each slot, behind what was done there before.
    package static let flushes = StreamGuards(rawValue: 1 << 12)

    /// Each guard with its name.
    package static let named: [(name: String, guards: StreamGuards)] = [
        ("contiguity", .contiguity), ("tails", .tails), ("epochs", .epochs), ("trims", .trims), ("repairs", .repairs),
        ("versions", .versions), ("proofs", .proofs), ("bound", .bound), ("sweeps", .sweeps), ("fills", .fills),
        ("joins", .joins), ("successions", .successions), ("flushes", .flushes),
    ]

    /// All guards.
    package static let all = StreamGuards(named.map(\.guards))
}
