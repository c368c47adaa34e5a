// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Routing
import Testing

/// What finding a request's destination allocates: nothing, whatever the pool's hash and the shape of the tree.
@Suite(.serialized, .enabled(if: countsThreadAllocations && !isDebugBuild, "only a release build with jemalloc tells"))
struct RouteAllocationTests {
    static let schemes: [HashScheme] = [
        .multiProbe, .ketama(.libmemcached, .oneAtATime), .ketama(.libmemcachedWeighted, .md5),
        .ketama(.twemproxy, .fnv1aLower64), .ketama(.uhashring, .md5), .ch3, .weightedCh3, .rendezvous,
        .weightedRendezvous, .pymemcacheRendezvous, .jump, .modulo(.crc32a), .twemproxyModula(.md5),
    ]

    /// Prefixes above operations above a hash of pools.
    static func plan(_ scheme: HashScheme) throws -> RoutePlan {
        var tree = RouteTree()
        var handles: [RouteTree.ID] = []
        for name in ["a", "b"] {
            var pool = RoutePool(name, servers: (0..<10).map { PoolServer(Server(host: "\(name)\($0)", port: 1)) })
            pool.hash = HashChoice(scheme, part: .beforeHashStop, salt: [1, 2])
            handles.append(try tree.add(.pool(try tree.add(pool))))
        }
        let hash = try tree.add(.hash(handles, names: [], weights: [], HashChoice(.ch3)))
        let operations = try tree.add(.operations([.get: hash, .delete: handles[1]], otherwise: handles[0]))
        let choice = PrefixChoice(["user:": operations, "key": hash], otherwise: handles[0])
        try tree.setCluster(try RoutingPrefix("/east/one/"), choice)
        try tree.setCluster(try RoutingPrefix("/west/one/"), PrefixChoice(otherwise: handles[1]))
        var defaults = RouteDefaults()
        defaults.routingPrefix = "/east/one/"
        return try RoutePlan(tree, defaults: defaults)
    }

    @Test(arguments: schemes)
    func findingADestinationAllocatesNothing(_ scheme: HashScheme) throws {
        let plan = try Self.plan(scheme)
        let keys = ["k", "user:1", "user:2|#|x", "key3", "/west/one/k", "/east/one/user:4"].map { Array($0.utf8) }
        var found = 0
        func round() {
            for key in keys {
                for operation in RouteOperation.allCases {
                    found += Int(plan.target(of: key.span, for: operation).destination)
                }
            }
        }
        round()
        let before = threadAllocatedBytes()
        for _ in 0..<100 { round() }
        #expect(threadAllocatedBytes() - before == 0)
        #expect(found > 0)
    }
}
