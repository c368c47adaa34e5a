// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Memory
internal import Platform
internal import Routing
internal import Storage
internal import Synchronization
internal import Telemetry

/// A node that joins a fleet of caches: fetches its share of the keys from the others, on a thread of its own, and is
/// read from when it has it.
///
/// Routers that know of it delete on it whatever is written meanwhile. So what it fetched may stay if the key was not
/// deleted since, nor shortly before: the delete may have come here before the write came to the other node.
final class PeerWarmUp: Sendable {
    private let settings: WarmUpSettings
    private let own: RingMember
    /// Which keys were deleted.
    let keys = WarmingKeys()
    let counters = WarmUpCounters()
    private let members = Guarded<[RingMember]>([])
    private let phase = Guarded(Phase.warming)
    private let parking = Parking()
    private let thread = Guarded<Thread?>(nil)

    /// How far it is.
    enum Phase: String, Sendable, Equatable {
        case warming, up, stopped
    }

    /// See ``WarmUpSettings/graceNanoseconds(lagNanoseconds:)``.
    private let graceNanoseconds: UInt64
    /// Whether the node follows a stream.
    private let follows: Bool

    /// Where the configuration asks for it. `lagNanoseconds` is for how long nodes show copies that the stream did not
    /// vouch for since; 0 without one.
    init?(_ configuration: NodeConfiguration, lagNanoseconds: UInt64) {
        guard let own = configuration.fleet.ownMember, configuration.warmUp.hash != nil else { return nil }
        settings = configuration.warmUp
        self.own = own
        graceNanoseconds = WarmUpSettings.graceNanoseconds(lagNanoseconds: lagNanoseconds)
        follows = lagNanoseconds > 0
    }

    /// Whether the node is not to be read from yet.
    var isWarming: Bool { phase.withLock { $0 } == .warming }

    /// In a word.
    var phaseText: String { phase.withLock { $0 }.rawValue }

    /// Who is in the fleet.
    func setMembers(_ list: [RingMember]) {
        members.withLock { $0 = list }
        parking.announce()
    }

    /// Begins. `isDone` is called once, when the node may be read from.
    func start(_ node: Node, log: Log?, isDone: @escaping @Sendable () -> Void) throws(SystemError) {
        let hashSeed = node.engine.hashSeed
        let made = try Thread(name: "martlet-warm-up") { [self] in
            let began = Clock.monotonicNanoseconds()
            run(hashSeed, log, until: began &+ UInt64(settings.timeoutSeconds) * 1_000_000_000)
            let isUp = phase.withLock { phase in
                if phase == .warming { phase = .up }
                return phase == .up
            }
            guard isUp else { return }
            log?.info(
                "warmed up",
                [
                    "stored": .of(counters.stored.load(ordering: .relaxed)),
                    "left_out": .of(counters.leftOut.load(ordering: .relaxed)),
                    "seconds": .count(Int((Clock.monotonicNanoseconds() - began) / 1_000_000_000)),
                ])
            isDone()
        }
        thread.withLock { $0 = made }
    }

    /// Takes the node as warmed up, with nothing fetched.
    func skip() { phase.withLock { $0 = .up } }

    /// Ends it where it is.
    func stop() {
        phase.withLock { $0 = .stopped }
        parking.announce()
        thread.exchange(nil)?.join()
    }

    private func run(_ hashSeed: UInt64, _ log: Log?, until end: UInt64) {
        rest(nanoseconds: UInt64(settings.waitMilliseconds) * 1_000_000, until: end)
        while isWarming, members.withLock({ $0.isEmpty }), Clock.monotonicNanoseconds() < end {
            rest(nanoseconds: 100_000_000, until: end)
        }
        // What others have may be from before the stream was joined, as long as they show what it does not vouch for.
        while isWarming, follows, keys.isFlushed(since: since(Clock.monotonicNanoseconds())) {
            guard Clock.monotonicNanoseconds() < end else {
                log?.warning(
                    "nothing was fetched: the stream vouches for nothing that others have",
                    ["setting": "warmUp.timeout", "lag_bound_seconds": .count(graceNanoseconds / 1_000_000_000)])
                return
            }
            rest(nanoseconds: 100_000_000, until: end)
        }
        var all = members.withLock { $0 }
        if !all.contains(where: isOwn) { all.append(own) }
        guard let place = all.firstIndex(where: isOwn), let selector = settings.place(all) else {
            log?.error("nothing is fetched: the hash cannot be made of the members", ["setting": "warmUp.hash"])
            return
        }
        var pace = Pace(perSecond: settings.rate)
        for (index, peer) in all.enumerated() where index != place && isWarming {
            do throws(PeerProblem) {
                var source = try PeerShare(peer, own: own, keys: keys, hashSeed: hashSeed)
                while let batch = try source.nextBatch(where: { selector.owner(of: $0) == place }) {
                    if !batch.isEmpty { try source.fetch(batch, graceNanoseconds: graceNanoseconds, counters) }
                    rest(nanoseconds: pace.pause(after: batch.count), until: end)
                    guard isWarming else { return }
                    guard Clock.monotonicNanoseconds() < end else {
                        log?.warning("not all was fetched in time", ["setting": "warmUp.timeout"])
                        return
                    }
                }
            } catch {
                counters.failures.add(1, ordering: .relaxed)
                log?.warning(
                    "keys could not be fetched: they begin as misses",
                    ["from": .text(peer.address), "reason": .text(error.description)])
            }
        }
    }

    /// Since when nothing may have happened to what is fetched at a time.
    private func since(_ now: UInt64) -> UInt64 { now > graceNanoseconds ? now - graceNanoseconds : 0 }

    private func isOwn(_ member: RingMember) -> Bool {
        member.name == own.name || (member.host == own.host && member.port == own.port)
    }

    private func rest(nanoseconds: UInt64, until limit: UInt64) {
        let end = min(Clock.monotonicNanoseconds() &+ nanoseconds, limit)
        while isWarming {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            guard isWarming, now < end else { return }
            parking.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    /// Keeps to a rate.
    private struct Pace {
        let perSecond: Int
        private let began = Clock.monotonicNanoseconds()
        private var done = 0

        init(perSecond: Int) { self.perSecond = perSecond }

        mutating func pause(after count: Int) -> UInt64 {
            done += count
            let due = began &+ UInt64(done) * 1_000_000_000 / UInt64(perSecond)
            let now = Clock.monotonicNanoseconds()
            return due > now ? due - now : 0
        }
    }
}

/// What a ``PeerWarmUp`` counts: keys that were stored, keys that were left out because they were written meanwhile or
/// are gone, and nodes that could not be asked for all.
final class WarmUpCounters: Sendable {
    let stored = Atomic<UInt64>(0)
    let leftOut = Atomic<UInt64>(0)
    let failures = Atomic<UInt64>(0)
}
