// Martlet
// SPDX-License-Identifier: Apache-2.0

import Routing
import Settings
import Testing

@testable import RouteConfiguration

/// mcrouter's configurations: every handle that is supported, in the forms it may be written in.
struct MCRouterFileTests {
    /// The handle that a route becomes.
    static func handle(_ route: String, more: String = "") throws -> (RouteHandle, RouteTree) {
        let tree = try Loading.load(Loading.mcrouter(route, more: more), .mcrouter).tree
        let root = try #require(tree.clusters.first?.selector.otherwise)
        return (tree[root], tree)
    }

    /// Where a request of `k` goes when nothing is there.
    static func destinations(
        _ operation: RouteOperation, _ route: String, key: String = "k", more: String = ""
    ) throws -> [String] {
        let plan = try Loading.plan(try Loading.load(Loading.mcrouter(route, more: more), .mcrouter))
        return plan.explain(operation, key: Array(key.utf8), clock: Loading.clock).destinations.map {
            String($0.split(separator: ":")[0])
        }
    }

    @Test(arguments: [
        (#""PoolRoute|A""#, ["10.0.0.1"]), (#"{"type": "PoolRoute", "pool": "B"}"#, ["10.0.0.2"]),
        (#"{"type": "PoolRoute", "pool": {"name": "X", "servers": ["[::1]:5"]}}"#, ["["]),
        (#""AllSyncRoute|Pool|W""#, ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"]), (#""NullRoute""#, []),
        (#"{"type": "DevNullRoute"}"#, []), (#""ErrorRoute|closed""#, []),
        (#"{"type": "AllSyncRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}"#, ["10.0.0.1", "10.0.0.2"]),
        (#"{"type": "AllAsyncRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}"#, ["10.0.0.1", "10.0.0.2"]),
        (#"{"type": "AllFastestRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}"#, ["10.0.0.1", "10.0.0.2"]),
        (#"{"type": "AllInitialRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}"#, ["10.0.0.2", "10.0.0.1"]),
        (#"{"type": "AllMajorityRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}"#, ["10.0.0.1", "10.0.0.2"]),
        (#"{"type": "RandomRoute", "children": ["PoolRoute|A"]}"#, ["10.0.0.1"]),
        (#"{"type": "MissFailoverRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}"#, ["10.0.0.1", "10.0.0.2"]),
        (#"{"type": "FailoverRoute", "children": ["PoolRoute|A", "PoolRoute|B"]}"#, ["10.0.0.1"]),
        (#"{"type": "FailoverRoute", "children": ["ErrorRoute|x", "PoolRoute|B"]}"#, ["10.0.0.2"]),
        (#"{"type": "WarmUpRoute", "cold": "PoolRoute|A", "warm": "PoolRoute|B"}"#, ["10.0.0.1", "10.0.0.2"]),
        (
            #"{"type": "MigrateRoute", "from": "PoolRoute|A", "to": "PoolRoute|B", "start_time": 1, "interval": 5}"#,
            ["10.0.0.2"]
        ),
        (
            #"{"type": "KeySplitRoute", "destination": "PoolRoute|A", "replicas": 2, "all_sync": true}"#, ["10.0.0.1"]
        ),
        (
            #"{"type": "L1L2CacheRoute", "l1": "PoolRoute|A", "l2": "PoolRoute|B", "upgradingL1Exptime": 5}"#,
            ["10.0.0.1", "10.0.0.2"]
        ),
        (#"{"type": "L1L2SizeSplitRoute", "l1": "PoolRoute|A", "l2": "PoolRoute|B", "threshold": 9}"#, ["10.0.0.1"]),
        (#"{"type": "BigValueRoute", "target": "PoolRoute|A", "split_threshold": 10, "batch_size": 2}"#, ["10.0.0.1"]),
        (#"{"type": "ModifyKeyRoute", "target": "PoolRoute|A", "ensure_key_prefix": "x:"}"#, ["10.0.0.1"]),
        (#"{"type": "ModifyExptimeRoute", "target": "PoolRoute|A", "exptime": 5, "action": "min"}"#, ["10.0.0.1"]),
        (#"{"type": "LatencyInjectionRoute", "child": "PoolRoute|A", "before_latency_ms": 5}"#, ["10.0.0.1"]),
        (#"{"type": "OutstandingLimitRoute", "target": "PoolRoute|A", "max_outstanding": 5}"#, ["10.0.0.1"]),
        (
            #"""
            {"type": "RateLimitRoute", "target": "PoolRoute|A", "rates": {"sets_rate": 5},
            "fallback": "PoolRoute|B"}
            """#,
            ["10.0.0.1"]
        ),
        (
            #"""
            {"type": "OperationSelectorRoute", "default_policy": "PoolRoute|A",
            "operation_policies": {"get": "PoolRoute|B"}}
            """#,
            ["10.0.0.2"]
        ),
        (
            #"""
            {"type": "PrefixPolicyRoute", "default_policy": "PoolRoute|A",
            "operation_policies": {"set": "PoolRoute|B"}}
            """#,
            ["10.0.0.1"]
        ),
        (
            #"""
            {"type": "RoutingGroupRoute", "default_policy": "PoolRoute|A",
            "routing_group_policies": {"get_like": "PoolRoute|C"}}
            """#,
            ["10.0.0.3"]
        ),
        (
            #"""
            {"type": "PrefixSelectorRoute", "policies": {"k": "PoolRoute|B", "kk": "PoolRoute|C"},
            "wildcard": "PoolRoute|A"}
            """#,
            ["10.0.0.2"]
        ),
        (#"{"type": "FailoverWithExptimeRoute", "normal": "PoolRoute|A", "failover": ["PoolRoute|B"]}"#, ["10.0.0.1"]),
        (#"{"type": "HashRoute", "children": ["PoolRoute|A"]}"#, ["10.0.0.1"]),
        (#"{"type": "HashRoute", "children": "ErrorRoute|x"}"#, []), (#""HashRoute|PoolRoute|A""#, ["10.0.0.1"]),
    ])
    func everyHandleRoutes(_ route: String, _ expected: [String]) throws {
        #expect(try Self.destinations(.get, route) == expected)
    }

    @Test(arguments: [
        (#""Ch3""#, HashChoice(.ch3, part: .beforeHashStop)),
        (#""Crc32""#, HashChoice(.modulo(.crc32Positive), part: .beforeHashStop)),
        (#"{"hash_func": "Ch3", "salt": "s"}"#, HashChoice(.ch3, part: .beforeHashStop, salt: [115])),
        (#""ConstShard""#, HashChoice(HashChoice.Method.constShard, part: .beforeHashStop)),
        (#"{"hash_func": "WeightedCh3", "weights": [1, 0.5, 0, 1]}"#, HashChoice(.weightedCh3, part: .beforeHashStop)),
        (#"{"hash_func": "Rendezvous", "tags": ["a", "b", "c", "d"]}"#, HashChoice(.rendezvous, part: .beforeHashStop)),
        (
            #"{"hash_func": "WeightedRendezvous", "tags": ["a", "b", "c", "d"], "weights": [1, 2, 3, 4]}"#,
            HashChoice(.weightedRendezvous, part: .beforeHashStop)
        ),
    ])
    func everyHashIsKnown(_ hash: String, _ expected: HashChoice) throws {
        let (handle, tree) = try Self.handle(#"{"type": "PoolRoute", "pool": "W", "hash": \#(hash)}"#)
        guard case .pool(let index) = handle else {
            Issue.record("no pool: \(handle)")
            return
        }
        #expect(tree.pools[index].hash == expected)
        if hash.contains("weights") {
            #expect(tree.pools[index].servers.map(\.server.weight)[2] == (hash.contains("0.5") ? 0 : 3))
        }
        if hash.contains("tags") { #expect(tree.pools[index].servers.map(\.server.alias) == ["a", "b", "c", "d"]) }
    }

    @Test func latestStaysWithAFew() throws {
        let route = #"{"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "Latest", "failover_count": 2}}"#
        let first = try Self.destinations(.get, route)
        for key in ["a", "b", "c"] { #expect(try Self.destinations(.get, route, key: key) == first) }
        let (handle, _) = try Self.handle(route)
        #expect(handle.children.count == 2)
    }

    @Test func poolsSayHowToConnectAndInherit() throws {
        let text = """
            {
              "pools": {
                "base": {"servers": ["a:1", "b:2:ascii:ssl", "unix:/run/m.sock"], "server_timeout": 50,
                         "connect_timeout": 20, "keep_routing_prefix": true, "failure_domains": [1, "rack", 3],
                         "tko_tracker": {"num_tko_threshold_upper": 2, "percent_tko_threshold_lower": 50}},
                "child": {"inherit": "base", "server_timeout": 70, "security_mech": "tls", "protocol": "ascii"}
              },
              "route": {"type": "PoolRoute", "pool": "child", "asynclog_name": "log"}
            }
            """
        let plan = try Loading.plan(try Loading.load(text, .mcrouter))
        let pool = try #require(plan.pools.first)
        #expect(pool.spool == "log")
        #expect(pool.keepsRoutingPrefix)
        #expect(pool.health == PoolHealthLimits(enter: 2, exit: 1))
        #expect(plan.destinations.map(\.name) == ["a:1", "b:2", "/run/m.sock"])
        #expect(plan.destinations.map(\.usesTLS) == [true, true, true])
        #expect(
            plan.destinations.allSatisfy { $0.requestTimeoutMilliseconds == 70 && $0.connectTimeoutMilliseconds == 20 })
        #expect(plan.destinations[0].failureDomain == 1 && plan.destinations[1].failureDomain > 3)
    }

    @Test func aPoolRouteMayWrapItsServers() throws {
        let route = """
            {"type": "PoolRoute", "pool": "W", "max_outstanding": 7, "asynclog": false,
             "slow_warmup": {"failoverTarget": "PoolRoute|A",
                             "settings": {"enable_threshold": 0.2, "disable_threshold": 0.4, "min_requests": 5}},
             "shadows": [{"target": "PoolRoute|B", "index_range": [0, 1], "key_fraction_range": [0, 0.5]}],
             "rates": {"gets_rate": 5, "gets_burst": 10}}
            """
        let (handle, tree) = try Self.handle(route)
        guard case .rateLimit(let hash, let limits, nil) = handle,
            case .hash(let children, _, _, let choice) = tree[hash]
        else {
            Issue.record("\(handle)")
            return
        }
        #expect(limits.gets == RateLimits.Rate(perSecond: 5, burst: 10))
        #expect(children.count == 4 && choice == HashChoice(.ch3, part: .beforeHashStop))
        guard case .shadow(let slow, let shadows) = tree[children[0]], case .slowWarmUp = tree[children[1]],
            case .slowWarmUp(let limited, _, let settings) = tree[slow]
        else {
            Issue.record("\(tree[children[0]])")
            return
        }
        #expect(shadows.first?.keys == 0...0.5)
        #expect(settings.minimumRequests == 5 && settings.enableThreshold == 0.2)
        #expect(tree[limited] == .outstandingLimit(RouteTree.ID(index: limited.index - 4), limit: 7))
        #expect(tree.pools.contains { $0.name == "W" && $0.spool == nil })
    }

    @Test func failoverHasErrorsPoliciesAndLimits() throws {
        let route = """
            {"type": "FailoverRoute", "name": "f", "children": ["PoolRoute|A", "PoolRoute|B", "PoolRoute|C"],
             "failover_errors": {"gets": ["timeout", "tko"], "deletes": []}, "enable_lease_pairing": true,
             "failover_limit": {"rate": 0.1, "burst": 5},
             "failover_policy": {"type": "DeterministicOrderPolicy", "max_tries": 9, "max_error_tries": 2,
                                 "exclude_errors": ["busy"], "enable_failure_domains": true,
                                 "hash": {"hash_func": "WeightedCh3", "weights": [1, 1]}}}
            """
        guard case .failover(let failover) = try Self.handle(route).0 else {
            Issue.record("no failover")
            return
        }
        #expect(failover.errors == FailoverErrors(gets: [.timeout, .tko], updates: nil, deletes: []))
        #expect(failover.limit == FailoverLimit(rate: 0.1, burst: 5))
        #expect(failover.pairsLeases)
        var policy = DeterministicFailover(maximumTries: 3, maximumErrors: 2)
        (policy.excluding, policy.weights, policy.avoidsFailedDomains) = ([.busy], [1, 1, 0.5], true)
        #expect(failover.policy == .deterministic(policy))
    }

    @Test(arguments: [
        (#"{"type": "LeastFailuresPolicy", "max_tries": 2}"#, FailoverPolicy.leastFailures(maximumTries: 2)),
        (#"{"type": "InOrderPolicy", "max_tries": 2}"#, .inOrder(maximumTries: 2, excluding: [])),
        (#"{"type": "RendezvousPolicy", "tags": ["b", "c"]}"#, .rendezvous(tags: ["b", "c"], weights: [])),
    ])
    func everyFailoverPolicyIsKnown(_ policy: String, _ expected: FailoverPolicy) throws {
        let route =
            #"""
            {"type": "FailoverRoute", "children": ["PoolRoute|A", "PoolRoute|B", "PoolRoute|C"],
            "failover_policy": \#(policy)}
            """#
        guard case .failover(let failover) = try Self.handle(route).0 else {
            Issue.record("no failover")
            return
        }
        #expect(failover.policy == expected)
    }

    @Test func saltedFailoverIsAPoolAndItsServers() throws {
        let route = """
            {"type": "SaltedFailoverRoute", "pool": "W",
             "failover_policy": {"type": "DeterministicOrderPolicy", "max_tries": 3, "max_error_tries": 3}}
            """
        #expect(try Self.handle(route).0.children.count == 5)
    }

    @Test func aGutterIsAFailoverWithAnExpiry() throws {
        let (handle, tree) = try Self.handle(
            #"""
            {"type": "FailoverWithExptimeRoute", "normal": "PoolRoute|A", "failover": "PoolRoute|B",
            "failover_exptime": 7}
            """#
        )
        #expect(tree[handle.children[1]] == .modifyExptime(RouteTree.ID(index: 1), .atMost(7)))
    }

    @Test func namedHandlesAreOneHandleWhereverTheyAreNamed() throws {
        let more = """
            "named_handles": {
              "limited": {"type": "RateLimitRoute", "target": "plain", "rates": {"gets_rate": 1}},
              "plain": "PoolRoute|A"
            },
            """
        let (handle, tree) = try Self.handle(
            #"{"type": "AllSyncRoute", "children": ["limited", "limited", "plain"]}"#, more: more)
        #expect(handle.children[0] == handle.children[1])
        #expect(tree.names[handle.children[0]] == "limited")
        let list = #""named_handles": [{"type": "PoolRoute", "name": "x", "pool": "B"}],"#
        #expect(try Self.destinations(.get, #""x""#, more: list) == ["10.0.0.2"])
        let inline = #"{"type": "AllSyncRoute", "children": [{"type": "PoolRoute", "name": "n", "pool": "A"}, "n"]}"#
        let children = try Self.handle(inline).0.children
        #expect(children[0] == children[1])
    }

    @Test func routesHaveRoutingPrefixes() throws {
        let text = """
            {
              "pools": {"A": {"servers": ["a:1"]}, "B": {"servers": ["b:1"]}, "C": {"servers": ["c:1"]},
                        "D": {"servers": ["d:1"]}},
              "routes": [
                {"aliases": ["/east/one/"], "route": {"type": "PrefixSelectorRoute", "policies": {"x": "PoolRoute|D"},
                                                      "wildcard": "PoolRoute|A"}},
                {"aliases": ["/east/two/", "/east/three/"], "route": "PoolRoute|B"},
                {"aliases": ["/west/fallback/"], "route": "PoolRoute|C"}
              ]
            }
            """
        var defaults = RouteDefaults()
        defaults.routingPrefix = "/east/one/"
        let plan = try Loading.plan(try Loading.load(text, .mcrouter, defaults: defaults))
        let cases: [(String, [String])] = [
            ("k", ["a:1"]), ("x1", ["d:1"]), ("/east/one/k", ["a:1"]), ("/east/three/k", ["b:1"]),
            ("/west/any/k", ["c:1"]),
            ("/east/*/k", ["b:1", "a:1"]), ("/*/*/k", ["b:1", "c:1", "a:1"]), ("/east/t*/x", ["b:1"]),
            ("/north/x/k", []),
            ("/*/*/x", ["b:1", "c:1", "d:1"]), ("/east/*o*/k", ["b:1", "a:1"]),
        ]
        for (key, expected) in cases {
            let found = plan.explain(.delete, key: Array(key.utf8), clock: Loading.clock).destinations
            #expect(found == expected, "\(key)")
        }
        #expect(plan.target(of: Array("/east/one/k".utf8).span, for: .get).keyOffset == 10)
        // An unknown prefix may be taken for none.
        defaults.sendsInvalidPrefixToDefault = true
        let lenient = try Loading.plan(try Loading.load(text, .mcrouter, defaults: defaults))
        #expect(lenient.explain(.get, key: Array("/north/x/k".utf8), clock: Loading.clock).destinations == ["a:1"])
    }

    @Test func explanationsNameHandlesAndDestinations() throws {
        let route =
            #"""
            {"type": "FailoverRoute", "name": "f", "children": ["PoolRoute|A", {"type": "ModifyExptimeRoute",
            "target": "PoolRoute|B", "exptime": 5}]}
            """#
        let plan = try Loading.plan(try Loading.load(Loading.mcrouter(route), .mcrouter))
        let explanation = plan.explain(.set, key: Array("k\"".utf8), clock: Loading.clock)
        #expect(
            explanation.text.split(separator: "\n").map { String($0.prefix(40)) } == [
                "root", " failover (f)", "  pool|A|ch3", "   host|pool=A|id=0|ap=10.0.0.1:11211|ti",
                "  modify-exptime|set|exptime=5", "   pool|B|ch3", "    host|pool=B|id=0|ap=10.0.0.2:11211|t",
            ])
        #expect(explanation.destinationText == "10.0.0.1:11211")
        #expect(
            explanation.json.hasPrefix(
                #"{"operation":"set","key":"k\"","destinations":["10.0.0.1:11211"],"handles":[{"depth":0,"#))
    }

    @Test func macrosAndImportsMakeRoutes() throws {
        let text = """
            {
              "macros": {
                "pool": {"type": "macroDef", "params": ["host"], "result": {"servers": ["%host%:11211"]}},
                "home": {"type": "constDef", "result": "%default-region%"}
              },
              "pools": {"type": "transform", "dictionary": "@import(hosts.json)", "itemTransform": "@pool(%item%)"},
              "route": {"type": "if", "condition": "@equals(%home%,.)", "is_true": "PoolRoute|main",
                        "is_false": "NullRoute"}
            }
            """
        let configuration = try Loading.load(
            text, .mcrouter, files: ["/etc/hosts.json": #"{"main": "10.9.9.9", "other": "10.9.9.8"}"#])
        #expect(configuration.files == ["/etc/routes.json", "/etc/hosts.json"])
        let plan = try Loading.plan(configuration)
        #expect(plan.explain(.get, key: [107], clock: Loading.clock).destinations == ["10.9.9.9:11211"])
    }

    @Test(arguments: [
        (#"{"type": "SRRoute", "service_name": "x"}"#, "SRRoute is not supported: it needs"),
        (#"{"type": "PoolRoot", "pool": "A"}"#, "did you mean PoolRoute?"), (#""PoolRoute|X""#, "there is no pool X"),
        (#"{"type": "PoolRoute", "pool": "A", "bucketize": true}"#, "bucketize is not supported"),
        (#"{"type": "PoolRoute", "pool": "A", "shard_splits": {"1": 0}}"#, "from 1 to"),
        (#"{"type": "PoolRoute", "pool": "A", "shard_splits": {"1": {"new_split": 2}}}"#, "new_split"),
        (
            #"{"type": "PoolRoute", "pool": "A", "shard_splits": {"1": 2}, "split_shard_fanout": 3}"#,
            "split_shard_fanout is not supported"
        ),
        (#"{"type": "ShardSplitRoute", "destination": "PoolRoute|A"}"#, "shard_splits is missing"),
        (
            #"{"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "WeightedCh3Rv", "weights_rv": "x"}}"#,
            "WeightedCh3Rv needs a file of runtime variables"
        ),
        (#"{"type": "PoolRoute", "pool": "A", "max_outstandin": 5}"#, "did you mean max_outstanding?"),
        (#"{"type": "PoolRoute", "pool": "A", "hash": "Ch4"}"#, "the hash_func Ch4 is not supported"),
        (
            #"{"type": "PoolRoute", "pool": "W", "hash": "Ch4"}"#,
            "the hash_func Ch4 is not supported; supported are Ch3"
        ),
        (#"{"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "Rendezvous", "tags": ["a"]}}"#, "as many tags"),
        (
            #"{"type": "FailoverRoute", "children": ["PoolRoute|A", "PoolRoute|B"], "failover_errors": ["tk"]}"#,
            "tk is no error"
        ),
        (
            #"{"type": "FailoverRoute", "children": ["PoolRoute|A", "PoolRoute|B"], "failover_tag": true}"#,
            "failover_tag is not supported"
        ),
        (#"{"type": "MigrateRoute", "from": "PoolRoute|A", "to": "PoolRoute|B"}"#, "start_time is missing"),
        (
            #"{"type": "KeySplitRoute", "destination": "PoolRoute|A", "replicas": 1, "all_sync": true}"#,
            "from 2 to 1000"
        ),
        (#"{"type": "RateLimitRoute", "target": "PoolRoute|A", "rates": {"gets_rate": 0}}"#, "above 0"),
        (
            #"{"type": "OperationSelectorRoute", "operation_policies": {"gett": "PoolRoute|A"}}"#,
            "there is no operation gett"
        ),
        (#"{"type": "LoggingRoute", "target": "PoolRoute|A"}"#, "LoggingRoute is not supported: use"),
        (
            #"{"type": "HashRoute", "children": ["PoolRoute|A", "PoolRoute|B"], "bucketize": true}"#,
            "bucketize is not supported"
        ),
        ("5", "a route handle is a whole number"), ("[]", "0 route handles, where one is expected"),
        (#"{"pool": "A"}"#, "without type"),
        (#"{"type": 5}"#, "type is a whole number"), (#""x""#, "there is no route handle or name 'x'"),
    ])
    func whatIsNotSupportedIsNamedWithItsPlace(_ route: String, _ expected: String) {
        let problem = Loading.problem(Loading.mcrouter(route), .mcrouter)
        #expect(problem.contains(expected) && problem.contains("/etc/routes.json:"), "\(problem)")
    }

    @Test(arguments: [
        (#"{"servers": ["a"]}"#, "expected HOST:PORT"), (#"{"servers": ["a:0"]}"#, "a port from 1 to 65535"),
        (#"{"servers": ["a:1:caret"]}"#, "the protocol caret is not supported"),
        (#"{"servers": [5]}"#, "a server is a whole number"),
        (#"{"servers": "a:1"}"#, "servers is a text"), (#"{}"#, "servers is missing"),
        (#"{"servers": ["a:1"], "protocol": "thrift"}"#, "the protocol thrift is not supported"),
        (#"{"servers": ["a:1"], "server_timeout": 0}"#, "from 1 to 3600000"),
        (#"{"inherit": "P", "servers": ["a:1"]}"#, "inherits from itself"),
        (#"{"inherit": "Q"}"#, "there is no pool Q"),
        (#"{"servers": ["a:1"], "failure_domains": [1, 2]}"#, "2 failure_domains for 1 servers"),
        (
            #"{"servers": ["a:1"], "tko_tracker": {"num_tko_threshold_upper": 1, "num_tko_threshold_lower": 2}}"#,
            "the lower not above"
        ),
    ])
    func poolsThatCannotBeAreRefused(_ pool: String, _ expected: String) {
        let problem = Loading.problem("{\"pools\": {\"P\": \(pool)}, \"route\": \"PoolRoute|P\"}", .mcrouter)
        #expect(problem.contains(expected), "\(problem)")
    }

    @Test func cyclesAndDepthEndInErrors() {
        let cycle =
            #"""
            "named_handles": {"a": "AllSyncRoute|b", "b": {"type": "AllSyncRoute", "children": ["a",
            "PoolRoute|A"]}},
            """#
        #expect(Loading.problem(Loading.mcrouter(#""a""#, more: cycle), .mcrouter).contains("contains itself"))
        var handles: [String] = []
        for index in 0..<5_000 {
            handles.append(
                "\"h\(index)\": {\"type\": \"AllSyncRoute\", \"children\": [\"h\(index + 1)\", \"PoolRoute|A\"]}")
        }
        let chain = "\"named_handles\": {\(handles.joined(separator: ",")), \"h5000\": \"PoolRoute|A\"},"
        #expect(Loading.problem(Loading.mcrouter(#""h0""#, more: chain), .mcrouter).contains("nested more than"))
        let deep = String(repeating: "AllAsyncRoute|", count: 5_000) + "PoolRoute|A"
        #expect(Loading.problem(Loading.mcrouter("\"\(deep)\""), .mcrouter).contains("nested more than"))
    }

    @Test func hugeConfigurationsEndInErrorsOrWork() throws {
        let servers = (0..<20_000).map { "\"10.\($0 / 65_536).\($0 / 256 % 256).\($0 % 256):1\"" }
        let text =
            "{\"pools\": {\"P\": {\"servers\": [\(servers.joined(separator: ","))]}}, \"route\": \"PoolRoute|P\"}"
        let plan = try Loading.plan(try Loading.load(text, .mcrouter))
        #expect(plan.destinations.count == 20_000)
        let children = Array(repeating: "{\"type\": \"ErrorRoute\"}", count: 70_000)
        let many = Loading.mcrouter("{\"type\": \"AllSyncRoute\", \"children\": [\(children.joined(separator: ","))]}")
        #expect(Loading.problem(many, .mcrouter).contains("more than 65536 route handles"))
        let tries = Array(repeating: "\"Pool|W\"", count: 400)
        let long = Loading.mcrouter(
            "{\"type\": \"MissFailoverRoute\", \"children\": [\(tries.joined(separator: ","))]}")
        #expect(Loading.problem(long, .mcrouter).contains("one after the other"))
    }

    /// What is written in our YAML routes the same.
    @Test(arguments: [
        #""PoolRoute|W""#, #""AllSyncRoute|Pool|W""#,
        #"{"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "Crc32", "salt": "x"}}"#,
        #"""
        {"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "WeightedCh3", "weights": [1, 0.5, 0, 1]},
        "asynclog": false}
        """#,
        #"""
        {"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "Rendezvous", "tags": ["a", "b", "c", "d"]},
        "max_outstanding": 3}
        """#,
        #"""
        {"type": "PoolRoute", "pool": "W", "shadows": [{"target": "PoolRoute|A", "index_range": [0, 4],
        "key_fraction_range": [0, 0.5], "requests_fraction": 0.5}]}
        """#,
        #"""
        {"type": "FailoverRoute", "children": ["PoolRoute|A", "PoolRoute|B"], "failover_errors": {"gets": ["tko"],
        "deletes": []}, "failover_limit": {"rate": 0.5}}
        """#,
        #"""
        {"type": "SaltedFailoverRoute", "pool": "W", "failover_policy": {"type": "DeterministicOrderPolicy",
        "max_tries": 3, "max_error_tries": 2, "exclude_errors": ["busy"]}}
        """#,
        #"""
        {"type": "FailoverWithExptimeRoute", "normal": "PoolRoute|W", "failover": ["PoolRoute|A", "PoolRoute|B"],
        "failover_exptime": 10}
        """#,
        #"{"type": "WarmUpRoute", "cold": "PoolRoute|A", "warm": "PoolRoute|W", "exptime": 90}"#,
        #"""
        {"type": "MigrateRoute", "from": "PoolRoute|A", "to": "PoolRoute|W", "start_time": 1700000000,
        "interval": 60}
        """#,
        #"""
        {"type": "L1L2CacheRoute", "l1": "PoolRoute|A", "l2": "PoolRoute|W", "upgradingL1Exptime": 60,
        "ncacheExptime": 5, "ncacheUpdatePeriod": 9}
        """#,
        #"""
        {"type": "L1L2SizeSplitRoute", "l1": "PoolRoute|A", "l2": "PoolRoute|W", "threshold": 100,
        "both_full_set": true, "retries": 3}
        """#,
        #"{"type": "KeySplitRoute", "destination": "PoolRoute|W", "replicas": 3, "all_sync": true}"#,
        #"""
        {"type": "PoolRoute", "pool": "W", "shard_splits": {"1": 3, "2": {"old_split_size": 2, "new_split_size": 4,
        "split_start": 1700000000, "migration_period": 60, "fanout_deletes": true}}}
        """#,
        #"""
        {"type": "ShardSplitRoute", "destination": "PoolRoute|A", "shard_splits": {"1": {"new_split_size": 2}}}
        """#,
        #"""
        {"type": "BigValueRoute", "target": "PoolRoute|W", "split_threshold": 1000, "batch_size": 3,
        "hide_reply_flag": true}
        """#,
        #"""
        {"type": "ModifyKeyRoute", "target": "PoolRoute|W", "ensure_key_prefix": "x:",
        "set_routing_prefix": "/a/b/", "set_key_suffix": "!"}
        """#,
        #"{"type": "ModifyExptimeRoute", "target": "PoolRoute|W", "exptime": 0}"#,
        #"{"type": "ModifyExptimeRoute", "target": "PoolRoute|W", "exptime": -1}"#,
        #"""
        {"type": "LatencyInjectionRoute", "child": "PoolRoute|W", "before_latency_ms": 5,
        "total_latency_percentile_ms": [[50, 1], [100, 9]]}
        """#,
        #"""
        {"type": "RateLimitRoute", "target": "PoolRoute|W", "rates": {"gets_rate": 5, "deletes_rate": 1.5},
        "fallback": "ErrorRoute|too many"}
        """#,
        #"""
        {"type": "OperationSelectorRoute", "default_policy": "PoolRoute|A",
        "operation_policies": {"get": "PoolRoute|W", "delete": "AllSyncRoute|Pool|W"}}
        """#,
        #"""
        {"type": "PrefixSelectorRoute", "policies": {"user:": "PoolRoute|W", "key1": "PoolRoute|C"},
        "wildcard": "NullRoute"}
        """#,
        #"""
        {"type": "HashRoute", "children": ["PoolRoute|A", {"type": "MissFailoverRoute",
        "children": ["PoolRoute|B", "PoolRoute|C"], "return_best_on_error": true}, "ErrorRoute|no: \"x\""],
        "salt": "s"}
        """#,
    ])
    func ourYAMLSaysTheSame(_ route: String) throws {
        let original = try Loading.load(Loading.mcrouter(route), .mcrouter)
        let yaml = original.yaml
        let copy: RouteConfiguration
        do { copy = try Loading.load(yaml, .martlet) } catch {
            Issue.record("\(error)\n\(yaml)")
            return
        }
        #expect(copy.yaml == yaml)
        #expect(try Loading.behaviour(copy) == Loading.behaviour(original), "\(yaml)")
    }
}
