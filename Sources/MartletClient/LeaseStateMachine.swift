// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How one caller gets a value that somebody may have to compute: the cache's leases (memcached's meta flags N and R,
/// and its marks W, X and Z). Pure: time and chance are given.
///
/// Of all clients that miss a key, the one whose read is marked W computes and stores; the others' reads are marked Z:
/// they take what is stale where there is something, or wait and read again. Who has waited too long computes for
/// itself. Storing names the version that the read saw, so that nobody's newer value or deletion is undone.
struct LeaseStateMachine: Sendable {
    struct Configuration: Sendable {
        /// How long somebody else's computation is waited for.
        var patienceNanoseconds: UInt64
        /// Between two reads while waiting.
        var poll: Backoff
        /// Whether a stale value is as good as none.
        var takesStale: Bool
    }

    /// What a read brought.
    struct Reading: Equatable, Sendable {
        var hasValue: Bool
        /// Marked W: this client is to compute.
        var hasWon = false
        /// Marked Z: somebody else was told to.
        var isTaken = false
        /// Marked X.
        var isStale = false
        var cas: UInt64 = 0
    }

    enum Action: Equatable, Sendable {
        /// Read the key.
        case read
        /// Give the caller what the last read brought.
        case give
        /// Compute, then store under this version; nil: store nothing, because nothing is known of the cache.
        case compute(cas: UInt64?)
        /// Rest so many nanoseconds, then ``LeaseStateMachine/rested(nowNanoseconds:)``.
        case rest(UInt64)
    }

    private let configuration: Configuration
    private let begun: UInt64
    private(set) var rests = 0

    init(_ configuration: Configuration, nowNanoseconds now: UInt64) {
        self.configuration = configuration
        begun = now
    }

    /// What is done first.
    func begin() -> Action { .read }

    /// A read came back.
    mutating func read(_ reading: Reading, nowNanoseconds now: UInt64, random: Double) -> Action {
        if reading.hasWon { return .compute(cas: reading.cas) }
        // Before its time is over a value is good while somebody renews it.
        if reading.hasValue, !reading.isStale || configuration.takesStale { return .give }
        guard reading.isTaken else { return .compute(cas: reading.cas == 0 ? nil : reading.cas) }
        let left = begun &+ configuration.patienceNanoseconds
        guard now < left else { return .compute(cas: reading.cas) }
        rests += 1
        return .rest(min(configuration.poll.wait(failures: rests, random: random), left - now))
    }

    /// A read failed: the caller gets its value without the cache.
    func readFailed() -> Action { .compute(cas: nil) }

    /// A rest is over.
    func rested(nowNanoseconds now: UInt64) -> Action { .read }
}
