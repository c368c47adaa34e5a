// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

extension MCRouterReader {
    mutating func failover(_ json: JSONNode?, _ place: JSONNode.Place) throws(RouteProblem) -> RouteTree.ID {
        guard let object = json?.object else {
            let children = try json.map { (node) throws(RouteProblem) in try list(node) } ?? []
            return try failover(children, JSONObject(), nil, place)
        }
        var fields = FieldReader("FailoverRoute", object, at: place)
        _ = fields.value("type")
        let given = fields.value("children")
        let children = try given.map { (node) throws(RouteProblem) in try list(node) } ?? []
        return try failover(children, object, fields, place)
    }

    /// A pool, and its servers behind it.
    mutating func saltedFailover(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let pool = try fields.required("pool")
        var normal = JSONObject()
        normal["type"] = JSONNode(.text("PoolRoute"), at: fields.place)
        normal["pool"] = pool
        for name in ["shadows", "shadow_policy", "hash"] {
            if let value = fields.value(name) { normal[name] = value }
        }
        let children =
            [try poolRoute(JSONNode(.object(normal), at: fields.place), fields.place)]
            + (try servers(pool, fields.place))
        let handle = try failover(children, fields.object, fields, fields.place)
        for name in Self.failoverKeys { _ = fields.value(name) }
        return handle
    }

    mutating func failoverWithExptime(_ fields: inout FieldReader) throws(RouteProblem) -> RouteTree.ID {
        let normal = try one(try fields.required("normal"))
        let exptime = try fields.integer("failover_exptime", in: Int64(Int32.min)...Int64(Int32.max)) ?? 60
        let others = try fields.value("failover").map { (node) throws(RouteProblem) in try list(node) } ?? []
        var children = [normal]
        for other in others {
            children.append(exptime > 0 ? try add(.modifyExptime(other, .atMost(exptime)), fields.place) : other)
        }
        let handle = try failover(children, fields.object, fields, fields.place)
        for name in Self.failoverKeys { _ = fields.value(name) }
        return handle
    }

    private static let failoverKeys = [
        "name", "enable_lease_pairing", "failover_tag", "failover_limit", "failover_errors", "failover_policy", "hash",
        "tags",
    ]

    private mutating func failover(
        _ children: [RouteTree.ID], _ object: JSONObject, _ given: FieldReader?, _ place: JSONNode.Place
    ) throws(RouteProblem) -> RouteTree.ID {
        if children.isEmpty { return try add(.null, place) }
        if children.count == 1 { return children[0] }
        var route = FailoverRoute(children)
        guard var fields = given else { return try add(.failover(route), place) }
        let name = try fields.text("name")
        route.pairsLeases = try fields.boolean("enable_lease_pairing") ?? false
        guard !route.pairsLeases || name != nil else { throw fields.problem("enable_lease_pairing needs a name") }
        try fields.refuse(["failover_tag"], "memcached's protocols have no field for it")
        if let limit = try fields.object("failover_limit") {
            var inner = FieldReader("failover_limit", limit.object, at: limit.place)
            guard let rate = try inner.number("rate") else { throw inner.problem("rate is missing") }
            route.limit = FailoverLimit(rate: rate, burst: try inner.number("burst") ?? 1000)
            try inner.finish()
        }
        route.errors = try failoverErrors(&fields)
        if let policy = fields.value("failover_policy") {
            route.policy = try failoverPolicy(policy, object, children.count)
        }
        _ = (fields.value("hash"), fields.value("tags"))
        // Those with fields of their own finish themselves.
        if fields.what == "FailoverRoute" { try fields.finish() }
        return try add(.failover(route), place)
    }

    func failoverErrors(_ fields: inout FieldReader) throws(RouteProblem) -> FailoverErrors {
        guard let node = fields.value("failover_errors") else { return FailoverErrors() }
        if node.array != nil {
            let all = try errors(node)
            return FailoverErrors(gets: all, updates: all, deletes: all)
        }
        guard let object = node.object else {
            throw fields.problem("failover_errors is \(node.kind); a list or an object is expected", at: node)
        }
        var inner = FieldReader("failover_errors", object, at: node.place)
        let (gets, updates, deletes) = (inner.value("gets"), inner.value("updates"), inner.value("deletes"))
        try inner.finish()
        return FailoverErrors(
            gets: try gets.map { (node) throws(RouteProblem) in try errors(node) },
            updates: try updates.map { (node) throws(RouteProblem) in try errors(node) },
            deletes: try deletes.map { (node) throws(RouteProblem) in try errors(node) })
    }

    private func errors(_ node: JSONNode) throws(RouteProblem) -> Set<RouteResult> {
        guard let elements = node.array else {
            throw RouteProblem("errors are \(node.kind); a list is expected", at: node.place)
        }
        var result: Set<RouteResult> = []
        for element in elements {
            guard let name = element.text, let error = RouteResult(errorName: name) else {
                let known = RouteResult.errorNames.joined(separator: ", ")
                throw RouteProblem(
                    "\(element.text ?? element.kind) is no error; errors are \(known)", at: element.place)
            }
            result.insert(error)
        }
        return result
    }

    func failoverPolicy(
        _ node: JSONNode, _ route: JSONObject, _ count: Int
    ) throws(RouteProblem) -> FailoverPolicy {
        guard let object = node.object else {
            throw RouteProblem("failover_policy is \(node.kind); an object is expected", at: node.place)
        }
        var fields = FieldReader("failover_policy", object, at: node.place)
        guard let type = try fields.text("type") else { throw fields.problem("type is missing") }
        let policy: FailoverPolicy
        switch type {
        case "InOrderPolicy":
            let tries = try fields.integer("max_tries", in: 1...Int64(UInt32.max)).map { min(Int($0), count) }
            policy = .inOrder(maximumTries: tries, excluding: try excluded(&fields))
        case "LeastFailuresPolicy":
            guard let tries = try fields.integer("max_tries", in: 1...Int64(UInt32.max)) else {
                throw fields.problem("max_tries is missing")
            }
            policy = .leastFailures(maximumTries: min(Int(tries), count))
        case "DeterministicOrderPolicy": policy = try deterministic(&fields, route, count)
        case "RendezvousPolicy":
            let tags = fields.value("tags") ?? route["tags"]
            let weights = try numbers("weights", &fields)
            guard let names = tags?.array?.compactMap(\.text), names.count == count - 1 else {
                throw fields.problem(
                    "RendezvousPolicy needs a tag for each of the \(count - 1) servers behind the first route")
            }
            let isWeighted = route["hash"]?.text == "WeightedRendezvous"
            guard !isWeighted || weights?.count == names.count else {
                throw fields.problem("WeightedRendezvous needs a weight for each tag")
            }
            policy = .rendezvous(tags: names, weights: isWeighted ? weights ?? [] : [])
        default:
            throw fields.problem(
                "the policy \(type) is not known; InOrderPolicy, LeastFailuresPolicy, DeterministicOrderPolicy and "
                    + "RendezvousPolicy are")
        }
        try fields.finish()
        return policy
    }

    private func excluded(_ fields: inout FieldReader) throws(RouteProblem) -> Set<RouteResult> {
        try fields.value("exclude_errors").map { (node) throws(RouteProblem) in try errors(node) } ?? []
    }

    private func deterministic(
        _ fields: inout FieldReader, _ route: JSONObject, _ count: Int
    ) throws(RouteProblem) -> FailoverPolicy {
        guard let tries = try fields.integer("max_tries", in: 1...Int64(UInt32.max)),
            let errors = try fields.integer("max_error_tries", in: 1...Int64(UInt32.max))
        else { throw fields.problem("max_tries and max_error_tries are expected") }
        var policy = DeterministicFailover(maximumTries: min(Int(tries), count), maximumErrors: Int(errors))
        policy.maximumErrors = min(policy.maximumErrors, policy.maximumTries)
        policy.excluding = try excluded(&fields)
        policy.avoidsFailedDomains = try fields.boolean("enable_failure_domains") ?? false
        policy.ignoresNormalIndex = try fields.boolean("ignore_normal_reply_index") ?? false
        guard let hash = fields.value("hash") ?? route["hash"] else { return .deterministic(policy) }
        guard let object = hash.object else {
            guard hash.text == "Ch3" else { throw fields.problem("hash: Ch3 or an object is expected", at: hash) }
            return .deterministic(policy)
        }
        var inner = FieldReader("\(fields.what): hash", object, at: hash.place)
        let function = try inner.text("hash_func") ?? "Ch3"
        let weights = try numbers("weights", &inner)
        _ = try inner.text("salt")
        try inner.finish()
        switch function {
        case "Ch3": break
        case "WeightedCh3":
            guard let weights, weights.allSatisfy({ 0...1 ~= $0 }) else {
                throw inner.problem("WeightedCh3 needs weights from 0 to 1")
            }
            policy.weights = Array(
                (weights + Array(repeating: 0.5, count: max(0, count - weights.count))).prefix(count))
        default: throw inner.problem("the hash_func \(function) is not supported here; Ch3 and WeightedCh3 are")
        }
        return .deterministic(policy)
    }
}
