// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// Key k belongs to the member whose place is k's first byte, divided by their number.
private struct FirstByte: KeyPlacement {
    let count: Int
    func owner(of key: Span<UInt8>) -> Int { Int(key[0]) % count }
}

private let second: UInt64 = 1_000_000_000

private func member(_ name: String) -> RingMember { RingMember(name: name, host: name, port: 1) }

private func ring(_ epoch: UInt64, _ names: String...) -> (epoch: UInt64, members: [RingMember]) {
    (epoch, names.map { member($0) })
}

private func said(_ name: String, _ adopted: UInt64, age: Int64 = 0) -> (String, UInt64, Int64) { (name, adopted, age) }

extension OwnershipView {
    fileprivate func verdict(of key: [UInt8]) -> KeyVerdict { verdict(of: key.span) }
    fileprivate func isClean(_ key: [UInt8]) -> Bool { isClean(key.span) }
    fileprivate func isOpen(_ key: [UInt8]) -> Bool { isOpen(key.span) }
    fileprivate func isStray(_ key: [UInt8]) -> Bool { isStray(key.span) }
}

/// What a node of a fleet may show and write, step by step.
struct OwnershipTests {
    private func node(_ name: String, guards: OwnershipGuards = .all) -> OwnershipStateMachine {
        OwnershipStateMachine(
            name: name, token: 7, configuration: OwnershipConfiguration(), guards: guards
        ) { members in members.isEmpty ? nil : FirstByte(count: members.count) }
    }

    /// A node of the ring a, b, whose even keys are a's, with everything settled.
    private func settled(_ name: String) -> OwnershipStateMachine {
        var machine = node(name)
        let nodes = [said("a", 1), said("b", 1)]
        _ = machine.replied(LeaseReply(isHolder: true, rings: [ring(1, "a", "b")], nodes: nodes), at: second)
        machine.extendLease(sentAt: second)
        return machine
    }

    private let even: [UInt8] = [2]
    private let odd: [UInt8] = [3]

    @Test func nothingIsAnybodysBeforeTheFirstRing() {
        let machine = node("a")
        #expect(machine.view.verdict(of: even) == .unknown)
        #expect(machine.isLapsed(at: 0))
        #expect(machine.request.joins)
        #expect(machine.request.proposal == nil)
    }

    @Test func theLeastNameThatIsAwakeProposes() {
        for (name, proposes) in [("a", true), ("b", false)] {
            var machine = node(name)
            machine.want([member("a"), member("b")])
            #expect(machine.request.proposal == nil, "not before it holds its name")
            _ = machine.replied(LeaseReply(isHolder: true, nodes: [said("a", 0), said("b", 0)]), at: second)
            #expect((machine.request.proposal != nil) == proposes)
            let asleep = [said("a", 0, age: 9_000), said("b", 0)]
            _ = machine.replied(LeaseReply(isHolder: true, nodes: asleep), at: second)
            #expect(machine.request.proposal != nil || name == "a", "the other one sleeps")
        }
    }

    @Test func aKeyIsOnesOwnOrAnothers() {
        let machine = settled("a")
        #expect(machine.view.verdict(of: even) == .own)
        #expect(machine.view.verdict(of: odd) == .foreign(1))
        #expect(machine.view.isClean(even) && machine.view.isOpen(even))
        #expect(!machine.view.isStray(even) && machine.view.isStray(odd))
    }

    @Test func aLeaseCountsFromWhenItWasAskedFor() {
        let machine = settled("a")
        #expect(!machine.isLapsed(at: 2 * second - 1))
        #expect(machine.isLapsed(at: 2 * second))
    }

    @Test func aKeyThatWasAnothersIsWrittenWhenThatOneHasHeard() {
        var machine = settled("a")
        let rings = [ring(1, "a", "b"), ring(2, "a")]
        let change = machine.replied(
            LeaseReply(isHolder: true, rings: rings, nodes: [said("a", 1), said("b", 1)]), at: 2 * second)
        #expect(change.ring && change.view && !change.gap)
        #expect(machine.view.verdict(of: odd) == .own)
        #expect(machine.view.isOpen(even), "what stays is written all the time")
        #expect(!machine.view.isOpen(odd))
        _ = machine.replied(
            LeaseReply(isHolder: true, rings: [ring(2, "a")], nodes: [said("a", 2), said("b", 2)]), at: 2 * second + 1)
        #expect(machine.view.isOpen(odd))
    }

    @Test func orWhenItsLeaseMustBeOver() {
        var machine = settled("a")
        let nodes = [said("a", 1), said("b", 1)]
        let rings = [ring(1, "a", "b"), ring(2, "a")]
        _ = machine.replied(LeaseReply(isHolder: true, rings: rings, nodes: nodes), at: 2 * second)
        let over = 2 * second + OwnershipConfiguration().leaseNanoseconds + OwnershipConfiguration().driftNanoseconds
        let reply = LeaseReply(isHolder: true, rings: [ring(2, "a")], nodes: nodes)
        _ = machine.replied(reply, at: over - 1)
        #expect(!machine.view.isOpen(odd))
        _ = machine.replied(reply, at: over)
        #expect(machine.view.isOpen(odd))
    }

    @Test func aNodeThatNobodyListsCountsAsUnheard() {
        var machine = settled("a")
        let rings = [ring(1, "a", "b"), ring(2, "a")]
        _ = machine.replied(LeaseReply(isHolder: true, rings: rings, nodes: [said("a", 1)]), at: 2 * second)
        #expect(!machine.view.isOpen(odd))
    }

    @Test func aCopyFromBeforeItWasLostIsNotShownAgain() {
        var machine = settled("a")
        let lost = [ring(1, "a", "b"), ring(2, "b"), ring(3, "a", "b")]
        _ = machine.replied(LeaseReply(isHolder: true, rings: lost, nodes: [said("b", 3)]), at: 2 * second)
        #expect(machine.view.verdict(of: even) == .own)
        #expect(!machine.view.isClean(even))
        let seen = machine.view
        machine.swept(by: seen)
        #expect(machine.view.isClean(even))
    }

    @Test func whatWasLookedThroughUnderAnEarlierRingSaysNothingOfLaterLosses() {
        var machine = settled("a")
        let seen = machine.view
        let rings = [ring(1, "a", "b"), ring(2, "b"), ring(3, "a", "b")]
        _ = machine.replied(LeaseReply(isHolder: true, rings: rings, nodes: [said("b", 3)]), at: 2 * second)
        machine.swept(by: seen)
        #expect(!machine.view.isClean(even))
    }

    @Test func ringsThatWereMissedAreNobodys() {
        var machine = settled("a")
        let before = machine.view
        let change = machine.replied(
            LeaseReply(isHolder: true, rings: [ring(90, "b"), ring(91, "a", "b")], nodes: [said("b", 91)]),
            at: 2 * second)
        #expect(change.gap)
        #expect(!machine.view.isClean(even) && !machine.view.isOpen(even))
        machine.swept(by: before)
        #expect(!machine.view.isClean(even), "epochs of another count say nothing")
        machine.swept(by: machine.view)
        #expect(machine.view.isClean(even))
    }

    @Test func aNameThatWasNotGivenBackIsTakenOverLater() {
        var machine = node("a")
        let reply = LeaseReply(isHolder: true, hadPredecessor: true, rings: [ring(1, "a")], nodes: [said("a", 1)])
        _ = machine.replied(reply, at: second)
        machine.extendLease(sentAt: second)
        #expect(machine.view.verdict(of: even) == .unknown && machine.leaseUntil == 0)
        let rest = LeaseReply(isHolder: true, rings: [ring(1, "a")], nodes: [said("a", 0)])
        _ = machine.replied(rest, at: second + second)
        #expect(machine.view.verdict(of: even) == .unknown)
        _ = machine.replied(rest, at: 3 * second)
        #expect(machine.view.verdict(of: even) == .own)
    }

    @Test func whoLostItsNameServesNothing() {
        var machine = settled("a")
        machine.want([member("a")])
        let reply = LeaseReply(isHolder: false, nodes: [said("a", 1)])
        let change = machine.replied(reply, at: 2 * second)
        #expect(change.view && change.ring)
        #expect(machine.isSuperseded)
        #expect(machine.view.verdict(of: even) == .unknown)
        machine.extendLease(sentAt: 2 * second)
        #expect(machine.isLapsed(at: 2 * second))
        #expect(!machine.replied(reply, at: 3 * second).view)
        #expect(!machine.request.joins && machine.request.proposal == nil)
        #expect(machine.pauseNanoseconds == OwnershipConfiguration().renewNanoseconds)
    }

    /// A process died while its request was on its way, and another one was started: the dead one's request takes the
    /// name away from the living one, which takes it back.
    @Test func aNameIsTakenBackFromOneThatIsSilent() {
        var machine = settled("a")
        let (token, before) = (machine.token, machine.view)
        let silence = OwnershipConfiguration().silenceMilliseconds
        let long = LeaseReply(isHolder: false, nodes: [said("a", 0, age: silence), said("b", 1)])
        // Even if it is long ago: first everybody hears that nothing is the node's.
        #expect(machine.replied(long, at: 5 * second).view)
        #expect(!machine.request.joins && machine.token == token)
        _ = machine.replied(LeaseReply(isHolder: false, nodes: [said("a", 0, age: silence - 1)]), at: 5 * second)
        #expect(!machine.request.joins && machine.token == token)
        #expect(!machine.replied(long, at: 6 * second).view)
        #expect(machine.request.joins && machine.request.silenceMilliseconds == silence)
        #expect(machine.request.adopted == 0 && machine.request.proposal == nil)
        #expect(machine.token != token, "writes that left before must not count again")
        #expect(machine.view.verdict(of: even) == .unknown)

        let rings = [ring(1, "a", "b")]
        let nodes = [said("a", 0), said("b", 1)]
        _ = machine.replied(
            LeaseReply(isHolder: true, hadPredecessor: true, rings: rings, nodes: nodes), at: 7 * second)
        machine.extendLease(sentAt: 7 * second)
        #expect(!machine.isSuperseded && machine.isLapsed(at: 7 * second))
        #expect(machine.view.verdict(of: even) == .unknown, "whoever was silent may have a lease yet")
        #expect(machine.replied(LeaseReply(isHolder: true, rings: rings, nodes: nodes), at: 9 * second).ring)
        #expect(machine.view.verdict(of: even) == .own)
        #expect(!machine.view.isClean(even), "a copy may be from before the other process wrote")
        #expect(!machine.view.isOpen(even), "and what rings there were meanwhile is not known")
        machine.swept(by: before)
        #expect(!machine.view.isClean(even), "what was looked through before says nothing")
        machine.swept(by: machine.view)
        #expect(machine.view.isClean(even))
        _ = machine.replied(LeaseReply(isHolder: true, rings: rings, nodes: nodes), at: 11 * second)
        #expect(machine.view.isOpen(even))
    }

    @Test func aNameIsNotTakenBackFromOneThatWasFaster() {
        var machine = settled("a")
        let long = LeaseReply(isHolder: false, nodes: [said("a", 0, age: 3_000)])
        for _ in 0..<2 { _ = machine.replied(long, at: 2 * second) }
        #expect(machine.request.joins)
        _ = machine.replied(LeaseReply(isHolder: false, nodes: [said("a", 0)]), at: 3 * second)
        #expect(!machine.request.joins && machine.isSuperseded)
        // Given back, or forgotten.
        _ = machine.replied(LeaseReply(isHolder: false), at: 4 * second)
        #expect(machine.request.joins)
    }

    /// A second process of a name, started by mistake.
    @Test func aNameIsNotTakenFromAProcessThatLives() {
        var machine = node("a")
        let configuration = OwnershipConfiguration()
        #expect(machine.request.joins && machine.request.isRestart)
        #expect(machine.request.silenceMilliseconds == configuration.takeoverMilliseconds)
        let refusal = LeaseReply(isHolder: false, nodes: [said("a", 4, age: 100)])
        let change = machine.replied(refusal, at: 5 * second)
        #expect(!change.view && !change.ring && !change.gap)
        #expect(machine.refusedSince == 5 * second && !machine.isSuperseded && !machine.isRefused(at: 5 * second))
        #expect(machine.request.joins && machine.request.isRestart, "it asks again, and takes nothing for its own")
        #expect(machine.pauseNanoseconds == configuration.renewNanoseconds)
        #expect(machine.view.verdict(of: even) == .unknown)
        _ = machine.replied(refusal, at: 7 * second)
        #expect(!machine.isRefused(at: 8 * second - 1) && machine.isRefused(at: 8 * second))
        // Its lease is over after all.
        let rings = [ring(1, "a")]
        _ = machine.replied(
            LeaseReply(isHolder: true, hadPredecessor: true, rings: rings, nodes: [said("a", 0)]), at: 8 * second)
        #expect(machine.refusedSince == nil && !machine.isRefused(at: 99 * second))
        #expect(machine.view.verdict(of: even) == .unknown, "a copy may be shown elsewhere yet")
        _ = machine.replied(LeaseReply(isHolder: true, rings: rings, nodes: [said("a", 0)]), at: 10 * second)
        #expect(machine.view.verdict(of: even) == .own)
    }

    @Test func whoTakesANameBackIsNoRestart() {
        var machine = settled("a")
        let long = LeaseReply(isHolder: false, nodes: [said("a", 0, age: 3_000)])
        for _ in 0..<2 { _ = machine.replied(long, at: 2 * second) }
        #expect(machine.request.joins && !machine.request.isRestart)
    }

    @Test func aTokensUpperHalfIsThePlaceForGood() {
        var machine = node("a")
        machine.listens(atPlace: 0xabcd_1234)
        let first = machine.token
        #expect(first >> 32 == 0xabcd_1234 && first & 0xffff_ffff == 7)
        _ = machine.replied(LeaseReply(isHolder: true, rings: [ring(1, "a")], nodes: [said("a", 1)]), at: second)
        let long = LeaseReply(isHolder: false, nodes: [said("a", 0, age: 3_000)])
        for _ in 0..<2 { _ = machine.replied(long, at: 2 * second) }
        #expect(machine.token != first && machine.token >> 32 == 0xabcd_1234 && machine.token & 0xffff_ffff != 0)
    }

    @Test(
        arguments: [
            (0, 0, false, true), (5, 0, false, true), (6, 999, false, false), (6, 1_000, false, true),
            (6, 0, true, true), (1 << 32 | 5, 0, true, false), (1 << 32 | 5, 1_000, true, true),
        ] as [(UInt64, Int64, Bool, Bool)])
    func aNameIsTakenFromTheSilentAndFromTheOneBefore(
        _ holder: UInt64, _ age: Int64, _ isRestart: Bool, _ isTaken: Bool
    ) {
        var request = LeaseRequest(name: "a", token: 5, joins: true, silenceMilliseconds: 1_000, adopted: 0)
        request.isRestart = isRestart
        #expect(request.takesName(from: holder, ageMilliseconds: age) == isTaken)
    }

    // MARK: Without a fence

    private func unfenced() -> OwnershipStateMachine {
        var configuration = OwnershipConfiguration()
        configuration.isFenced = false
        return OwnershipStateMachine(name: "a", token: 7, configuration: configuration) { members in
            members.isEmpty ? nil : FirstByte(count: members.count)
        }
    }

    private let lease = OwnershipConfiguration().leaseNanoseconds + OwnershipConfiguration().driftNanoseconds

    /// An authority without rings may have lost them, and somebody may show copies yet.
    @Test func withoutAFenceTheFirstRingWaitsForALease() {
        var machine = unfenced()
        let reply = LeaseReply(isHolder: true, rings: [ring(1, "a", "b")], nodes: [said("a", 0), said("b", 0)])
        let first = machine.replied(reply, at: second)
        #expect(first.ring && first.sweeps && machine.view.verdict(of: even) == .own)
        #expect(!machine.view.isOpen(even) && !machine.view.isClean(even))
        let early = machine.replied(reply, at: second + lease - 1)
        #expect(!early.view && !early.sweeps && !machine.view.isOpen(even))
        let late = machine.replied(reply, at: second + lease)
        #expect(late.view && late.sweeps && !late.ring)
        #expect(machine.view.isOpen(even) && !machine.view.isClean(even), "what was read before may be old")
        machine.swept(by: machine.view)
        #expect(machine.view.isClean(even))
    }

    @Test func withoutAFenceWhatWasReadBeforeOthersHaveHeardIsNotShown() {
        var machine = unfenced()
        let both = [ring(1, "a", "b")]
        let nodes = [said("a", 1), said("b", 1)]
        _ = machine.replied(LeaseReply(isHolder: true, rings: both, nodes: nodes), at: second)
        _ = machine.replied(LeaseReply(isHolder: true, rings: both, nodes: nodes), at: second + lease)
        machine.swept(by: machine.view)
        #expect(machine.view.isClean(even) && machine.view.isOpen(even))
        let (now, alone) = (second + 2 * lease, [ring(1, "a", "b"), ring(2, "a")])
        _ = machine.replied(LeaseReply(isHolder: true, rings: alone, nodes: nodes), at: now)
        #expect(machine.view.isClean(even) && machine.view.isOpen(even), "what stays is served all the time")
        #expect(!machine.view.isClean(odd) && !machine.view.isOpen(odd))
        machine.swept(by: machine.view)
        #expect(!machine.view.isClean(odd), "the other one may have writes answered yet")
        let heard = LeaseReply(isHolder: true, rings: [ring(2, "a")], nodes: [said("a", 2), said("b", 2)])
        let change = machine.replied(heard, at: now + 1)
        #expect(change.sweeps && machine.view.isOpen(odd) && !machine.view.isClean(odd))
        machine.swept(by: machine.view)
        #expect(machine.view.isClean(odd))
    }

    @Test func aPermitHoldsKeysThatAreOpenUnderALease() {
        let machine = settled("a")
        for (isLeased, key, isHeld) in [(true, even, true), (false, even, false), (true, odd, false)] {
            let permit = WritePermit(name: "a", token: 7, view: machine.view, isLeased: isLeased)
            #expect(permit.holds(key.span) == isHeld)
        }
    }

    @Test func ringsThatNobodyNeedsAreForgotten() {
        var machine = settled("a")
        for epoch in UInt64(2)...500 {
            let rings = [ring(epoch - 1, "a", "b"), epoch % 2 == 0 ? ring(epoch, "b") : ring(epoch, "a", "b")]
            let before = epoch % 2 == 0 ? ring(epoch - 1, "a", "b") : ring(epoch - 1, "b")
            _ = machine.replied(
                LeaseReply(isHolder: true, rings: [before, rings[1]], nodes: [said("b", 1)]), at: second + epoch)
        }
        #expect(machine.view.epoch == 500)
        #expect(!machine.view.isOpen(odd), "nobody has looked, nobody has heard: all is kept in mind")
    }
}

/// Writes that wait for a permit.
struct FencedWritesTests {
    private func write(_ token: UInt64, _ key: UInt8, since: UInt64 = 0) -> FencedWrite {
        FencedWrite(SubmittedWrite(token: token, write: StorageWrite(.set, key: [key])), sinceNanoseconds: since)
    }

    private func permit(_ machine: OwnershipStateMachine) -> WritePermit {
        WritePermit(name: "a", token: 7, view: machine.view)
    }

    private func changing() -> OwnershipStateMachine {
        var machine = OwnershipStateMachine(name: "a", token: 7, configuration: OwnershipConfiguration()) {
            FirstByte(count: $0.count)
        }
        _ = machine.replied(
            LeaseReply(isHolder: true, rings: [ring(1, "a", "b"), ring(2, "a")], nodes: [said("b", 1)]), at: second)
        return machine
    }

    @Test func aKeysWritesKeepTheirOrder() {
        var (machine, writes) = (changing(), FencedWrites())
        let first = writes.admit([write(1, 2), write(2, 3), write(3, 3), write(4, 2)], permit(machine))
        #expect(first.ready.map(\.submitted.token) == [1, 4])
        #expect(first.refused.isEmpty && writes.held.map(\.submitted.token) == [2, 3])
        writes.putBack(first.ready)
        _ = machine.replied(
            LeaseReply(isHolder: true, rings: [ring(2, "a")], nodes: [said("b", 2)]), at: second + 1)
        let second = writes.admit([write(5, 3)], permit(machine))
        #expect(second.ready.map(\.submitted.token) == [1, 4, 2, 3, 5])
        #expect(writes.held.isEmpty)
    }

    @Test func writesOfOthersKeysAreRefusedWithTheOwner() throws {
        var machine = OwnershipStateMachine(name: "a", token: 7, configuration: OwnershipConfiguration()) {
            FirstByte(count: $0.count)
        }
        _ = machine.replied(LeaseReply(isHolder: true, rings: [ring(5, "a", "b")], nodes: [said("b", 5)]), at: second)
        var writes = FencedWrites()
        let admission = writes.admit([write(1, 3)], permit(machine))
        let refused = try #require(admission.refused.first)
        #expect(refused.token == 1)
        #expect(refused.outcome == .failed(StorageFailure(.notOwner, "302 try again 5 b:1")))
    }

    @Test func whereNobodyElseLooksAtEpochsWritesWaitForALease() {
        let machine = changing()
        for (needsLease, isLeased, passes) in [(true, true, true), (true, false, false), (false, false, true)] {
            var writes = FencedWrites(needsLease: needsLease)
            let permit = WritePermit(name: "a", token: 7, view: machine.view, isLeased: isLeased)
            #expect(writes.admit([write(1, 2)], permit).ready.isEmpty == !passes)
        }
    }

    @Test func whatWaitsTooLongIsTakenOut() {
        let machine = changing()
        var writes = FencedWrites()
        _ = writes.admit([write(1, 3, since: 10), write(2, 3, since: 20)], permit(machine))
        #expect(writes.takeOverdue(since: 9).isEmpty)
        #expect(writes.takeOverdue(since: 10).map(\.token) == [1])
        #expect(writes.held.map(\.submitted.token) == [2])
    }
}
