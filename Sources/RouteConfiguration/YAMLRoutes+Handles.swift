// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

extension YAMLRoutes {
    /// What makes a mapping a handle, with what its value is.
    static let kinds: [String: String] = [
        "pool": "a pool", "server": "a pool", "hash": "handles", "prefixes": "handles by prefix",
        "operations": "handles by operation", "allSync": "handles", "allAsync": "handles", "allFastest": "handles",
        "allInitial": "handles", "allMajority": "handles", "random": "handles", "failover": "handles",
        "missFailover": "handles", "hedge": "a handle", "warmUp": "cold and warm", "slowWarmUp": "a handle",
        "migrate": "from and to", "shadow": "a handle", "keySplit": "a handle",
        "shardSplit": "a handle", "rateLimit": "a handle",
        "outstandingLimit": "a handle", "bigValue": "a handle", "modifyKey": "a handle", "modifyTTL": "a handle",
        "twoLevels": "l1 and l2", "sizeSplit": "l1 and l2", "latency": "a handle", "error": "a text",
    ]

    /// Two handles by their names.
    private mutating func pair(
        _ kind: String, _ first: String, _ second: String, _ fields: inout FieldReader
    ) throws(RouteProblem) -> (RouteTree.ID, RouteTree.ID) {
        guard let given = try fields.object(kind) else { throw fields.problem("\(first) and \(second) are expected") }
        var inner = FieldReader(kind, given.object, at: given.place)
        let result = (try handle(try inner.required(first)), try handle(try inner.required(second)))
        try inner.finish()
        return result
    }

    mutating func make(_ kind: String, _ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let place = fields.place
        switch kind {
        case "pool", "server":
            guard let name = try fields.text(kind) else { throw fields.problem("the name of a pool is expected") }
            let index = try pool(name, place)
            guard kind == "server" else { return try pooled(name, place) }
            let count = tree.pools[index].servers.count
            guard let number = try Self.whole("index", 0...65_535, &fields), number < count else {
                throw fields.problem("index: the pool \(name) has \(count) servers, counted from 0")
            }
            return try add(.server(pool: index, index: Int(number)), place)
        case "hash": return try hash(&fields)
        case "prefixes": return try add(.prefixes(try prefixes(&fields)), place)
        case "operations": return try operations(&fields)
        case "allSync", "allAsync", "allFastest", "allInitial", "allMajority", "random":
            let children = try list(fields.value(kind), fields)
            guard !children.isEmpty else { throw fields.problem("handles are expected") }
            return try add(Self.gathering(kind, children), place)
        case "failover": return try failover(&fields)
        case "hedge":
            let first = try handle(try fields.required(kind))
            var second: RouteTree.ID?
            if let node = fields.value("to") { second = try handle(node) }
            return try hedge(first, second, &fields)
        case "missFailover":
            let children = try list(fields.value(kind), fields)
            guard !children.isEmpty else { throw fields.problem("handles are expected") }
            return try add(
                .missFailover(children, returnsBestOnError: try Self.flag("bestOnError", &fields) ?? false), place)
        case "error":
            let text = try fields.text(kind) ?? ""
            let name = try fields.text("result") ?? RouteResult.localError.name
            guard let result = RouteResult(errorName: name) else {
                throw fields.problem("result: errors are \(RouteResult.errorNames.joined(separator: ", "))")
            }
            return try add(.error(text, result), place)
        default: return try changing(kind, &fields)
        }
    }

    private static func gathering(_ kind: String, _ children: [RouteTree.ID]) -> RouteHandle {
        switch kind {
        case "allSync": .allSync(children)
        case "allAsync": .allAsync(children)
        case "allFastest": .allFastest(children)
        case "allInitial": .allInitial(children)
        case "allMajority": .allMajority(children)
        default: .random(children)
        }
    }

    mutating func prefixes(_ fields: inout FieldReader) throws(RouteProblem) -> PrefixChoice {
        var choice = PrefixChoice(otherwise: nil)
        guard let policies = try fields.object("prefixes") else { throw fields.problem("a mapping is expected") }
        for entry in policies.object.entries { choice.policies[entry.key] = try handle(entry.value) }
        if let otherwise = fields.value("otherwise") { choice.otherwise = try handle(otherwise) }
        return choice
    }

    private mutating func operations(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        guard let policies = try fields.object("operations") else { throw fields.problem("a mapping is expected") }
        var table: [RouteOperation: RouteTree.ID] = [:]
        let groups: [String: RouteOperation.Group] = [
            "reads": .get, "writes": .update, "deletes": .delete, "counts": .arithmetic,
        ]
        for entry in policies.object.entries {
            let target = try handle(entry.value)
            for part in entry.key.split(separator: ",") {
                let name = part.drop { $0 == " " }
                if let group = groups[String(name)] {
                    for operation in RouteOperation.allCases where operation.group == group {
                        table[operation] = table[operation] ?? target
                    }
                } else if let operation = RouteOperation(name: name) {
                    table[operation] = target
                } else {
                    let known = groups.keys.sorted() + RouteOperation.allCases.map(\.name)
                    throw fields.problem("there is no operation \(name); there are \(known.joined(separator: ", "))")
                }
            }
        }
        var otherwise: RouteTree.ID?
        if let node = fields.value("otherwise") { otherwise = try handle(node) }
        return try add(.operations(table, otherwise: otherwise), fields.place)
    }

    // MARK: Hashes

    /// The hashes of our YAML by their names.
    static let schemes: [(name: String, scheme: HashScheme)] = [
        ("multiProbe", .multiProbe), ("ch3", .ch3), ("weightedCh3", .weightedCh3), ("rendezvous", .rendezvous),
        ("weightedRendezvous", .weightedRendezvous), ("pymemcache", .pymemcacheRendezvous), ("jump", .jump),
        ("crc32", .modulo(.crc32Positive)), ("ketama", .ketama(.libmemcached, .oneAtATime)),
        ("ketamaWeighted", .ketama(.libmemcachedWeighted, .md5)), ("twemproxy", .ketama(.twemproxy, .fnv1aLower64)),
        ("uhashring", .ketama(.uhashring, .md5)), ("uhashringKetama", .ketama(.uhashringKetama, .md5)),
        ("modula", .modulo(.oneAtATime)), ("twemproxyModula", .twemproxyModula(.fnv1aLower64)),
    ]

    /// A scheme with another key hash, where it has one.
    private static func scheme(_ scheme: HashScheme, _ hash: KeyHash) -> HashScheme? {
        switch scheme {
        case .ketama(.uhashring, _), .ketama(.uhashringKetama, _): nil
        case .ketama(let dialect, _): .ketama(dialect, hash)
        case .modulo: .modulo(hash)
        case .twemproxyModula: .twemproxyModula(hash)
        default: nil
        }
    }

    /// `hash` of a pool: a name, or a mapping.
    static func hash(_ fields: inout FieldReader, standard: HashChoice) throws(RouteProblem) -> HashChoice {
        guard let node = fields.value("hash") else { return standard }
        var object = JSONObject()
        if let name = node.text { object["function"] = JSONNode(.text(name), at: node.place) }
        var inner = FieldReader("\(fields.what): hash", node.object ?? object, at: node.place)
        let choice = try hashFields(&inner, standard: standard)
        try inner.finish()
        return choice
    }

    static func hashFields(_ fields: inout FieldReader, standard: HashChoice) throws(RouteProblem) -> HashChoice {
        var method = standard.method
        if let name = try fields.text("function") {
            if name == "constShard" {
                method = .constShard
            } else if let found = schemes.first(where: { $0.name.lowercased() == name.lowercased() }) {
                method = .scheme(found.scheme)
            } else {
                let known = schemes.map(\.name) + ["constShard"]
                throw fields.problem("function: there is no hash \(name); there are \(known.joined(separator: ", "))")
            }
        }
        if let name = try fields.text("of") {
            guard let hash = KeyHash(rawValue: name) else {
                let known = KeyHash.allCases.map(\.rawValue).joined(separator: ", ")
                throw fields.problem("of: there is no key hash \(name); there are \(known)")
            }
            guard case .scheme(let own) = method, let other = scheme(own, hash) else {
                throw fields.problem("of: this function has a key hash of its own")
            }
            method = .scheme(other)
        }
        var parts: [HashedPart] = []
        if try flag("stop", &fields) == true { parts.append(.beforeHashStop) }
        if let tag = try fields.text("tag") {
            let bytes = Array(tag.utf8)
            guard bytes.count == 2 else { throw fields.problem("tag: two characters are expected, such as {}") }
            parts.append(.tag(open: bytes[0], close: bytes[1]))
        }
        if let delimiter = try fields.text("before") { parts.append(.before(delimiter: Array(delimiter.utf8))) }
        guard parts.count <= 1 else { throw fields.problem("one of stop, tag and before is allowed") }
        let salt = try fields.text("salt").map { Array($0.utf8) } ?? standard.salt
        return HashChoice(method, part: parts.first ?? standard.part, salt: salt)
    }

    private mutating func hash(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let children = try list(fields.value("hash"), fields)
        guard !children.isEmpty else { throw fields.problem("handles are expected") }
        let choice = try Self.hashFields(&fields, standard: HashChoice())
        let names = try Self.texts("names", &fields) ?? []
        let weights = try numbers("weights", &fields) ?? []
        guard names.isEmpty || names.count == children.count, weights.isEmpty || weights.count == children.count else {
            throw fields.problem("names and weights: one for each of the \(children.count) handles is expected")
        }
        return try add(.hash(children, names: names, weights: weights, choice), fields.place)
    }

    func numbers(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> [Double]? {
        guard let elements = try fields.list(name) else { return nil }
        let numbers = elements.compactMap { Self.number($0) }
        guard numbers.count == elements.count else { throw fields.problem("\(name): numbers are expected") }
        return numbers
    }

    // MARK: Hedged reads

    /// Reads of `first` that are asked a second time of `second`; nil where any server of a pool may answer.
    mutating func hedge(
        _ first: RouteTree.ID, _ second: RouteTree.ID?, _ fields: inout FieldReader
    ) throws(RouteProblem) -> RouteTree.ID {
        var other = second
        if other == nil {
            guard case .pool(let index) = tree[first], case .bounded = tree.pools[index].consistency,
                !tree.pools[index].followsOwners
            else {
                throw fields.problem(
                    """
                    to is missing: the pool that has the same keys. Only another server of a pool with storage, \
                    consistency: bounded and without followOwners may answer in place of a key's own
                    """)
            }
            other = try add(.copy(pool: index, number: 1), fields.place)
        }
        guard let other else { throw fields.problem("to is missing") }
        guard other != first, tree[other] != tree[first] else {
            throw fields.problem("to: a second request to the same servers")
        }
        var route = HedgeRoute(first, other)
        if let after = try Self.number("after", 0.5...0.999, &fields) { route.quantile = after }
        if let minimum = try Self.milliseconds("minimum", &fields) { route.minimumMilliseconds = minimum }
        if let limit = try fields.object("limit") {
            var inner = FieldReader("\(fields.what): limit", limit.object, at: limit.place)
            let rate = try Self.number("rate", 0...0.5, &inner) ?? route.limit.rate
            route.limit = FailoverLimit(
                rate: rate, burst: try Self.number("burst", 1...1e6, &inner) ?? route.limit.burst)
            try inner.finish()
        }
        return try add(.hedge(route), fields.place)
    }

    // MARK: Failover

    private mutating func failover(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        var children = try list(fields.value("failover"), fields)
        guard !children.isEmpty else { throw fields.problem("handles are expected") }
        if let seconds = try Self.seconds("ttl", &fields), seconds > 0 {
            for index in children.indices.dropFirst() {
                children[index] = try add(.modifyExptime(children[index], .atMost(Int64(seconds))), fields.place)
            }
        }
        var route = FailoverRoute(children)
        route.errors = try errors(&fields)
        route.pairsLeases = try Self.flag("pairLeases", &fields) ?? false
        if let limit = try fields.object("limit") {
            var inner = FieldReader("failover: limit", limit.object, at: limit.place)
            guard let rate = try Self.number("rate", 0...1, &inner) else { throw inner.problem("rate is missing") }
            route.limit = FailoverLimit(rate: rate, burst: try Self.number("burst", 1...1e9, &inner) ?? 1000)
            try inner.finish()
        }
        route.policy = try policy(&fields, children.count)
        return try add(.failover(route), fields.place)
    }

    private func errorSet(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> Set<RouteResult>? {
        guard let names = try Self.texts(name, &fields) else { return nil }
        var result: Set<RouteResult> = []
        for text in names {
            guard let error = RouteResult(errorName: text) else {
                throw fields.problem(
                    "\(name): \(text) is no error; there are \(RouteResult.errorNames.joined(separator: ", "))")
            }
            result.insert(error)
        }
        return result
    }

    private func errors(_ fields: inout FieldReader) throws(RouteProblem) -> FailoverErrors {
        guard let object = fields.object["errors"]?.object else {
            let all = try errorSet("errors", &fields)
            return FailoverErrors(gets: all, updates: all, deletes: all)
        }
        _ = fields.value("errors")
        var inner = FieldReader("failover: errors", object, at: fields.place)
        let errors = FailoverErrors(
            gets: try errorSet("reads", &inner), updates: try errorSet("writes", &inner),
            deletes: try errorSet("deletes", &inner))
        try inner.finish()
        return errors
    }

    private func policy(_ fields: inout FieldReader, _ count: Int) throws(RouteProblem) -> FailoverPolicy {
        let order = try Self.word("order", ["listed", "leastFailures", "deterministic", "rendezvous"], &fields)
        let tries = try Self.whole("tries", 1...65_536, &fields).map { min(Int($0), count) }
        let excluding = try errorSet("exclude", &fields) ?? []
        switch order ?? "listed" {
        case "leastFailures": return .leastFailures(maximumTries: tries ?? count)
        case "rendezvous":
            let names = try Self.texts("names", &fields) ?? []
            let weights = try numbers("weights", &fields) ?? []
            guard names.count == count - 1, weights.isEmpty || weights.count == names.count else {
                throw fields.problem("names: one for each of the \(count - 1) handles behind the first is expected")
            }
            return .rendezvous(tags: names, weights: weights)
        case "deterministic":
            let errors = try Self.whole("errorTries", 1...65_536, &fields).map(Int.init)
            var policy = DeterministicFailover(maximumTries: tries ?? count, maximumErrors: errors ?? tries ?? count)
            policy.excluding = excluding
            policy.weights = try numbers("weights", &fields) ?? []
            guard policy.weights.isEmpty || policy.weights.count == count, policy.weights.allSatisfy({ 0...1 ~= $0 })
            else {
                throw fields.problem("weights: one from 0 to 1 for each of the \(count) handles is expected")
            }
            policy.avoidsFailedDomains = try Self.flag("avoidFailedDomains", &fields) ?? false
            policy.ignoresNormalIndex = try Self.flag("ignoreFirstIndex", &fields) ?? false
            return .deterministic(policy)
        default: return .inOrder(maximumTries: tries, excluding: excluding)
        }
    }

    // MARK: Handles of one or two

    static func bigValues(_ fields: inout FieldReader) throws(RouteProblem) -> BigValues {
        let threshold = try bytes("threshold", &fields)
        let batch = try whole("batch", 0...1_000_000, &fields) ?? 0
        let hides = try flag("hideFlag", &fields) ?? false
        guard let threshold, let values = BigValues(thresholdBytes: threshold, batchSize: Int(batch), hidesFlag: hides)
        else { throw fields.problem("threshold: a size above 0 is expected") }
        return values
    }

    private mutating func changing(_ kind: String, _ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let place = fields.place
        switch kind {
        case "warmUp":
            let (cold, warm) = try pair(kind, "cold", "warm", &fields)
            return try add(.warmUp(cold: cold, warm: warm, exptime: try Self.seconds("ttl", &fields)), place)
        case "migrate":
            let (from, to) = try pair(kind, "from", "to", &fields)
            guard let start = try Self.whole("start", 0...Int64.max / 2, &fields) else {
                throw fields.problem("start: seconds since 1970 are expected")
            }
            let interval = try Self.seconds("interval", &fields) ?? 3600
            guard interval > 0 else { throw fields.problem("interval: at least 1s") }
            return try add(
                .migrate(from: from, to: to, startSeconds: UInt64(start), intervalSeconds: UInt64(interval)), place)
        case "twoLevels":
            let (first, second) = try pair(kind, "l1", "l2", &fields)
            guard let ttl = try Self.seconds("ttl", &fields) else { throw fields.problem("ttl is missing") }
            var levels = TwoLevels(upgradingExptime: ttl)
            levels.missExptime = try Self.seconds("missTTL", &fields) ?? 0
            levels.missPeriod = Int(try Self.whole("missPeriod", 0...Int64(Int32.max), &fields) ?? 0)
            return try add(.l1l2(l1: first, l2: second, levels), place)
        case "sizeSplit":
            let (first, second) = try pair(kind, "l1", "l2", &fields)
            guard let threshold = try Self.bytes("threshold", &fields) else {
                throw fields.problem("threshold is missing")
            }
            var split = SizeSplit(thresholdBytes: threshold)
            split.ttlThreshold = Int64(try Self.seconds("ttlThreshold", &fields) ?? 0)
            split.failureTTL = Int64(try Self.seconds("failureTTL", &fields) ?? 60)
            guard split.failureTTL > 0 else { throw fields.problem("failureTTL: at least 1s") }
            split.storesBoth = try Self.flag("both", &fields) ?? false
            split.retries = Int(try Self.whole("retries", 1...10, &fields) ?? 1)
            return try add(.l1l2SizeSplit(l1: first, l2: second, split), place)
        default: break
        }
        let child = try handle(try fields.required(kind))
        switch kind {
        case "slowWarmUp": return try slowWarmUp(child, &fields)
        case "shadow": return try shadow(child, &fields)
        case "keySplit":
            guard let replicas = try Self.whole("replicas", 2...1_000, &fields) else {
                throw fields.problem("replicas is missing")
            }
            return try add(
                .keySplit(
                    child, replicas: Int(replicas), allSync: try Self.flag("all", &fields) ?? false,
                    firstHit: try Self.flag("firstHit", &fields) ?? false), place)
        case "shardSplit": return try add(.shardSplit(child, try Self.shards(&fields)), place)
        case "rateLimit": return try rateLimit(child, &fields)
        case "outstandingLimit":
            guard let limit = try Self.whole("limit", 1...1_000_000, &fields) else {
                throw fields.problem("limit is missing")
            }
            return try add(.outstandingLimit(child, limit: Int(limit)), place)
        case "bigValue": return try add(.bigValue(child, try Self.bigValues(&fields)), place)
        case "modifyKey": return try modifyKey(child, &fields)
        case "modifyTTL": return try add(.modifyExptime(child, try Self.exptimeChange(&fields)), place)
        default: return try latency(child, &fields)
        }
    }

    private static func shards(_ fields: inout FieldReader) throws(RouteProblem) -> ShardSplits {
        guard let given = try fields.object("shards") else {
            throw fields.problem("shards: numbers by shard are expected")
        }
        var inner = FieldReader("shards", given.object, at: given.place)
        let parts = Int64(1)...Int64(ShardSplits.most)
        var splits = ShardSplits()
        for entry in given.object.entries {
            guard entry.value.object != nil, let change = try inner.object(entry.key) else {
                guard let count = try whole(entry.key, parts, &inner) else {
                    throw inner.problem("\(entry.key): a number is expected")
                }
                splits.shards[entry.key] = ShardSplits.Size(Int(count))
                continue
            }
            var details = FieldReader("shards: \(entry.key)", change.object, at: change.place)
            guard let new = try whole("to", parts, &details) else { throw details.problem("to is missing") }
            var size = ShardSplits.Size(Int(new))
            size.old = Int(try whole("from", parts, &details) ?? 1)
            size.startSeconds = UInt64(try whole("start", 0...Int64.max / 2, &details) ?? 0)
            size.periodSeconds = UInt64(try seconds("interval", &details) ?? 0)
            size.deletesAll = try flag("deletesAll", &details) ?? true
            try details.finish()
            splits.shards[entry.key] = size
        }
        try inner.finish()
        return splits
    }

    private static func exptimeChange(_ fields: inout FieldReader) throws(RouteProblem) -> ExptimeChange {
        // Below 0 is expired at once: of no unit.
        for key in ["set", "atMost"] {
            guard let text = fields.object[key]?.text, let expired = Int64(text), expired < 0 else { continue }
            _ = fields.value(key)
            return key == "set" ? .set(expired) : .atMost(expired)
        }
        let (exact, most) = (try seconds("set", &fields), try seconds("atMost", &fields))
        guard (exact == nil) != (most == nil), most != 0 else {
            throw fields.problem("either set or atMost is expected, the latter above 0")
        }
        return exact.map { .set(Int64($0)) } ?? .atMost(Int64(most ?? 0))
    }

    private mutating func slowWarmUp(
        _ child: RouteTree.ID, _ fields: inout FieldReader
    ) throws(RouteProblem) -> RouteTree.ID {
        let failover = try handle(try fields.required("otherwise"))
        var settings = SlowWarmUp()
        settings.enableThreshold = try Self.number("enableBelow", 0...1, &fields) ?? settings.enableThreshold
        settings.disableThreshold = try Self.number("disableFrom", 0...1, &fields) ?? settings.disableThreshold
        settings.start = try Self.number("start", 0...1, &fields) ?? settings.start
        settings.step = try Self.number("step", 0...100, &fields) ?? settings.step
        settings.minimumRequests = Int(try Self.whole("minimumRequests", 1...1_000_000_000, &fields) ?? 100)
        guard settings.enableThreshold < settings.disableThreshold else {
            throw fields.problem("enableBelow has to be below disableFrom")
        }
        return try add(.slowWarmUp(target: child, failover: failover, settings), fields.place)
    }

    private mutating func shadow(
        _ child: RouteTree.ID, _ fields: inout FieldReader
    ) throws(RouteProblem) -> RouteTree.ID {
        var targets: [ShadowTarget] = []
        for node in try fields.list("to") ?? [] {
            guard let object = node.object else { throw fields.problem("to: a list of mappings is expected", at: node) }
            var inner = FieldReader("shadow: to", object, at: node.place)
            var target = ShadowTarget(try handle(try inner.required("route")))
            target.keyList = try Self.texts("keys", &inner) ?? []
            if let range = try numbers("range", &inner) {
                guard range.count == 2, 0 <= range[0], range[0] <= range[1], range[1] <= 1, target.keyList.isEmpty
                else {
                    throw inner.problem("range: two numbers from 0 to 1, without keys")
                }
                target.keys = range[0]...range[1]
            } else {
                target.keys = 0...1
            }
            target.requests = try Self.number("requests", 0...1, &inner) ?? 1
            try inner.finish()
            targets.append(target)
        }
        guard !targets.isEmpty else { throw fields.problem("to: at least one shadow is expected") }
        return try add(.shadow(child, targets), fields.place)
    }

    private mutating func rateLimit(
        _ child: RouteTree.ID, _ fields: inout FieldReader
    ) throws(RouteProblem) -> RouteTree.ID {
        func rate(_ name: String) throws(RouteProblem) -> RateLimits.Rate? {
            let burst = try Self.number("\(name)Burst", 1e-9...1e12, &fields)
            guard let perSecond = try Self.number(name, 1e-9...1e12, &fields) else { return nil }
            return RateLimits.Rate(perSecond: perSecond, burst: burst)
        }
        var limits = RateLimits()
        (limits.gets, limits.sets, limits.deletes) = (try rate("reads"), try rate("writes"), try rate("deletes"))
        var fallback: RouteTree.ID?
        if let node = fields.value("fallback") { fallback = try handle(node) }
        return try add(.rateLimit(child, limits, fallback: fallback), fields.place)
    }

    private mutating func modifyKey(
        _ child: RouteTree.ID, _ fields: inout FieldReader
    ) throws(RouteProblem) -> RouteTree.ID {
        var change = KeyChange()
        if let prefix = try fields.text("routingPrefix") {
            do throws(RouteError) {
                change.routingPrefix = prefix.isEmpty ? "" : try RoutingPrefix(prefix).text
            } catch {
                throw fields.problem("routingPrefix: \(error.description)")
            }
        }
        change.prefix = try fields.text("prefix") ?? ""
        change.replacing = try fields.text("replace")
        change.suffix = try fields.text("suffix") ?? ""
        change.isInPlace = try Self.flag("inPlace", &fields) ?? false
        for part in [change.prefix, change.replacing ?? "", change.suffix] {
            guard part.utf8.count <= 250, part.utf8.allSatisfy({ $0 > 32 && $0 != 127 }) else {
                throw fields.problem(
                    "'\(part)' cannot be a part of a key: at most 250 bytes, without blanks and controls")
            }
        }
        if change.isInPlace, change.replacing != nil { throw fields.problem("replace and inPlace exclude each other") }
        return try add(.modifyKey(child, change), fields.place)
    }

    private mutating func latency(
        _ child: RouteTree.ID, _ fields: inout FieldReader
    ) throws(RouteProblem) -> RouteTree.ID {
        var latency = Latency()
        latency.beforeMilliseconds = try Self.milliseconds("before", &fields) ?? 0
        latency.afterMilliseconds = try Self.milliseconds("after", &fields) ?? 0
        latency.totalMilliseconds = try Self.milliseconds("total", &fields) ?? 0
        for node in try fields.list("percentiles") ?? [] {
            guard let pair = node.array, pair.count == 2, let percentile = Self.number(pair[0]),
                let time = Self.number(pair[1]), percentile > latency.totalPercentiles.last?.percentile ?? 0,
                percentile <= 100, 0...3_600_000 ~= time
            else {
                throw fields.problem("percentiles: a list of [percentile, milliseconds], growing up to 100", at: node)
            }
            latency.totalPercentiles.append((percentile, Int(time)))
        }
        return try add(.latency(child, latency), fields.place)
    }
}
