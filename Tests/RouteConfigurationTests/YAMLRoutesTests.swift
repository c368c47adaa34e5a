// Martlet
// SPDX-License-Identifier: Apache-2.0

import Routing
import Settings
import Testing

@testable import RouteConfiguration

/// Our own YAML, and what twemproxy's becomes.
struct YAMLRoutesTests {
    static let pools = """
        pools:
          main: {servers: [10.0.0.1, 10.0.0.2:11212]}
          gutter: {servers: ["[::1]:5", /run/m.sock]}
        """

    static func plan(_ text: String) throws -> RoutePlan { try Loading.plan(try Loading.load(text, .martlet)) }

    static func destinations(_ text: String, _ operation: RouteOperation = .get, key: String = "k") throws -> [String] {
        try plan(text).explain(operation, key: Array(key.utf8), clock: Loading.clock).destinations
    }

    @Test func aPoolIsARoute() throws {
        let plan = try Self.plan(Self.pools + "\nroute: main\n")
        #expect(plan.destinations.map(\.name) == ["10.0.0.1:11211", "10.0.0.2:11212", "[::1]:5", "/run/m.sock"])
        #expect(plan.tree.pools[plan.tree.pools.firstIndex { $0.name == "main" } ?? 0].hash == HashChoice())
        #expect(plan.pools.allSatisfy { $0.spool == nil })
    }

    @Test func poolsSayEverythingAboutTheirServers() throws {
        let text = """
            routing: {prefix: /east/one/, unknownPrefix: default, hostID: 7, timeout: 300ms}
            pools:
              main:
                servers:
                  - {address: a, weight: 2, name: one, domain: rack-1, tls: false}
                  - b:5
                hash: {function: ketamaWeighted, tag: "{}", salt: x}
                timeout: 1500ms
                connectTimeout: 20ms
                tls: true
                spool: false
                ejection: {atMost: 2, againFrom: 1}
                keepRoutingPrefix: true
              found: {members: "dns+cache.example:11211", whenEmpty: miss}
            routes:
              /east/one/: main
              /west/one/: {failover: [main, found]}
            """
        let configuration = try Loading.load(text, .martlet)
        #expect(configuration.defaults.hostID == 7)
        let plan = try Loading.plan(configuration)
        let main = try #require(plan.pools.first { $0.name == "main" })
        #expect(main.spool == nil && main.keepsRoutingPrefix && main.health == PoolHealthLimits(enter: 2, exit: 1))
        let first = plan.destinations[main.destinations[0]]
        #expect(!first.usesTLS && first.requestTimeoutMilliseconds == 1500 && first.connectTimeoutMilliseconds == 20)
        #expect(first.failureDomain != 0)
        #expect(plan.destinations[main.destinations[1]].usesTLS)
        #expect(plan.pools.contains { $0.members == "dns+cache.example:11211" && $0.destinations.isEmpty })
        let found = configuration.tree.replacingMembers { source in
            source == "dns+cache.example:11211" ? [PoolServer(Server(host: "z", port: 1))] : []
        }
        let later = try RoutePlan(found, defaults: configuration.defaults)
        #expect(later.destinations.contains { $0.name == "z:1" })
    }

    @Test(arguments: [
        ("{failover: [main, gutter], ttl: 60s, errors: [timeout, tko], tries: 2}", 1),
        ("{missFailover: [{servers: main}, gutter], bestOnError: true}", 3), ("{allSync: {servers: main}}", 2),
        ("{allSync: [main, gutter]}", 2), ("{allAsync: [main, gutter]}", 2), ("{allFastest: [main, gutter]}", 2),
        ("{allInitial: [main, gutter]}", 2), ("{allMajority: [main, gutter]}", 2), ("{random: [main]}", 1),
        ("{hash: [main, gutter], function: rendezvous, names: [a, b]}", 1),
        ("{prefixes: {k: gutter}, otherwise: main}", 1),
        ("{operations: {reads: gutter, \"set, add\": main}, otherwise: nothing}", 1),
        ("{warmUp: {cold: main, warm: gutter}, ttl: never}", 2), ("{twoLevels: {l1: main, l2: gutter}, ttl: 1m}", 2),
        ("{slowWarmUp: main, otherwise: gutter, enableBelow: 0.1, disableFrom: 0.2}", 1),
        ("{migrate: {from: main, to: gutter}, start: 5, interval: 1h}", 1),
        ("{shadow: main, to: [{route: gutter, range: [0, 1], requests: 1}]}", 2), ("{keySplit: main, replicas: 2}", 1),
        ("{shardSplit: main, shards: {1: 3, 2: {from: 1, to: 2, start: 5, interval: 1m, deletesAll: false}}}", 1),
        ("{rateLimit: main, reads: 100, readsBurst: 500, fallback: gutter}", 1),
        ("{outstandingLimit: main, limit: 9}", 1),
        ("{bigValue: main, threshold: 1MiB, batch: 4}", 1), ("{modifyKey: main, prefix: \"p:\"}", 1),
        ("{modifyTTL: main, atMost: 1h}", 1), ("{sizeSplit: {l1: main, l2: gutter}, threshold: 64k}", 1),
        ("{latency: main, before: 5ms, percentiles: [[50, 1], [100, 5]]}", 1), ("{error: closed, result: busy}", 0),
        ("{hedge: main, to: gutter, after: 0.9, minimum: 2ms, limit: {rate: 0.1, burst: 5}}", 1),
        ("nothing", 0), ("{pool: main}", 1), ("{server: main, index: 1}", 1),
    ])
    func everyHandleRoutes(_ route: String, _ count: Int) throws {
        #expect(try Self.destinations("\(Self.pools)\nroute: \(route)\n").count == count)
    }

    @Test func handlesHaveNames() throws {
        let text = """
            \(Self.pools)
            handles:
              safe: {failover: [main, quick]}
              quick: {modifyTTL: gutter, atMost: 5s}
            route: {prefixes: {"a:": safe, "b:": quick}, otherwise: safe}
            """
        let configuration = try Loading.load(text, .martlet)
        #expect(configuration.tree.names.values.sorted() == ["quick", "safe"])
        #expect(try Loading.load(configuration.yaml, .martlet).yaml == configuration.yaml)
    }

    @Test(arguments: [
        ("route: man", "there is no pool or handle man (did you mean main?)"),
        ("route: {allSink: [main]}", "a handle has one of"),
        ("route: {allSync: [main], random: [main]}", "allSync and random"),
        ("route: {allSync: [main], ttl: 5s}", "ttl is not known"),
        ("route: {allSync: []}", "handles are expected"), ("route: {warmUp: {cold: main}}", "warm is missing"),
        ("route: {bigValue: main, threshold: 5 MB}", "threshold: expected a size"),
        ("route: {server: main, index: 2}", "2 servers"),
        ("route: {failover: [main, gutter], errors: [bad]}", "bad is no error"),
        ("route: {modifyTTL: main}", "either set or atMost"),
        ("route: {hash: [main, gutter], function: md6}", "there is no hash md6"), ("{}", "either route or routes"),
        ("route: {migrate: {from: main, to: gutter}}", "start: seconds"),
        ("route: main\nrout: main", "rout is not known (did you mean route?)"),
        ("handles: {a: {allSync: [b]}, b: {allSync: [a]}}\nroute: a", "contains itself"),
        ("handles: {main: nothing}\nroute: main", "that is taken"),
        ("route: {hedge: main}", "to is missing"), ("route: {hedge: main, to: main}", "to the same servers"),
        ("route: {hedge: main, to: gutter, after: 1}", "after: expected a number from 0.5 to 0.999"),
        ("route: {hedge: main, to: gutter, limit: {rate: 0.6}}", "rate: expected a number from 0.0 to 0.5"),
        ("route: {operations: {got: main}}", "there is no operation got"), ("route:", "a name of a pool"),
    ])
    func problemsAreNamedWithTheirPlace(_ text: String, _ expected: String) {
        let problem = Loading.problem("\(Self.pools)\n\(text == "{}" ? "" : text)\n", .martlet)
        #expect(problem.contains(expected) && problem.contains("/etc/routes.yaml:"), "\(problem)")
    }

    static let stores = """
        pools:
          store: {servers: [a, b], storage: true}
          bounded: {servers: [a, b], storage: true, consistency: bounded, staleness: 5s}
          cache: {servers: [c]}

        """

    @Test(arguments: [
        "{failover: [cache, store]}", "{failover: [{modifyTTL: store, atMost: 1m}, cache]}",
        "{missFailover: [cache, store]}", "{allFastest: {servers: store}}", "{allMajority: [cache, {pool: store}]}",
        "{random: [cache, {server: store, index: 1}]}", "{warmUp: {cold: cache, warm: store}}",
        "{slowWarmUp: store, otherwise: cache}", "{keySplit: store, replicas: 2}", "{hedge: cache, to: store}",
        "{twoLevels: {l1: cache, l2: store}, ttl: 1m}", "{prefixes: {k: {failover: [store, cache]}}, otherwise: cache}",
    ])
    func nothingWeakensAPoolWithStorageUnlessItSaysSo(_ route: String) throws {
        let problem = Loading.problem("\(Self.stores)route: \(route)\n", .martlet)
        #expect(problem.contains("over the pool store, which has storage") && problem.contains(":5:"), "\(problem)")
        let bounded = route.replacing("store", with: "bounded")
        let configuration = try Loading.load("\(Self.stores)route: \(bounded)\n", .martlet)
        #expect(try Loading.load(configuration.yaml, .martlet).yaml == configuration.yaml)
    }

    @Test(arguments: [
        "{allSync: [cache, store]}", "{prefixes: {k: store}, otherwise: cache}",
        "{migrate: {from: store, to: cache}, start: 5, interval: 1h}", "{latency: store, before: 5ms}",
    ])
    func whatReadsFromTheOwnerIsAllowed(_ route: String) throws {
        let configuration = try Loading.load("\(Self.stores)route: \(route)\n", .martlet)
        #expect(try Loading.load(configuration.yaml, .martlet).yaml == configuration.yaml)
    }

    @Test(arguments: [
        ("storage: true, spool: true", "spool: the pool has storage"),
        ("consistency: bounded, staleness: 5s", "of pools with storage: true"),
        ("storage: true, consistency: bounded", "belong together"), ("storage: true, staleness: 1s", "belong together"),
        ("storage: true, consistency: loose", "one of strict, bounded"),
        ("followOwners: true, storage: false", "nodes that own keys have a store"),
    ])
    func whatAPoolSaysOfItsStorageFitsTogether(_ keys: String, _ expected: String) {
        let problem = Loading.problem("pools: {p: {servers: [a], \(keys)}}\nroute: p\n", .martlet)
        #expect(problem.contains(expected), "\(problem)")
    }

    @Test func copiesInTheRouterAreKeptNoLongerThanPoolsAllow() throws {
        func tree(_ keys: String) throws -> RouteTree {
            try Loading.load("pools: {p: {servers: [a], \(keys)}}\nroute: p\n", .martlet).tree
        }
        #expect(try tree("timeout: 1s").refusal(ofCaching: 10) == nil)
        #expect(try tree("storage: true").refusal(ofCaching: 0) == nil)
        #expect(try tree("storage: true").refusal(ofCaching: 1)?.contains("the pool p has storage") == true)
        let bounded = try tree("storage: true, consistency: bounded, staleness: 20ms")
        #expect(bounded.refusal(ofCaching: 20) == nil)
        #expect(bounded.refusal(ofCaching: 21)?.contains("old by 20 ms") == true)
    }

    @Test func keysOfTheProgramAreSkipped() throws {
        let text = Self.pools + "\nroute: main\nlisten: [1.2.3.4:5]\n"
        #expect(throws: SettingsError.self) { try Loading.load(text, .martlet) }
        let configuration = try RouteFile.load("x.yaml", otherKeys: ["listen"]) { _ throws(RouteFile.ReadError) in
            Array(text.utf8)
        }
        #expect(configuration.tree.pools.count == 2)
    }

    @Test func twemproxysPoolsAreConverted() throws {
        let text = """
            alpha:
              listen: 127.0.0.1:22121
              hash: fnv1a_64
              hash_tag: "{}"
              distribution: ketama
              timeout: 400
              auto_eject_hosts: true
              server_retry_timeout: 2000
              servers:
               - 127.0.0.1:11211:1 one
               - 127.0.0.1:11212:3 two
            beta:
              listen: /tmp/beta.sock
              distribution: modula
              servers: [10.0.0.1:11211:1]
            """
        let pools = try TwemproxyFile.convert(Array(text.utf8), file: "nutcracker.yml")
        #expect(pools.map(\.name) == ["alpha", "beta"])
        #expect(pools.map(\.listen) == ["127.0.0.1:22121", "/tmp/beta.sock"])
        let alpha = try Loading.load(pools[0].yaml, .martlet)
        let pool = try #require(alpha.tree.pools.first)
        #expect(pool.hash == HashChoice(.ketama(.twemproxy, .fnv1aLower64), part: .tag(open: 123, close: 125)))
        #expect(pool.servers.map(\.server.weight) == [1, 3])
        #expect(pool.servers.map(\.server.alias) == ["one", "two"])
        #expect(pool.requestTimeoutMilliseconds == 400)
        #expect(pools[0].notes.contains { $0.hasPrefix("auto_eject_hosts") })
    }

    @Test(arguments: [
        ("a: {listen: 'x:1', redis: true, servers: ['a:1:1']}", "memcached's protocols only"),
        ("a: {listen: 'x:1', distribution: random, servers: ['a:1:1']}", "random is not supported"),
        ("a: {listen: 'x:1', hash: md6, servers: ['a:1:1']}", "there is no hash md6"),
        ("a: {servers: ['a:1:1']}", "listen is missing"),
        ("a: {listen: 'x:1', servers: ['a:1']}", "expected HOST:PORT"),
        ("a: {listen: 'x:1', hashh: md5, servers: ['a:1:1']}", "did you mean hash?"),
        ("a: {listen: 'x:1', servers: ['a:1:1', 'a:1:1']}", "two servers are called"), ("", "the file is empty"),
    ])
    func twemproxysOtherPoolsAreRefused(_ text: String, _ expected: String) {
        do {
            _ = try TwemproxyFile.convert(Array(text.utf8), file: "nutcracker.yml")
            Issue.record("was converted")
        } catch {
            #expect(error.description.contains(expected), "\(error)")
        }
    }

    /// The servers that explanations name.
    private static func hosts(_ text: String, _ operation: RouteOperation = .get) throws -> [String] {
        let handles = try plan(text).explain(operation, key: Array("k".utf8), clock: Loading.clock).handles
        return handles.compactMap { line in
            line.text.split(separator: "|").first { $0.hasPrefix("ap=") }.map { String($0.dropFirst(3)) }
        }
    }

    @Test func aPoolsReadsAreHedgedWhereverItIsNamed() throws {
        let text = """
            pools:
              main: {servers: [10.0.0.1], hedge: {to: replica, minimum: 5ms}}
              replica: {servers: [10.0.1.1], hedge: {to: main}}
            route: {operations: {reads: main}, otherwise: {allSync: [main, replica]}}
            """
        #expect(try Self.hosts(text) == ["10.0.0.1:11211", "10.0.1.1:11211"])
        #expect(try Self.hosts(text, .set).count == 2, "and nothing else's")
        let configuration = try Loading.load(text, .martlet)
        #expect(try Loading.behaviour(configuration).contains { $0.contains("hedge") })
        #expect(try Loading.load(configuration.yaml, .martlet).yaml == configuration.yaml)
    }

    @Test func anyServerOfABoundedPoolMayAnswer() throws {
        let text = """
            pools:
              store:
                {servers: [a, b, c], storage: true, consistency: bounded, staleness: 2s, hedge: {after: 0.99}}
            route: store
            """
        let configuration = try Loading.load(text, .martlet)
        let both = try Self.hosts(text)
        #expect(both.count == 2 && Set(both).count == 2)
        #expect(try Self.hosts(text, .set).count == 1)
        #expect(try Loading.load(configuration.yaml, .martlet).yaml == configuration.yaml)
    }

    @Test(arguments: [
        ("{servers: [a, b], storage: true, hedge: {to: other}}", "hedged reads over the pool store, which has storage"),
        ("{servers: [a, b], hedge: {}}", "to is missing"), ("{servers: [a, b], hedge: yes}", "a mapping"),
        ("{servers: [a, b], hedge: {to: store}}", "to the same servers"),
        ("{servers: [a, b], hedge: {to: othr}}", "there is no pool othr"),
        ("{servers: [a], followOwners: true, consistency: bounded, staleness: 1s, hedge: {}}", "to is missing"),
    ])
    func poolsWhoseReadsMayNotBeHedgedAreRefused(_ pool: String, _ problem: String) {
        let text = "pools:\n  other: {servers: [c]}\n  store: \(pool)\nroute: other\n"
        let said = Loading.problem(text, .martlet)
        #expect(said.contains(problem), "\(said)")
    }
}
