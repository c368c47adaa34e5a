// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import MemcacheProtocol
internal import Platform
internal import Reactor

/// What the threads of scenarios without script are made from.
struct NativeSetup: Sendable {
    var scenarios: [Scenario]
    var progress: [ScenarioProgress]
    var traces: [Trace?]
    var registry: MetricRegistry
    var builtIn: BuiltInMetrics
    var servers: [ServerAddress]
    var threads: Int
    var seed: UInt64
    /// What has each sample.
    var outputs: [SampleOutput] = []
    /// The part of the test that is run here.
    var segment = ExecutionSegment.whole
    /// Which of k6's tags samples have.
    var systemTags = SystemTags.all
    /// Whether what is gathered is kept apart by all tags.
    var keepsSeries = false
    /// What is known of verified values.
    let ledger = SharedLedger(writer: UInt32(truncatingIfNeeded: RandomSource.mix(Clock.realtimeNanoseconds())))

    /// Threads of all parts, which have as many each.
    var threadCount: Int { threads * segment.count }

    /// The number among those of all parts of this part's thread.
    func threadNumber(_ thread: Int) -> Int { segment.number(of: thread) }
}

/// A thread that makes the load of scenarios without script: an epoll loop over its virtual users' connections.
struct NativeWorker: ~Copyable {
    /// Between two looks at what has a time of its own.
    static let tickNanoseconds: UInt64 = 5_000_000
    /// Between two snapshots.
    static let publishNanoseconds: UInt64 = 1_000_000_000
    /// How long before each full second it is shown, so that whoever looks then sees it whole.
    static let publishLeadNanoseconds: UInt64 = 100_000_000
    /// A wait for an arrival ends this early, and the rest is spent looking: waking up takes about as long.
    static let spinNanoseconds: UInt64 = 60_000
    /// Arrivals that are started in one turn before answers are looked at.
    static let arrivalsPerTurn = 256
    static let readBytes = 64 << 10
    /// Without any answer for so long, keys cannot be stored before the start.
    static let preloadPatienceNanoseconds: UInt64 = 10_000_000_000
    /// A request that is cut off has failed when it has waited for so long. One that has not could still be answered.
    static let hangNanoseconds: UInt64 = 1_000_000_000

    /// Wrong values that each thread tells with their histories, at most.
    static let shownFaultLimit = 8

    let thread: Int
    let control: RunControl
    let setup: NativeSetup
    let users: FixedArray<NativeUser>
    let poller: Poller
    var scenarios: [NativeScenario]
    var sinks: [MetricSink]
    var log: SampleLog
    var warnings = WarningCounter()
    /// Wrong values that were told with their histories.
    var shownFaults = 0
    var dirty: [Int] = []
    var replies = Replies()
    var keyText: [UInt8] = []
    let filler: [UInt8]
    /// When the test began, on the monotonic clock; 0 while it has not.
    var start: UInt64 = 0
    /// Seconds of the Unix epoch at the start: what times to live beyond 30 days are counted from.
    let epochSeconds = Int64(Clock.realtimeNanoseconds() / 1_000_000_000)
    var connectsUnderWay = 0

    init(_ setup: NativeSetup, thread: Int, control: RunControl) throws(SystemError) {
        self.thread = thread
        self.control = control
        self.setup = setup
        poller = try Poller(capacity: 512)
        sinks = setup.registry.makeSinks()
        log = SampleLog(setup.outputs, setup.systemTags)
        var (scenarios, first, largest) = ([NativeScenario](), 0, 0)
        for (index, scenario) in setup.scenarios.enumerated() {
            let made = NativeScenario.make(scenario, index, first, setup, thread)
            first = made.users.upperBound
            largest = max(largest, made.workload.valueLimit)
            scenarios.append(made)
        }
        self.scenarios = scenarios
        users = FixedArray(count: first) { _ in NativeUser() }
        for scenario in scenarios { scenario.progress.beginThread() }
        filler = Array(repeating: UInt8(ascii: "x"), count: largest)
    }

    /// Runs until every scenario is over.
    mutating func run() {
        Thread.sharpenTimers()
        for scenario in scenarios.indices { makeFirstUsers(scenario) }
        prepare()
        control.noteReady()
        while control.startTime == 0 {
            guard control.stopTime == .max else { return end() }
            Thread.sleep(microseconds: 200)
        }
        start = control.startTime
        while Clock.monotonicNanoseconds() < start { Thread.sleep(microseconds: 50) }
        loop()
        end()
    }

    private mutating func end() {
        publish()
        control.noteEnd()
    }

    /// Connects, and stores what is to be there before the start.
    private mutating func prepare() {
        var (tick, known, since) = (UInt64(0), UInt64(0), UInt64(0))
        while control.stopTime == .max {
            let now = Clock.monotonicNanoseconds()
            if now >= tick {
                tick = now + Self.tickNanoseconds
                for scenario in scenarios.indices {
                    tickUsers(scenario, now)
                    preloadAgain(scenario)
                }
            }
            flushDirty()
            let refused = scenarios.reduce(0) { $0 + UInt64($1.refused.count) }
            let left = scenarios.reduce(refused) { $0 + UInt64($1.preload.count) + UInt64($1.underWay) }
            if left == 0, connectsUnderWay == 0 { return }
            if left != known { (known, since) = (left, now) }
            if left > 0, now - since > Self.preloadPatienceNanoseconds {
                let limit = NumberText.span(Self.preloadPatienceNanoseconds)
                let what = refused == 0 ? "no answer" : "refused"
                control.fail(RunFailure(code: .generic, message: "preload: \(what) for \(limit)"))
            }
            takeEvents(poller.wait(timeoutMilliseconds: 5))
        }
    }

    private mutating func loop() {
        var (tick, nextPublish) = (UInt64(0), start + Self.publishNanoseconds - Self.publishLeadNanoseconds)
        while true {
            let now = Clock.monotonicNanoseconds()
            let isTick = now >= tick
            if isTick { tick = now + Self.tickNanoseconds }
            var next = tick
            var isOver = true
            for scenario in scenarios.indices where !scenarios[scenario].isEnded {
                next = min(next, advance(scenario, now, isTick: isTick))
                isOver = isOver && scenarios[scenario].isEnded
            }
            flushDirty()
            if isOver { return }
            if now >= nextPublish {
                publish()
                nextPublish += Self.publishNanoseconds
            }
            wait(until: next)
        }
    }

    private mutating func wait(until next: UInt64) {
        let now = Clock.monotonicNanoseconds()
        let spare = next > now + Self.spinNanoseconds ? next - now - Self.spinNanoseconds : 0
        takeEvents(spare == 0 ? poller.wait(timeoutMilliseconds: 0) : poller.wait(nanoseconds: spare))
    }

    private mutating func takeEvents(_ count: Int) {
        for index in 0..<count {
            let user = Int(truncatingIfNeeded: poller.user(index))
            take(poller.readiness(index), user)
        }
    }

    /// Starts what is due in a scenario; returns when it must be looked at again.
    private mutating func advance(_ index: Int, _ now: UInt64, isTick: Bool) -> UInt64 {
        let begin = start + scenarios[index].scenario.startTime
        guard now >= begin else {
            if isTick, now >= control.stopTime { end(index, now) }
            return begin
        }
        if !scenarios[index].isStarted {
            scenarios[index].isStarted = true
            for user in scenarios[index].users where users[user].isMade && users[user].state == .open {
                offer(user, now)
            }
        }
        if scenarios[index].isOpenLoop { startArrivals(index, now) }
        if isTick {
            tickUsers(index, now)
            tellProgress(index)
            endIfOver(index, now)
        }
        guard scenarios[index].isOpenLoop, let next = scenarios[index].nextArrival else { return .max }
        return max(next + begin, now)
    }

    /// Ends the scenario when nothing of it can start any more and nothing is under way, or its time is over.
    private mutating func endIfOver(_ index: Int, _ now: UInt64) {
        // Never a copy of a scenario: what it counts would be copied with the next change.
        let offset = now - start - scenarios[index].scenario.startTime
        let isStopped = now >= control.stopTime
        let isLate =
            offset >= scenarios[index].share.latestEnd || (isStopped && now - control.stopTime > 1_000_000_000)
        guard (isStopped || isDone(index, offset)) && scenarios[index].underWay == 0 || isLate else { return }
        end(index, now)
    }

    /// Whether nothing of the scenario can start any more.
    private func isDone(_ index: Int, _ offset: UInt64) -> Bool {
        guard scenarios[index].isOpenLoop else {
            return scenarios[index].users.allSatisfy { users[$0].isDone || !users[$0].isMade }
        }
        // After the end, an arrival that finds nobody free and nothing under way is not served any more.
        return scenarios[index].nextArrival == nil
            || offset >= scenarios[index].scenario.plan.regularDuration && !scenarios[index].hasFree
    }

    /// Ends the scenario, whatever is under way. What was to start and did not counts as dropped.
    private mutating func end(_ index: Int, _ now: UInt64) {
        for user in scenarios[index].users where users[user].isMade {
            interrupt(user, now)
            retire(user)
        }
        scenarios[index].isEnded = true
        tellProgress(index)
        let (stop, begin) = (control.stopTime, start + scenarios[index].scenario.startTime)
        let isLast = scenarios[index].progress.endThread()
        let last = min(now, stop)
        drop(
            index,
            scenarios[index].share.unstarted(
                now: last - min(last, begin), isLast: isLast, isStopped: stop <= now))
    }

    /// Tells the shared counts what happened since the last time.
    private mutating func tellProgress(_ index: Int) {
        let (complete, active) = (scenarios[index].complete, busyUsers(index))
        scenarios[index].progress.count(complete: complete, active: active - scenarios[index].active)
        scenarios[index].complete = 0
        scenarios[index].active = active
    }

    private func busyUsers(_ index: Int) -> Int {
        if scenarios[index].isEnded { return 0 }
        return scenarios[index].users.reduce(0) { $0 + (users[$1].ring.count > 0 ? 1 : 0) }
    }

    mutating func publish() {
        logBytes()
        var shown = sinks
        for scenario in scenarios { scenario.counted.add(to: &shown) }
        var series = SeriesTable()
        if setup.keepsSeries {
            for scenario in scenarios { scenario.counted.add(to: &series, setup.builtIn, setup.systemTags) }
        }
        control.publish(WorkerSnapshot(sinks: shown, warnings: warnings.counts, series: series), thread: thread)
    }
}

extension NativeScenario {
    /// The part of `thread`, its users from `first` on among the thread's.
    static func make(
        _ scenario: Scenario, _ index: Int, _ first: Int, _ setup: NativeSetup, _ thread: Int
    ) -> NativeScenario {
        let workload = scenario.workload ?? Workload()
        let progress = setup.progress[index]
        let (thread, threads) = (setup.threadNumber(thread), setup.threadCount)
        func count(_ all: Int) -> Int { (all - thread + threads - 1) / threads }
        let most = max(0, count(scenario.plan.maximumUsers))
        let numbers = (0..<max(0, count(scenario.plan.initialUsers))).map { $0 * threads + thread }
        let seed = RandomSource.mix(setup.seed &+ UInt64(index) &* 0x9e37_79b9_7f4a_7c15)
        var made = NativeScenario(
            scenario, progress,
            ScenarioPlaces(setup.registry, setup.builtIn, tags: scenario.tags, setup.systemTags),
            WorkloadGenerator(workload, seed: seed, thread: thread, threads: threads),
            trace: setup.traces[index]?.rows, ledger: setup.ledger, userNumbers: numbers,
            users: first..<first + most, systemTags: setup.systemTags)
        // Threads without a user of the scenario have none to store keys with.
        let parts = min(threads, scenario.plan.initialUsers)
        if workload.preloads, thread < parts {
            let keys = setup.traces[index].map { UInt64($0.keys.count) } ?? workload.keys
            let part = keys / UInt64(parts)
            let from = part * UInt64(thread)
            made.preload = from..<(thread == parts - 1 ? keys : from + part)
        }
        return made
    }
}
