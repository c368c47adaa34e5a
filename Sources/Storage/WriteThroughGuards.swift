// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What keeps the promises of docs/contract.md: without one of these, a race happens.
package struct WriteThroughGuards: NamedGuards {
    /// A bit for each guard.
    package let rawValue: UInt32

    /// The guards of these bits.
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// A fill installs a value only if nothing arrived for its bucket since its read was sent (6; race R1).
    package static let fills = WriteThroughGuards(rawValue: 1 << 0)
    /// The same for "not found" (7; R6).
    package static let negativeFills = WriteThroughGuards(rawValue: 1 << 1)
    /// A get joins a read in flight only if nothing arrived for its bucket since that was sent (5; R11).
    package static let joins = WriteThroughGuards(rawValue: 1 << 2)
    /// Arrivals are counted beside the cache, where eviction does not reach them (R3).
    package static let countersBesideCache = WriteThroughGuards(rawValue: 1 << 3)
    /// A flush counts as an arrival for every key (10; R10, and R4 where a key changes its owner).
    package static let flushes = WriteThroughGuards(rawValue: 1 << 4)
    /// An invalidation from outside counts as an arrival (6; R2, where the read was sent before it).
    package static let invalidations = WriteThroughGuards(rawValue: 1 << 5)
    /// A key whose write has an unknown outcome is dropped, and not cached until that is settled (11; R5).
    package static let uncertainKeys = WriteThroughGuards(rawValue: 1 << 6)
    /// A write that ran out of time is one of unknown outcome until storage answers it (11; R5).
    package static let timeouts = WriteThroughGuards(rawValue: 1 << 7)
    /// Nothing is cached while writes of an earlier process may still take effect (11).
    package static let restarts = WriteThroughGuards(rawValue: 1 << 8)
    /// A read that arrives while writes to its key are in flight waits for the last of them (5).
    package static let readsBehindWrites = WriteThroughGuards(rawValue: 1 << 9)
    /// Once a read has shown what a write in flight did, no older copy is left or installed (4).
    package static let readsAhead = WriteThroughGuards(rawValue: 1 << 10)
    /// Only definite answers are cached: a failed read is no "not found" (7; R6, R9).
    package static let definiteAnswers = WriteThroughGuards(rawValue: 1 << 11)
    /// A refused write leaves the cache as it is: no version without its value (11; R9).
    package static let wholeRows = WriteThroughGuards(rawValue: 1 << 12)
    /// touch changes the cached copy's expiry too (9; R7).
    package static let touches = WriteThroughGuards(rawValue: 1 << 13)
    /// A cached copy has storage's version, not one of its own (2; R8).
    package static let storedVersions = WriteThroughGuards(rawValue: 1 << 14)
    /// A write is answered after its commit (1).
    package static let commitBeforeAnswer = WriteThroughGuards(rawValue: 1 << 15)
    /// A committed write changes the cache before it is answered (1).
    package static let cacheBeforeAnswer = WriteThroughGuards(rawValue: 1 << 16)
    /// An expired row is absent (9).
    package static let expiry = WriteThroughGuards(rawValue: 1 << 17)

    /// A fill of what is older than what a stream told of is not cached: the store that was asked lags (14; R2). Not
    /// among ``named``: one node's simulation has no stream.
    package static let laggingReads = WriteThroughGuards(rawValue: 1 << 18)

    /// Every guard that a store without a stream needs, each with its name.
    package static let named: [(name: String, guards: WriteThroughGuards)] = [
        ("fills", .fills), ("negativeFills", .negativeFills), ("joins", .joins),
        ("countersBesideCache", .countersBesideCache), ("flushes", .flushes), ("invalidations", .invalidations),
        ("uncertainKeys", .uncertainKeys), ("timeouts", .timeouts), ("restarts", .restarts),
        ("readsBehindWrites", .readsBehindWrites), ("readsAhead", .readsAhead),
        ("definiteAnswers", .definiteAnswers), ("wholeRows", .wholeRows), ("touches", .touches),
        ("storedVersions", .storedVersions), ("commitBeforeAnswer", .commitBeforeAnswer),
        ("cacheBeforeAnswer", .cacheBeforeAnswer), ("expiry", .expiry),
    ]

    /// All guards.
    package static let all = WriteThroughGuards(named.map(\.guards) + [.laggingReads])
}
