// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

extension MCRouterReader {
    /// The types of handles that are supported.
    static let types = [
        "AllAsyncRoute", "AllFastestRoute", "AllInitialRoute", "AllMajorityRoute", "AllSyncRoute", "BigValueRoute",
        "DevNullRoute", "ErrorRoute", "FailoverRoute", "FailoverWithExptimeRoute", "HashRoute", "KeySplitRoute",
        "L1L2CacheRoute", "L1L2SizeSplitRoute", "LatencyInjectionRoute", "LatestRoute", "MigrateRoute",
        "MissFailoverRoute", "ModifyExptimeRoute", "ModifyKeyRoute", "NullRoute", "OperationSelectorRoute",
        "OutstandingLimitRoute", "Pool", "PoolRoute", "PrefixPolicyRoute", "PrefixSelectorRoute", "RandomRoute",
        "RateLimitRoute", "RoutingGroupRoute", "SaltedFailoverRoute", "ShadowRoute", "ShardSplitRoute", "WarmUpRoute",
    ]

    /// Handles that mcrouter has and we do not, with why.
    static let refused: [String: String] = [
        "AxonLogRoute": "it writes to a log of mcrouter's owner",
        "BlackholeRoute": "it is a tool for tests; use NullRoute, or LatencyInjectionRoute",
        "CarbonLookasideRoute": "it is for requests of other protocols",
        "DistributionRoute": "it writes to a log of mcrouter's owner",
        "HashStopAllowListRoute": "hash stops are always allowed",
        "HostIdRoute": "use HashRoute with hash_func Latest",
        "KeyParseRoute": "use PrefixSelectorRoute",
        "LoadBalancerRoute": "servers do not tell their load in replies",
        "LoggingRoute": "use the router's own log and statistics",
        "McBucketRoute": "buckets need servers that know them",
        "OriginalClientHashRoute": "clients have no name in memcached's protocols",
        "SRRoute": "it needs the service router of mcrouter's owner; use PoolRoute with members",
        "SetDistributionTargetRoute": "it writes to a log of mcrouter's owner",
        "StagingRoute": "use ShadowRoute",
    ]

    /// The handles of a type; `json` is the handle's object, what stands behind the type in a short form, or nothing.
    mutating func make(
        _ type: String, _ json: JSONNode?, _ place: JSONNode.Place
    ) throws(RouteProblem) -> [RouteTree.ID] {
        switch type {
        case "Pool": return try servers(json, place)
        case "ShadowRoute":
            guard let object = json?.object else { throw RouteProblem("ShadowRoute is no object", at: place) }
            var fields = FieldReader(type, object, at: place)
            _ = (fields.value("type"), fields.value("name"))
            let children = try list(try fields.required("children"))
            let result = try shadowed(children, &fields, place)
            try fields.finish()
            return result
        case "PoolRoute": return [try poolRoute(json, place)]
        case "AllAsyncRoute", "AllFastestRoute", "AllInitialRoute", "AllMajorityRoute", "AllSyncRoute", "RandomRoute":
            return [try gather(type, json, place)]
        case "NullRoute", "DevNullRoute": return [try add(.null, place)]
        case "ErrorRoute": return [try error(json, place)]
        case "MissFailoverRoute": return [try missFailover(json, place)]
        case "FailoverRoute": return [try failover(json, place)]
        case "HashRoute", "LatestRoute": return [try hashRoute(type, json, place)]
        case "OperationSelectorRoute", "PrefixPolicyRoute", "RoutingGroupRoute":
            guard let object = json?.object else { return [try one(json ?? JSONNode(.text(""), at: place))] }
            return [try operations(type, object, place)]
        default: break
        }
        guard Self.types.contains(type) else { throw unknown(type, place) }
        guard let object = json?.object else {
            throw RouteProblem("\(type) needs an object", at: place)
        }
        var fields = FieldReader(type, object, at: place)
        _ = (fields.value("type"), fields.value("name"))
        let handle = try composite(type, &fields)
        try fields.finish()
        return [handle]
    }

    private func unknown(_ type: String, _ place: JSONNode.Place) -> RouteProblem {
        if let why = Self.refused[type] { return RouteProblem("\(type) is not supported: \(why)", at: place) }
        let near = suggestion(for: type, among: Self.types).map { " (did you mean \($0)?)" } ?? ""
        return RouteProblem(
            "there is no route handle or name '\(type.prefix(80))'\(near); handles are "
                + Self.types.joined(separator: ", "),
            at: place)
    }

    /// The children of a handle that has nothing but children.
    private mutating func children(
        _ type: String, _ json: JSONNode?, _ place: JSONNode.Place
    ) throws(RouteProblem) -> [RouteTree.ID] {
        guard let json else { return [] }
        guard let object = json.object else { return try list(json) }
        var fields = FieldReader(type, object, at: place)
        _ = (fields.value("type"), fields.value("name"))
        let children = fields.value("children")
        try fields.finish()
        return try children.map { (node) throws(RouteProblem) in try list(node) } ?? []
    }

    private mutating func gather(
        _ type: String, _ json: JSONNode?, _ place: JSONNode.Place
    ) throws(RouteProblem) -> RouteTree.ID {
        let children = try children(type, json, place)
        if children.isEmpty { return try add(.null, place) }
        if children.count == 1, type != "AllAsyncRoute" { return children[0] }
        switch type {
        case "AllAsyncRoute": return try add(.allAsync(children), place)
        case "AllFastestRoute": return try add(.allFastest(children), place)
        case "AllInitialRoute": return try add(.allInitial(children), place)
        case "AllMajorityRoute": return try add(.allMajority(children), place)
        case "RandomRoute": return try add(.random(children), place)
        default: return try add(.allSync(children), place)
        }
    }

    private mutating func error(_ json: JSONNode?, _ place: JSONNode.Place) throws(RouteProblem) -> RouteTree.ID {
        guard let object = json?.object else { return try add(.error(json?.text ?? "", .localError), place) }
        var fields = FieldReader("ErrorRoute", object, at: place)
        _ = (fields.value("type"), fields.value("name"), fields.value("enable_logging"))
        let text = try fields.text("response") ?? ""
        var result = RouteResult.localError
        if let name = try fields.text("result") {
            let bare = name.hasPrefix("mc_res_") ? String(name.dropFirst(7)) : name
            guard let known = RouteResult(errorName: bare) else {
                throw fields.problem(
                    "the result \(name) is no error; errors are \(RouteResult.errorNames.joined(separator: ", "))")
            }
            result = known
        }
        try fields.finish()
        return try add(.error(text, result), place)
    }

    private mutating func missFailover(_ json: JSONNode?, _ place: JSONNode.Place) throws(RouteProblem) -> RouteTree.ID
    {
        var returnsBest = false
        var children: [RouteTree.ID] = []
        if let object = json?.object {
            var fields = FieldReader("MissFailoverRoute", object, at: place)
            _ = (fields.value("type"), fields.value("name"))
            if let given = fields.value("children") { children = try list(given) }
            returnsBest = try fields.boolean("return_best_on_error") ?? false
            try fields.finish()
        } else if let json {
            children = try list(json)
        }
        if children.isEmpty { return try add(.null, place) }
        if children.count == 1 { return children[0] }
        return try add(.missFailover(children, returnsBestOnError: returnsBest), place)
    }

    private mutating func hashRoute(
        _ type: String, _ json: JSONNode?, _ place: JSONNode.Place
    ) throws(RouteProblem) -> RouteTree.ID {
        var settings = HashSettings()
        if type == "LatestRoute" {
            settings.function = "Latest"
            settings.latest = HashSettings.Latest()
        }
        guard let object = json?.object else {
            return try hash(try children(type, json, place), settings, place)
        }
        var fields = FieldReader(type, object, at: place)
        _ = fields.value("type")
        settings.name = try fields.text("name") ?? ""
        let given = fields.value("children")
        try readHash(&fields, into: &settings)
        try fields.finish()
        let children = try given.map { (node) throws(RouteProblem) in try list(node) } ?? []
        return try hash(children, settings, place)
    }

    private mutating func operations(
        _ type: String, _ object: JSONObject, _ place: JSONNode.Place
    ) throws(RouteProblem) -> RouteTree.ID {
        var fields = FieldReader(type, object, at: place)
        _ = (fields.value("type"), fields.value("name"))
        let standard = fields.value("default_policy")
        let policies = try fields.object(type == "RoutingGroupRoute" ? "routing_group_policies" : "operation_policies")
        try fields.finish()
        guard standard != nil || policies != nil else { throw fields.problem("neither policies nor default_policy") }
        let otherwise = try standard.map { (node) throws(RouteProblem) in try one(node) }
        guard let policies else {
            guard let otherwise else { throw fields.problem("neither policies nor default_policy") }
            return otherwise
        }
        var table: [RouteOperation: RouteTree.ID] = [:]
        for entry in policies.object.entries.sorted(by: { $0.key < $1.key }) {
            let handle = try one(entry.value)
            for operation in try Self.operations(entry.key, type, entry.value.place) { table[operation] = handle }
        }
        return try add(.operations(table, otherwise: otherwise), place)
    }

    private static let groups: [String: RouteOperation.Group] = [
        "get_like": .get, "update_like": .update, "delete_like": .delete, "arithmetic_like": .arithmetic,
    ]

    private static func operations(
        _ name: String, _ type: String, _ place: JSONNode.Place
    ) throws(RouteProblem) -> [RouteOperation] {
        if type == "RoutingGroupRoute" {
            guard let group = groups[name] else {
                throw RouteProblem(
                    "there is no group \(name); groups are \(groups.keys.sorted().joined(separator: ", "))", at: place)
            }
            return RouteOperation.allCases.filter { $0.group == group }
        }
        guard let operation = RouteOperation(name: name) else {
            let known = RouteOperation.allCases.map(\.name).joined(separator: ", ")
            throw RouteProblem("there is no operation \(name); operations are \(known)", at: place)
        }
        return [operation]
    }

    // MARK: Handles with fields of their own

    private mutating func composite(_ type: String, _ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let place = fields.place
        switch type {
        case "FailoverWithExptimeRoute": return try failoverWithExptime(&fields)
        case "SaltedFailoverRoute": return try saltedFailover(&fields)
        case "PrefixSelectorRoute":
            let choice = try prefixes(fields)
            for name in ["policies", "wildcard"] { _ = fields.value(name) }
            return try add(.prefixes(choice), place)
        case "WarmUpRoute":
            let (cold, warm) = (try one(try fields.required("cold")), try one(try fields.required("warm")))
            let exptime = try fields.integer("exptime", in: 0...Int64(Int32.max))
            let asksWarm = try fields.boolean("enable_metaget") ?? true
            return try add(
                .warmUp(cold: cold, warm: warm, exptime: exptime.map { UInt32($0) } ?? (asksWarm ? nil : 0)), place)
        case "MigrateRoute":
            let (from, to) = (try one(try fields.required("from")), try one(try fields.required("to")))
            guard let start = try fields.integer("start_time", in: 0...Int64.max / 2) else {
                throw fields.problem("start_time is missing")
            }
            let interval = try fields.integer("interval", in: 1...Int64(Int32.max)) ?? 3600
            return try add(
                .migrate(from: from, to: to, startSeconds: UInt64(start), intervalSeconds: UInt64(interval)), place)
        case "KeySplitRoute":
            let child = try one(try fields.required("destination"))
            guard let replicas = try fields.integer("replicas", in: 2...1_000),
                let allSync = try fields.boolean("all_sync")
            else { throw fields.problem("replicas and all_sync are expected") }
            let firstHit = try fields.boolean("first_hit") ?? false
            return try add(.keySplit(child, replicas: Int(replicas), allSync: allSync, firstHit: firstHit), place)
        case "ShardSplitRoute":
            let child = try one(try fields.required("destination"))
            guard let splits = try shardSplits(&fields) else { throw fields.problem("shard_splits is missing") }
            return try add(.shardSplit(child, splits), place)
        case "RateLimitRoute":
            let target = try one(try fields.required("target"))
            let limits = try rates(try fields.required("rates"))
            let fallback = try fields.value("fallback").map { (node) throws(RouteProblem) in try one(node) }
            return try add(.rateLimit(target, limits, fallback: fallback), place)
        case "OutstandingLimitRoute":
            let target = try one(try fields.required("target"))
            guard let limit = try fields.integer("max_outstanding", in: 1...1_000_000) else {
                throw fields.problem("max_outstanding is missing")
            }
            return try add(.outstandingLimit(target, limit: Int(limit)), place)
        case "BigValueRoute": return try bigValue(&fields)
        case "ModifyKeyRoute": return try modifyKey(&fields)
        case "ModifyExptimeRoute": return try modifyExptime(&fields)
        case "L1L2CacheRoute": return try twoLevels(&fields)
        case "L1L2SizeSplitRoute": return try sizeSplit(&fields)
        case "LatencyInjectionRoute": return try latency(&fields)
        default: throw unknown(type, place)
        }
    }

    private mutating func bigValue(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let target = try one(try fields.required("target"))
        let threshold = try fields.integer("split_threshold", in: 1...Int64(1) << 40)
        let batch = try fields.integer("batch_size", in: 0...1_000_000)
        let hides = try fields.boolean("hide_reply_flag") ?? false
        guard let threshold, let batch,
            let values = BigValues(thresholdBytes: Int(threshold), batchSize: Int(batch), hidesFlag: hides)
        else { throw fields.problem("split_threshold and batch_size are expected") }
        return try add(.bigValue(target, values), fields.place)
    }

    private mutating func modifyKey(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let target = try one(try fields.required("target"))
        var change = KeyChange()
        if let prefix = try fields.text("set_routing_prefix") {
            do throws(RouteError) {
                change.routingPrefix = prefix.isEmpty ? "" : try RoutingPrefix(prefix).text
            } catch {
                throw fields.problem("set_routing_prefix: \(error.description)")
            }
        }
        change.prefix = try fields.text("ensure_key_prefix") ?? ""
        change.replacing = try fields.text("replace_key_prefix")
        change.suffix = try fields.text("set_key_suffix") ?? ""
        change.isInPlace = try fields.boolean("modify_inplace") ?? false
        for part in [change.prefix, change.replacing ?? "", change.suffix] {
            guard part.utf8.count <= 250, part.utf8.allSatisfy({ $0 > 32 && $0 != 127 }) else {
                throw fields.problem(
                    "'\(part)' cannot be a part of a key: at most 250 bytes, without blanks and controls")
            }
        }
        if change.isInPlace, change.replacing != nil {
            throw fields.problem("replace_key_prefix and modify_inplace exclude each other")
        }
        return try add(.modifyKey(target, change), fields.place)
    }

    private mutating func modifyExptime(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let target = try one(try fields.required("target"))
        guard let exptime = try fields.integer("exptime", in: Int64(Int32.min)...Int64(Int32.max)) else {
            throw fields.problem("exptime is missing")
        }
        switch try fields.text("action") ?? "set" {
        case "set": return try add(.modifyExptime(target, .set(exptime)), fields.place)
        // 0 is for ever: no limit.
        case "min": return exptime == 0 ? target : try add(.modifyExptime(target, .atMost(exptime)), fields.place)
        case let other: throw fields.problem("the action \(other) is not known; set and min are")
        }
    }

    private mutating func twoLevels(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let (first, second) = (try one(try fields.required("l1")), try one(try fields.required("l2")))
        guard let exptime = try fields.integer("upgradingL1Exptime", in: 0...Int64(Int32.max)) else {
            throw fields.problem("upgradingL1Exptime is missing")
        }
        var levels = TwoLevels(upgradingExptime: UInt32(exptime))
        levels.missExptime = UInt32(try fields.integer("ncacheExptime", in: 0...Int64(Int32.max)) ?? 0)
        levels.missPeriod = Int(try fields.integer("ncacheUpdatePeriod", in: 0...Int64(Int32.max)) ?? 0)
        return try add(.l1l2(l1: first, l2: second, levels), fields.place)
    }

    private mutating func sizeSplit(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let (first, second) = (try one(try fields.required("l1")), try one(try fields.required("l2")))
        guard let threshold = try fields.integer("threshold", in: 0...Int64(1) << 40) else {
            throw fields.problem("threshold is missing")
        }
        var split = SizeSplit(thresholdBytes: Int(threshold))
        split.ttlThreshold = try fields.integer("ttl_threshold", in: 0...Int64(Int32.max)) ?? 0
        split.failureTTL = try fields.integer("failure_ttl", in: 1...Int64(Int32.max)) ?? 60
        split.storesBoth = try fields.boolean("both_full_set") ?? false
        split.retries = Int(try fields.integer("retries", in: 1...10) ?? 1)
        return try add(.l1l2SizeSplit(l1: first, l2: second, split), fields.place)
    }

    private mutating func latency(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let child = try one(try fields.required("child"))
        let limit: ClosedRange<Int64> = 0...3_600_000
        var latency = Latency()
        latency.beforeMilliseconds = Int(try fields.integer("before_latency_ms", in: limit) ?? 0)
        latency.afterMilliseconds = Int(try fields.integer("after_latency_ms", in: limit) ?? 0)
        latency.totalMilliseconds = Int(try fields.integer("total_latency_ms", in: limit) ?? 0)
        for node in try fields.list("total_latency_percentile_ms") ?? [] {
            guard let pair = node.array, pair.count == 2, let percentile = pair[0].number, let time = pair[1].integer,
                percentile > latency.totalPercentiles.last?.percentile ?? 0, percentile <= 100, limit.contains(time)
            else {
                throw fields.problem(
                    "total_latency_percentile_ms is a list of [percentile, milliseconds], growing up to 100",
                    at: node)
            }
            latency.totalPercentiles.append((percentile, Int(time)))
        }
        try fields.refuse(["request_payload_latency"], "memcached's requests have no field for it")
        fields.ignore(["max_request_latency_us"], "requests name no latency", problems)
        return latency == Latency() ? child : try add(.latency(child, latency), fields.place)
    }

    func rates(_ node: JSONNode) throws(RouteProblem) -> RateLimits {
        guard let object = node.object else {
            throw RouteProblem("rates is \(node.kind); an object is expected", at: node.place)
        }
        var fields = FieldReader("rates", object, at: node.place)
        func rate(_ name: String) throws(RouteProblem) -> RateLimits.Rate? {
            let (perSecond, burst) = (try fields.number("\(name)_rate"), try fields.number("\(name)_burst"))
            guard let perSecond else { return nil }
            guard let rate = RateLimits.Rate(perSecond: perSecond, burst: burst) else {
                throw fields.problem("\(name)_rate and \(name)_burst are above 0")
            }
            return rate
        }
        var limits = RateLimits()
        (limits.gets, limits.sets, limits.deletes) = (try rate("gets"), try rate("sets"), try rate("deletes"))
        try fields.finish()
        return limits
    }
}
