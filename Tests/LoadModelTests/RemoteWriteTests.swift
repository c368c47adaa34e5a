// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LoadModel

/// Metrics as Prometheus takes them.
struct RemoteWriteTests {
    /// What snappy's literals hold; nil for anything else.
    static func literals(_ bytes: [UInt8]) -> [UInt8]? {
        var (length, shift, index) = (0, 0, 0)
        while true {
            length |= Int(bytes[index] & 127) << shift
            shift += 7
            index += 1
            if bytes[index - 1] < 128 { break }
        }
        var result: [UInt8] = []
        while index < bytes.count {
            guard bytes[index] == 61 << 2, index + 2 < bytes.count else { return nil }
            let count = Int(bytes[index + 1]) + Int(bytes[index + 2]) << 8 + 1
            guard index + 3 + count <= bytes.count else { return nil }
            result += bytes[(index + 3)..<(index + 3 + count)]
            index += 3 + count
        }
        return result.count == length ? result : nil
    }

    @Test(arguments: [0, 1, 60, 127, 128, 65_535, 65_536, 65_537, 200_000])
    func snappyHoldsEveryByte(count: Int) {
        let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        #expect(Self.literals(RemoteWrite.snappy(bytes)) == bytes)
    }

    @Test func aMessageIsProtocolBuffers() {
        let sample = RemoteWrite.Sample(labels: [("__name__", "k6_x"), ("op", "get")], value: 1.5)
        let expected: [UInt8] =
            [0x0A, 47, 0x0A, 16, 0x0A, 8] + Array("__name__".utf8) + [0x12, 4] + Array("k6_x".utf8)
            + [0x0A, 9, 0x0A, 2] + Array("op".utf8) + [0x12, 3] + Array("get".utf8)
            + [0x12, 16, 0x09, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F, 0x10, 0xE8, 0xBE, 0x9A, 0xBF, 0x8B, 0x33]
        #expect(Self.literals(RemoteWrite.message([sample], milliseconds: 1_755_432_001_384)) == expected)
    }

    @Test func namesAndUnitsAreK6s() throws {
        var registry = MetricRegistry()
        let definitions = [
            MetricDefinition("reqs", .counter), MetricDefinition("vus", .gauge), MetricDefinition("checks", .rate),
            MetricDefinition("req_duration", .trend, .time), MetricDefinition("sizes", .trend),
            MetricDefinition("nothing", .counter),
        ]
        let places = definitions.compactMap { registry.register($0) }
        let part = registry.resolve("reqs{op:get}") ?? 0
        #expect(places == [0, 1, 2, 3, 4, 5] && part == 6)
        var sinks = registry.makeSinks()
        for place in [0, part] { sinks[place].add(count: 5) }
        sinks[1].add(7)
        sinks[2].add(1)
        sinks[2].add(0)
        sinks[3].add(250)
        sinks[4].add(250)
        var write = RemoteWrite()
        write.tags = ["run-id": "a", "1st": "b"]
        write.trendStats = ["max", "count", "p(99.9)"]
        let samples = write.samples(registry, sinks)
        let common: [(name: String, value: String)] = [("_1st", "b")]
        func value(_ name: String) -> Double? {
            samples.first { sample in
                sample.labels.contains { $0 == ("__name__", name) } && !sample.labels.contains { $0.name == "op" }
            }?.value
        }
        #expect(value("k6_reqs_total") == 5)
        #expect(value("k6_vus") == 7)
        #expect(value("k6_checks_rate") == 0.5)
        #expect(value("k6_req_duration_max") == 0.25, "times are in seconds")
        #expect(value("k6_req_duration_count") == 1)
        #expect(abs((value("k6_req_duration_p99_9") ?? 0) - 0.25) < 0.0025)
        #expect(value("k6_sizes_max") == 250)
        #expect(!samples.contains { $0.labels.contains { $0.value.hasPrefix("k6_nothing") } })
        let ofGets = try #require(samples.first { $0.labels.contains { $0 == ("op", "get") } })
        #expect(ofGets.labels.map(\.name) == ["_1st", "__name__", "op", "run_id"])
        #expect(ofGets.labels[0] == common[0])
    }

    @Test func whatIsKeptByTagsIsSentByTagsOnly() throws {
        var registry = MetricRegistry()
        let made = registry.register(MetricDefinition("reqs", .counter))
        let other = registry.register(MetricDefinition("vus", .gauge))
        let (reqs, users) = (try #require(made), try #require(other))
        _ = registry.resolve("reqs{op:get}")
        var sinks = registry.makeSinks()
        for place in sinks.indices { sinks[place].add(5) }
        var series = SeriesTable()
        for (op, status) in [("get", "hit"), ("get", "miss"), ("set", "stored")] {
            series.add(SeriesKey(reqs, ["op": op, "status": status, "group": ""]), .counter, 2)
        }
        var write = RemoteWrite()
        write.tags = ["run": "a", "op": "none"]
        let samples = write.samples(registry, sinks, series)
        let sent = samples.filter { $0.labels.contains { $0 == ("__name__", "k6_reqs_total") } }
        #expect(sent.count == 3 && sent.allSatisfy { $0.value == 2 }, "neither the whole nor the threshold's part")
        #expect(sent.allSatisfy { one in one.labels.contains { $0 == ("run", "a") } })
        #expect(Set(sent.map { $0.labels.map(\.name) }) == [["__name__", "op", "run", "status"]])
        #expect(samples.count == 4 && sinks[users].value == 5)
        // Prometheus tells the mark from other numbers that are none by its bits.
        #expect(sent[0].stale.value.bitPattern == 0x7ff0_0000_0000_0002 && sent[0].stale.labels.count == 4)
    }
}
