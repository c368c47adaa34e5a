// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Admin
import Foundation
import Platform
import Telemetry
import Testing

/// What the pages under test say.
private final class Subject: Sendable {
    let failure = Guarded<String?>(nil)

    var routes: [AdminRoute] {
        AdminPages.liveness() + [
            AdminPages.metrics { exposition in
                exposition.family("martlet_test_total", .counter, help: "A test.")
                exposition.sample(7 as UInt64)
            },
            AdminPages.readiness { [failure] in
                [HealthCheck("listeners"), HealthCheck("storage", failure: failure.withLock { $0 })]
            },
            AdminPages.statistics { "{\"curr_items\":1}" },
            AdminRoute("/large", "a large page") { _ in .text(String(repeating: "x", count: 5 << 20)) },
        ]
    }
}

private func start(_ subject: Subject, _ change: (inout AdminConfiguration) -> Void = { _ in }) throws -> AdminServer {
    var configuration = AdminConfiguration()
    configuration.port = 0
    change(&configuration)
    let server = try AdminServer(configuration, routes: subject.routes)
    try server.start()
    return server
}

@Suite struct AdminServerTests {
    @Test func servesMetricsInTheFormatThatTheReaderPrefers() throws {
        let server = try start(Subject())
        let plain = ask(server.port, "GET", "/metrics")
        #expect(plain.status == 200)
        #expect(plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8")
        #expect(
            plain.body == "# HELP martlet_test_total A test.\n# TYPE martlet_test_total counter\nmartlet_test_total 7\n"
        )
        let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"
        let open = ask(server.port, "GET", "/metrics", headers: [accept])
        #expect(open.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8")
        #expect(open.body.hasSuffix("martlet_test_total 7\n# EOF\n"))
        #expect(open.headers["content-length"] == "\(open.body.utf8.count)")
        server.stop()
    }

    @Test(arguments: [
        ("", false), ("*/*", false), ("text/plain", false), ("application/openmetrics-text", true),
        ("application/openmetrics-text; version=1.0.0", true), ("application/openmetrics-text; version=2.0.0", false),
        ("application/openmetrics-text;q=0", false), ("text/plain;q=0.9, application/openmetrics-text;q=0.5", false),
        ("application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.2", true), ("APPLICATION/OpenMetrics-Text", true),
        (",;q=1,,", false),
    ])
    func negotiatesByWeight(_ accept: String, _ isOpenMetrics: Bool) throws {
        let server = try start(Subject())
        let answer = ask(server.port, "GET", "/metrics", headers: ["Accept: \(accept)"])
        #expect(answer.body.hasSuffix("# EOF\n") == isOpenMetrics)
        server.stop()
    }

    @Test func isAliveAsLongAsItAnswers() throws {
        let subject = Subject()
        let server = try start(subject)
        subject.failure.withLock { $0 = "gone" }
        for path in ["/livez", "/healthz"] {
            let answer = ask(server.port, "GET", path)
            #expect(answer.status == 200)
            #expect(answer.body == "ok\n")
        }
        server.stop()
    }

    @Test func isReadyWhenEveryCheckHolds() throws {
        let subject = Subject()
        let server = try start(subject)
        #expect(ask(server.port, "GET", "/readyz").body == "ok\n")
        let verbose = ask(server.port, "GET", "/readyz?verbose")
        #expect(verbose.status == 200)
        #expect(verbose.body == "[+]listeners ok\n[+]storage ok\nreadyz check passed\n")
        #expect(ask(server.port, "GET", "/readyz?verbose=1").body == verbose.body)
        subject.failure.withLock { $0 = "disk full" }
        let failed = ask(server.port, "GET", "/readyz")
        #expect(failed.status == 503)
        #expect(failed.body == "[+]listeners ok\n[-]storage failed: disk full\nreadyz check failed\n")
        server.stop()
    }

    @Test func servesStatisticsAndAnIndex() throws {
        let server = try start(Subject())
        let statistics = ask(server.port, "GET", "/stats.json")
        #expect(statistics.headers["content-type"] == "application/json")
        #expect(statistics.body == "{\"curr_items\":1}")
        let index = ask(server.port, "GET", "/")
        #expect(index.status == 200)
        for path in ["/metrics", "/livez", "/healthz", "/readyz", "/stats.json"] { #expect(index.body.contains(path)) }
        #expect(index.headers["x-content-type-options"] == "nosniff")
        #expect(index.headers["cache-control"] == "no-store")
        server.stop()
    }

    @Test func answersHEADWithoutABody() throws {
        let server = try start(Subject())
        let answer = ask(server.port, "HEAD", "/stats.json")
        #expect(answer.status == 200)
        #expect(answer.headers["content-length"] == "16")
        #expect(answer.body.isEmpty)
        server.stop()
    }

    @Test func answersUnknownPathsAndMethodsWithJSON() throws {
        let server = try start(Subject())
        let missing = ask(server.port, "GET", "/n\"ope")
        #expect(missing.status == 404)
        #expect(missing.headers["content-type"] == "application/json")
        let fields = try #require(
            try JSONSerialization.jsonObject(with: Data(missing.body.utf8)) as? [String: Any])
        #expect(fields["status"] as? Int == 404)
        #expect(fields["error"] as? String == "there is no /n\"ope; / lists the pages")
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW"] {
            let refused = ask(server.port, method, "/metrics", headers: ["Content-Length: 0"])
            #expect(refused.status == 405)
            #expect(refused.headers["allow"] == "GET, HEAD")
            #expect(refused.body == "{\"error\":\"\(method) is not allowed here; GET and HEAD are\",\"status\":405}\n")
        }
        server.stop()
    }

    @Test func refusesABodyWithoutReadingIt() throws {
        let server = try start(Subject())
        let wire = try Wire(port: server.port)
        wire.write("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nabc")
        #expect(Answer(wire.readAll()).status == 405)
        server.stop()
    }

    @Test func keepsAConnectionForSeveralRequests() throws {
        let server = try start(Subject())
        let wire = try Wire(port: server.port)
        for _ in 0..<3 {
            wire.write("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            var text = ""
            while !text.hasSuffix("\r\n\r\nok\n") {
                let chunk = wire.read()
                guard !chunk.isEmpty else { break }
                text += String(decoding: chunk, as: UTF8.self)
            }
            #expect(Answer(text).status == 200)
        }
        server.stop()
    }

    @Test func sendsLargePagesWhole() throws {
        let server = try start(Subject())
        #expect(ask(server.port, "GET", "/large").body.utf8.count == 5 << 20)
        server.stop()
    }

    @Test func survivesWhatIsNoRequest() throws {
        let server = try start(Subject()) { $0.timeoutSeconds = 1 }
        for text in ["\r\n\r\n", "get k\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\u{0}\u{1}\u{2}\r\n\r\n"] {
            let wire = try Wire(port: server.port)
            wire.write(text)
            _ = wire.read()
        }
        let huge = ask(server.port, "GET", "/" + String(repeating: "a", count: 100_000))
        #expect([0, 400, 414, 431].contains(huge.status))
        let headers = ask(server.port, "GET", "/livez", headers: ["X: " + String(repeating: "a", count: 100_000)])
        #expect([0, 400, 431].contains(headers.status))
        #expect(ask(server.port, "GET", "/livez").status == 200)
        server.stop()
    }

    @Test func closesConnectionsThatSayNothing() throws {
        let server = try start(Subject()) { $0.timeoutSeconds = 1 }
        let wire = try Wire(port: server.port)
        wire.write("GET /livez HTT")
        let begin = Clock.monotonicNanoseconds()
        _ = wire.readAll()
        let seconds = Double(Clock.monotonicNanoseconds() - begin) / 1e9
        #expect(seconds < 5)
        server.stop()
    }

    @Test func servesOthersAfterManyConnections() throws {
        let server = try start(Subject()) { $0.connectionLimit = 4 }
        for _ in 0..<50 { #expect(ask(server.port, "GET", "/livez").status == 200) }
        server.stop()
    }

    @Test func tellsThatThePortIsTaken() throws {
        let server = try start(Subject())
        do throws(SystemError) {
            var configuration = AdminConfiguration()
            configuration.port = server.port
            _ = try AdminServer(configuration, routes: [])
            Issue.record("two servers on one port")
        } catch {
            #expect(error.code == SystemError.addressInUseCode)
        }
        server.stop()
    }

    @Test func bindsBeforeItStarts() throws {
        var configuration = AdminConfiguration()
        configuration.port = 0
        let server = try AdminServer(configuration, routes: Subject().routes)
        let early = try Wire(port: server.port)
        early.write("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        try server.start()
        #expect(Answer(early.readAll()).status == 200)
        server.stop()
        let never = try AdminServer(configuration, routes: [])
        never.stop()
        #expect(ask(never.port, "GET", "/livez").status == 0)
    }

    @Test func stopsCleanlyAndFreesThePort() throws {
        let server = try start(Subject())
        let port = server.port
        #expect(server.address == "tcp:127.0.0.1:\(port)")
        let idle = try Wire(port: port)
        server.stop()
        server.stop()
        #expect(ask(port, "GET", "/livez").status == 0)
        #expect(idle.readAll().isEmpty)
        let again = try start(Subject()) { $0.port = port }
        #expect(ask(port, "GET", "/livez").status == 200)
        again.stop()
    }

    @Test func listensOnIPv6() throws {
        let server = try start(Subject()) { $0.host = "::1" }
        #expect(server.address == "tcp6:[::1]:\(server.port)")
        server.stop()
    }

    @Test func spellsJSONStrings() throws {
        for text in ["", "a\"b\\c", "\u{0}\u{1F}\u{7F}\n\r\t", "ü🐦"] {
            let data = Data("[\(JSONString.quoted(text))]".utf8)
            #expect(try JSONSerialization.jsonObject(with: data) as? [String] == [text])
        }
    }
}
