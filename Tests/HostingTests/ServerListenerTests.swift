// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Hosting

private let rules = ListenerRules(
    port: 11211, isTLSEnabled: false, requiresAuthentication: false, restriction: .automatic)

private func listeners(_ list: String, _ rules: ListenerRules = rules) throws(BadListener) -> [ServerListener] {
    try ServerListener.parse(list, rules).listeners
}

@Suite struct ServerListenerTests {
    static let addresses: [(String, String?, UInt16)] = [
        ("127.0.0.1", "127.0.0.1", 11211), ("127.0.0.1:5", "127.0.0.1", 5), ("127.0.0.1:0", "127.0.0.1", 0),
        ("127.0.0.1:-1", "127.0.0.1", 0), ("localhost", "localhost", 11211), ("*", nil, 11211), ("*:7", nil, 7),
        ("::1", "::1", 11211), ("[::1]", "::1", 11211), ("[::1]:8", "::1", 8), ("[127.0.0.1]:9", "127.0.0.1", 9),
        ("::", "::", 11211), ("fe80::1%lo:5", "fe80::1%lo:5", 11211),
    ]

    @Test(arguments: addresses)
    func readsAnAddress(_ text: String, _ host: String?, _ port: UInt16) throws {
        let found = try listeners(text)
        #expect(found.map(\.host) == [host])
        #expect(found.map(\.port) == [port])
    }

    @Test func splitsAtCommasAndSemicolons() throws {
        #expect(try listeners("a,b;c,,d").map(\.host) == ["a", "b", "c", "d"])
    }

    @Test func readsProtocolsAndTags() throws {
        let list = "proto[ascii]:tag[web]:127.0.0.1:1,proto[binary]:[::1]:2,tag_jobs_:127.0.0.1,proto[b]:*,proto[x]:*"
        let found = try listeners(list)
        #expect(found.map(\.restriction) == [.ascii, .binary, .automatic, .binary, .automatic])
        #expect(found.map(\.tag) == ["web", "", "jobs", "", ""])
        #expect(found.map(\.host) == ["127.0.0.1", "::1", "127.0.0.1", nil, nil])
        #expect(found.map(\.port) == [1, 2, 11211, 11211, 11211])
    }

    @Test func hostsThatOnlyBeginLikeATagAreHosts() throws {
        #expect(
            try listeners("tagged.example,protocol.example:5").map(\.host) == ["tagged.example", "protocol.example"])
    }

    @Test(arguments: ["127.0.0.1:65536", "127.0.0.1:-2", "127.0.0.1:", "127.0.0.1:5x", "[::1]:x", ":5"])
    func refusesWhatIsNoAddress(_ text: String) {
        #expect(throws: BadListener.self) { try listeners(text) }
    }

    @Test func refusesTLSWordsWithoutTLS() {
        for word in ["notls", "btls", "mtls"] {
            #expect(throws: BadListener.self) { try listeners("\(word):127.0.0.1") }
        }
    }
}
