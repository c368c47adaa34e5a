// Martlet
// SPDX-License-Identifier: Apache-2.0

import MartletClient
import Platform
import Synchronization

/// What became of the calls to one server.
struct Outcomes: Sendable {
    var calls = 0
    var errors: [String: Int] = [:]
    /// How long each call took, in microseconds.
    var microseconds: [UInt64] = []

    mutating func add(_ error: CacheError?, _ took: UInt64) {
        calls += 1
        microseconds.append(took)
        guard let error else { return }
        errors[name(error), default: 0] += 1
    }

    mutating func add(_ other: Outcomes) {
        calls += other.calls
        microseconds += other.microseconds
        errors.merge(other.errors) { $0 + $1 }
    }

    private func name(_ error: CacheError) -> String {
        switch error {
        case .unavailable: "unavailable"
        case .circuitOpen: "circuitOpen"
        case .overloaded: "overloaded"
        case .busy: "busy"
        case .deadlineExceeded: "deadlineExceeded"
        case .connectionLost: "connectionLost"
        case .nonsense: "nonsense"
        default: "other"
        }
    }

    var json: String {
        let sorted = microseconds.sorted()
        func at(_ share: Double) -> UInt64 {
            sorted.isEmpty ? 0 : sorted[min(sorted.count - 1, Int(share * Double(sorted.count)))]
        }
        let list = errors.sorted { $0.key < $1.key }.map { "\"\($0.key)\": \($0.value)" }.joined(separator: ", ")
        return "{\"calls\": \(calls), \"errors\": {\(list)}, \"p50\": \(at(0.5)), \"p99\": \(at(0.99)), "
            + "\"max\": \(sorted.last ?? 0)}"
    }
}

/// Tasks that read keys of all servers for some seconds, one request after another in each; prints what became of them
/// by server. A line `ready` comes when it begins.
func runLoad(_ configuration: ClientConfiguration) async throws {
    let cache = try await MartletClient(configuration)
    let end = Clock.monotonicNanoseconds() + UInt64(number("milliseconds", 2_000)) * 1_000_000
    let tasks = number("tasks", 16)
    let pause = number("pause", 0)
    // Each task has one server's keys, so that a server that stalls holds up nobody else's.
    let servers = cache.servers
    // At once, though nobody reads line by line.
    writeWhole(Array("ready\n".utf8), to: 1)
    let all = await withTaskGroup(of: [String: Outcomes].self) { group in
        for task in 0..<tasks {
            group.addTask {
                var outcomes: [String: Outcomes] = [:]
                let mine = servers[task % servers.count]
                var number = task
                while Clock.monotonicNanoseconds() < end {
                    number += tasks
                    let key = "key:\(number)"
                    let server = cache.server(for: key) ?? "any"
                    guard server == mine || server == "any" else { continue }
                    let begun = Clock.monotonicNanoseconds()
                    var failure: CacheError?
                    do throws(CacheError) { _ = try await cache.get(key) } catch { failure = error }
                    outcomes[server, default: Outcomes()].add(failure, (Clock.monotonicNanoseconds() - begun) / 1_000)
                    if failure != nil || pause > 0 { try? await Task.sleep(for: .milliseconds(max(pause, 1))) }
                }
                return outcomes
            }
        }
        var all: [String: Outcomes] = [:]
        for await part in group {
            for (server, outcomes) in part { all[server, default: Outcomes()].add(outcomes) }
        }
        return all
    }
    let metrics = cache.metrics
    let parts = all.sorted { $0.key < $1.key }.map { "\"\($0.key)\": \($0.value.json)" }
    let counts: [(String, UInt64)] = [
        ("calls", metrics.calls), ("retries", metrics.retries), ("refused", metrics.retriesRefused),
        ("hedges", metrics.hedges), ("hedgeWins", metrics.hedgeWins), ("openings", metrics.circuitOpenings),
        ("connects", metrics.connects), ("timeouts", metrics.timeouts),
    ]
    let fields = counts.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ")
    print("{\"servers\": {\(parts.joined(separator: ", "))}, \(fields)}")
    await cache.shutDown()
}

/// A count that tasks share.
final class Tally: Sendable {
    let value = Atomic<Int>(0)
}

/// Many tasks that want one key which takes a while to compute; prints how often it was computed.
func runCompute(_ configuration: ClientConfiguration) async throws {
    let cache = try await MartletClient(configuration)
    let key = option("key") ?? "computed"
    let computed = Tally()
    let milliseconds = number("milliseconds", 100)
    let fails = arguments.contains("--fail")
    let begun = Clock.monotonicNanoseconds()
    let (values, errors) = await withTaskGroup(of: String?.self) { group in
        for _ in 0..<number("tasks", 10_000) {
            group.addTask {
                let value = try? await cache.getOrCompute(key, ttl: .seconds(60)) {
                    computed.value.add(1, ordering: .relaxed)
                    try await Task.sleep(for: .milliseconds(milliseconds))
                    if fails { throw CacheError.cancelled }
                    return Array("the value".utf8)
                }
                return value?.string
            }
        }
        var values: [String: Int] = [:]
        var errors = 0
        for await value in group {
            if let value { values[value, default: 0] += 1 } else { errors += 1 }
        }
        return (values, errors)
    }
    let took = (Clock.monotonicNanoseconds() - begun) / 1_000_000
    print(
        "{\"computed\": \(computed.value.load(ordering: .relaxed)), \"values\": \(values["the value"] ?? 0), "
            + "\"errors\": \(errors), \"kinds\": \(values.count), \"milliseconds\": \(took)}")
    await cache.shutDown()
}

/// Tasks that wait for a server that does not answer, and are cancelled; prints how long the longest took to end.
func runCancel(_ configuration: ClientConfiguration) async throws {
    let cache = try await MartletClient(configuration)
    let tasks = (0..<number("tasks", 1_000)).map { number in
        Task { () -> String in
            do throws(CacheError) {
                _ = try await cache.get("key:\(number)")
                return "answered"
            } catch { return "\(error)" }
        }
    }
    try await Task.sleep(for: .milliseconds(100))
    let begun = Clock.monotonicNanoseconds()
    for task in tasks { task.cancel() }
    var outcomes: [String: Int] = [:]
    for task in tasks { outcomes[await task.value, default: 0] += 1 }
    let took = (Clock.monotonicNanoseconds() - begun) / 1_000
    print("{\"cancelled\": \(outcomes["the task was cancelled"] ?? 0), \"microseconds\": \(took)}")
    await cache.shutDown()
}

/// Gets a second of some tasks, and what one costs; on the client's own thread with `--own`.
func measureSpeed(_ configuration: ClientConfiguration) async throws {
    let cache = try await MartletClient(configuration)
    let tasks = number("tasks", 64)
    let value = [UInt8](repeating: 120, count: number("size", 32))
    for number in 0..<1_000 { try await cache.set("speed:\(number)", value) }
    let keys = (0..<1_000).map { "speed:\($0)" }
    let length = UInt64(number("milliseconds", 2_000)) * 1_000_000
    @Sendable func work(_ task: Int, _ end: UInt64) async -> Int {
        var (count, number) = (0, task * 17)
        while true {
            for _ in 0..<64 {
                number += 1
                do throws(CacheError) {
                    guard try await cache.get(keys[number % 1_000]) != nil else { return -1 }
                } catch { return -1 }
            }
            count += 64
            if Clock.monotonicNanoseconds() > end { return count }
        }
    }
    func run() async -> Int {
        let end = Clock.monotonicNanoseconds() + length
        return await withTaskGroup(of: Int.self) { group in
            for task in 0..<tasks { group.addTask { await work(task, end) } }
            return await group.reduce(0, +)
        }
    }
    let begun = Clock.monotonicNanoseconds()
    let before = ProcessUsage.current()
    let count: Int
    if arguments.contains("--own") {
        count = await withTaskExecutorPreference(cache.executor) { await run() }
    } else {
        count = await run()
    }
    let after = ProcessUsage.current()
    let seconds = Double(Clock.monotonicNanoseconds() - begun) / 1e9
    let used = after.userMicroseconds + after.systemMicroseconds - before.userMicroseconds - before.systemMicroseconds
    let cpu = Double(used) / 1e6
    print(
        "{\"gets\": \(count), \"perSecond\": \(Int(Double(count) / seconds)), "
            + "\"cpuMicroseconds\": \(cpu / Double(count) * 1e6), "
            + "\"perCPUSecond\": \(Int(Double(count) / max(cpu, 1e-9)))}")
    await cache.shutDown()
}
