// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Storage
import Testing

@testable import Invalidation

private let second: UInt64 = 1_000_000_000
private let base: UInt64 = 1 << 60

struct ConsistencyWindowTests {
    @Test func ninesSayWhatASampleShows() {
        var window = ConsistencyWindow(seconds: 10)
        #expect(window.nines == 0 && window.samples == 0 && window.confidence == "nothing was seen")
        for _ in 0..<2 { window.note(.current) }
        #expect(window.nines == 0, "two looks show nothing yet")
        for _ in 0..<29_998 { window.note(.absent) }
        // The rule of three: fewer than 3 of 30,000, that is 1 of 10,000.
        #expect(abs(window.nines - 4) < 0.01 && window.samples == 30_000)
        #expect(window.confidence == "fewer than 3 of 30000 are, with 95% confidence")
        window.note(.failed)
        window.note(.unversioned)
        #expect(window.samples == 30_000 && window.looks == 30_001, "who says nothing of consistency is no sample")
        for _ in 0..<300 { window.note(.stale) }
        // 300 of 30,300 are 1%; with what chance may have spared, a little more.
        #expect(window.nines > 1.9 && window.nines < 2)
        #expect(window.confidence == "300 of 30300 were stale")
    }

    /// Exact upper bounds of a Poisson distribution's mean with 95% confidence, from tables of chi-square.
    @Test(arguments: [(0, 2.996), (1, 4.744), (2, 6.296), (5, 10.513), (10, 16.962), (100, 118.1)])
    func theBoundIsThatOfThePoissonDistribution(_ seen: UInt64, _ exact: Double) {
        let most = ConsistencyWindow.mostExpected(seen: Double(seen))
        #expect(abs(most - exact) / exact < 0.01, "\(most) is not \(exact)")
    }
}

struct CopyVerdictTests {
    @Test func aCopyIsHeldAgainstTheChange() {
        #expect(CopyVerdict(.copy(base + 1), version: base) == .current)
        #expect(CopyVerdict(.copy(base), version: base) == .current)
        #expect(CopyVerdict(.copy(base - 1), version: base) == .stale)
        #expect(CopyVerdict(.copy(17), version: base) == .unversioned)
        #expect(CopyVerdict(.nothing, version: base) == .absent)
        #expect(CopyVerdict(.hidden, version: base) == .hidden)
        #expect(CopyVerdict(nil, version: base) == .failed)
    }

    private func cause(
        _ events: [CopyEvent], position: Int64 = 9, epoch: Int64 = 1, reach: UInt64 = 10_000_000
    ) -> InconsistencyCause {
        var trace = CopyTrace()
        (trace.epoch, trace.position, trace.reachMicroseconds, trace.events) = (epoch, position, reach, events)
        return InconsistencyCause(trace, epoch: 1, sequence: 7, version: base, ageMicroseconds: 1_000_000)
    }

    private func event(_ kind: CopyEvent.Kind, _ version: UInt64, _ sequence: Int64 = 0) -> CopyEvent {
        CopyEvent(kind, version: version, sequence: sequence, agoMicroseconds: 100)
    }

    @Test func whatTheNodeRemembersTellsWhy() {
        let came = event(.dropped, base, 7)
        #expect(cause([], position: 6) == .behind)
        #expect(cause([]) == .lost)
        #expect(cause([event(.filled, base - 5)]) == .lost)
        #expect(cause([], reach: 999_999) == .unknown, "it does not remember that far back")
        #expect(cause([], position: 6, epoch: 2) == .unknown, "numbers of another epoch say nothing")
        #expect(cause([came, event(.filled, base - 5)]) == .refilled)
        #expect(cause([event(.filled, base - 5), came]) == .unknown)
        #expect(cause([event(.kept, base, 7)]) == .kept)
        #expect(cause([event(.kept, base, 7), event(.filled, base - 5)]) == .refilled)
        #expect(InconsistencyCause(nil, epoch: 1, sequence: 7, version: base, ageMicroseconds: 0) == .unknown)
    }
}

/// A monitor with two nodes, whose answers a test gives.
private struct Watched {
    var monitor: ConsistencyMonitor
    var actions: [MonitorAction] = []
    var now: UInt64 = 1_000 * second
    let configuration: ConsistencyConfiguration

    init(_ change: (inout ConsistencyConfiguration) -> Void = { _ in }) {
        var configuration = ConsistencyConfiguration()
        change(&configuration)
        self.configuration = configuration
        monitor = ConsistencyMonitor(configuration, at: now)
        now += second
    }

    mutating func change(_ key: String, version: UInt64 = base, sequence: Int64 = 7) {
        var record = OutboxRecord()
        record.key = Array(key.utf8)
        (record.version, record.sequence, record.firstSequence, record.epoch) = (version, sequence, sequence, 1)
        monitor.follow(record, at: now)
    }

    /// Lets time pass, and gives the questions that were asked meanwhile.
    mutating func pass(_ seconds: Double) -> [(number: UInt64, keys: [String])] {
        now += UInt64(seconds * 1e9)
        actions = []
        monitor.tick(at: now, into: &actions)
        return actions.compactMap { action in
            guard case .look(let number, let keys) = action else { return nil }
            return (number, keys.map { String(decoding: $0, as: UTF8.self) })
        }
    }

    /// What was told since.
    var found: [Inconsistency] {
        actions.compactMap { action in
            if case .found(let found) = action { found } else { nil }
        }
    }

    mutating func answer(_ number: UInt64, _ node: String, _ sights: [CopySight]) {
        actions = []
        monitor.answered(number, node, sights.map { CopyReport($0) }, at: now, into: &actions)
    }
}

struct ConsistencyMonitorTests {
    @Test func eachChangeIsAskedForInEachWindow() {
        var watched = Watched { $0.windowSeconds = [1, 10] }
        watched.change("a")
        #expect(watched.pass(0.9).isEmpty)
        var looks = watched.pass(0.2)
        #expect(looks.map(\.keys) == [["a"]])
        watched.monitor.asked(looks[0].number, ["x", "y"])
        watched.answer(looks[0].number, "x", [.copy(base)])
        watched.answer(looks[0].number, "y", [.nothing])
        watched.answer(looks[0].number, "y", [.nothing])
        #expect(watched.monitor.windows[0][.current] == 1 && watched.monitor.windows[0][.absent] == 1)
        watched.change("b")
        looks = watched.pass(9)
        #expect(looks.map(\.keys) == [["b"], ["a"]])
        #expect(watched.monitor.waiting == 2)
        _ = watched.pass(10)
        #expect(watched.monitor.waiting == 0, "what is done is forgotten")
        #expect(watched.monitor.windows[1].looks == 0 && watched.monitor.replicas == 2)
    }

    @Test func whoDoesNotAnswerIsCountedAndNothingElse() {
        var watched = Watched { $0.windowSeconds = [1] }
        watched.change("a")
        watched.change("b")
        let looks = watched.pass(1)
        watched.monitor.asked(looks[0].number, ["x", "y"])
        watched.answer(looks[0].number, "x", [.copy(base), .copy(base)])
        _ = watched.pass(6)
        watched.answer(looks[0].number, "y", [.copy(1 << 57), .copy(1 << 57)])
        #expect(watched.monitor.windows[0][.failed] == 2 && watched.monitor.windows[0].samples == 2)
        // Without anybody to ask, nothing is counted.
        watched.change("c")
        watched.monitor.asked(watched.pass(1)[0].number, [])
        _ = watched.pass(6)
        #expect(watched.monitor.windows[0][.failed] == 2)
    }

    private func suspected(_ watched: inout Watched) -> UInt64? {
        watched.change("k")
        let looks = watched.pass(1)
        watched.monitor.asked(looks[0].number, ["x"])
        watched.answer(looks[0].number, "x", [.copy(base - 9)])
        guard case .explain(let number, replica: "x", key: _) = watched.actions.first, watched.actions.count == 2,
            watched.actions.last == .read(number, key: Array("k".utf8))
        else { return nil }
        return number
    }

    @Test func anOlderCopyIsLookedUpExplainedAndTold() throws {
        var watched = Watched { $0.windowSeconds = [1] }
        let number = try #require(suspected(&watched))
        #expect(watched.monitor.windows[0].looks == 0, "nothing is said before the store was asked")
        var trace = CopyTrace()
        (trace.epoch, trace.position, trace.reachMicroseconds) = (1, 9, 5_000_000)
        watched.actions = []
        watched.monitor.read(number, base + 3, at: watched.now, into: &watched.actions)
        #expect(watched.actions.isEmpty)
        watched.monitor.explained(number, trace, at: watched.now, into: &watched.actions)
        let found = try #require(watched.found.first)
        #expect(watched.actions.count == 1)
        #expect((found.shown, found.version, found.stored) == (base - 9, base, base + 3))
        #expect((found.replica, found.seconds, found.cause, found.sequence) == ("x", 1, .lost, 7))
        #expect(watched.monitor.windows[0][.stale] == 1 && watched.monitor.reads == 1)
        #expect(watched.monitor.causes[InconsistencyCause.lost.rawValue] == 1)
    }

    @Test func aStoreThatWentBackMakesNoCopyStale() throws {
        var watched = Watched { $0.windowSeconds = [1] }
        let number = try #require(suspected(&watched))
        watched.monitor.explained(number, nil, at: watched.now, into: &watched.actions)
        watched.monitor.read(number, base - 9, at: watched.now, into: &watched.actions)
        #expect(watched.found.isEmpty && watched.monitor.windows[0][.refuted] == 1)
        #expect(watched.monitor.windows[0][.stale] == 0)
    }

    @Test func aNodeThatDoesNotExplainIsNotWaitedForForEver() throws {
        var watched = Watched { $0.windowSeconds = [1] }
        let number = try #require(suspected(&watched))
        watched.monitor.read(number, nil, at: watched.now, into: &watched.actions)
        _ = watched.pass(6)
        #expect(watched.found.map(\.cause) == [.unknown] && watched.monitor.windows[0][.stale] == 1)
    }

    @Test func theStoreIsAskedWithinARate() {
        var watched = Watched {
            $0.windowSeconds = [1]
            $0.readsPerSecond = 5
            $0.changesPerSecond = 100
        }
        for number in 0..<20 { watched.change("\(number)") }
        let looks = watched.pass(1)
        watched.monitor.asked(looks[0].number, ["x"])
        watched.answer(looks[0].number, "x", [CopySight](repeating: .copy(base - 1), count: 20))
        let reads = watched.actions.count { if case .read = $0 { true } else { false } }
        #expect(reads == 5 && watched.monitor.unexplained == 15)
        #expect(watched.monitor.windows[0][.stale] == 15, "those are counted all the same")
        _ = watched.pass(6)
        #expect(watched.monitor.windows[0][.stale] == 20)
    }

    @Test func soManyChangesASecondAreFollowed() {
        var watched = Watched { $0.changesPerSecond = 10 }
        #expect(watched.monitor.quota(at: watched.now) == 10, "a second's worth, however long it was quiet")
        for number in 0..<10 { watched.change("\(number)") }
        #expect(watched.monitor.quota(at: watched.now) == 0)
        #expect(watched.monitor.quota(at: watched.now + second / 2) == 5)
        #expect(watched.monitor.quota(at: watched.now + 100 * second) == 10)
        var none = Watched { $0.changesPerSecond = 0 }
        #expect(none.monitor.quota(at: none.now + second) == 0)
    }

    @Test func anotherNumberingEndsWhatWasFollowed() throws {
        var watched = Watched { $0.windowSeconds = [1, 10] }
        let number = try #require(suspected(&watched))
        watched.change("other")
        watched.monitor.reset()
        watched.monitor.explained(number, nil, at: watched.now, into: &watched.actions)
        watched.monitor.read(number, base, at: watched.now, into: &watched.actions)
        #expect(watched.found.isEmpty)
        #expect(watched.pass(20).isEmpty && watched.monitor.waiting == 0)
        watched.change("new")
        #expect(watched.pass(1).map(\.keys) == [["new"]])
    }

    /// Against a naive account of what is to be asked when, with answers that come, come late or do not come.
    @Test(arguments: 0..<50 as Range<UInt64>)
    func questionsAreThoseOfANaiveModel(_ seed: UInt64) {
        var random = SplitMix(seed)
        var watched = Watched {
            $0.windowSeconds = [1, 3]
            $0.keysPerLook = 4
            $0.changesPerSecond = 1000
            $0.looksMax = 1000
        }
        var expected: [(due: UInt64, window: Int, order: Int, key: String)] = []
        var order = 0
        var counted: UInt64 = 0
        for step in 0..<300 {
            for one in 0..<Int(random.next() % 6) {
                let key = "\(step).\(one)"
                watched.change(key)
                order += 1
                expected += [(watched.now + second, 0, order, key), (watched.now + 3 * second, 1, order, key)]
            }
            let looks = watched.pass(Double(random.next() % 400) / 1000)
            let due = expected.filter { $0.due <= watched.now }
            expected.removeAll { $0.due <= watched.now }
            let wanted = due.sorted { ($0.window, $0.order) < ($1.window, $1.order) }.map(\.key)
            #expect(looks.flatMap(\.keys) == wanted, "seed \(seed)")
            for look in looks {
                guard random.next() % 4 > 0 else { continue }
                watched.monitor.asked(look.number, ["x"])
                counted += UInt64(look.keys.count)
                guard random.next() % 3 > 0 else { continue }
                watched.answer(look.number, "x", look.keys.map { _ in .copy(base) })
            }
        }
        _ = watched.pass(10)
        _ = watched.pass(10)
        let seen = watched.monitor.windows.reduce(0) { $0 + $1[.current] + $1[.failed] }
        #expect(seen == counted, "seed \(seed)")
    }
}

private struct SplitMix {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = (state ^ (state >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
