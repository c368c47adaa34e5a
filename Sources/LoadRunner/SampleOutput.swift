// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// Where each sample goes while a test runs: `-o json=FILE` and `-o csv=FILE`, and k6's variables for them.
struct SampleOutputSettings: Sendable {
    /// The names of these outputs.
    static let names = ["json", "csv"]

    let form: SampleText.Form
    /// Empty or `-` for standard output.
    var file: String
    /// Between two writes.
    var intervalNanoseconds: UInt64 = 200_000_000

    /// The settings of an output: what stands behind its name and the sign.
    init(_ name: String, _ argument: String, _ environment: [String: String]) throws(OptionProblem) {
        guard name == "csv" else {
            (form, file) = (.json, argument)
            return
        }
        var values = ["fileName": "file.csv", "saveInterval": "1s", "timeFormat": "unix"]
        for (key, variable) in [
            ("fileName", "FILENAME"), ("saveInterval", "SAVE_INTERVAL"), ("timeFormat", "TIME_FORMAT"),
        ] {
            if let text = environment["K6_CSV_" + variable] { values[key] = text }
        }
        if !argument.isEmpty, !argument.contains("=") { values["fileName"] = argument }
        for pair in argument.contains("=") ? argument.split(separator: ",") : [] {
            let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, values[String(parts[0])] != nil, !parts[1].isEmpty else {
                throw OptionProblem("--out csv=\(argument): expected a file, or fileName, saveInterval and timeFormat")
            }
            values[String(parts[0])] = String(parts[1])
        }
        guard let format = SampleText.TimeFormat(rawValue: values["timeFormat"] ?? "") else {
            let all = SampleText.TimeFormat.allCases.map(\.rawValue).joined(separator: ", ")
            throw OptionProblem("--out csv: timeFormat '\(values["timeFormat"] ?? "")' is none of \(all)")
        }
        guard let interval = GoDuration.parse(values["saveInterval"] ?? ""), interval > 0 else {
            throw OptionProblem("--out csv: saveInterval '\(values["saveInterval"] ?? "")' is no duration, such as 1s")
        }
        (form, file, intervalNanoseconds) = (.csv(format), values["fileName"] ?? "", interval)
    }
}

/// Writes each sample of a test to a file, from a thread of its own. What makes the load is not held up: samples that
/// come faster than they can be written are left out, and counted.
final class SampleOutput: Sendable {
    private struct State {
        var batches: [SampleBatch] = []
        var isOver = false
        var leftOut = 0
        var problem: String?
    }

    /// Batches that wait at most: 128 million bytes of them.
    private static let waitingLimit = 800

    private let settings: SampleOutputSettings
    private let builtIn: BuiltInMetrics
    /// What is added to the monotonic clock for the time of the Unix epoch.
    private let epoch = Clock.realtimeNanoseconds() &- Clock.monotonicNanoseconds()
    private let state = Guarded(State())
    private let parking = Parking()
    private let thread: Guarded<Thread?> = Guarded(nil)

    /// Makes the file, and the thread.
    init(
        _ settings: SampleOutputSettings, _ registry: MetricRegistry, _ builtIn: BuiltInMetrics,
        thresholds: [MetricThresholds]
    ) throws(SystemError) {
        self.settings = settings
        self.builtIn = builtIn
        let isFile = !settings.file.isEmpty && settings.file != "-"
        let path: String? = isFile ? settings.file : nil
        if let path { _ = try GzipFile(path) }
        let text = SampleText(settings.form, registry, thresholds: thresholds)
        let made = try Thread(name: "martlet-out") { [self] in run(path, text) }
        thread.withLock { $0 = made }
    }

    /// Takes samples. Does not block.
    func offer(_ batch: SampleBatch) {
        state.withLock { state in
            if state.batches.count < Self.waitingLimit, state.problem == nil {
                state.batches.append(batch)
            } else {
                state.leftOut += batch.records.count
            }
        }
    }

    /// Writes what is left, and ends. Returns what went wrong, for people; nil when nothing did.
    func finish() -> String? {
        state.withLock { $0.isOver = true }
        parking.announce()
        thread.exchange(nil)?.join()
        return state.withLock { state in
            if let problem = state.problem { return problem }
            guard state.leftOut > 0 else { return nil }
            return "\(settings.file): \(state.leftOut) samples came faster than they could be written, and are left out"
        }
    }

    private func run(_ path: String?, _ text: SampleText) {
        do throws(SystemError) {
            let file = try path.map { (path) throws(SystemError) in try GzipFile(path) }
            try write(file, text)
        } catch {
            state.withLock { $0.problem = error.description }
        }
    }

    private func write(_ file: GzipFile?, _ text: SampleText) throws(SystemError) {
        var text = text
        func put(_ bytes: [UInt8]) throws(SystemError) {
            if let file { try file.write(bytes) } else { writeWhole(bytes, to: 1) }
        }
        try put(Array(text.head.utf8))
        var next = Clock.monotonicNanoseconds() &+ settings.intervalNanoseconds
        while true {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            let isOver = state.withLock { $0.isOver }
            guard isOver || now >= next else {
                parking.wait(ticket, timeoutNanoseconds: next - now)
                continue
            }
            next = now &+ settings.intervalNanoseconds
            while true {
                let batches = state.withLock { state in
                    defer { state.batches = [] }
                    return state.batches
                }
                if batches.isEmpty { break }
                for batch in batches { try put(lines(batch, &text)) }
            }
            if isOver {
                try file?.finish()
                return
            }
        }
    }

    private func lines(_ batch: SampleBatch, _ text: inout SampleText) -> [UInt8] {
        var lines: [UInt8] = []
        let ends = batch.tags.map { text.end($0) }
        for record in batch.records {
            let (time, end) = (record.time &+ epoch, ends[Int(record.tags)])
            guard record.metric < 0 else {
                text.append(Int(record.metric), time, record.value, end, to: &lines)
                continue
            }
            let outcome = record.outcome
            text.append(builtIn.requests, time, 1, end, to: &lines)
            text.append(builtIn.requestDuration, time, record.value, end, to: &lines)
            if !record.service.isNaN { text.append(builtIn.requestService, time, record.service, end, to: &lines) }
            text.append(builtIn.requestFailed, time, outcome.isFailure ? 1 : 0, end, to: &lines)
            if outcome == .hit || outcome == .miss {
                text.append(builtIn.hits, time, outcome == .hit ? 1 : 0, end, to: &lines)
            }
            if outcome == .shed { text.append(builtIn.sheds, time, 1, end, to: &lines) }
        }
        return lines
    }
}
