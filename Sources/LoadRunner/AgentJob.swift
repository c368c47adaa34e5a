// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel

/// A test as a coordinator sends it to an agent: the command line and the variables that say how it runs, its files,
/// what setup gave, and the agent's part.
struct AgentJob {
    /// Files, arguments and variables at most.
    private static let listLimit = 10_000

    var segment: ExecutionSegment
    /// Threads that make the load on each agent.
    var threads: Int
    /// The seed of what the test draws.
    var seed: UInt64
    /// The script or scenario file.
    var path: String
    /// What stands on the command line besides.
    var arguments: [String]
    /// `K6_…` and `MARTLET_LOAD_…`.
    var environment: [String: String]
    var files: [String: [UInt8]]
    /// What setup gave, as JSON.
    var data: [UInt8]?
    /// The rate of a search's trial.
    var searchRate: Double?

    /// The job as a message.
    var bytes: [UInt8] {
        var wire = WireWriter()
        wire.put(segment.index)
        wire.put(segment.count)
        wire.put(threads)
        wire.put(seed)
        wire.put(path)
        wire.put(arguments.count)
        for argument in arguments { wire.put(argument) }
        wire.put(environment.count)
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) {
            wire.put(name)
            wire.put(value)
        }
        wire.put(files.count)
        for (name, contents) in files.sorted(by: { $0.key < $1.key }) {
            wire.put(name)
            wire.put(contents)
        }
        wire.put(data == nil ? 0 : 1)
        if let data { wire.put(data) }
        wire.put(searchRate == nil ? 0 : 1)
        if let searchRate { wire.put(searchRate) }
        return wire.bytes
    }

    /// The job that a message holds.
    init(_ bytes: [UInt8]) throws(WireProblem) {
        var wire = WireReader(bytes)
        let (index, count) = (try wire.number(upTo: .max), try wire.number(upTo: ExecutionSegment.limit))
        guard index < count else { throw WireProblem("a part of the test that there is not") }
        segment = ExecutionSegment(index: index, count: count)
        threads = max(1, try wire.number(upTo: LoadOptions.threadLimit))
        seed = try wire.number()
        path = try wire.text()
        (arguments, environment, files) = ([], [:], [:])
        for _ in 0..<(try wire.count(upTo: Self.listLimit)) { arguments.append(try wire.text()) }
        for _ in 0..<(try wire.count(upTo: Self.listLimit)) {
            let name = try wire.text()
            environment[name] = try wire.text()
        }
        for _ in 0..<(try wire.count(upTo: Self.listLimit)) {
            let name = try wire.text()
            files[name] = try wire.blob()
        }
        if try wire.number(upTo: 1) == 1 { data = try wire.blob() }
        if try wire.number(upTo: 1) == 1 { searchRate = try wire.finite() }
    }

    /// A job.
    init(
        segment: ExecutionSegment, threads: Int, seed: UInt64, path: String, arguments: [String],
        environment: [String: String], files: [String: [UInt8]], data: [UInt8]?,
        searchRate: Double?
    ) {
        (self.segment, self.threads, self.seed, self.path) = (segment, threads, seed, path)
        (self.arguments, self.environment, self.files, self.data) = (arguments, environment, files, data)
        self.searchRate = searchRate
    }
}

/// What an agent has gathered since the start.
struct AgentReport {
    /// How a scenario goes there.
    struct Progress {
        var active = 0
        var made = 0
        var complete: UInt64 = 0
        var interrupted: UInt64 = 0
        var dropped: UInt64 = 0

        init() {}

        init(_ progress: ScenarioProgress) {
            (active, made) = (progress.activeUsers, progress.users)
            (complete, interrupted, dropped) = (progress.complete, progress.interrupted, progress.dropped)
        }
    }

    private static let warningLimit = 10_000

    var snapshot: WorkerSnapshot
    var progress: [Progress]
    /// Why a script called the test failed.
    var markedFailed: String?
    /// How long the threads ran, in nanoseconds; 0 while they do.
    var length: UInt64 = 0

    /// The report as a message.
    var bytes: [UInt8] {
        var wire = WireWriter()
        wire.put(snapshot.sinks.count)
        for sink in snapshot.sinks { sink.write(to: &wire) }
        snapshot.checks.write(to: &wire)
        wire.put(snapshot.warnings.count)
        for (text, count) in snapshot.warnings {
            wire.put(text)
            wire.put(count)
        }
        wire.put(progress.count)
        for one in progress {
            wire.put(one.active)
            wire.put(one.made)
            for count in [one.complete, one.interrupted, one.dropped] { wire.put(count) }
        }
        wire.put(markedFailed ?? "")
        wire.put(length)
        return wire.bytes
    }

    init(snapshot: WorkerSnapshot, progress: [Progress], markedFailed: String?, length: UInt64) {
        (self.snapshot, self.progress, self.markedFailed) = (snapshot, progress, markedFailed)
        self.length = length
    }

    /// The report that a message holds, of a test with these metrics and so many scenarios.
    init(_ wire: inout WireReader, _ registry: MetricRegistry, scenarios: Int) throws(WireProblem) {
        guard try wire.number() == UInt64(registry.places.count) else { throw WireProblem("other metrics than ours") }
        var sinks: [MetricSink] = []
        for place in registry.places.indices { sinks.append(try MetricSink(registry.definition(place).kind, &wire)) }
        snapshot = WorkerSnapshot(sinks: sinks, checks: try CheckGroup(&wire))
        for _ in 0..<(try wire.count(upTo: Self.warningLimit)) {
            let text = try wire.text()
            snapshot.warnings[text] = try wire.number()
        }
        guard try wire.number() == UInt64(scenarios) else { throw WireProblem("other scenarios than ours") }
        progress = []
        for _ in 0..<scenarios {
            var one = Progress()
            one.active = try wire.number(upTo: LoadOptions.userLimit)
            one.made = try wire.number(upTo: LoadOptions.userLimit)
            (one.complete, one.interrupted, one.dropped) = (try wire.number(), try wire.number(), try wire.number())
            progress.append(one)
        }
        let mark = try wire.text()
        markedFailed = mark.isEmpty ? nil : mark
        length = try wire.number()
    }
}

extension MetricRegistry {
    /// The same for tests with the same metrics, and parts of them, in the same order.
    var digest: [UInt8] {
        var wire = WireWriter()
        for place in places.indices {
            wire.put(name(place))
            wire.put(definition(place).kind.rawValue)
        }
        return SHA256.digest(wire.bytes)
    }
}

extension WorkerSnapshot {
    /// What several threads gathered, together.
    static func sum(_ all: [WorkerSnapshot], _ registry: MetricRegistry) -> WorkerSnapshot {
        var sum = WorkerSnapshot(sinks: registry.makeSinks())
        for one in all {
            for index in one.sinks.indices { sum.sinks[index].add(one.sinks[index]) }
            sum.checks.add(one.checks)
            sum.warnings.merge(one.warnings) { $0 + $1 }
        }
        return sum
    }
}
