// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Storage
import Testing

@testable import StorageRegion

/// Every key is the first member's.
private struct First: KeyPlacement {
    func owner(of key: Span<UInt8>) -> Int { 0 }
}

/// What a node knows, as a test says.
private final class Fence: WriteFence {
    private let state = Guarded(WritePermit(name: "a", token: 7, view: OwnershipView()))

    var permit: WritePermit { state.withLock { $0 } }
    func renew(after epoch: UInt64, timeoutNanoseconds: UInt64) {}

    func set(owner: String, isLeased: Bool = true, isClosing: Bool = false) {
        var machine = OwnershipStateMachine(name: "a", token: 7, configuration: OwnershipConfiguration()) { _ in
            First()
        }
        var rings: [(epoch: UInt64, members: [RingMember])] = [(1, [RingMember(name: owner, host: owner, port: 1)])]
        if isClosing { rings.insert((1, [RingMember(name: "b", host: "b", port: 1)]), at: 0) }
        if isClosing { rings[1].epoch = 2 }
        _ = machine.replied(LeaseReply(isHolder: true, rings: rings), at: 1)
        let view = machine.view
        state.withLock { $0 = WritePermit(name: "a", token: 7, view: view, isLeased: isLeased) }
    }
}

/// Which writes are sent to the home region, and which are said to be done.
struct RegionFenceTests {
    private let fence = Fence()
    private let region: RegionFence

    init() { region = RegionFence(fence, waitMilliseconds: 100) }

    private func write(_ token: UInt64, since: UInt64 = Clock.monotonicNanoseconds()) -> FencedWrite {
        FencedWrite(SubmittedWrite(token: token, write: StorageWrite(.set, key: [107])), sinceNanoseconds: since)
    }

    /// The tokens that were sent, and what was refused.
    private func pass(_ writes: [FencedWrite]) -> (sent: [UInt64], refused: [UInt64: WriteOutcome]) {
        let sent = Guarded<[UInt64]>([])
        let decision = region.pass(writes) { requests in
            sent.withLock { $0 += requests.map(\.token) }
            return []
        }
        return (sent.withLock { $0 }, Dictionary(uniqueKeysWithValues: decision.refused.map { ($0.token, $0.outcome) }))
    }

    @Test func writesAreSentWhenTheNodeMayWriteTheKey() {
        #expect(pass([write(1)]).sent.isEmpty, "nobody is known to own it")
        fence.set(owner: "a", isClosing: true)
        #expect(pass([write(2)]).sent.isEmpty, "another one may show a copy")
        fence.set(owner: "a", isLeased: false)
        #expect(pass([]).sent.isEmpty, "without a lease")
        fence.set(owner: "a")
        #expect(pass([write(3)]).sent == [1, 2, 3], "in their order")
    }

    @Test func othersKeysAreRefusedWithTheirOwner() {
        fence.set(owner: "b")
        #expect(pass([write(1)]).refused == [1: .failed(StorageFailure(.notOwner, "302 try again 1 b:1"))])
    }

    @Test func whatIsHeldTooLongWasNotSent() {
        fence.set(owner: "a", isLeased: false)
        let (sent, refused) = pass([write(1, since: 1), write(2)])
        #expect(sent.isEmpty && Array(refused.keys) == [1])
        guard case .failed(let failure)? = refused[1] else { return #expect(Bool(false), "it failed") }
        #expect(failure.kind == .notSent)
    }

    @Test func aWriteIsDoneOnlyWhileTheNodeHoldsItsKey() {
        let row = StoredRow(version: 3, expiryMilliseconds: 0, clientFlags: 0, value: [])
        for (owner, isLeased, isClosing, unknown) in [
            ("a", true, false, 0), ("a", false, false, 1), ("b", true, false, 1), ("a", true, true, 1),
        ] {
            fence.set(owner: "a")
            #expect(pass([write(1), write(2)]).sent == [1, 2])
            fence.set(owner: owner, isLeased: isLeased, isClosing: isClosing)
            let failure = WriteOutcome.failed(StorageFailure(.notSent, "simulated"))
            let judged = region.judge([(1, .stored(row)), (2, failure)])
            #expect(judged.unknown == unknown)
            #expect(judged.results[1].outcome == failure, "what was not done is known")
            guard unknown == 1 else {
                #expect(judged.results[0].outcome == .stored(row))
                continue
            }
            guard case .failed(let reason) = judged.results[0].outcome else { return #expect(Bool(false), "unknown") }
            #expect(reason.kind == .unknownOutcome)
        }
    }

    @Test func nothingIsHeldBackAtTheEnd() {
        _ = pass([write(1)])
        region.stop()
        #expect(Array(pass([]).refused.keys) == [1])
    }
}
