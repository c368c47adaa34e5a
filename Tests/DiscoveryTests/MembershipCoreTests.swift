// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Discovery

/// Which members count, in virtual time.
struct MembershipCoreTests {
    static let millisecond: UInt64 = 1_000_000

    static func members(_ names: String) -> [Member] {
        names.map { Member(host: String($0), port: 11211) }
    }

    /// The names of the members that count.
    static func names(_ set: MemberSet?) -> String? { set.map { $0.members.map(\.host).joined() } }

    @Test func theFirstMembersCountAtOnce() {
        var core = MembershipCore()
        core.found(Self.members("ba"), nowNanoseconds: 5)
        let set = core.tick(nowNanoseconds: 5)
        #expect(Self.names(set) == "ab")
        #expect(set?.epoch == 1)
        #expect(core.tick(nowNanoseconds: 6) == nil)
    }

    @Test func aChangeCountsWhenItHasBeenThereForAMoment() {
        var core = MembershipCore()
        core.found(Self.members("abc"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        core.found(Self.members("abcd"), nowNanoseconds: 10 * Self.millisecond)
        #expect(core.hold == .debounce)
        #expect(core.tick(nowNanoseconds: 400 * Self.millisecond) == nil)
        #expect(core.dueNanoseconds == 510 * Self.millisecond)
        let set = core.tick(nowNanoseconds: 510 * Self.millisecond)
        #expect(Self.names(set) == "abcd")
        #expect(set?.epoch == 2)
    }

    @Test func oneThatGoesAwayAgainNeverCounts() {
        var core = MembershipCore()
        core.found(Self.members("abc"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        core.found(Self.members("ab"), nowNanoseconds: 10)
        core.found(Self.members("abc"), nowNanoseconds: 20)
        #expect(core.dueNanoseconds == nil)
        #expect(core.tick(nowNanoseconds: .max) == nil)
        #expect(core.current.epoch == 1)
    }

    @Test func whatDoesNotComeToRestCountsInTheEnd() {
        var core = MembershipCore()
        core.found(Self.members("abc"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        var changed: UInt64?
        for step in 1...100 as ClosedRange<UInt64> {
            let now = step * 100 * Self.millisecond
            core.found(Self.members(step % 2 == 0 ? "abcd" : "abce"), nowNanoseconds: now)
            if core.tick(nowNanoseconds: now) != nil, changed == nil { changed = step }
        }
        #expect(changed == 51)
    }

    @Test func theLastGoodSetIsKeptWhileNobodyCanBeAsked() {
        var core = MembershipCore()
        core.found(Self.members("abc"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        core.failed("no route to host")
        #expect(core.failure == "no route to host")
        #expect(core.tick(nowNanoseconds: .max) == nil)
        #expect(Self.names(core.current) == "abc")
        core.found(Self.members("abc"), nowNanoseconds: 9)
        #expect(core.failure == nil)
    }

    @Test func manyThatAreGoneAtOnceHaveToStayAway() {
        var core = MembershipCore()
        core.found(Self.members("abcdef"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        core.found(Self.members("ab"), nowNanoseconds: 10)
        #expect(core.hold == .loss(4, of: 6))
        #expect(core.tick(nowNanoseconds: 29_000 * Self.millisecond) == nil)
        // Half of them is not too many.
        core.found(Self.members("abc"), nowNanoseconds: 29_000 * Self.millisecond)
        #expect(core.hold == .debounce)
        core.found(Self.members("ab"), nowNanoseconds: 29_100 * Self.millisecond)
        #expect(core.tick(nowNanoseconds: 40_000 * Self.millisecond) == nil)
        #expect(Self.names(core.tick(nowNanoseconds: 59_100 * Self.millisecond)) == "ab")
    }

    @Test func thoseThatComeBackOneByOneAreWaitedForAnew() {
        var core = MembershipCore()
        core.found(Self.members("abcdef"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        core.found(Self.members("a"), nowNanoseconds: 10)
        #expect(core.tick(nowNanoseconds: 20_000 * Self.millisecond) == nil)
        core.found(Self.members("ab"), nowNanoseconds: 20_000 * Self.millisecond)
        core.found(Self.members("abc"), nowNanoseconds: 20_100 * Self.millisecond)
        #expect(core.tick(nowNanoseconds: 20_200 * Self.millisecond) == nil)
        core.found(Self.members("abcdef"), nowNanoseconds: 20_300 * Self.millisecond)
        #expect(core.dueNanoseconds == nil)
        // One that comes back does not put it off for the others; one that goes as well has its own time.
        core.found(Self.members("a"), nowNanoseconds: 30_000 * Self.millisecond)
        core.found(Self.members("ab"), nowNanoseconds: 59_000 * Self.millisecond)
        #expect(Self.names(core.tick(nowNanoseconds: 60_000 * Self.millisecond)) == "ab")
    }

    @Test func thoseThatGoLaterHaveToStayAwayAsLong() {
        var core = MembershipCore()
        core.found(Self.members("abcdef"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        core.found(Self.members("ab"), nowNanoseconds: 10)
        core.found(Self.members("a"), nowNanoseconds: 29_000 * Self.millisecond)
        #expect(core.tick(nowNanoseconds: 58_000 * Self.millisecond) == nil)
        #expect(Self.names(core.tick(nowNanoseconds: 59_000 * Self.millisecond)) == "a")
    }

    @Test func aLossDoesNotCountWhileNobodyCanBeAsked() {
        var core = MembershipCore()
        core.found(Self.members("abcdef"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        core.found(Self.members("a"), nowNanoseconds: 10)
        core.failed("no route to host")
        #expect(core.dueNanoseconds == nil)
        #expect(core.tick(nowNanoseconds: 3_600_000 * Self.millisecond) == nil)
        // Who says so again is believed after as long as anybody.
        core.found(Self.members("a"), nowNanoseconds: 3_600_000 * Self.millisecond)
        #expect(core.tick(nowNanoseconds: 3_629_000 * Self.millisecond) == nil)
        #expect(Self.names(core.tick(nowNanoseconds: 3_630_000 * Self.millisecond)) == "a")
    }

    @Test func tooFewNeverCount() {
        var configuration = MembershipConfiguration()
        configuration.fewestMembers = 2
        var core = MembershipCore(configuration)
        core.found(Self.members("ab"), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        for few in ["a", ""] {
            core.found(Self.members(few), nowNanoseconds: 10)
            #expect(core.hold == .tooFew(few.count))
            #expect(core.tick(nowNanoseconds: .max) == nil)
        }
        #expect(Self.names(core.current) == "ab")
    }

    @Test func whatIsKnownFromBeforeCountsUntilSomethingIsFound() {
        var core = MembershipCore(initial: Self.members("xyz"), epoch: 41)
        #expect(core.current.epoch == 41)
        // It was not found: nothing is lost when it is not there.
        core.found(Self.members("a"), nowNanoseconds: 0)
        let set = core.tick(nowNanoseconds: 500 * Self.millisecond)
        #expect(Self.names(set) == "a")
        #expect(set?.epoch == 42)
    }

    @Test func membersAreToldApartByTheirNames() {
        let named = [
            Member(host: "10.0.0.2", port: 1, name: "b"), Member(host: "10.0.0.1", port: 1, name: "a"),
            Member(host: "10.0.0.9", port: 1, name: "a"),
        ]
        #expect(MemberSet(named, epoch: 1).members.map(\.host) == ["10.0.0.1", "10.0.0.2"])
        // One that comes back at another address is a change of it, and no loss.
        var core = MembershipCore()
        core.found(Array(named[0...1]), nowNanoseconds: 0)
        _ = core.tick(nowNanoseconds: 0)
        let moved = [Member(host: "10.1.0.2", port: 1, name: "b"), Member(host: "10.1.0.1", port: 1, name: "a")]
        core.found(moved, nowNanoseconds: 10)
        #expect(core.hold == .debounce)
        #expect(Self.names(core.tick(nowNanoseconds: .max)) == "10.1.0.110.1.0.2")
    }

    /// The epoch grows with each set that counts, and by nothing else; a set counts that was found.
    @Test(arguments: 0..<50 as Range<UInt64>)
    func theEpochOnlyGrows(_ seed: UInt64) {
        var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
        func random(_ bound: UInt64) -> UInt64 {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            return state % bound
        }
        var core = MembershipCore()
        var now: UInt64 = 0
        var last = core.current
        var found: Set<String> = [""]
        for _ in 0..<400 {
            now += random(400) * Self.millisecond
            switch random(4) {
            case 0: core.failed("no")
            case 1, 2:
                let names = String("abcdefgh".filter { _ in random(4) > 0 })
                found.insert(names)
                core.found(Self.members(names), nowNanoseconds: now)
            default: break
            }
            if let set = core.tick(nowNanoseconds: now) {
                #expect(set.epoch == last.epoch + 1 && set.members != last.members && !set.members.isEmpty)
                last = set
            }
            #expect(core.current == last)
            #expect(found.contains(Self.names(core.current) ?? ""))
        }
        #expect(last.epoch > 1, "seed \(seed)")
    }
}
