// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

/// What a hash of mcrouter's says.
struct HashSettings {
    var function: String?
    var salt = ""
    var weights: [Double]?
    var tags: [String]?
    var name = ""
    var isErrorWhenEmpty = true
    /// Set for the function that chooses a few of the children once, and fails over among them.
    var latest: Latest?

    struct Latest {
        var count = 5
        var errors = FailoverErrors()
        var policy: JSONNode?
    }

    init() {}

    /// What a pool's own fields say.
    init(_ pool: MCRouterReader.PoolFields) {
        weights = pool.weights
        tags = pool.tags
        name = pool.pool.name
        isErrorWhenEmpty = pool.isErrorWhenEmpty
        if weights != nil { function = "WeightedCh3" }
    }

    static let functions = [
        "Ch3", "WeightedCh3", "WeightedCh3Rv", "Crc32", "Rendezvous", "WeightedRendezvous", "ConstShard", "Latest",
    ]

    /// How one of `count` children is chosen.
    func choice(_ count: Int, _ place: JSONNode.Place) throws(RouteProblem) -> HashChoice {
        let method: HashChoice.Method
        switch function ?? "Ch3" {
        case "Ch3": method = .scheme(.ch3)
        case "WeightedCh3":
            guard let weights else { throw RouteProblem("WeightedCh3 without weights", at: place) }
            guard weights.prefix(count).allSatisfy({ 0...1 ~= $0 }) else {
                throw RouteProblem("weights of WeightedCh3 are from 0 to 1", at: place)
            }
            method = .scheme(.weightedCh3)
        case "WeightedCh3Rv": throw RouteProblem("WeightedCh3Rv without weights_rv", at: place)
        case "Crc32": method = .scheme(.modulo(.crc32Positive))
        case "ConstShard": method = .constShard
        case "Rendezvous", "WeightedRendezvous":
            guard let tags, tags.count == count else {
                throw RouteProblem(
                    "a rendezvous hash of \(count) needs as many tags, not \(tags?.count ?? 0)", at: place)
            }
            method = .scheme(function == "Rendezvous" ? .rendezvous : .weightedRendezvous)
            if function == "WeightedRendezvous", weights?.count != count {
                throw RouteProblem(
                    "WeightedRendezvous of \(count) needs as many weights, not \(weights?.count ?? 0)", at: place)
            }
        case let other:
            throw RouteProblem(
                "the hash_func \(other) is not supported; supported are \(Self.functions.joined(separator: ", "))",
                at: place)
        }
        guard salt.utf8.count <= ServerSelector.maximumSaltBytes else {
            throw RouteProblem("a salt of more than \(ServerSelector.maximumSaltBytes) bytes", at: place)
        }
        return HashChoice(method, part: .beforeHashStop, salt: Array(salt.utf8))
    }

    /// One weight for each child: what is missing is 0.5, as mcrouter has it; none where the function has none.
    func weights(_ count: Int) -> [Double] {
        guard let weights, function == "WeightedCh3" || function == "WeightedRendezvous" else { return [] }
        return Array((weights + Array(repeating: 0.5, count: max(0, count - weights.count))).prefix(count))
    }

    /// Servers with the weights and names that the hash sees.
    func applied(to servers: [PoolServer]) -> [PoolServer] {
        let weights = weights(servers.count)
        let usesTags = function == "Rendezvous" || function == "WeightedRendezvous"
        return servers.enumerated().map { index, server in
            PoolServer(
                Server(
                    host: server.server.host, port: server.server.port,
                    weight: index < weights.count ? weights[index] : 1,
                    alias: usesTags ? tags?[index] : nil), failureDomain: server.failureDomain, usesTLS: server.usesTLS)
        }
    }
}

extension MCRouterReader {
    /// Reads `hash`: a name, or an object.
    mutating func read(
        _ hash: JSONNode, into settings: inout HashSettings, _ fields: inout FieldReader
    ) throws(RouteProblem) {
        if let name = hash.text {
            settings.function = name
        } else if let object = hash.object {
            var inner = FieldReader("\(fields.what): hash", object, at: hash.place)
            try readHash(&inner, into: &settings)
            try inner.finish()
        } else {
            throw fields.problem("hash is \(hash.kind); a text or an object is expected", at: hash)
        }
        if settings.function == "Latest", settings.latest == nil { settings.latest = HashSettings.Latest() }
    }

    /// Reads the fields of a hash.
    mutating func readHash(
        _ fields: inout FieldReader, into settings: inout HashSettings
    ) throws(RouteProblem) {
        if let name = try fields.text("hash_func") { settings.function = name }
        if let salt = try fields.text("salt") { settings.salt = salt }
        if let weights = try numbers("weights", &fields) { settings.weights = weights }
        if let tags = try texts("tags", &fields) { settings.tags = tags }
        if let isError = try fields.boolean("error_on_empty") { settings.isErrorWhenEmpty = isError }
        let variable = try fields.text("weights_rv")
        if settings.function == "WeightedCh3Rv" {
            guard let variable else { throw fields.problem("weights_rv is missing") }
            settings.weights = try weights(variable, fields)
            settings.function = "WeightedCh3"
        }
        try fields.refuse(["bucketize", "client_fanout"], "buckets are not part of the handles that are supported")
        guard settings.function == "Latest" else { return }
        var latest = HashSettings.Latest()
        if let count = try fields.integer("failover_count", in: 1...1_000) { latest.count = Int(count) }
        latest.errors = try failoverErrors(&fields)
        latest.policy = fields.value("failover_policy")
        _ = try fields.boolean("thread_local_failover")
        settings.latest = latest
    }

    /// A hash of handles.
    mutating func hash(
        _ children: [RouteTree.ID], _ settings: HashSettings, _ place: JSONNode.Place
    ) throws(RouteProblem) -> RouteTree.ID {
        if children.isEmpty {
            guard settings.isErrorWhenEmpty else { return try add(.null, place) }
            return try add(
                .error("a hash of no routes\(settings.name.isEmpty ? "" : ": \(settings.name)")", .localError), place)
        }
        if let latest = settings.latest { return try self.latest(children, settings, latest, place) }
        if children.count == 1 { return children[0] }
        let choice = try settings.choice(children.count, place)
        return try add(
            .hash(children, names: settings.tags ?? [], weights: settings.weights(children.count), choice), place)
    }

    /// The same few children for all keys, chosen by the router's number.
    private mutating func latest(
        _ children: [RouteTree.ID], _ settings: HashSettings, _ latest: HashSettings.Latest, _ place: JSONNode.Place
    ) throws(RouteProblem) -> RouteTree.ID {
        var rest = children
        var weights = settings.weights ?? []
        weights = Array((weights + Array(repeating: 1, count: children.count)).prefix(children.count))
        var chosen: [RouteTree.ID] = []
        var number = defaults.hostID
        while !rest.isEmpty, chosen.count < min(latest.count, children.count) {
            let key = Array("\(number)\(settings.salt)".utf8)
            let servers = weights.enumerated().map { Server(host: "\($0.offset)", port: 0, weight: $0.element) }
            do throws(SelectorError) {
                let index = try ServerSelector(servers, scheme: .weightedCh3).owner(of: key.span)
                chosen.append(rest.remove(at: index))
                weights.remove(at: index)
            } catch {
                throw RouteProblem("Latest: \(error.description)", at: place)
            }
            number = ConfigurationHash.value(of: Int64(truncatingIfNeeded: number &+ UInt64(chosen.count)))
        }
        if chosen.count == 1 { return chosen[0] }
        var route = FailoverRoute(chosen)
        route.errors = latest.errors
        if let policy = latest.policy { route.policy = try failoverPolicy(policy, JSONObject(), chosen.count) }
        return try add(.failover(route), place)
    }
}
