// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform
internal import ScriptEngine
internal import Settings

/// What the threads of scripts are made from.
struct ScriptSetup: Sendable {
    var library: ScriptLibrary
    var scenarios: [Scenario]
    var progress: [ScenarioProgress]
    var registry: MetricRegistry
    var builtIn: BuiltInMetrics
    /// Of clients that name none.
    var servers: [String]
    /// How TLS is spoken to those; nil for not at all.
    var tls: LoadTLS?
    /// `__ENV` as JSON.
    var environment: String
    /// The options as JSON, for `exec.test.options`.
    var options: String
    var minIterationDuration: UInt64
    /// What setup gave, as JSON.
    var data: [UInt8]?
    /// Whether each virtual user has a thread, because scripts sleep in it.
    var isDedicated: Bool
    /// Of the scripts' random numbers; nil for another one each time.
    var seed: UInt64?
    /// The tags of what belongs to no scenario.
    var tags: [String: String]
    /// What has each sample.
    var outputs: [SampleOutput] = []
    /// Where scripts log to.
    var log = RunLog.standard
    /// Which of k6's tags samples have.
    var systemTags = SystemTags.all
    /// Whether a metric throws at a value that is no number.
    var throwsErrors = false
    /// What the test says of TLS, whichever client speaks it.
    var tlsRules = LoadTLSRules()
    /// Whether what is gathered is kept apart by all tags.
    var keepsSeries = false
    /// The option `rps`; nil without it.
    var requestCap: RequestCap?
}

/// A virtual user of a script.
struct ScriptUser {
    let context: ScriptContext
    let forget: ScriptFunction
    let prepare: ScriptFunction
    let once: ScriptFunction
    let take: ScriptFunction
    let deliver: ScriptFunction
    /// Its scenario; -1 outside of any.
    var scenario = -1
    /// Its place in the thread's share of the scenario, its number in the scenario, and its `__VU`.
    var index = 0
    var number = 0
    var vu = 0
    var isRunning = false
    /// Whether an event that settles something is dispatched: no other one with it.
    var isDispatched = false
    var isDone = false
    var isInterrupted = false
    /// Whether it counts as active: while it loops, or while it serves an arrival.
    var isActive = false
    var iterations: UInt64 = 0
    /// Counts what runs in it, so that an answer or a timer of what ran before is told apart.
    var epoch: UInt64 = 0
    /// What keeps its iteration going: promises of requests, and timers.
    var openRequests = 0
    var openTimers = 0
    /// How much later than it was to its iteration started, until the first request has taken that over.
    var delay: UInt64 = 0
    var iterationNumber: UInt64 = 0
    var began: UInt64 = 0
    var deadline: UInt64 = .max
    var freeSince: UInt64 = 0
    /// When it asks again whether it may start; 0 for at once.
    var askAt: UInt64 = 0
    /// An arrival that it waits for.
    var held: (intended: UInt64, number: UInt64)?
    var groups: [(name: String, began: UInt64)] = [] {
        didSet { (place, tagBatch) = (-1, -1) }
    }
    var tags = "" {
        didSet { (place, tagBatch) = (-1, -1) }
    }
    /// What outputs that have each sample say of it besides tags.
    var metadata = "" {
        didSet { tagBatch = -1 }
    }
    /// The number of its tags in the log's batch, and that batch's; -1 while it is to be found.
    var tagNumber: Int32 = 0
    var tagBatch = -1
    /// Bytes of its iteration, for outputs that have each sample.
    var bytesSent = 0
    var bytesReceived = 0
    /// Where its samples go, under its groups and tags; -1 while that is to be found.
    var place = -1
    var connections: [Int] = []
    /// What the last function that ran by itself threw; nil when it has not ended.
    var outcome: String??

    var groupPath: String { groups.reduce(into: "") { $0 += "::" + $1.name } }
}

/// A timer of a script.
struct ScriptTimer {
    var due: UInt64
    var user: Int
    var epoch: UInt64
    var id: Double
}

/// A thread that runs scripts: one virtual machine, a context for each of its virtual users, and their connections.
final class ScriptWorker {
    static let tickNanoseconds: UInt64 = 5_000_000
    static let publishNanoseconds: UInt64 = 1_000_000_000
    /// How long before each full second it is shown, so that whoever looks then sees it whole.
    static let publishLeadNanoseconds: UInt64 = 100_000_000
    /// Requests of a user under way at most, and timers.
    static let openLimit = 10_000

    var setup: ScriptSetup
    let control: RunControl
    /// Among all threads of the test; -1 for the main one.
    let thread: Int
    let poller: Poller
    var machine: ScriptMachine?
    var users: [ScriptUser] = []
    var shares: [Int: ExecutorShare] = [:]
    var registry: MetricRegistry
    /// Whether metrics may still be made.
    var registers = false
    var sinks: [MetricSink] = []
    var log: SampleLog
    var checks = CheckGroup()
    var warnings = WarningCounter()
    var places: [PlacedTallies] = []
    var placeNumbers: [String: Int] = [:]
    var sampleCache: [String: [Int]] = [:]
    var clients: [ScriptClient] = []
    var connections: [ScriptConnection] = []
    /// Places of connections that are no more.
    var freePlaces: [Int] = []
    /// Connections that users have together.
    var shared: [SharedGroup: [Int]] = [:]
    var dirty: [Int] = []
    var timers: [ScriptTimer] = []
    /// Requests that wait for their places under ``ScriptSetup/requestCap``, the earliest first.
    var paced: [PacedRequest] = []
    /// Whether a script sleeps: what arrives meanwhile is counted at once, and told to the script afterwards.
    var isAsleep = false
    /// What scripts are to be told or to run, and the bytes of it: see ``deliver()``.
    var queue: [ScriptTask] = []
    var answers: [UInt8] = []
    var replies: [ScriptReply] = []
    /// The events that are dispatched now, their users, and the first that the machine has of them.
    var events: [ScriptEvent] = []
    var dispatched: [Int] = []
    var firstDispatched = 0
    /// Counts iterations that ended.
    var endedIterations: UInt64 = 0
    var isDelivering = false
    /// The user whose code is called by itself.
    private var current = -1
    /// Whether something else, such as a signal, ends what runs; asked now and then.
    var isInterrupted: (() -> Bool)?
    /// What runs outside of scenarios.
    var phase = "setup"
    /// What handleSummary gave.
    var summaryParts: [(target: String, bytes: [UInt8])] = []
    var staging: [String: [[UInt8]]] = [:]
    var complete: [Int: UInt64] = [:]
    var start: UInt64 = 0
    /// Whether the end of the test cuts off what runs; not what comes after it.
    var heedsStop = true
    /// The summary's text of data, with colours or without, once there is one.
    var summaryText: ((JSONNode, Bool) throws(OptionProblem) -> String)?
    /// What was gathered by all tags, but for requests: see ``series``.
    var ownSeries = SeriesTable()

    init(_ setup: ScriptSetup, _ control: RunControl, thread: Int) throws(ScriptProblem) {
        self.setup = setup
        self.control = control
        self.thread = thread
        registry = setup.registry
        log = SampleLog(setup.outputs, setup.systemTags)
        do throws(SystemError) {
            poller = try Poller(capacity: 256)
        } catch {
            throw ScriptProblem(error.description)
        }
        sinks = registry.makeSinks()
        machine = try ScriptMachine(host: self)
    }

    /// Makes a context and evaluates the script in it as that `__VU`; what it says of itself as JSON.
    func makeUser(vu: Int = 0) throws(ScriptProblem) -> String {
        guard let machine else { throw ScriptProblem("the virtual machine is gone") }
        let context = ScriptContext(machine, number: users.count)
        let names = ["start", "run", "settle", "fire", "forget", "prepare", "once", "take", "deliver", "unhandled"]
        let made = try context.functions(names, of: Prelude.script, url: Prelude.url)
        users.append(
            ScriptUser(
                context: context, forget: made[4], prepare: made[5], once: made[6], take: made[7], deliver: made[8]))
        machine.join(context, run: made[1], settle: made[2], fire: made[3])
        users[context.number].vu = vu
        context.catchRejections(made[9])
        let seed = setup.seed.map { ScriptValue.number(Double($0 &+ UInt64(vu))) }
        let said = try context.call(
            made[0],
            [
                .number(Double(context.number)), .string(setup.library.path), .string(setup.environment),
                .number(Double(vu)), seed ?? .undefined,
            ])
        guard case .text(let text) = said else { return "{}" }
        return String(decoding: text, as: UTF8.self)
    }

    /// Makes the virtual users of these numbers in their scenarios, runs them until all is over.
    func run(_ assigned: [(scenario: Int, number: Int)]) {
        Thread.sharpenTimers()
        do throws(ScriptProblem) {
            for scenario in setup.scenarios.indices {
                let numbers = assigned.filter { $0.scenario == scenario }.map(\.number)
                guard !numbers.isEmpty else { continue }
                shares[scenario] = ExecutorShare(setup.scenarios[scenario], setup.progress[scenario], users: numbers)
                setup.progress[scenario].beginThread()
                for (index, number) in numbers.enumerated() { try prepareUser(scenario, index, number) }
            }
        } catch {
            control.fail(RunFailure(code: .scriptException, message: error.description))
            return end()
        }
        machine?.mustEnd = { [weak self] in self?.isRunningCut ?? true }
        machine?.watch(everySeconds: 0.25)
        control.noteReady()
        while control.startTime == 0 {
            guard control.stopTime == .max else { return end() }
            Thread.sleep(microseconds: 200)
        }
        start = control.startTime
        loop()
        end()
    }

    private func prepareUser(_ scenario: Int, _ index: Int, _ number: Int) throws(ScriptProblem) {
        let before = setup.scenarios[..<scenario].reduce(0) { $0 + $1.plan.maximumUsers }
        _ = try makeUser(vu: before + number + 1)
        let user = users.count - 1
        users[user].scenario = scenario
        users[user].index = index
        users[user].number = number
        let environment = JSONText.object(setup.scenarios[scenario].environment)
        _ = try users[user].context.call(
            users[user].prepare,
            [
                .string(environment), setup.data.map { .text($0) } ?? .undefined,
                .string(setup.scenarios[scenario].function),
            ])
    }

    private func end() {
        for user in users.indices { setActive(user, false) }
        if start != 0 { countUnstarted(Clock.monotonicNanoseconds()) }
        tellProgress()
        publish()
        for connection in connections { connection.close() }
        users = []
        machine = nil
        control.noteEnd()
    }

    func publish() {
        log.flush()
        var shown = sinks
        for place in places { place.add(to: &shown) }
        let snapshot = WorkerSnapshot(sinks: shown, checks: checks, warnings: warnings.counts, series: series)
        control.publish(snapshot, thread: thread)
    }

    /// What was gathered by all tags; empty when nobody asks for it.
    var series: SeriesTable {
        guard setup.keepsSeries else { return SeriesTable() }
        var all = ownSeries
        for place in places { place.add(to: &all, setup.builtIn, setup.systemTags) }
        return all
    }

    // MARK: The loop

    private func loop() {
        var (tick, nextPublish) = (UInt64(0), start + Self.publishNanoseconds - Self.publishLeadNanoseconds)
        while true {
            let now = Clock.monotonicNanoseconds()
            var next = now + Self.tickNanoseconds
            var isOver = true
            for user in users.indices where !users[user].isDone {
                if !users[user].isRunning { next = min(next, advance(user, Clock.monotonicNanoseconds())) }
                isOver = isOver && users[user].isDone
            }
            if deliver() { next = 0 }
            next = min(next, fireTimers(), releasePaced())
            if flushDirty() { next = 0 }
            if isOver { return }
            let isTick = now >= tick
            if isTick {
                tick = now + Self.tickNanoseconds
                lookAtTime(now)
                tellProgress()
            }
            if now >= nextPublish {
                publish()
                nextPublish += Self.publishNanoseconds
            }
            let later = Clock.monotonicNanoseconds()
            takeEvents(next > later ? poller.wait(nanoseconds: next - later) : poller.wait(timeoutMilliseconds: 0))
            // Behind what arrived: an answer that is there is none that is late.
            if isTick { timeOut(Clock.monotonicNanoseconds()) }
        }
    }

    /// Lets an idle user start what it may; returns when it must be asked again.
    private func advance(_ user: Int, _ now: UInt64) -> UInt64 {
        let scenario = users[user].scenario
        let begin = start + setup.scenarios[scenario].startTime
        guard now < control.stopTime else {
            users[user].isDone = true
            setActive(user, false)
            return .max
        }
        if now < begin { return begin }
        if now < users[user].askAt { return users[user].askAt }
        users[user].askAt = 0
        if setup.scenarios[scenario].plan.arrivalUsers != nil { return advanceArrival(user, scenario, begin, now) }
        switch shares[scenario]?.claim(users[user].index, now: now - begin) ?? .finished {
        case .start(_, let number): startIteration(user, number: number, intended: now, now: now)
        case .wait(let until):
            users[user].askAt = begin + until
            setActive(user, false)
        case .finished:
            users[user].isDone = true
            setActive(user, false)
        }
        return users[user].isRunning ? .max : users[user].askAt == 0 ? now : users[user].askAt
    }

    private func advanceArrival(_ user: Int, _ scenario: Int, _ begin: UInt64, _ now: UInt64) -> UInt64 {
        let progress = setup.progress[scenario]
        guard progress.isMade(users[user].number) else {
            // One that is not made yet: it is when an arrival is overdue, which says that nobody is free.
            if progress.nextArrival == .max {
                users[user].isDone = true
            } else {
                let limit = setup.scenarios[scenario].plan.maximumUsers
                _ = progress.makeUserForLateArrival(now: now - begin, limit: limit)
            }
            return now + 1_000_000
        }
        while true {
            if users[user].held == nil {
                // Alone on its thread, a user takes the next arrival and waits for it; of several, one takes it in
                // time.
                switch shares[scenario]?.claimArrival(now: setup.isDedicated ? .max - 1 : now - begin) ?? .finished {
                case .start(let intended, let number): users[user].held = (intended, number)
                case .wait(let until): return begin + until
                case .finished:
                    users[user].isDone = true
                    return .max
                }
            }
            guard let held = users[user].held else { return now }
            if isDropped(held.intended, user, scenario) {
                users[user].held = nil
                drop(scenario, 1)
                _ = progress.makeUser(limit: setup.scenarios[scenario].plan.maximumUsers)
                continue
            }
            guard now >= begin + held.intended else { return begin + held.intended }
            users[user].held = nil
            startIteration(user, number: held.number, intended: begin + held.intended, now: now)
            return users[user].isRunning ? .max : now
        }
    }

    /// Whether nobody was free for an arrival that `user` has taken: another one may have been, whose turn comes later.
    private func isDropped(_ intended: UInt64, _ user: Int, _ scenario: Int) -> Bool {
        guard let share = shares[scenario], share.isDropped(intended: intended, freeSince: users[user].freeSince) else {
            return false
        }
        let progress = setup.progress[scenario]
        return !users.contains { other in
            other.scenario == scenario && !other.isRunning && !other.isDone && other.held == nil
                && progress.isMade(other.number) && !share.isDropped(intended: intended, freeSince: other.freeSince)
        }
    }

    private func startIteration(_ user: Int, number: UInt64, intended: UInt64, now: UInt64) {
        let scenario = users[user].scenario
        beginWork(user)
        setActive(user, true)
        users[user].isInterrupted = false
        users[user].began = now
        users[user].delay = now - min(now, intended)
        switch setup.scenarios[scenario].plan {
        case .constantUsers, .rampingUsers, .perUserIterations:
            users[user].iterationNumber = setup.progress[scenario].nextNumber()
        default: users[user].iterationNumber = number
        }
        let begin = start + setup.scenarios[scenario].startTime
        users[user].deadline = begin + (shares[scenario]?.deadline(users[user].index) ?? 0)
        let iteration = users[user].iterations
        users[user].iterations += 1
        queue.append(.run(user: user, iteration: Double(iteration)))
    }

    /// From now on, what is asked for belongs to a new iteration of the user.
    func beginWork(_ user: Int) {
        users[user].isRunning = true
        users[user].epoch += 1
        users[user].openRequests = 0
        users[user].openTimers = 0
        users[user].delay = 0
    }

    /// Calls a function of a user's context. What it throws ends the iteration; so does having nothing under way
    /// afterwards, neither requests nor timers, as in k6.
    func call(_ user: Int, _ function: ScriptFunction, _ arguments: [ScriptValue]) {
        let before = current
        current = user
        defer { current = before }
        do throws(ScriptProblem) {
            _ = try users[user].context.call(function, arguments)
        } catch {
            guard users[user].isRunning else { return }
            endIteration(user, error: error.description)
            forget(user)
            return
        }
        endIfOver(user)
    }

    /// Has the script of `user` forget what is under way.
    func forget(_ user: Int) { _ = try? users[user].context.call(users[user].forget, []) }

    /// Ends the iteration of `user` if nothing of it is under way.
    func endIfOver(_ user: Int) {
        guard users[user].isRunning, users[user].openRequests == 0, users[user].openTimers == 0 else { return }
        // What was broken off is not over: that is for whoever looks at the time.
        if !isCut(user, Clock.monotonicNanoseconds()) { endIteration(user, error: nil) }
    }

    /// The iteration of `user` is over. `error` is what it threw; empty when it ended the test.
    func endIteration(_ user: Int, error: String?) {
        guard users[user].isRunning else { return }
        let now = Clock.monotonicNanoseconds()
        let wasCut = isCut(user, now)
        users[user].isRunning = false
        endedIterations &+= 1
        clear(user)
        guard users[user].scenario >= 0 else {
            users[user].outcome = .some(error)
            return
        }
        let scenario = users[user].scenario
        users[user].freeSince = now - min(now, start + setup.scenarios[scenario].startTime)
        if setup.scenarios[scenario].plan.arrivalUsers != nil { setActive(user, false) }
        if users[user].isInterrupted || (error != nil && wasCut) {
            setup.progress[scenario].count(interrupted: 1)
            users[user].isDone = isStopped(now) || setup.scenarios[scenario].plan.arrivalUsers != nil
            setActive(user, false)
            return
        }
        if let error, !error.isEmpty { report(error) }
        let took = now - users[user].began
        let place = placeNumber(user)
        places[place].addIteration(nanoseconds: took)
        logIteration(user, took: took, now)
        complete[scenario, default: 0] += 1
        if took < setup.minIterationDuration { users[user].askAt = users[user].began + setup.minIterationDuration }
    }

    /// Nothing is left of what ran.
    private func clear(_ user: Int) {
        if !users[user].groups.isEmpty { users[user].groups = [] }
        if users[user].openTimers > 0 { timers.removeAll { $0.user == user } }
        (users[user].openRequests, users[user].openTimers) = (0, 0)
    }

    /// Says what a script threw, each different thing once a second or so; all are counted.
    func report(_ error: String) {
        let isNew = warnings.counts[error] == nil
        warnings.count(error)
        if isNew { setup.log.write(.error, error) }
    }

    private func isStopped(_ now: UInt64) -> Bool {
        let stop = control.stopTime
        return heedsStop && stop != .max && now > stop + 100_000_000
    }

    /// Whether what runs of the user must end: its time is over, or the test's.
    func isCut(_ user: Int, _ now: UInt64) -> Bool {
        if isStopped(now) || (users[user].isRunning && now >= users[user].deadline) { return true }
        return isInterrupted?() ?? false
    }

    /// Whether the code that runs now must end.
    var isRunningCut: Bool {
        let now = Clock.monotonicNanoseconds()
        if users.indices.contains(current) { return isCut(current, now) }
        if let event = machine?.currentEvent, dispatched.indices.contains(firstDispatched + event) {
            return isCut(dispatched[firstDispatched + event], now)
        }
        // What follows from settled promises: any of theirs.
        return dispatched.contains { isCut($0, now) }
    }

    private func lookAtTime(_ now: UInt64) {
        let isStopped = isStopped(now)
        for user in users.indices where users[user].isRunning && (isStopped || now >= users[user].deadline) {
            let scenario = users[user].scenario
            users[user].isInterrupted = true
            for index in users[user].connections {
                giveUp(connections[index], user, now)
                connections[index].close()
                freePlaces.append(index)
            }
            users[user].connections = []
            for index in shared.values.joined() { giveUp(connections[index], user, now) }
            if !paced.isEmpty { paced.removeAll { $0.request.user == user } }
            users[user].isRunning = false
            clear(user)
            setActive(user, false)
            users[user].isDone = isStopped || setup.scenarios[scenario].plan.arrivalUsers != nil
            setup.progress[scenario].count(interrupted: 1)
            call(user, users[user].forget, [])
        }
        for (scenario, share) in shares {
            let begin = start + setup.scenarios[scenario].startTime
            drop(scenario, share.dropLateArrivals(now: min(now, control.stopTime) - min(now, control.stopTime, begin)))
        }
    }

    /// Counts iterations of the scenario that were to start and did not.
    private func drop(_ scenario: Int, _ count: UInt64) {
        guard count > 0, let user = users.firstIndex(where: { $0.scenario == scenario }) else { return }
        for place in places[placeNumber(user)].places.dropped { sinks[place].add(count: count) }
        note(user, setup.builtIn.droppedIterations, Double(count), Clock.monotonicNanoseconds())
        setup.progress[scenario].count(dropped: count)
    }

    /// The thread has no more to do: what was to start and did not counts as dropped.
    private func countUnstarted(_ now: UInt64) {
        let stop = control.stopTime
        for (scenario, share) in shares {
            let begin = start + setup.scenarios[scenario].startTime
            let last = min(now, stop) - min(now, stop, begin)
            let held = users.filter { user in
                user.scenario == scenario && user.held.map { $0.intended < last } ?? false
            }
            let isLast = setup.progress[scenario].endThread()
            let unstarted = share.unstarted(now: last, isLast: isLast, isStopped: stop <= now)
            drop(scenario, unstarted &+ UInt64(held.count))
        }
    }

    private func setActive(_ user: Int, _ isActive: Bool) {
        guard users[user].isActive != isActive, users[user].scenario >= 0 else { return }
        users[user].isActive = isActive
        setup.progress[users[user].scenario].count(active: isActive ? 1 : -1)
    }

    func tellProgress() {
        for (scenario, count) in complete where count > 0 { setup.progress[scenario].count(complete: count) }
        complete = [:]
    }

    /// Calls the timers that are due; returns when the next one is, or 0 when users are free meanwhile.
    func fireTimers() -> UInt64 {
        guard !timers.isEmpty else { return .max }
        let now = Clock.monotonicNanoseconds()
        let due = timers.filter { $0.due <= now }.sorted { $0.due < $1.due }
        timers.removeAll { $0.due <= now }
        for timer in due { queue.append(.fire(timer)) }
        if deliver() { return 0 }
        return timers.reduce(.max) { min($0, $1.due) }
    }
}
