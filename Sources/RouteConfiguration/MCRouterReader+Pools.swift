// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

extension MCRouterReader {
    /// What a pool's object says.
    struct PoolFields {
        var pool: RoutePool
        /// Servers that are handles of their own, by their place.
        var handles: [Int: JSONNode] = [:]
        var weights: [Double]?
        var tags: [String]?
        var isErrorWhenEmpty = true
    }

    mutating func pool(_ node: JSONNode) throws(RouteProblem) -> PoolFields {
        let (name, object, place) = try poolObject(node)
        var fields = FieldReader("the pool \(name)", object, at: place)
        _ = fields.value("name")
        guard let servers = try fields.list("servers") else { throw fields.problem("servers is missing") }
        let domains = try fields.list("failure_domains")
        if let domains, domains.count != servers.count {
            throw fields.problem("\(domains.count) failure_domains for \(servers.count) servers")
        }
        let usesTLS = try self.usesTLS(&fields)
        var result = PoolFields(pool: RoutePool(name, servers: []))
        for (index, server) in servers.enumerated() {
            if server.object != nil { result.handles[index] = server }
            let domain = domains.map { Self.domain($0[index]) } ?? 0
            result.pool.servers.append(try self.server(server, domain, name))
        }
        result.pool.usesTLS = usesTLS
        result.pool.requestTimeoutMilliseconds = try fields.integer("server_timeout", in: 1...3_600_000).map(Int.init)
        result.pool.connectTimeoutMilliseconds = try fields.integer("connect_timeout", in: 1...3_600_000).map(Int.init)
        result.pool.keepsRoutingPrefix = try fields.boolean("keep_routing_prefix") ?? false
        result.pool.health = try health(&fields, servers.count)
        result.isErrorWhenEmpty = try fields.boolean("error_on_empty") ?? true
        result.weights = try numbers("weights", &fields)
        result.tags = try texts("tags", &fields)
        if let weights = result.weights, weights.count != servers.count {
            problems.warn("the pool \(name): \(weights.count) weights for \(servers.count) servers", at: place)
        }
        if let protocolName = try fields.text("protocol"), protocolName.lowercased() != "ascii" {
            throw fields.problem("the protocol \(protocolName) is not supported; ascii is")
        }
        try fields.refuse(["enable_compression"], "values are sent as they are")
        if try fields.integer("additional_fanout", in: 0...32_768) ?? 0 > 0 {
            throw fields.problem("additional_fanout is not supported: each reactor has a connection of its own")
        }
        try fields.refuse(
            ["port_override", "port_override_within_dc", "port_override_cross_dc", "service_id_override"],
            "write the port with each server")
        fields.ignore(
            ["hostnames", "region", "cluster", "qos", "disable_request_deadline_check", "services", "pool_id"],
            "timeouts are the pool's own, and the rest is about mcrouter's owner's network", problems)
        try fields.finish()
        return result
    }

    private func server(_ node: JSONNode, _ domain: UInt32, _ pool: String) throws(RouteProblem) -> PoolServer {
        if node.object != nil { return PoolServer(Server(host: "route", port: 0), failureDomain: domain) }
        guard let text = node.text else {
            throw RouteProblem("the pool \(pool): a server is \(node.kind); a text is expected", at: node.place)
        }
        do throws(RouteProblem) {
            let address = try ServerAddress(text)
            return PoolServer(
                Server(host: address.host, port: address.port), failureDomain: domain, usesTLS: address.usesTLS)
        } catch {
            throw RouteProblem("the pool \(pool): \(error.text)", at: node.place)
        }
    }

    /// A number, or the hash of a name.
    private static func domain(_ node: JSONNode) -> UInt32 {
        if let number = node.integer { return UInt32(truncatingIfNeeded: number) }
        return node.text.map { UInt32(truncatingIfNeeded: ConfigurationHash.value(of: $0)) } ?? 0
    }

    private func usesTLS(_ fields: inout FieldReader) throws(RouteProblem) -> Bool {
        for name in ["security_mech_within_dc", "security_mech_cross_dc"] where fields.value(name) != nil {
            throw fields.problem("\(name) is not supported: datacentres are not told apart; security_mech is")
        }
        switch try fields.text("security_mech") {
        case "tls", "ssl": return true
        case "plain", "none": return false
        case nil: return try fields.boolean("use_ssl") ?? false
        case let other?: throw fields.problem("the security_mech \(other) is not supported; plain and tls are")
        }
    }

    private func health(_ fields: inout FieldReader, _ servers: Int) throws(RouteProblem) -> PoolHealthLimits? {
        guard let tracker = try fields.object("tko_tracker") else { return nil }
        var inner = FieldReader("\(fields.what): tko_tracker", tracker.object, at: tracker.place)
        func limit(_ name: String) throws(RouteProblem) -> Int? {
            if let number = try inner.integer("num_tko_threshold_\(name)", in: 1...65_536) { return Int(number) }
            return try inner.integer("percent_tko_threshold_\(name)", in: 0...100).map { Int($0) * servers / 100 }
        }
        let (upper, lower) = (try limit("upper"), try limit("lower"))
        try inner.finish()
        guard let upper, let lower, let limits = PoolHealthLimits(enter: upper, exit: lower) else {
            throw inner.problem(
                "an upper and a lower threshold are expected, of at least one server, the lower not above")
        }
        return limits
    }

    func numbers(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> [Double]? {
        guard let list = try fields.list(name) else { return nil }
        var result: [Double] = []
        for element in list {
            guard let number = element.number else {
                throw fields.problem("\(name) holds \(element.kind); numbers are expected", at: element)
            }
            result.append(number)
        }
        return result
    }

    func texts(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> [String]? {
        guard let list = try fields.list(name) else { return nil }
        var result: [String] = []
        for element in list {
            guard let text = element.text else {
                throw fields.problem("\(name) holds \(element.kind); texts are expected", at: element)
            }
            result.append(text)
        }
        return result
    }

    // MARK: PoolRoute

    mutating func poolRoute(_ json: JSONNode?, _ place: JSONNode.Place) throws(RouteProblem) -> RouteTree.ID {
        guard let json else { throw RouteProblem("PoolRoute without a pool", at: place) }
        guard let object = json.object else {
            let found = try pool(json)
            var settings = HashSettings(found)
            settings.name = found.pool.name
            return try route(found, spool: found.pool.name, settings, wrappers: nil, place)
        }
        var fields = FieldReader("PoolRoute", object, at: place)
        _ = fields.value("type")
        let found = try pool(try fields.required("pool"))
        var settings = HashSettings(found)
        if let hash = fields.value("hash") { try read(hash, into: &settings, &fields) }
        let ownName = try fields.text("name")
        let spoolName = try fields.text("asynclog_name") ?? ownName ?? found.pool.name
        let spool = try fields.boolean("asynclog") ?? true ? spoolName : nil
        try fields.refuse(
            [
                "bucketize", "useBucketHashSelector", "axonlog", "distribution_enabled",
            ],
            "it is not part of the handles that are supported")
        let splits = try shardSplits(&fields)
        fields.ignore(["pool_id"], "it is for a caller inside mcrouter", problems)
        let rates = fields.value("rates")
        var wrapped = try route(found, spool: spool, settings, wrappers: fields, place)
        if let splits { wrapped = try add(.shardSplit(wrapped, splits), place) }
        for name in ["max_outstanding", "slow_warmup", "shadows", "shadow_policy"] { _ = fields.value(name) }
        try fields.finish()
        guard let rates else { return wrapped }
        return try add(.rateLimit(wrapped, try self.rates(rates), fallback: nil), place)
    }

    /// A pool's servers as handles, each of its own: what `Pool` stands for.
    mutating func servers(_ json: JSONNode?, _ place: JSONNode.Place) throws(RouteProblem) -> [RouteTree.ID] {
        guard let json else { throw RouteProblem("Pool without a name", at: place) }
        let found = try pool(json)
        return try destinations(found, spool: nil, HashSettings(found), place)
    }

    private mutating func destinations(
        _ found: PoolFields, spool: String?, _ settings: HashSettings, _ place: JSONNode.Place
    ) throws(RouteProblem) -> [RouteTree.ID] {
        var pool = found.pool
        pool.spool = spool
        pool.servers = found.pool.servers.enumerated().filter { found.handles[$0.offset] == nil }.map(\.element)
        let index = try add(pool, place)
        var (next, result) = (0, [RouteTree.ID]())
        for place in found.pool.servers.indices {
            if let handle = found.handles[place] {
                result.append(try one(handle))
            } else {
                result.append(try add(.server(pool: index, index: next), JSONNode.Place(file: "", line: 0)))
                next += 1
            }
        }
        return result
    }

    mutating func add(_ pool: RoutePool, _ place: JSONNode.Place) throws(RouteProblem) -> Int {
        do throws(RouteError) { return try tree.add(pool) } catch { throw refusal(error, place) }
    }

    private mutating func route(
        _ found: PoolFields, spool: String?, _ settings: HashSettings, wrappers: FieldReader?, _ place: JSONNode.Place
    ) throws(RouteProblem) -> RouteTree.ID {
        let isPlain = found.handles.isEmpty && settings.latest == nil
        let hasWrappers = ["max_outstanding", "slow_warmup", "shadows"].contains { wrappers?.object[$0] != nil }
        if isPlain, !hasWrappers {
            var pool = found.pool
            pool.spool = spool
            pool.isErrorWhenEmpty = settings.isErrorWhenEmpty
            pool.hash = try settings.choice(pool.servers.count, place)
            pool.servers = settings.applied(to: pool.servers)
            let index = try add(pool, place)
            return try add(.pool(index), place)
        }
        var children = try destinations(found, spool: spool, settings, place)
        if var wrappers { children = try wrap(children, &wrappers, place) }
        return try hash(children, settings, place)
    }

    /// What a PoolRoute says of each of its servers.
    private mutating func wrap(
        _ children: [RouteTree.ID], _ fields: inout FieldReader, _ place: JSONNode.Place
    ) throws(RouteProblem) -> [RouteTree.ID] {
        var children = children
        if let limit = try fields.integer("max_outstanding", in: 0...1_000_000), limit > 0 {
            for index in children.indices {
                children[index] = try add(.outstandingLimit(children[index], limit: Int(limit)), place)
            }
        }
        if let slow = try fields.object("slow_warmup") {
            let (target, settings) = try slowWarmUp(slow.object, slow.place)
            for index in children.indices {
                children[index] = try add(.slowWarmUp(target: children[index], failover: target, settings), place)
            }
        }
        return try shadowed(children, &fields, place)
    }

    private mutating func slowWarmUp(
        _ object: JSONObject, _ place: JSONNode.Place
    ) throws(RouteProblem) -> (RouteTree.ID, SlowWarmUp) {
        var fields = FieldReader("slow_warmup", object, at: place)
        let target = try one(try fields.required("failoverTarget"))
        var settings = SlowWarmUp()
        if let given = try fields.object("settings") {
            var inner = FieldReader("slow_warmup: settings", given.object, at: given.place)
            guard let enable = try inner.number("enable_threshold"),
                let disable = try inner.number("disable_threshold"),
                0...1 ~= enable, 0...1 ~= disable, enable < disable
            else {
                throw inner.problem("enable_threshold and disable_threshold are expected, from 0 to 1, the first below")
            }
            (settings.enableThreshold, settings.disableThreshold) = (enable, disable)
            if let start = try inner.number("start") { settings.start = start }
            if let step = try inner.number("step") { settings.step = step }
            let least = try inner.integer("min_requests", in: 1...1_000_000_000)
            settings.minimumRequests = least.map(Int.init) ?? settings.minimumRequests
            guard settings.start > 0, settings.start < 1, settings.step > 0, settings.step < 100 else {
                throw inner.problem("start is between 0 and 1, and step between 0 and 100")
            }
            try inner.finish()
        }
        try fields.finish()
        return (target, settings)
    }

    /// Children with shadows, where their places or keys say so.
    mutating func shadowed(
        _ children: [RouteTree.ID], _ fields: inout FieldReader, _ place: JSONNode.Place
    ) throws(RouteProblem) -> [RouteTree.ID] {
        if let policy = try fields.text("shadow_policy"), policy != "default" {
            throw fields.problem("the shadow_policy \(policy) is not supported; default is")
        }
        guard let shadows = try fields.list("shadows") else { return children }
        var targets: [(indexes: Range<Int>, shadow: ShadowTarget)] = []
        for node in shadows { targets.append(try shadow(node)) }
        var result = children
        for index in children.indices {
            let own = targets.filter { $0.indexes.contains(index) || !$0.shadow.keyList.isEmpty }.map(\.shadow)
            if !own.isEmpty { result[index] = try add(.shadow(children[index], own), place) }
        }
        return result
    }

    private mutating func shadow(_ node: JSONNode) throws(RouteProblem) -> (Range<Int>, ShadowTarget) {
        guard let object = node.object else {
            throw RouteProblem("a shadow is \(node.kind); an object is expected", at: node.place)
        }
        var fields = FieldReader("a shadow", object, at: node.place)
        var target = ShadowTarget(try one(try fields.required("target")))
        let range = try numbers("key_fraction_range", &fields)
        if let range {
            guard range.count == 2, 0 <= range[0], range[0] <= range[1], range[1] <= 1 else {
                throw fields.problem("key_fraction_range is two numbers from 0 to 1, the first not above the second")
            }
            target.keys = range[0]...range[1]
        }
        var indexes = 0..<0
        let places = try fields.list("index_range")
        if let places {
            guard places.count == 2, let start = places[0].integer, let end = places[1].integer, 0 <= start,
                start <= end,
                end <= 1 << 24
            else { throw fields.problem("index_range is two whole numbers from 0 on, the first not above the second") }
            indexes = Int(start)..<Int(end)
        }
        try fields.refuse(["index_range_rv"], "of the runtime variables, key_fraction_range_rv is supported")
        let variable = try fields.text("key_fraction_range_rv")
        if let variable, let range = try fraction(variable, &fields) { target.keys = range }
        target.keyList = try texts("keys_to_shadow", &fields) ?? []
        guard target.keyList.isEmpty || (range == nil && places == nil && variable == nil) else {
            throw fields.problem("keys_to_shadow stands alone, without index_range and key_fraction_range")
        }
        target.requests = try fields.number("requests_fraction") ?? 1
        fields.ignore(["validate_replies"], "replies of shadows are not looked at", problems)
        try fields.finish()
        return (indexes, target)
    }
}
