// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Memory
import Platform
import Reactor
import Testing

/// Certificates made with the openssl command, once for all tests.
struct TestCertificates {
    let directory: String

    static let shared = Result { try TestCertificates() }

    private init() throws {
        directory = temporaryPath("certificates")
        guard unsafe mkdir(directory, 0o700) == 0 else { throw TestFailure("mkdir: errno \(errno)") }
        try authority("ca", "Test Authority")
        try authority("other", "Other Authority")
        try issue("server", "localhost", by: "ca")
        try issue("renewed", "renewed.example", by: "ca")
        try issue("client", "a client", by: "ca")
        try issue("stranger", "a stranger", by: "other")
        try openssl("pkey", "-in", "server.key", "-outform", "DER", "-out", "server.der")
    }

    func path(_ name: String) -> String { "\(directory)/\(name)" }

    private func authority(_ name: String, _ subject: String) throws {
        try openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=\(subject)", "-keyout", "\(name).key", "-out", "\(name).crt")
    }

    private func issue(_ name: String, _ subject: String, by authority: String) throws {
        try openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=\(subject)",
            "-keyout",
            "\(name).key", "-out", "\(name).csr")
        try openssl(
            "x509", "-req", "-in", "\(name).csr", "-CA", "\(authority).crt", "-CAkey", "\(authority).key",
            "-CAcreateserial", "-days", "2", "-out", "\(name).crt")
    }

    private func openssl(_ arguments: String...) throws {
        let child = try ChildProcess(["openssl"] + arguments, directory: directory)
        guard child.status == 0 else { throw TestFailure("openssl \(arguments[0]): \(child.errors)") }
    }
}

/// `openssl s_client` as a client: what came back, with what it says of the handshake before.
struct TLSClient {
    let output: [UInt8]

    init(
        port: UInt16, _ input: [UInt8], _ arguments: [String] = [], mayRead: () -> Bool = { true }
    ) throws {
        let words = ["openssl", "s_client", "-connect", "127.0.0.1:\(port)", "-nocommands", "-ign_eof"]
        output = try ChildProcess(words + arguments, input: input, mayRead: mayRead).output
    }

    var text: String { String(decoding: output, as: UTF8.self) }
}

extension ReactorSuite {
    @Suite struct TLS {
        private func configuration(_ change: (inout TLSConfiguration) -> Void = { _ in }) throws -> TLSConfiguration {
            let files = try TestCertificates.shared.get()
            var configuration = TLSConfiguration(chainPath: files.path("server.crt"), keyPath: files.path("server.key"))
            change(&configuration)
            return configuration
        }

        private func server(
            _ security: ListenerConfiguration.Security = .tls, _ tls: TLSContext,
            _ configure: (inout ReactorConfiguration) -> Void = { _ in }
        ) throws -> TestServer {
            let listener = ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0), security: security)
            return try TestServer([listener], tls: tls, configure)
        }

        private func ask(_ server: TestServer, _ text: String, _ arguments: [String] = []) throws -> TLSClient {
            try TLSClient(port: server.port, Array("\(text)\nclose\n".utf8), arguments)
        }

        private func certificate(_ name: String) throws -> [String] {
            let files = try TestCertificates.shared.get()
            return ["-cert", files.path("\(name).crt"), "-key", files.path("\(name).key")]
        }

        @Test(arguments: ["-tls1_2", "-tls1_3"]) func answers(version: String) throws {
            let server = try server(.tls, try TLSContext(try configuration()))
            let client = try ask(server, "echo secret", [version])
            #expect(client.text.contains("echo secret\nbye\n"))
            #expect(server.seen.opened == 1)
            #expect(server.count(.handshakeErrors) == 0)
        }

        @Test(arguments: ["-tls1_2", "-tls1_3"]) func carriesMuchBothWays(version: String) throws {
            let server = try server(.tls, try TLSContext(try configuration()))
            let count = 3_000_000
            let value = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            let input = Array("fill \(count)\n".utf8) + value + Array("external 2000000\necho x\nclose\n".utf8)
            let client = try TLSClient(port: server.port, input, [version])
            let expected =
                "filled \(count) \(stableHash(value.span))\n<"
                + String(repeating: "e", count: 2_000_000) + ">\necho x\nbye\n"
            #expect(client.text.contains(expected))
            #expect(eventually { server.seen.released == [1] })
            #expect(server.count(.protocolErrors) == 0)
        }

        @Test func swallowsAndYieldsOverTLS() throws {
            let server = try server(.tls, try TLSContext(try configuration()))
            let input =
                "swallow 500000\n" + String(repeating: "\n", count: 500_000) + "go\n"
                + String(repeating: "turn\n", count: 5_000) + "close\n"
            let client = try TLSClient(port: server.port, Array(input.utf8))
            #expect(client.text.contains("swallowing\n" + String(repeating: "turned\n", count: 5_000) + "bye\n"))
        }

        @Test(arguments: ["-tls1_2", "-tls1_3"]) func aSlowReaderGetsEverything(version: String) throws {
            let server = try server(.tls, try TLSContext(try configuration()))
            let input = "external 5000000\nexternal 10\nbig 4000001\necho x\nclose\n"
            let client = try TLSClient(
                port: server.port, Array(input.utf8), [version],
                mayRead: { server.count(.partialWrites) >= 1 })
            #expect(server.count(.partialWrites) >= 1)
            let value = (0..<4_000_001).map { UInt8(truncatingIfNeeded: $0) }
            let expected =
                Array("<\(String(repeating: "e", count: 5_000_000))>\n<eeeeeeeeee>\n".utf8) + value
                + Array("echo x\nbye\n".utf8)
            let start = client.output.firstIndex(of: UInt8(ascii: "<")) ?? 0
            #expect(client.output[start...].starts(with: expected))
            #expect(eventually { server.seen.released == [1, 2] })
            #expect(server.count(.protocolErrors) == 0)
        }

        @Test func refusesVersionsBelowTheMinimum() throws {
            let context = try TLSContext(try configuration { $0.minimumVersion = .tls13 })
            let server = try server(.tls, context)
            #expect(try !ask(server, "echo old", ["-tls1_2"]).text.contains("echo old"))
            #expect(eventually { server.count(.handshakeErrors) == 1 })
            #expect(try ask(server, "echo new", ["-tls1_3"]).text.contains("echo new"))
            #expect(server.seen.opened == 1)
        }

        @Test func usesTheGivenCiphers() throws {
            let context = try TLSContext(try configuration { $0.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384" })
            let server = try server(.tls, context)
            let other = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]
            #expect(try !ask(server, "echo a", other).text.contains("echo a"))
            #expect(try ask(server, "echo b", ["-tls1_2"]).text.contains("echo b"))
        }

        @Test func readsAKeyInDER() throws {
            let files = try TestCertificates.shared.get()
            let context = try TLSContext(
                try configuration {
                    $0.keyPath = files.path("server.der")
                    $0.keyFormat = .der
                })
            let server = try server(.tls, context)
            #expect(try ask(server, "echo der").text.contains("echo der"))
        }

        @Test func namesTheFileThatDoesNotWork() throws {
            let files = try TestCertificates.shared.get()
            var wrong = try configuration { $0.chainPath = "/nonexistent/chain" }
            #expect(try message(wrong).contains("/nonexistent/chain"))
            wrong = try configuration { $0.keyPath = files.path("client.key") }
            #expect(try message(wrong).contains("client.key"))
            wrong = try configuration { $0.authorityPath = files.path("server.key") }
            #expect(try message(wrong).contains("server.key"))
            wrong = try configuration { $0.ciphers = "NONSENSE" }
            #expect(try message(wrong).contains("NONSENSE"))
        }

        private func message(_ configuration: TLSConfiguration) throws -> String {
            let error = #expect(throws: TLSError.self) { try TLSContext(configuration) }
            return error?.description ?? ""
        }

        @Test(arguments: TLSConfiguration.VerifyMode.allCases)
        func asksForClientCertificates(mode: TLSConfiguration.VerifyMode) throws {
            let files = try TestCertificates.shared.get()
            let context = try TLSContext(
                try configuration {
                    $0.verifyMode = mode
                    $0.authorityPath = files.path("ca.crt")
                })
            let server = try server(.tls, context)
            let isRequired = mode == .require || mode == .once
            #expect(try ask(server, "echo none").text.contains("echo none") == !isRequired)
            let known = try ask(server, "subject", try certificate("client")).text
            #expect(known.contains(mode == .none ? "nobody\nbye" : "a client\nbye"))
            let stranger = try ask(server, "echo stranger", try certificate("stranger")).text
            #expect(stranger.contains("echo stranger") == (mode == .none))
            #expect(eventually { server.count(.handshakeErrors) == (isRequired ? 2 : mode == .none ? 0 : 1) })
        }

        @Test func listenersOverrideTheMode() throws {
            let files = try TestCertificates.shared.get()
            let context = try TLSContext(try configuration { $0.authorityPath = files.path("ca.crt") })
            let mutual = try server(.mutualTLS, context)
            #expect(try !ask(mutual, "echo a").text.contains("echo a"))
            #expect(try ask(mutual, "subject", try certificate("client")).text.contains("a client"))
            let strict = try TLSContext(
                try configuration {
                    $0.authorityPath = files.path("ca.crt")
                    $0.verifyMode = .require
                })
            let lenient = try server(.tlsWithoutPeer, strict)
            #expect(try ask(lenient, "echo b").text.contains("echo b"))
        }

        @Test func aPlainListenerStandsBesideATLSOne() throws {
            let server = try TestServer(
                [
                    ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0)),
                    ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0), security: .tls),
                ], tls: try TLSContext(try configuration()))
            let plain = try TestClient(port: server.port)
            try plain.send("echo plain\n")
            #expect(try plain.line() == "echo plain")
            let secret = try TLSClient(port: server.group.listeners[1].port, Array("echo secret\nclose\n".utf8))
            #expect(secret.text.contains("echo secret"))
        }

        @Test func refusesATLSListenerWithoutTLS() throws {
            let group = try ReactorGroup(ReactorConfiguration()) { ScriptHandler($0, .init(.init())) }
            #expect(throws: ListenError.self) {
                try group.listen(ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0), security: .tls))
            }
        }

        @Test func reloadsCertificates() throws {
            let files = try TestCertificates.shared.get()
            let chain = temporaryPath("chain"), key = temporaryPath("key")
            try copyFile(files.path("server.crt"), to: chain)
            try copyFile(files.path("server.key"), to: key)
            let context = try TLSContext(TLSConfiguration(chainPath: chain, keyPath: key))
            let loaded = context.loadedNanoseconds
            let server = try server(.tls, context)
            #expect(try ask(server, "echo a").text.contains("CN = localhost"))

            unsafe _ = unlink(chain)
            #expect(throws: TLSError.self) { try context.reload() }
            #expect(try ask(server, "echo b").text.contains("CN = localhost"), "the old one stays")

            try copyFile(files.path("renewed.crt"), to: chain)
            try copyFile(files.path("renewed.key"), to: key)
            try context.reload()
            let renewed = try ask(server, "echo c").text
            #expect(renewed.contains("CN = renewed.example") && renewed.contains("echo c"))
            #expect(context.loadedNanoseconds > loaded)
        }

        @Test(arguments: [false, true], ["-tls1_2", "-tls1_3"])
        func resumesSessionsWhenThereIsACache(hasCache: Bool, version: String) throws {
            let context = try TLSContext(try configuration { $0.hasSessionCache = hasCache })
            let server = try server(.tls, context)
            let session = temporaryPath("session")
            let first = try ask(server, "echo a", [version, "-sess_out", session])
            #expect(first.text.contains("echo a"))
            #expect(try ask(server, "echo b", [version]).text.contains("New, TLS"))
            if fileMode(session) != nil {
                let second = try ask(server, "echo c", [version, "-sess_in", session])
                #expect(second.text.contains("echo c"))
                #expect(second.text.contains("Reused, TLS") == hasCache)
            } else {
                #expect(!hasCache)
            }
            #expect(server.count(.newSessions) == (hasCache ? 2 : 0))
        }

        @Test func ticketsSurviveAReload() throws {
            let context = try TLSContext(try configuration { $0.hasSessionCache = true })
            let server = try server(.tls, context)
            let session = temporaryPath("session")
            _ = try ask(server, "echo a", ["-tls1_2", "-sess_out", session])
            try context.reload()
            #expect(try ask(server, "echo b", ["-tls1_2", "-sess_in", session]).text.contains("Reused, TLS"))
        }

        @Test func somethingElseThanTLSIsAHandshakeError() throws {
            let server = try server(.tls, try TLSContext(try configuration()))
            let client = try TestClient(port: server.port)
            try client.send("get a\r\n")
            _ = try client.rest()
            #expect(eventually { server.count(.handshakeErrors) == 1 })
            #expect(server.seen.opened == 0)
            #expect(server.seen.closed.isEmpty)
            #expect(eventually { server.group.connectionCount == 0 })
        }

        @Test func aHandshakeHasADeadline() throws {
            let server = try server(.tls, try TLSContext(try configuration())) { $0.handshakeTimeoutMilliseconds = 300 }
            let client = try TestClient(port: server.port)
            #expect(eventually { server.group.connectionCount == 1 })
            #expect(eventually { server.group.describeConnections().last?.state == .handshaking })
            #expect(client.closes(within: 5))
            #expect(server.count(.handshakeErrors) == 1)
        }
    }
}
