// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LoadModel

/// The lines of k6's outputs, held against what k6 writes.
struct SampleTextTests {
    private static func registry() -> (MetricRegistry, BuiltInMetrics) {
        var registry = MetricRegistry()
        let builtIn = BuiltInMetrics(&registry)
        _ = registry.resolve("checks{check:is there}")
        return (registry, builtIn)
    }

    private static func threshold(_ metric: String, _ source: String) throws -> MetricThresholds {
        MetricThresholds(metric, [try Threshold.parse(source).get()])
    }

    private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    @Test func writesJSONAsK6() throws {
        let (registry, builtIn) = Self.registry()
        let thresholds = [try Self.threshold("checks", "rate>0.9"), try Self.threshold("vus", "value<9")]
        var text = SampleText(.json, registry, thresholds: thresholds)
        var lines: [UInt8] = []
        let end = text.end(["group": "::a", "check": "is \"there\""])
        text.append(builtIn.checks, 1_700_000_000_120_000_000, 1, end, to: &lines)
        text.append(builtIn.checks, 1_700_000_001_000_000_000, 0, end, to: &lines)
        text.append(builtIn.iterationDuration, 951_782_399_000_000_001, 1.25, text.end([:]), to: &lines)
        #expect(text.head.isEmpty)
        let part = #"{"name":"checks{check:is there}","suffix":"check:is there","tags":{"check":"is there"}}"#
        let tags = #"{"check":"is \"there\"","group":"::a"}"#
        let wanted = [
            #"{"type":"Metric","data":{"name":"checks","type":"rate","contains":"default","thresholds":["rate>0.9"],"#
                + #""submetrics":[\#(part)]},"metric":"checks"}"#,
            #"{"metric":"checks","type":"Point","data":{"time":"2023-11-14T22:13:20.12Z","value":1,"tags":\#(tags)}}"#,
            #"{"metric":"checks","type":"Point","data":{"time":"2023-11-14T22:13:21Z","value":0,"tags":\#(tags)}}"#,
            #"{"type":"Metric","data":{"name":"iteration_duration","type":"trend","contains":"time","thresholds":[],"#
                + #""submetrics":null},"metric":"iteration_duration"}"#,
            #"{"metric":"iteration_duration","type":"Point","data":{"time":"2000-02-28T23:59:59.000000001Z","#
                + #""value":1.25,"tags":{}}}"#,
        ]
        #expect(Self.text(lines) == wanted.map { $0 + "\n" }.joined())
    }

    @Test func metadataIsBesideTheTags() {
        let (registry, _) = Self.registry()
        let tags = ["op": "get", SampleText.metadataMark + "trace": "a,b", SampleText.metadataMark + "id": "7"]
        let json = SampleText(.json, registry, thresholds: []).end(tags)
        #expect(json == #","tags":{"op":"get"},"metadata":{"id":"7","trace":"a,b"}}}"# + "\n")
        let csv = SampleText(.csv(.unix), registry, thresholds: []).end(tags)
        #expect(csv.hasSuffix(",op=get,\"id=7&trace=a,b\"\n"))
    }

    @Test func writesCSVAsK6() {
        let (registry, builtIn) = Self.registry()
        var text = SampleText(.csv(.unix), registry, thresholds: [])
        var lines: [UInt8] = []
        let tags = ["scenario": "a,b", "status": "hit", "op": "get", "id": "say \"x\"", "ip": "::1"]
        text.append(builtIn.requestDuration, 1_700_000_000_999_000_000, 0.5, text.end(tags), to: &lines)
        #expect(
            text.head
                == "metric_name,timestamp,metric_value,check,error,error_code,expected_response,group,method,name,"
                + "proto,scenario,service,status,subproto,tls_version,url,extra_tags,metadata\n")
        #expect(
            Self.text(lines)
                == "memcached_req_duration,1700000000,0.500000,,,,,,,,,\"a,b\",,hit,,,,\"id=say \"\"x\"\"&op=get\",\n")
    }

    @Test(
        arguments: [
            (SampleText.TimeFormat.unix, "951782400"), (.unixMilli, "951782400000"), (.unixMicro, "951782400000500"),
            (.unixNano, "951782400000500000"), (.rfc3339, "2000-02-29T00:00:00Z"),
            (.rfc3339Nano, "2000-02-29T00:00:00.0005Z"),
        ])
    func writesTimes(_ format: SampleText.TimeFormat, _ wanted: String) {
        let (registry, builtIn) = Self.registry()
        var text = SampleText(.csv(format), registry, thresholds: [])
        var lines: [UInt8] = []
        text.append(builtIn.vus, 951_782_400_000_500_000, 1, "\n", to: &lines)
        #expect(Self.text(lines) == "vus,\(wanted),1.000000\n")
    }
}
