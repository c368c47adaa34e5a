// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel

/// What came of a request.
enum Outcome: UInt8, CaseIterable {
    case hit, miss, stored, notStored, deleted, touched, number, notFound, exists, shed, error, broken

    /// The tag `status` of its samples.
    var name: String {
        switch self {
        case .notStored: "not_stored"
        case .notFound: "not_found"
        default: "\(self)"
        }
    }

    /// Whether the request failed: not a miss, which is an answer.
    var isFailure: Bool { self == .shed || self == .error || self == .broken }
}

/// Where the samples of one kind of request go.
struct RequestPlaces {
    var duration: [Int]
    var service: [Int]
    var requests: [Int]
    var failed: [Int]
    var hits: [Int]
    var sheds: [Int]

    init(_ registry: MetricRegistry, _ builtIn: BuiltInMetrics, tags: [String: String]) {
        duration = registry.places(builtIn.requestDuration, tags: tags)
        service = registry.places(builtIn.requestService, tags: tags)
        requests = registry.places(builtIn.requests, tags: tags)
        failed = registry.places(builtIn.requestFailed, tags: tags)
        hits = registry.places(builtIn.hits, tags: tags)
        sheds = registry.places(builtIn.sheds, tags: tags)
    }
}

/// What came of a scenario's requests of one operation and one outcome: counted here at each answer, and brought to the
/// metrics when these are shown.
struct RequestTally {
    var count: UInt64 = 0
    var duration = ValueHistogram()
    var service = ValueHistogram()
}

/// Where a scenario's other samples go.
struct ScenarioPlaces {
    /// By operation and outcome.
    private let requests: [RequestPlaces]
    let iterations, iterationDuration, dropped, dataSent, dataReceived, connecting, connectFailed, wrongValues: [Int]

    init(
        _ registry: MetricRegistry, _ builtIn: BuiltInMetrics, tags: [String: String], _ systemTags: SystemTags = .all
    ) {
        requests = Operation.allCases.flatMap { operation in
            Outcome.allCases.map { outcome in
                RequestPlaces(registry, builtIn, tags: Self.tags(tags, operation, outcome, systemTags))
            }
        }
        iterations = registry.places(builtIn.iterations, tags: tags)
        iterationDuration = registry.places(builtIn.iterationDuration, tags: tags)
        dropped = registry.places(builtIn.droppedIterations, tags: tags)
        dataSent = registry.places(builtIn.dataSent, tags: tags)
        dataReceived = registry.places(builtIn.dataReceived, tags: tags)
        connecting = registry.places(builtIn.connecting, tags: tags)
        connectFailed = registry.places(builtIn.connectFailed, tags: tags)
        wrongValues = registry.places(builtIn.wrongValues, tags: tags)
    }

    /// The tags of requests of that operation and outcome.
    private static func tags(
        _ tags: [String: String], _ operation: LoadModel.Operation, _ outcome: Outcome, _ systemTags: SystemTags
    ) -> [String: String] {
        var all = tags
        all["op"] = operation.name
        if systemTags.has("status") { all["status"] = outcome.name }
        return all
    }

    /// Adds what was counted of requests with these tags to the series of their operations and outcomes.
    static func add(
        _ tallies: [RequestTally], _ tags: [String: String], to series: inout SeriesTable, _ builtIn: BuiltInMetrics,
        _ systemTags: SystemTags
    ) {
        for (kind, tally) in tallies.enumerated() where tally.count > 0 {
            guard let operation = LoadModel.Operation(rawValue: UInt8(kind / outcomes)),
                let outcome = Outcome(rawValue: UInt8(kind % outcomes))
            else { continue }
            let all = Self.tags(tags, operation, outcome, systemTags)
            func count(_ metric: Int, _ kind: MetricKind, passes: UInt64 = 0) {
                var sink = MetricSink(kind)
                sink.add(count: tally.count, passes: passes)
                series.merge(SeriesKey(metric, all), sink)
            }
            func trend(_ metric: Int, _ histogram: ValueHistogram) {
                guard histogram.count > 0 else { return }
                var sink = MetricSink(.trend)
                sink.trend = histogram
                series.merge(SeriesKey(metric, all), sink)
            }
            count(builtIn.requests, .counter)
            count(builtIn.requestFailed, .rate, passes: outcome.isFailure ? tally.count : 0)
            if outcome == .hit || outcome == .miss {
                count(builtIn.hits, .rate, passes: outcome == .hit ? tally.count : 0)
            }
            if outcome == .shed { count(builtIn.sheds, .counter) }
            trend(builtIn.requestDuration, tally.duration)
            trend(builtIn.requestService, tally.service)
        }
    }

    /// The number of an operation's outcome, below ``kinds``.
    static func kind(_ operation: Operation, _ outcome: Outcome) -> Int {
        Int(operation.rawValue) * outcomes + Int(outcome.rawValue)
    }

    private static let outcomes = Outcome.allCases.count
    static let kinds = Operation.allCases.count * outcomes

    /// Brings what was counted to the metrics.
    func add(_ tallies: [RequestTally], to sinks: inout [MetricSink]) {
        for (kind, tally) in tallies.enumerated() where tally.count > 0 {
            guard let outcome = Outcome(rawValue: UInt8(kind % Self.outcomes)) else { continue }
            let places = requests[kind]
            for place in places.requests { sinks[place].add(count: tally.count) }
            let failed = outcome.isFailure ? tally.count : 0
            for place in places.failed { sinks[place].add(count: tally.count, passes: failed) }
            for place in places.duration { sinks[place].trend.add(tally.duration) }
            for place in places.service { sinks[place].trend.add(tally.service) }
            if outcome == .shed { for place in places.sheds { sinks[place].add(count: tally.count) } }
            guard outcome == .hit || outcome == .miss else { continue }
            for place in places.hits { sinks[place].add(count: tally.count, passes: outcome == .hit ? tally.count : 0) }
        }
    }
}

/// What was counted under one scenario and set of tags, and where it goes: counted here at each event, and brought to
/// the metrics when these are shown.
struct PlacedTallies {
    let places: ScenarioPlaces
    /// What all of it is tagged with.
    let tags: [String: String]
    /// By operation and outcome: see ``ScenarioPlaces/kind(_:_:)``.
    private var requests = Array(repeating: RequestTally(), count: ScenarioPlaces.kinds)
    private var iterations: UInt64 = 0
    private var iterationDuration = ValueHistogram()
    var bytesSent: UInt64 = 0
    var bytesReceived: UInt64 = 0

    init(_ places: ScenarioPlaces, tags: [String: String]) {
        self.places = places
        self.tags = tags
    }

    /// Counts a request that was answered or given up at `now`. What was never sent has no service time.
    @inline(__always)
    mutating func add(_ operation: Operation, _ outcome: Outcome, intended: UInt64, sent: UInt64, now: UInt64) {
        let kind = ScenarioPlaces.kind(operation, outcome)
        requests[kind].count &+= 1
        requests[kind].duration.record(Double(now - min(now, intended)) / 1e6)
        guard sent != 0 else { return }
        requests[kind].service.record(Double(now - min(now, sent)) / 1e6)
    }

    /// Counts an iteration.
    @inline(__always)
    mutating func addIteration(nanoseconds: UInt64) {
        iterations &+= 1
        iterationDuration.record(Double(nanoseconds) / 1e6)
    }

    /// Brings what was counted to the metrics.
    func add(to sinks: inout [MetricSink]) {
        places.add(requests, to: &sinks)
        for place in places.iterations { sinks[place].add(count: iterations) }
        for place in places.iterationDuration { sinks[place].trend.add(iterationDuration) }
        for place in places.dataSent where bytesSent > 0 { sinks[place].add(Double(bytesSent)) }
        for place in places.dataReceived where bytesReceived > 0 { sinks[place].add(Double(bytesReceived)) }
    }

    /// Brings what was counted to the series of its tags.
    func add(to series: inout SeriesTable, _ builtIn: BuiltInMetrics, _ systemTags: SystemTags) {
        ScenarioPlaces.add(requests, tags, to: &series, builtIn, systemTags)
        if iterations > 0 {
            var (count, duration) = (MetricSink(.counter), MetricSink(.trend))
            count.add(count: iterations)
            duration.trend = iterationDuration
            series.merge(SeriesKey(builtIn.iterations, tags), count)
            series.merge(SeriesKey(builtIn.iterationDuration, tags), duration)
        }
        for (metric, bytes) in [(builtIn.dataSent, bytesSent), (builtIn.dataReceived, bytesReceived)] where bytes > 0 {
            series.add(SeriesKey(metric, tags), .counter, Double(bytes))
        }
    }
}

/// One thread's part of a scenario without script.
struct NativeScenario {
    let scenario: Scenario
    let workload: Workload
    var counted: PlacedTallies
    /// The bytes that outputs that have each sample were told of.
    var loggedBytes: (sent: UInt64, received: UInt64) = (0, 0)
    /// What its samples are tagged with.
    let tags: [String: String]
    /// The number of its tags in the log's batch, and that batch's.
    var tagNumber: Int32 = 0
    var tagBatch = -1
    // What every request asks for, without the rest of the workload.
    let pipeline: Int
    let keysPerGet: Int
    let isMeta: Bool
    let verifies: Bool
    let fillsMisses: Bool
    let progress: ScenarioProgress
    var share: ExecutorShare
    var generator: WorkloadGenerator
    /// What is known of verified values, by all threads and scenarios of the run.
    let ledger: SharedLedger
    /// The trace's rows, when it replays one.
    let trace: [TraceRow]?
    /// The users of this thread: a range of the thread's.
    let users: Range<Int>
    /// Users that were made so far, from the range's start on.
    var made = 0
    /// Users that have a connection and room for a request, in the order they got it. Each at most once.
    var free: [Int] = []
    var freeHead = 0
    /// When the last of them was taken and when there was one again: what was due in between is dropped.
    var isFull = false
    var fullUntil: UInt64 = 0
    /// When the next arrival is due; nil when there is none.
    var nextArrival: UInt64? = 0
    var isStarted = false
    var isEnded = false
    /// Requests under way, and iterations with them.
    var underWay = 0
    /// Keys that this thread still has to store before the start.
    var preload: Range<UInt64> = 0..<0
    /// Those of them that the server refused because it had too much to do: they are stored a little later.
    var refused: [UInt64] = []
    /// What was counted since the shared counts were told.
    var complete: UInt64 = 0
    var active = 0

    let isOpenLoop: Bool
    /// Whether it makes a number of iterations instead of going on for a time.
    let isBounded: Bool

    init(
        _ scenario: Scenario, _ progress: ScenarioProgress, _ places: ScenarioPlaces, _ generator: WorkloadGenerator,
        trace: [TraceRow]?, ledger: SharedLedger, userNumbers: [Int], users: Range<Int>, systemTags: SystemTags
    ) {
        self.scenario = scenario
        workload = scenario.workload ?? Workload()
        pipeline = workload.pipeline
        keysPerGet = max(1, workload.keysPerGet)
        isMeta = workload.wire == .meta
        verifies = workload.verifies
        fillsMisses = workload.fillsMisses
        self.progress = progress
        tags = systemTags.has("group") ? scenario.tags.merging(["group": ""]) { own, _ in own } : scenario.tags
        counted = PlacedTallies(places, tags: tags)
        share = ExecutorShare(scenario, progress, users: userNumbers)
        self.generator = generator
        self.ledger = ledger
        self.trace = trace
        self.users = users
        isOpenLoop = scenario.plan.arrivalUsers != nil
        switch scenario.plan {
        case .sharedIterations, .perUserIterations: isBounded = true
        default: isBounded = false
        }
    }

    /// Where its other samples go.
    var places: ScenarioPlaces { counted.places }

    mutating func pushFree(_ user: Int) {
        if freeHead > 1024, freeHead * 2 > free.count {
            free.removeFirst(freeHead)
            freeHead = 0
        }
        free.append(user)
    }

    var hasFree: Bool { freeHead < free.count }

    mutating func popFree() -> Int? {
        guard freeHead < free.count else { return nil }
        let user = free[freeHead]
        freeHead += 1
        if freeHead == free.count {
            free.removeAll(keepingCapacity: true)
            freeHead = 0
        }
        return user
    }
}

/// One row of a trace.
struct TraceRow: Sendable {
    /// Nanoseconds from the first row.
    var time: UInt64
    /// The key's number among the trace's.
    var key: UInt64
    var length: Int32
    var operation: Operation
}
