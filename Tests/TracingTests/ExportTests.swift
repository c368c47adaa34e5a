// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Settings
import Testing

@testable import Tracing

/// What goes to a collector, when it is repeated, and what settings and variables say of it.
struct ExportTests {
    private static let schema = SettingsSchema(TracingConfiguration.settings)

    private static func configuration(
        _ environment: [String: String] = [:], _ flags: [SettingsSchema.Flag] = []
    ) throws -> (configuration: TracingConfiguration, problems: [String], notes: [String]) {
        let (values, _) = try schema.resolve(file: nil, environment: environment, flags: flags)
        var (problems, notes): ([String], [String]) = ([], [])
        let configuration = TracingConfiguration(
            values, environment: environment, program: "a program", problems: &problems, notes: &notes)
        return (configuration, problems, notes)
    }

    @Test func tracesNothingUnlessItIsToldWhereTo() throws {
        #expect(try !Self.configuration().configuration.isOn)
        #expect(
            try !Self.configuration(["OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"]).configuration.isOn)
        let exporter = ["OTEL_TRACES_EXPORTER": "otlp"]
        #expect(try Self.configuration(exporter).configuration.url == "http://localhost:4318/v1/traces")
    }

    @Test func readsTheStandardVariables() throws {
        let environment = [
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/", "OTEL_EXPORTER_OTLP_HEADERS": "a=b%20c, d = e",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1500", "OTEL_SERVICE_NAME": "cache", "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment.name=test",
            "OTEL_TRACES_SAMPLER_ARG": "0.5", "OTEL_BSP_SCHEDULE_DELAY": "100", "OTEL_BSP_MAX_QUEUE_SIZE": "64",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "128", "OTEL_BSP_EXPORT_TIMEOUT": "700",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "ca.pem",
        ]
        let (found, problems, notes) = try Self.configuration(environment)
        #expect(problems.isEmpty && notes.isEmpty)
        #expect(found.url == "http://collector:4318/v1/traces" && found.timeoutMilliseconds == 1500)
        #expect(found.headers == [.init("a", "b c"), .init("d", "e")] && found.caFile == "ca.pem")
        #expect(found.serviceName == "cache" && found.resource == [.init("deployment.environment.name", "test")])
        #expect(found.sampler == TraceSampler(.ratio, ratio: 0.5))
        #expect(found.delayMilliseconds == 100 && found.queueLimit == 64 && found.exportMilliseconds == 700)
        // No batch is larger than what may wait.
        #expect(found.batchLimit == 64)
        let own = environment.merging(["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://traces/as/it/is"]) { $1 }
        #expect(try Self.configuration(own).configuration.url == "https://traces/as/it/is")
        let disabled = environment.merging(["OTEL_SDK_DISABLED": "TRUE"]) { $1 }
        #expect(try !Self.configuration(disabled).configuration.isOn)
        let none = environment.merging(["OTEL_TRACES_EXPORTER": "none"]) { $1 }
        #expect(try !Self.configuration(none).configuration.isOn)
        #expect(
            try Self.configuration(none.filter { $0.key != "OTEL_SERVICE_NAME" }).configuration.serviceName == "other")
    }

    @Test func ourSettingsWinOverTheStandardVariables() throws {
        let environment = [
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://other:1", "OTEL_TRACES_SAMPLER": "always_off",
            "OTEL_TRACES_SAMPLER_ARG": "1", "OTEL_BSP_SCHEDULE_DELAY": "1", "OTEL_EXPORTER_OTLP_HEADERS": "x=y",
        ]
        let (found, _, _) = try Self.configuration(
            environment,
            [
                ("tracing-endpoint", "http://ours:4318"), ("tracing-sampler", "parentbased_traceidratio"),
                ("tracing-ratio", "0.25"), ("tracing-delay", "2s"), ("tracing-headers", "a=b"),
            ])
        #expect(found.url == "http://ours:4318/v1/traces" && found.delayMilliseconds == 2000)
        #expect(found.sampler == TraceSampler(.parentOrRatio, ratio: 0.25) && found.headers == [.init("a", "b")])
    }

    @Test func samplesAThousandthUnlessSomebodySaysOtherwise() throws {
        #expect(try Self.configuration().configuration.sampler == TraceSampler(.parentOrRatio, ratio: 0.001))
        let named = ["OTEL_TRACES_SAMPLER": "parentbased_traceidratio"]
        #expect(try Self.configuration(named).configuration.sampler == TraceSampler(.parentOrRatio, ratio: 1))
        let argument = ["OTEL_TRACES_SAMPLER_ARG": "0.1"]
        #expect(try Self.configuration(argument).configuration.sampler == TraceSampler(.parentOrRatio, ratio: 0.1))
    }

    @Test func saysWhatIsWrongAndShowsNoSecret() throws {
        let flags: [SettingsSchema.Flag] = [
            ("tracing-endpoint", "me:sesame@collector:4318"), ("tracing-ratio", "2"), ("tracing-headers", "sesame"),
        ]
        let problems = try Self.configuration([:], flags).problems
        #expect(problems.count == 3 && !problems.joined().contains("sesame"))
        #expect(problems.joined().contains("expected http://") && problems.joined().contains("from 0 to 1"))
        let environment = [
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_TRACES_SAMPLER": "jaeger_remote",
            "OTEL_TRACES_SAMPLER_ARG": "lots", "OTEL_EXPORTER_OTLP_HEADERS": "sesame,a=%0d%0ab,c=d",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_BSP_SCHEDULE_DELAY": "soon",
        ]
        let (found, refused, notes) = try Self.configuration(environment)
        #expect(refused.isEmpty && found.isOn && found.headers == [.init("c", "d")])
        #expect(notes.count == 7 && !notes.joined().contains("sesame"), "\(notes)")
    }

    @Test func showsNoMoreOfTheCollectorThanItsHost() throws {
        var configuration = TracingConfiguration()
        configuration.url = "https://user:sesame@host:4318/token/v1/traces?key=sesame"
        #expect(configuration.shownURL == "https://host:4318")
    }

    @Test func repeatsWhatMayBeRepeatedLaterAndLater() {
        for status in [0, 429, 502, 503, 504] {
            var least: UInt64 = 0
            for attempt in 1...10 {
                guard
                    let pause = ExportRetry.pause(
                        after: attempt, status: status, retryAfterSeconds: 0, jitter: 0)
                else {
                    Issue.record("status \(status) is not repeated")
                    return
                }
                #expect(pause >= least && pause <= ExportRetry.longestNanoseconds)
                least = pause
            }
            #expect(least == ExportRetry.longestNanoseconds / 2)
            let wished = ExportRetry.pause(after: 1, status: status, retryAfterSeconds: 7, jitter: 0.5)
            #expect(wished == 7_000_000_000)
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            #expect(ExportRetry.pause(after: 1, status: status, retryAfterSeconds: 9, jitter: 0) == nil)
        }
    }

    @Test(arguments: [
        (#"{}"#, 0), (#"{"partialSuccess":{}}"#, 0), (#"{"partialSuccess":{"rejectedSpans":"3"}}"#, 3),
        (#"{"partialSuccess":{"rejectedSpans":4,"errorMessage":"no"}}"#, 4), ("", 0), ("<html>", 0),
        (#"{"partialSuccess":{"rejectedSpans":-4}}"#, 0), (#"[1]"#, 0),
    ])
    func readsHowManySpansWereRejected(_ body: String, _ count: Int) {
        #expect(SpanExporter.rejected(Array(body.utf8)) == count)
    }

    @Test func spellsSpansAsTheStandardSays() throws {
        var server = SpanRecord(SpanSeed(TraceTokenTests.fresh, parent: 0xb7ad), .mg, .server, start: 1_000)
        server.end = 2_500
        server.hit = .miss
        server.note(key: Array("user:\u{e9}\"".utf8).span, isShown: true)
        var client = SpanRecord(SpanSeed(TraceTokenTests.fresh.with(span: 5), parent: 7), .set, .client, start: 1)
        (client.peer, client.error, client.reason, client.end) = (1, .timeout, .failed, 2)
        let text = String(
            decoding: OTLPEncoder.encode(
                [server, client], resource: [.init("service.name", "a \"b\"")], version: "1",
                peers: ["x:1", "[::1]:2"],
                own: "h:11211", epoch: 1_000_000_000_000_000_000), as: UTF8.self)
        let parts = [
            #"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"a \"b\""}}]}"#,
            #""scopeSpans":[{"scope":{"name":"martlet","version":"1"},"spans":[{"traceId":"\#(TraceTokenTests.trace)""#,
            #""spanId":"123456789abcdef0","parentSpanId":"000000000000b7ad","flags":769,"name":"mg","kind":2"#,
            #""startTimeUnixNano":"1000000000000001000","endTimeUnixNano":"1000000000000002500""#,
            #"{"key":"server.address","value":{"stringValue":"h"}},{"key":"server.port","value":{"intValue":"11211"}}"#,
            #"{"key":"martlet.key","value":{"stringValue":"user:é\""}}"#,
            #"{"key":"martlet.cache.hit","value":{"boolValue":false}}"#,
            #""spanId":"0000000000000005","parentSpanId":"0000000000000007","flags":257,"name":"set","kind":3"#,
            #"{"key":"server.address","value":{"stringValue":"::1"}},{"key":"server.port","value":{"intValue":"2"}}"#,
            #"{"key":"error.type","value":{"stringValue":"timeout"}}],"status":{"code":2}}"#,
        ]
        for part in parts { #expect(text.contains(part), "\(part) is not in \(text)") }
        #expect(throws: Never.self) { try JSONParser.parse(Array(text.utf8), file: "spans") }
    }
}
