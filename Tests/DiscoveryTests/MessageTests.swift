// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Discovery

/// What DNS, etcd and Kubernetes say, and hostile versions of it.
struct MessageTests {
    static func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    // MARK: Sources

    @Test(arguments: [
        (["a:1", "b"], MemberSource.fixed([Member(host: "a", port: 1), Member(host: "b", port: 11211)])),
        (["[::1]:5"], .fixed([Member(host: "::1", port: 5)])), (["file:/etc/members"], .file("/etc/members")),
        (["dns+cache.example:5"], .addresses(host: "cache.example", port: 5)),
        (["dnssrv+_m._tcp.example"], .services("_m._tcp.example")),
        (["dnssrvnoa+_m._tcp.example"], .serviceNames("_m._tcp.example")),
    ])
    func sourcesAreNamedByTexts(_ texts: [String], _ expected: MemberSource) throws {
        #expect(try MemberSource(texts) == expected)
    }

    @Test func etcdAndKubernetesHaveAddresses() throws {
        guard case .etcd(let etcd) = try MemberSource(["etcd+https://a:1,[::1]/martlet/main"]) else {
            Issue.record("no etcd")
            return
        }
        #expect(etcd.endpoints == ["https://a:1", "https://[::1]:2379"])
        #expect(etcd.prefix == "/martlet/main/")
        guard case .kubernetes(let service) = try MemberSource(["k8s:///prod/cache:memcached"]) else {
            Issue.record("no Kubernetes")
            return
        }
        #expect(service.base == nil && service.namespace == "prod" && service.service == "cache")
        #expect(service.port == "memcached")
    }

    @Test(arguments: [
        [], ["a:0"], ["a:b"], ["file:"], ["dns+"], ["dnssrv+"], ["dnssrv+a b"], ["etcd://a:1"], ["etcd:///p"],
        ["consul://a/b"], ["k8s://x/a/b"], ["k8s:///a"], ["dnsx+a:1"], ["[::1"], ["k8s:///a/b?c"], ["a:1", "dns+b:1"],
        ["dnssrv+_memcached._tcp.example.org:11211"], ["dns+a:11211,dns+b:11211"], ["k8s:///prod/:80"],
        ["k8s:///prod/cache:99999"], ["k8s:///prod/cache:0"], ["k8s:///prod/cache:-5"], ["k8s:///prod/cache:"],
        ["k8s:///prod//cache"],
    ])
    func otherTextsAreRefused(_ texts: [String]) {
        #expect(throws: MemberSource.Problem.self) { try MemberSource(texts) }
    }

    // MARK: DNS

    /// A response of `answers`, each type, time to live and data, to a question for `a.example`.
    static func response(_ answers: [(type: UInt16, ttl: UInt32, data: [UInt8])]) -> [UInt8] {
        func big(_ number: Int, _ count: Int) -> [UInt8] {
            (0..<count).map { UInt8(number >> (8 * (count - 1 - $0)) & 255) }
        }
        var message = big(1, 2) + big(0x8180, 2) + big(1, 2) + big(answers.count, 2) + big(0, 4)
        message += [1, 97, 7] + bytes("example") + [0] + big(1, 2) + big(1, 2)
        for answer in answers {
            message += [0xc0, 12] + big(Int(answer.type), 2) + big(1, 2) + big(Int(answer.ttl), 4)
            message += big(answer.data.count, 2) + answer.data
        }
        return message
    }

    @Test func addressesAndServicesAreRead() throws {
        let target = [3] + Self.bytes("one") + [0xc0, 14]
        let message = try #require(
            DNSMessage(
                Self.response([
                    (1, 60, [10, 0, 0, 7]), (28, 30, [0x20, 1] + Array(repeating: 0, count: 13) + [5]),
                    (33, 5, [0, 1, 0, 2, 0x2b, 0xcb] + target), (16, 9, [1, 2]),
                ])))
        #expect(
            message.records == [
                .address(name: "a.example", address: "10.0.0.7", ttlSeconds: 60),
                .address(name: "a.example", address: "2001::5", ttlSeconds: 30),
                .service(priority: 1, weight: 2, port: 11211, target: "one.example", ttlSeconds: 5),
            ])
    }

    @Test(arguments: [
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "::1"), (Array(repeating: UInt8(0), count: 16), "::"),
        ([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1], "2001:db8:1:0:1::1"),
        ([0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8], "1:2:3:4:5:6:7:8"),
    ])
    func addressesOfVersion6AreSpelledInTheShortWay(_ bytes: [UInt8], _ expected: String) throws {
        let message = try #require(DNSMessage(Self.response([(28, 1, bytes)])))
        #expect(message.records == [.address(name: "a.example", address: expected, ttlSeconds: 1)])
    }

    @Test func damagedMessagesEndInNothing() {
        let whole = Self.response([
            (1, 60, [10, 0, 0, 7]), (33, 5, [0, 1, 0, 2, 0x2b, 0xcb, 3] + Self.bytes("one") + [0]),
        ])
        for length in 0..<whole.count { #expect(DNSMessage(Array(whole[..<length])) == nil) }
        // A name that is a part of itself, one beyond the end, and more records than a message holds.
        for (place, byte) in [(12, 0xc0), (12, 0xff), (12, 63), (7, 0xff)] as [(Int, UInt8)] {
            var damaged = whole
            damaged[place] = byte
            _ = DNSMessage(damaged)
        }
        var state: UInt64 = 7
        for _ in 0..<2_000 {
            var damaged = whole
            for _ in 0..<3 {
                state = state &* 6_364_136_223_846_793_005 &+ 1
                damaged[Int(state >> 33) % damaged.count] = UInt8(truncatingIfNeeded: state >> 20)
            }
            _ = DNSMessage(damaged)
        }
    }

    // MARK: etcd

    @Test func requestsNameTheKeysOfAPrefix() {
        #expect(Etcd.end(of: "/a/") == Self.bytes("/a0"))
        #expect(Etcd.listRequest("/a/") == #"{"key":"L2Ev","range_end":"L2Ew"}"#)
        #expect(
            Etcd.watchRequest("/a/", from: 5)
                == #"{"create_request":{"key":"L2Ev","range_end":"L2Ew","start_revision":"5"}}"#)
    }

    @Test func listingsAndNoticesAreRead() throws {
        let listing = try #require(
            Etcd.listing(
                Self.bytes(#"{"header":{"revision":"7"},"kvs":[{"key":"L2EveA==","value":"e30="}],"count":"1"}"#)))
        #expect(listing == Etcd.Listing(values: ["/a/x": Self.bytes("{}")], revision: 7))
        #expect(Etcd.listing(Self.bytes("{}")) == nil)
        #expect(Etcd.notice(Self.bytes(#"{"result":{"header":{},"created":true}}"#)) == .nothing)
        let put = #"{"kv":{"key":"L2EveA==","value":"MQ=="}}"#
        let events = #"{"result":{"events":["# + put + #",{"type":"DELETE","kv":{"key":"L2EveQ=="}}]}}"#
        #expect(Etcd.notice(Self.bytes(events)) == .changes([("/a/x", Self.bytes("1")), ("/a/y", nil)]))
        #expect(Etcd.notice(Self.bytes(#"{"result":{"canceled":true,"compact_revision":"9"}}"#)) == .over(""))
        #expect(Etcd.notice(Self.bytes(#"{"error":{"message":"x"}}"#)) == .over(""))
        #expect(Etcd.notice(Self.bytes("nonsense")) == .over(""))
        #expect(Etcd.lease(Self.bytes(#"{"ID":"77","TTL":"10"}"#))?.id == 77)
        #expect(Etcd.lease(Self.bytes(#"{"result":{"ID":"77","TTL":"9"}}"#))?.seconds == 9)
    }

    @Test func aMemberSurvivesItsKey() {
        let member = Member(host: "h\"1", address: "10.0.0.1", port: 5, weight: 2, name: "n\\", zone: "z")
        let values = ["/a/n": Self.bytes(Etcd.value(of: member)), "/a/bad": Self.bytes("{}")]
        let read = Etcd.members(values, prefix: "/a/")
        #expect(read.members == [member])
        #expect(read.problems.count == 1)
        let warming = Member(host: "h", port: 5, name: "n", isWarming: true)
        let told = Etcd.members(["/a/n": Self.bytes(Etcd.value(of: warming))], prefix: "/a/")
        #expect(told.members == [warming] && told.members.first != Member(host: "h", port: 5, name: "n"))
        #expect(Etcd.isAlike(Self.bytes(Etcd.value(of: warming)), Member(host: "h", port: 5)))
        #expect(!Etcd.isAlike(Self.bytes(Etcd.value(of: warming)), Member(host: "h", port: 6)))
        let plain = Etcd.members(["/a/one": Self.bytes(#"{"host":"h","port":1}"#)], prefix: "/a/").members
        #expect(plain == [Member(host: "h", port: 1, name: "one")])
    }

    // MARK: Kubernetes

    static func slice(_ name: String, _ endpoints: String, type: String = "IPv4", version: Int = 1) -> String {
        """
        {"metadata":{"name":"\(name)","resourceVersion":"\(version)"},"addressType":"\(type)",
        "ports":[{"name":"metrics","port":9150},{"name":"memcached","port":11211}],"endpoints":[\(endpoints)]}
        """
    }

    static func list(_ slices: String...) -> [UInt8] {
        bytes("{\"metadata\":{\"resourceVersion\":\"50\"},\"items\":[\(slices.joined(separator: ","))]}")
    }

    @Test func readyEndpointsOfAllSlicesAreMembers() {
        var slices = EndpointSlices(port: "memcached")
        let first = """
            {"addresses":["10.0.0.1"],"conditions":{"ready":true},"hostname":"cache-0","zone":"a"},
            {"addresses":["10.0.0.2"],"conditions":{"ready":false}},
            {"addresses":["10.0.0.3"],"conditions":{"ready":true,"terminating":true}}
            """
        let listing = Self.list(
            Self.slice("s1", first), Self.slice("s2", #"{"addresses":["10.0.0.4"]}"#),
            Self.slice("s6", #"{"addresses":["fd00::1"]}"#, type: "IPv6"))
        let answer1 = slices.list(listing)
        #expect(answer1)
        #expect(
            slices.members == [
                Member(host: "cache-0", address: "10.0.0.1", port: 11211, name: "cache-0", zone: "a"),
                Member(host: "10.0.0.4", address: "10.0.0.4", port: 11211),
            ])
        #expect(slices.resourceVersion == "50")
    }

    @Test func aWatchGoesOnFromItsLastVersion() {
        var slices = EndpointSlices(port: nil)
        let answer2 = slices.list(Self.list(Self.slice("s1", #"{"addresses":["10.0.0.1"]}"#)))
        #expect(answer2)
        #expect(slices.members.map(\.port) == [9150])
        let added = "{\"type\":\"ADDED\",\"object\":\(Self.slice("s2", #"{"addresses":["10.0.0.2"]}"#, version: 60))}"
        let answer3 = slices.event(Self.bytes(added))
        #expect(answer3 == .changed)
        #expect(slices.members.map(\.host) == ["10.0.0.1", "10.0.0.2"])
        let bookmark = #"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"70"}}}"#
        let answer4 = slices.event(Self.bytes(bookmark))
        #expect(answer4 == .bookmark)
        #expect(slices.resourceVersion == "70")
        let deleted = "{\"type\":\"DELETED\",\"object\":\(Self.slice("s1", "", version: 80))}"
        let answer5 = slices.event(Self.bytes(deleted))
        #expect(answer5 == .changed)
        #expect(slices.members.map(\.host) == ["10.0.0.2"])
        let gone = #"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old resource version"}}"#
        let answer6 = slices.event(Self.bytes(gone))
        #expect(answer6 == .expired("too old resource version"))
        let refused = #"{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is away"}}"#
        let answer9 = slices.event(Self.bytes(refused))
        #expect(answer9 == .refused("etcd is away"))
        let answer7 = slices.event(Self.bytes("nonsense"))
        #expect(answer7 == .expired("a line that cannot be read"))
        let answer8 = slices.list(Self.bytes("{}"))
        #expect(!answer8)
    }

    // MARK: Files

    @Test func filesListMembers() throws {
        let yaml = """
            members:
              - 10.0.0.1:5
              - {host: cache.example, port: 6, weight: 2, name: two, zone: a}
              - {address: "[::1]:7"}
              - {address: "a:8", state: warming}
              - {address: "b:9", state: up}
            """
        #expect(
            try FileSource.members(Self.bytes(yaml), file: "m") == [
                Member(host: "10.0.0.1", port: 5),
                Member(host: "cache.example", port: 6, weight: 2, name: "two", zone: "a"),
                Member(host: "::1", port: 7), Member(host: "a", port: 8, isWarming: true), Member(host: "b", port: 9),
            ])
        #expect(try FileSource.members(Self.bytes(#"["a:1"]"#), file: "m") == [Member(host: "a", port: 1)])
        for bad in [
            "a: b", "- {port: 5}", "- {host: a, port: x}", "- {host: a, weight: 0}", "- [a]", "- {host: a, x: 1}",
            "- {host: a, state: down}",
        ] {
            #expect(throws: (any Error).self) { try FileSource.members(Self.bytes(bad), file: "m") }
        }
    }
}
