// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage

/// Which writes a node of several in a replica region sends home, and which of them it says were done: those of keys
/// that it holds, when they are sent and when they are answered. The home region knows nothing of the replica's ring,
/// so a write that left under an old one may be done; its client is told that nobody knows.
final class RegionFence: Sendable {
    private struct State {
        var writes = FencedWrites(needsLease: true)
        /// The keys of writes that were sent, by token.
        var sent: [UInt64: [UInt8]] = [:]
        var isStopping = false
    }

    private let fence: any WriteFence
    private let state = Guarded(State())
    private let parking = Parking()
    private let thread = Guarded<Thread?>(nil)
    private let waitNanoseconds: UInt64

    /// Between looks at whether writes that are held back may be sent.
    private static var heldNanoseconds: UInt64 { 2_000_000 }

    /// Holds writes back for `waitMilliseconds` at most.
    init(_ fence: any WriteFence, waitMilliseconds: Int) {
        self.fence = fence
        waitNanoseconds = UInt64(waitMilliseconds) * 1_000_000
    }

    /// What to do about writes, and about those that were held back.
    struct Decision {
        var refused: [(token: UInt64, outcome: WriteOutcome)] = []
        /// Where writes can be sent, whoever of them found no room there.
        var unsent: [RegionRequest] = []
    }

    /// Sends what may be sent of these writes, and of those that were held back, by `offer`, which must not come back
    /// here; and says which are to be refused. A key's writes keep their order.
    func pass(_ fresh: [FencedWrite], _ offer: ([RegionRequest]) -> [RegionRequest]) -> Decision {
        let (permit, now) = (fence.permit, Clock.monotonicNanoseconds())
        let (decision, holds) = state.withLock { state in
            var decision = Decision()
            let admission = state.writes.admit(fresh, permit)
            decision.refused = admission.refused
            for write in admission.ready { state.sent[write.submitted.token] = write.submitted.write.key }
            if !admission.ready.isEmpty {
                decision.unsent = offer(
                    admission.ready.map {
                        RegionRequest(
                            token: $0.submitted.token, question: .write($0.submitted.write),
                            sinceNanoseconds: $0.sinceNanoseconds)
                    })
            }
            let oldest = state.isStopping ? UInt64.max : now > waitNanoseconds ? now - waitNanoseconds : 0
            let failure = StorageFailure(
                .notSent, permit.isLeased ? "the key's owner is changing" : "the node has no lease")
            decision.refused += state.writes.takeOverdue(since: oldest).map { ($0.token, .failed(failure)) }
            return (decision, !state.writes.held.isEmpty)
        }
        if holds { parking.announce() }
        return decision
    }

    /// What is answered for writes: that one was done only where the node holds the key now. Whether of some nobody
    /// knows.
    func judge(
        _ results: [(token: UInt64, outcome: WriteOutcome)]
    ) -> (results: [(token: UInt64, outcome: WriteOutcome)], unknown: Int) {
        let keys = state.withLock { state in results.map { state.sent.removeValue(forKey: $0.token) } }
        // Behind the answers: who holds a key now held it, or nobody else did, when they were made.
        let permit = fence.permit
        var (judged, unknown) = (results, 0)
        for (index, key) in keys.enumerated() {
            guard let key, !permit.holds(key.span) else { continue }
            if case .failed = judged[index].outcome { continue }
            judged[index].outcome = .failed(
                StorageFailure(.unknownOutcome, "the key's owner changed while it was written"))
            unknown += 1
        }
        return (judged, unknown)
    }

    // MARK: Life

    /// Starts the thread that looks after writes that are held back, by `look`.
    func start(_ look: @escaping @Sendable () -> Void) throws(SystemError) {
        let made = try Thread(name: "martlet-fence") { [self] in
            while true {
                let ticket = parking.ticket
                let (holds, isStopping) = state.withLock { (!$0.writes.held.isEmpty, $0.isStopping) }
                if isStopping { return }
                parking.wait(ticket, timeoutNanoseconds: holds ? Self.heldNanoseconds : 1_000_000_000)
                if holds { look() }
            }
        }
        thread.withLock { $0 = made }
    }

    /// Ends the thread; what is held back, the next ``pass(_:_:)`` refuses.
    func stop() {
        state.withLock { $0.isStopping = true }
        parking.announce()
        thread.exchange(nil)?.join()
    }
}
