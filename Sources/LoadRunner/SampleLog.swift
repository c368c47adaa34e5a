// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel

/// One sample, or a request that comes to several.
struct SampleRecord: BitwiseCopyable {
    /// On the monotonic clock.
    var time: UInt64
    /// The metric's place; -1 for a request.
    var metric: Int32
    /// Which of the batch's tags.
    var tags: Int32
    /// The sample; of a request, how long it took in milliseconds.
    var value: Double
    /// Of a request: its service time; not a number when it was never sent.
    var service = Double.nan
    var outcome = Outcome.hit
}

/// Samples with their tags.
struct SampleBatch: Sendable {
    var records: [SampleRecord] = []
    var tags: [[String: String]] = []
}

/// What a thread gathers of its samples for outputs that have each of them. Empty, and without cost, without any.
struct SampleLog {
    /// Samples that are passed on at once.
    static let batchLimit = 4096

    private let outputs: [SampleOutput]
    private var batch = SampleBatch()
    private var numbers: [[String: String]: Int32] = [:]
    private var requestNumbers: [Int: Int32] = [:]
    /// Counts batches: numbers of tags hold within one.
    private(set) var generation = 0

    private let systemTags: SystemTags

    init(_ outputs: [SampleOutput], _ systemTags: SystemTags = .all) {
        self.outputs = outputs
        self.systemTags = systemTags
    }

    /// Whether there is an output.
    var isOn: Bool { !outputs.isEmpty }

    /// The number of these tags in this batch.
    mutating func number(_ tags: [String: String]) -> Int32 {
        if let known = numbers[tags] { return known }
        let number = Int32(batch.tags.count)
        batch.tags.append(tags)
        numbers[tags] = number
        return number
    }

    /// Takes a sample.
    mutating func add(_ metric: Int, _ value: Double, tags: Int32, at time: UInt64) {
        append(SampleRecord(time: time, metric: Int32(metric), tags: tags, value: value))
    }

    /// Takes a request, on top of whose tags come its operation and outcome.
    mutating func addRequest(
        _ operation: Operation, _ outcome: Outcome, tags: Int32, took: Double, service: Double, at time: UInt64
    ) {
        let key = Int(tags) * ScenarioPlaces.kinds + ScenarioPlaces.kind(operation, outcome)
        let number: Int32
        if let known = requestNumbers[key] {
            number = known
        } else {
            var more = ["op": operation.name]
            if systemTags.has("status") { more["status"] = outcome.name }
            number = self.number(batch.tags[Int(tags)].merging(more) { $1 })
            requestNumbers[key] = number
        }
        append(
            SampleRecord(time: time, metric: -1, tags: number, value: took, service: service, outcome: outcome))
    }

    private mutating func append(_ record: SampleRecord) {
        batch.records.append(record)
        if batch.records.count >= Self.batchLimit { flush() }
    }

    /// Passes on what was gathered.
    mutating func flush() {
        guard !batch.records.isEmpty else { return }
        for output in outputs { output.offer(batch) }
        batch = SampleBatch()
        batch.records.reserveCapacity(Self.batchLimit)
        numbers.removeAll(keepingCapacity: true)
        requestNumbers.removeAll(keepingCapacity: true)
        generation += 1
    }
}
