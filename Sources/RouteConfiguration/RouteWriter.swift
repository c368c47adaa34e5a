// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Routing

/// Writes a route tree as our YAML, which reads back as the same tree but for the numbers of handles.
struct RouteWriter {
    private let configuration: RouteConfiguration
    private var tree: RouteTree { configuration.tree }
    private var poolNames: [String] = []
    private var references: [Int]
    private var depths: [Int]
    private var names: [Int: String] = [:]

    /// Handles that are written inside of each other, before one gets a name.
    private static var inlineDepth: Int { 5 }

    init(_ configuration: RouteConfiguration) {
        self.configuration = configuration
        references = Array(repeating: 0, count: configuration.tree.handles.count)
        depths = references
        var taken: Set<String> = ["nothing"]
        for pool in configuration.tree.pools {
            var name = pool.name
            var number = 1
            while !taken.insert(name).inserted {
                number += 1
                name = "\(pool.name)-\(number)"
            }
            poolNames.append(name)
        }
        for (index, handle) in configuration.tree.handles.enumerated() {
            for child in handle.children {
                references[child.index] += 1
                depths[index] = max(depths[index], depths[child.index] + 1)
            }
            guard !Self.isSimple(handle) else { continue }
            let isDeep = depths[index] > 0 && depths[index] % Self.inlineDepth == 0
            let own = configuration.tree.names[RouteTree.ID(index: index)]
            if isDeep || own != nil { names[index] = own ?? "route-\(index)" }
        }
        for cluster in configuration.tree.clusters {
            for child in cluster.selector.policies.values { references[child.index] += 1 }
            if let otherwise = cluster.selector.otherwise { references[otherwise.index] += 1 }
        }
        for (index, handle) in configuration.tree.handles.enumerated() where !Self.isSimple(handle) {
            if references[index] > 1, names[index] == nil { names[index] = "route-\(index)" }
        }
        for index in names.keys.sorted() {
            var name = names[index] ?? ""
            while !taken.insert(name).inserted { name += "-route" }
            names[index] = name
        }
    }

    /// Pools and what is as short as a name.
    private static func isSimple(_ handle: RouteHandle) -> Bool {
        switch handle {
        case .pool, .null: true
        default: false
        }
    }

    var text: String {
        var entries: [(key: String, value: YAMLText)] = []
        let used = Set(names.keys.filter { references[$0] > 0 })
        if let routing { entries.append(("routing", routing)) }
        entries.append(("pools", .mapping(tree.pools.indices.map { (poolNames[$0], pool($0)) })))
        let handles = used.sorted().map { (names[$0] ?? "", handle($0, isDefinition: true)) }
        if !handles.isEmpty { entries.append(("handles", .mapping(handles))) }
        let standard = (try? RoutingPrefix(configuration.defaults.routingPrefix))
        if tree.clusters.count == 1, let only = tree.clusters.first, only.prefix == standard {
            entries.append(("route", selector(only.selector)))
        } else {
            entries.append(("routes", .mapping(tree.clusters.map { ($0.prefix.text, selector($0.selector)) })))
        }
        return YAMLText.mapping(entries).written()
    }

    private var routing: YAMLText? {
        var entries: [(key: String, value: YAMLText)] = []
        let defaults = configuration.defaults
        let ordinary = RouteDefaults()
        if defaults.routingPrefix != ordinary.routingPrefix {
            entries.append(("prefix", .text(defaults.routingPrefix)))
        }
        if defaults.sendsInvalidPrefixToDefault { entries.append(("unknownPrefix", .plain("default"))) }
        if defaults.hostID != 0 { entries.append(("hostID", .plain("\(defaults.hostID)"))) }
        if defaults.requestTimeoutMilliseconds != ordinary.requestTimeoutMilliseconds {
            entries.append(("timeout", .plain("\(defaults.requestTimeoutMilliseconds)ms")))
        }
        if let values = defaults.bigValues { entries.append(("bigValues", .mapping(Self.fields(values)))) }
        return entries.isEmpty ? nil : .mapping(entries)
    }

    private func selector(_ selector: PrefixChoice) -> YAMLText {
        if selector.policies.isEmpty, let otherwise = selector.otherwise { return handle(otherwise.index) }
        return .mapping(prefixes(selector))
    }

    private func prefixes(_ choice: PrefixChoice) -> [(key: String, value: YAMLText)] {
        let policies = choice.policies.sorted { $0.key < $1.key }.map { ($0.key, handle($0.value.index)) }
        return [("prefixes", .mapping(policies))] + (choice.otherwise.map { [("otherwise", handle($0.index))] } ?? [])
    }

    // MARK: Pools

    private func pool(_ index: Int) -> YAMLText {
        let pool = tree.pools[index]
        var entries: [(key: String, value: YAMLText)] = []
        if poolNames[index] != pool.name { entries.append(("name", .text(pool.name))) }
        if let members = pool.members {
            entries.append(("members", .text(members)))
        } else {
            entries.append(("servers", .list(pool.servers.map { Self.server($0) })))
        }
        let hash = Self.hash(pool.hash)
        if !hash.isEmpty { entries.append(("hash", .mapping(hash))) }
        if let timeout = pool.requestTimeoutMilliseconds { entries.append(("timeout", .plain("\(timeout)ms"))) }
        if let timeout = pool.connectTimeoutMilliseconds { entries.append(("connectTimeout", .plain("\(timeout)ms"))) }
        if pool.usesTLS { entries.append(("tls", .plain("true"))) }
        if pool.keepsRoutingPrefix { entries.append(("keepRoutingPrefix", .plain("true"))) }
        if pool.followsOwners { entries.append(("followOwners", .plain("true"))) }
        if pool.consistency != .lookAside, !pool.followsOwners { entries.append(("storage", .plain("true"))) }
        if case .bounded(let staleness) = pool.consistency {
            entries += [("consistency", .plain("bounded")), ("staleness", .plain("\(staleness)ms"))]
        }
        if let spool = pool.spool { entries.append(("spool", spool == pool.name ? .plain("true") : .text(spool))) }
        if let limits = pool.health {
            entries.append(
                (
                    "ejection",
                    .mapping([("atMost", .plain("\(limits.enter)")), ("againFrom", .plain("\(limits.exit)"))])
                ))
        }
        if !pool.isErrorWhenEmpty { entries.append(("whenEmpty", .plain("miss"))) }
        return .mapping(entries)
    }

    private static func server(_ server: PoolServer) -> YAMLText {
        let own = server.server
        let address =
            own.port == 0 ? own.host : own.host.contains(":") ? "[\(own.host)]:\(own.port)" : "\(own.host):\(own.port)"
        var entries: [(key: String, value: YAMLText)] = [("address", .text(address))]
        if own.weight != 1 { entries.append(("weight", .plain(number(own.weight)))) }
        if let name = own.alias { entries.append(("name", .text(name))) }
        if server.failureDomain != 0 { entries.append(("domain", .plain("\(server.failureDomain)"))) }
        if let usesTLS = server.usesTLS { entries.append(("tls", .plain("\(usesTLS)"))) }
        if server.isWarming { entries.append(("state", .plain("warming"))) }
        return entries.count == 1 ? .text(address) : .mapping(entries)
    }

    private static func number(_ number: Double) -> String {
        number == number.rounded() && abs(number) < 1e15 ? "\(Int64(number))" : "\(number)"
    }

    /// What is not the standard of a hash.
    private static func hash(_ hash: HashChoice) -> [(key: String, value: YAMLText)] {
        var entries: [(key: String, value: YAMLText)] = []
        switch hash.method {
        case .constShard: entries.append(("function", .plain("constShard")))
        case .scheme(let scheme) where scheme != .standard:
            if let exact = YAMLRoutes.schemes.first(where: { $0.scheme == scheme }) {
                entries.append(("function", .plain(exact.name)))
            } else {
                let (name, of) = dialect(scheme)
                entries += [("function", .plain(name)), ("of", .plain(of.rawValue))]
            }
        case .scheme: break
        }
        switch hash.part {
        case .whole: break
        case .beforeHashStop: entries.append(("stop", .plain("true")))
        case .tag(let open, let close): entries.append(("tag", .text(String(decoding: [open, close], as: UTF8.self))))
        case .before(let delimiter): entries.append(("before", .text(String(decoding: delimiter, as: UTF8.self))))
        }
        if !hash.salt.isEmpty { entries.append(("salt", .text(String(decoding: hash.salt, as: UTF8.self)))) }
        return entries
    }

    /// A scheme whose key hash is not the ordinary one.
    private static func dialect(_ scheme: HashScheme) -> (String, KeyHash) {
        switch scheme {
        case .ketama(.libmemcached, let hash): ("ketama", hash)
        case .ketama(.libmemcachedWeighted, let hash): ("ketamaWeighted", hash)
        case .ketama(.twemproxy, let hash): ("twemproxy", hash)
        case .ketama(_, let hash): ("uhashring", hash)
        case .modulo(let hash): ("modula", hash)
        case .twemproxyModula(let hash): ("twemproxyModula", hash)
        default: ("multiProbe", .md5)
        }
    }

    // MARK: Handles

    private func list(_ children: [RouteTree.ID]) -> YAMLText { .list(children.map { handle($0.index) }) }

    private func handle(_ index: Int, isDefinition: Bool = false) -> YAMLText {
        if !isDefinition, let name = names[index] { return .text(name) }
        switch tree.handles[index] {
        case .pool(let pool): return .text(poolNames[pool])
        case .null: return .plain("nothing")
        case .server(let pool, let index):
            return .mapping([("server", .text(poolNames[pool])), ("index", .plain("\(index)"))])
        default: return .mapping(fields(tree.handles[index]))
        }
    }

    private func fields(_ handle: RouteHandle) -> [(key: String, value: YAMLText)] {
        switch handle {
        case .hash(let children, let names, let weights, let hash):
            return [("hash", list(children))] + Self.hash(hash)
                + (names.isEmpty ? [] : [("names", .list(names.map { .text($0) }))])
                + (weights.isEmpty ? [] : [("weights", .list(weights.map { .plain(Self.number($0)) }))])
        case .prefixes(let choice): return prefixes(choice)
        case .operations(let table, let otherwise):
            let policies = RouteOperation.allCases.compactMap { operation in
                table[operation].map { (operation.name, self.handle($0.index)) }
            }
            return [("operations", .mapping(policies))]
                + (otherwise.map { [("otherwise", self.handle($0.index))] } ?? [])
        case .allSync(let children): return [("allSync", list(children))]
        case .allAsync(let children): return [("allAsync", list(children))]
        case .allFastest(let children): return [("allFastest", list(children))]
        case .allInitial(let children): return [("allInitial", list(children))]
        case .allMajority(let children): return [("allMajority", list(children))]
        case .random(let children): return [("random", list(children))]
        case .failover(let route): return failover(route)
        case .hedge(let route): return hedge(route)
        case .missFailover(let children, let returnsBest):
            return [("missFailover", list(children))] + (returnsBest ? [("bestOnError", .plain("true"))] : [])
        case .error(let text, let result):
            return [("error", .text(text))] + (result == .localError ? [] : [("result", .plain(result.name))])
        default: return changing(handle)
        }
    }

    private static func names(_ errors: Set<RouteResult>) -> YAMLText {
        .list(RouteResult.allCases.filter { errors.contains($0) }.map { .plain($0.name) })
    }

    private func failover(_ route: FailoverRoute) -> [(key: String, value: YAMLText)] {
        var entries: [(key: String, value: YAMLText)] = [("failover", list(route.children))]
        let errors = route.errors
        if let all = errors.gets, errors.updates == all, errors.deletes == all {
            entries.append(("errors", Self.names(all)))
        } else {
            let parts = [("reads", errors.gets), ("writes", errors.updates), ("deletes", errors.deletes)]
            let named = parts.compactMap { part in part.1.map { (part.0, Self.names($0)) } }
            if !named.isEmpty { entries.append(("errors", .mapping(named))) }
        }
        if route.pairsLeases { entries.append(("pairLeases", .plain("true"))) }
        if let limit = route.limit {
            entries.append(
                (
                    "limit",
                    .mapping([("rate", .plain(Self.number(limit.rate))), ("burst", .plain(Self.number(limit.burst)))])
                ))
        }
        func add(_ key: String, _ word: String) { entries.append((key, .plain(word))) }
        switch route.policy {
        case .inOrder(let tries, let excluding):
            if let tries { add("tries", "\(tries)") }
            if !excluding.isEmpty { entries.append(("exclude", Self.names(excluding))) }
        case .leastFailures(let tries):
            add("order", "leastFailures")
            add("tries", "\(tries)")
        case .rendezvous(let names, let weights):
            add("order", "rendezvous")
            entries.append(("names", .list(names.map { .text($0) })))
            if !weights.isEmpty { entries.append(("weights", .list(weights.map { .plain(Self.number($0)) }))) }
        case .deterministic(let policy):
            add("order", "deterministic")
            add("tries", "\(policy.maximumTries)")
            add("errorTries", "\(policy.maximumErrors)")
            if !policy.excluding.isEmpty { entries.append(("exclude", Self.names(policy.excluding))) }
            if !policy.weights.isEmpty {
                entries.append(("weights", .list(policy.weights.map { .plain(Self.number($0)) })))
            }
            if policy.avoidsFailedDomains { add("avoidFailedDomains", "true") }
            if policy.ignoresNormalIndex { add("ignoreFirstIndex", "true") }
        }
        return entries
    }

    private func hedge(_ route: HedgeRoute) -> [(key: String, value: YAMLText)] {
        let ordinary = HedgeRoute(route.first, route.second)
        var entries = [("hedge", handle(route.first.index))]
        switch tree[route.second] {
        case .copy: break
        default: entries.append(("to", handle(route.second.index)))
        }
        if route.quantile != ordinary.quantile { entries.append(("after", .plain(Self.number(route.quantile)))) }
        if route.minimumMilliseconds != ordinary.minimumMilliseconds {
            entries.append(("minimum", .plain("\(route.minimumMilliseconds)ms")))
        }
        if route.limit != ordinary.limit {
            let limit = [("rate", route.limit.rate), ("burst", route.limit.burst)]
            entries.append(("limit", .mapping(limit.map { ($0, .plain(Self.number($1))) })))
        }
        return entries
    }

    private static func fields(_ values: BigValues) -> [(key: String, value: YAMLText)] {
        [("threshold", .plain("\(values.thresholdBytes)")), ("batch", .plain("\(values.batchSize)"))]
            + (values.hidesFlag ? [("hideFlag", .plain("true"))] : [])
    }

    private static func ttl(_ seconds: Int64) -> YAMLText {
        .plain(seconds == 0 ? "never" : seconds < 0 ? "\(seconds)" : "\(seconds)s")
    }

    private func changing(_ route: RouteHandle) -> [(key: String, value: YAMLText)] {
        switch route {
        case .warmUp(let cold, let warm, let exptime):
            return [("warmUp", .mapping([("cold", handle(cold.index)), ("warm", handle(warm.index))]))]
                + (exptime.map { [("ttl", Self.ttl(Int64($0)))] } ?? [])
        case .slowWarmUp(let target, let failover, let settings):
            return [
                ("slowWarmUp", handle(target.index)), ("otherwise", handle(failover.index)),
                ("enableBelow", .plain(Self.number(settings.enableThreshold))),
                ("disableFrom", .plain(Self.number(settings.disableThreshold))),
                ("start", .plain(Self.number(settings.start))), ("step", .plain(Self.number(settings.step))),
                ("minimumRequests", .plain("\(settings.minimumRequests)")),
            ]
        case .migrate(let from, let to, let start, let interval):
            return [
                ("migrate", .mapping([("from", handle(from.index)), ("to", handle(to.index))])),
                ("start", .plain("\(start)")), ("interval", .plain("\(interval)s")),
            ]
        case .shadow(let target, let shadows):
            return [("shadow", handle(target.index)), ("to", .list(shadows.map { shadow($0) }))]
        case .keySplit(let child, let replicas, let allSync, let firstHit):
            return [
                ("keySplit", handle(child.index)), ("replicas", .plain("\(replicas)")),
                ("all", .plain("\(allSync)")),
                ("firstHit", .plain("\(firstHit)")),
            ]
        case .shardSplit(let child, let splits):
            return [
                ("shardSplit", handle(child.index)),
                ("shards", .mapping(splits.shards.sorted { $0.key < $1.key }.map { ($0.key, Self.shard($0.value)) })),
            ]
        case .rateLimit(let child, let limits, let fallback):
            var entries = [("rateLimit", handle(child.index))]
            for (name, rate) in [("reads", limits.gets), ("writes", limits.sets), ("deletes", limits.deletes)] {
                guard let rate else { continue }
                entries.append((name, .plain(Self.number(rate.perSecond))))
                entries.append(("\(name)Burst", .plain(Self.number(rate.burst))))
            }
            return entries + (fallback.map { [("fallback", handle($0.index))] } ?? [])
        case .outstandingLimit(let child, let limit):
            return [("outstandingLimit", handle(child.index)), ("limit", .plain("\(limit)"))]
        case .bigValue(let child, let values): return [("bigValue", handle(child.index))] + Self.fields(values)
        case .modifyKey(let child, let change):
            return [("modifyKey", handle(child.index))]
                + (change.routingPrefix.map { [("routingPrefix", .text($0))] } ?? [])
                + (change.prefix.isEmpty ? [] : [("prefix", .text(change.prefix))])
                + (change.replacing.map { [("replace", .text($0))] } ?? [])
                + (change.isInPlace ? [("inPlace", .plain("true"))] : [])
                + (change.suffix.isEmpty ? [] : [("suffix", .text(change.suffix))])
        case .modifyExptime(let child, .set(let exptime)):
            return [("modifyTTL", handle(child.index)), ("set", Self.ttl(exptime))]
        case .modifyExptime(let child, .atMost(let exptime)):
            return [("modifyTTL", handle(child.index)), ("atMost", Self.ttl(exptime))]
        default: return levels(route)
        }
    }

    private static func shard(_ size: ShardSplits.Size) -> YAMLText {
        if size == ShardSplits.Size(size.new) { return .plain("\(size.new)") }
        return .mapping([
            ("from", .plain("\(size.old)")), ("to", .plain("\(size.new)")), ("start", .plain("\(size.startSeconds)")),
            ("interval", .plain("\(size.periodSeconds)s")), ("deletesAll", .plain("\(size.deletesAll)")),
        ])
    }

    private func levels(_ route: RouteHandle) -> [(key: String, value: YAMLText)] {
        switch route {
        case .l1l2(let first, let second, let levels):
            return [
                ("twoLevels", .mapping([("l1", handle(first.index)), ("l2", handle(second.index))])),
                ("ttl", Self.ttl(Int64(levels.upgradingExptime))), ("missTTL", Self.ttl(Int64(levels.missExptime))),
                ("missPeriod", .plain("\(levels.missPeriod)")),
            ]
        case .l1l2SizeSplit(let first, let second, let split):
            return [
                ("sizeSplit", .mapping([("l1", handle(first.index)), ("l2", handle(second.index))])),
                ("threshold", .plain("\(split.thresholdBytes)")), ("ttlThreshold", Self.ttl(split.ttlThreshold)),
                ("failureTTL", Self.ttl(split.failureTTL)), ("both", .plain("\(split.storesBoth)")),
                ("retries", .plain("\(split.retries)")),
            ]
        case .latency(let child, let latency):
            var entries = [("latency", handle(child.index))]
            for (name, time) in [
                ("before", latency.beforeMilliseconds), ("after", latency.afterMilliseconds),
                ("total", latency.totalMilliseconds),
            ] where time > 0 { entries.append((name, .plain("\(time)ms"))) }
            let points: [YAMLText] = latency.totalPercentiles.map {
                .list([.plain(Self.number($0.percentile)), .plain("\($0.milliseconds)")])
            }
            return entries + (points.isEmpty ? [] : [("percentiles", .list(points))])
        default: preconditionFailure("a handle that is not written")
        }
    }

    private func shadow(_ target: ShadowTarget) -> YAMLText {
        var entries: [(key: String, value: YAMLText)] = [("route", handle(target.target.index))]
        if target.keyList.isEmpty {
            let range = [target.keys.lowerBound, target.keys.upperBound]
            entries.append(("range", .list(range.map { .plain(Self.number($0)) })))
        } else {
            entries.append(("keys", .list(target.keyList.map { .text($0) })))
        }
        if target.requests != 1 { entries.append(("requests", .plain(Self.number(target.requests)))) }
        return .mapping(entries)
    }
}

extension RouteTree {
    /// The routes as our YAML.
    package func yaml(_ defaults: RouteDefaults) -> String {
        RouteConfiguration(tree: self, defaults: defaults, warnings: [], files: []).yaml
    }
}

extension RouteConfiguration {
    /// The same routes as our YAML.
    package var yaml: String { RouteWriter(self).text }
}
