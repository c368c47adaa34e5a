// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Storage
import Testing

/// What a consumer keeps when another region becomes home: docs/contract.md, 20.
struct SuccessionTests {
    private static func position(_ epoch: Int64, _ sequences: [Int64]) -> StreamPosition {
        StreamPosition(source: "s", epoch: epoch, sequences: sequences)
    }

    /// All slots at 5, but for some.
    private static func sequences(_ others: [Int: Int64] = [:]) -> [Int64] { (0..<64).map { others[$0] ?? 5 } }

    private static func hello(_ position: StreamPosition, understands: Bool = true) -> StreamHello {
        var hello = StreamHello()
        (hello.position, hello.takesSuccession) = (position, understands)
        return hello
    }

    /// A follower that had the old home's records up to 5, and of slot 9 up to 8; the new home has slot 9 up to 6, and
    /// has committed one in slot 3 since. What it is told, and where it is then.
    private static func succeed(
        isWhole: Bool, previous: Int64 = 1, understands: Bool = true, kept: [Int64] = sequences().map { _ in 0 },
        last: Int64 = 6
    ) -> (actions: [FollowerAction], base: StreamPosition, position: StreamPosition?) {
        var follower = StreamFollower(InvalidationConfiguration())
        var actions: [FollowerAction] = []
        let old = position(1, sequences([9: 8]))
        follower.welcomed(old, at: 1_000, into: &actions)
        follower.completed(1, epoch: 1, sequences: old.sequences, at: 2_000, into: &actions)
        follower.disconnected()
        let succession = StreamSuccession(previous: previous, included: sequences([9: 6]), isWhole: isWhole)
        let feed = StreamFeed(
            InvalidationConfiguration(), hello: hello(old, understands: understands), kept: kept,
            last: position(2, sequences([3: 6, 9: last])), succession: succession)
        actions = []
        follower.welcomed(
            feed.sent, after: understands && previous == 1 ? succession : nil, at: 3_000, into: &actions)
        return (actions, feed.sent, follower.position)
    }

    @Test func onlyASlotThatWasAheadIsGivenUp() {
        let (actions, base, position) = Self.succeed(isWhole: true)
        #expect(
            base == Self.position(2, Self.sequences([9: 6])), "it goes on where it was, or where that was taken over")
        #expect(position == base)
        #expect(actions.first == .quarantine(StreamSlots.mask(9)))
        #expect(!actions.dropFirst().contains { if case .quarantine = $0 { true } else { false } })
        #expect(!actions.contains(.doubt(since: 1_000)), "nothing was lost that it could have read")
    }

    @Test func whereSomethingMayBeLostWhatWasReadLastIsInDoubt() {
        let (actions, _, _) = Self.succeed(isWhole: false)
        #expect(actions.first == .quarantine(StreamSlots.mask(9)))
        #expect(actions.contains(.doubt(since: 1_000)), "since the question whose answer proved the stream")
    }

    @Test func recordsThatAreNotKeptGiveTheirSlotUp() {
        let (actions, base, _) = Self.succeed(isWhole: true, kept: Self.sequences([3: 6]).map { $0 == 6 ? 6 : 0 })
        #expect(base.sequences[3] == 6)
        #expect(actions.first == .quarantine(StreamSlots.mask(3) | StreamSlots.mask(9)))
    }

    @Test(arguments: [(previous: Int64(7), understands: true), (previous: 1, understands: false)])
    func anotherNumberingGivesEverythingUp(_ way: (previous: Int64, understands: Bool)) {
        let (actions, base, _) = Self.succeed(isWhole: true, previous: way.previous, understands: way.understands)
        #expect(base == Self.position(2, Self.sequences([3: 6, 9: 6])), "it joins where the stream is")
        #expect(actions.first == .quarantine(StreamSlots.all))
    }

    /// The new home gave its numbers to others, and has let go just as many of these.
    @Test func aSlotThatWasAheadIsGivenUpHoweverFarTheNewHomeIsByNow() {
        let (actions, base, position) = Self.succeed(
            isWhole: true, kept: Self.sequences([9: 8]).map { $0 == 8 ? 8 : 0 }, last: 9)
        #expect(base.sequences[9] == 8 && position == base)
        #expect(actions.first == .quarantine(StreamSlots.mask(9)))
    }

    /// An operator has records sent again, and another region becomes home before they are there.
    @Test func whatWasHadBeforeItWasAskedForAgainCountsToo() {
        var follower = StreamFollower(InvalidationConfiguration())
        var actions: [FollowerAction] = []
        follower.welcomed(Self.position(1, Self.sequences([9: 8])), at: 1_000, into: &actions)
        follower.replay(StreamSlots.mask(9) | StreamSlots.mask(10), into: &actions)
        follower.disconnected()
        let succession = StreamSuccession(previous: 1, included: Self.sequences([9: 6]), isWhole: true)
        actions = []
        let base = Self.position(2, Self.sequences([9: 0, 10: 0]))
        follower.welcomed(base, after: succession, at: 3_000, into: &actions)
        #expect(actions.first == .quarantine(StreamSlots.mask(9)), "10 was taken over as it was had")
    }

    @Test func theOldHomeIsHungUpOn() {
        var follower = StreamFollower(InvalidationConfiguration())
        var actions: [FollowerAction] = []
        follower.welcomed(Self.position(2, Self.sequences()), at: 1_000, into: &actions)
        follower.disconnected()
        actions = []
        follower.welcomed(Self.position(1, Self.sequences([9: 8])), at: 2_000, into: &actions)
        #expect(actions == [.disconnect("the source is in epoch 1, which is over")])
        #expect(follower.position == Self.position(2, Self.sequences()))
    }
}
