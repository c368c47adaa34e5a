// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

/// Makes a route tree of our own YAML. docs/routes.md describes it.
struct YAMLRoutes {
    var tree = RouteTree()
    var defaults: RouteDefaults
    let problems: ProblemList
    private var pools: [String: JSONNode] = [:]
    private var poolIndexes: [String: Int] = [:]
    /// What `hedge` says of pools.
    private var hedges: [String: JSONNode] = [:]
    private var handles: [String: JSONNode] = [:]
    private var made: [String: RouteTree.ID] = [:]
    private var making: Set<String> = []
    private var depth = 0

    private static var depthLimit: Int { 120 }

    init(defaults: RouteDefaults, problems: ProblemList) {
        self.defaults = defaults
        self.problems = problems
    }

    /// YAML as JSON whose values are all texts.
    static func node(_ node: SettingsNode, _ file: String) -> JSONNode {
        let place = JSONNode.Place(file: file, line: node.line)
        switch node.content {
        case .scalar(let text, _): return JSONNode(node.isNull ? .null : .text(text), at: place)
        case .sequence(let elements): return JSONNode(.array(elements.map { Self.node($0, file) }), at: place)
        case .mapping(let entries):
            var object = JSONObject()
            for entry in entries { object[entry.key] = Self.node(entry.value, file) }
            return JSONNode(.object(object), at: place)
        }
    }

    mutating func read(_ root: JSONNode, otherKeys: Set<String>) throws(RouteProblem) {
        guard let object = root.object else { throw RouteProblem("a mapping (key: value) is expected", at: root.place) }
        var fields = FieldReader("routes", object, at: root.place)
        for key in otherKeys { _ = fields.value(key) }
        if let routing = try fields.object("routing") { try readRouting(routing.object, routing.place) }
        let poolEntries = try fields.object("pools")?.object.entries ?? []
        for entry in poolEntries { pools[entry.key] = entry.value }
        for entry in try fields.object("handles")?.object.entries ?? [] {
            guard pools[entry.key] == nil, entry.key != "nothing" else {
                throw RouteProblem("a handle cannot be called \(entry.key): that is taken", at: entry.value.place)
            }
            handles[entry.key] = entry.value
        }
        let (route, routes) = (fields.value("route"), try fields.object("routes"))
        try fields.finish()
        for entry in poolEntries { _ = try pool(entry.key, entry.value.place) }
        for name in hedges.keys.sorted() { _ = try named(name, root.place) }
        guard (route == nil) != (routes == nil) else {
            throw RouteProblem("either route or routes is expected", at: root.place)
        }
        if let route { try add(defaults.routingPrefix, route) }
        for entry in routes?.object.entries ?? [] { try add(entry.key, entry.value) }
        // What nobody refers to is checked all the same.
        for name in handles.keys.sorted() { _ = try named(name, root.place) }
    }

    private mutating func add(_ prefix: String, _ node: JSONNode) throws(RouteProblem) {
        var selector = PrefixChoice(otherwise: nil)
        if let object = node.object, object["prefixes"] != nil {
            var fields = FieldReader("prefixes", object, at: node.place)
            selector = try prefixes(&fields)
            try fields.finish()
        } else {
            selector.otherwise = try handle(node)
        }
        do throws(RouteError) { try tree.setCluster(try RoutingPrefix(prefix), selector) } catch {
            throw RouteProblem(error.description, at: node.place)
        }
    }

    private mutating func readRouting(_ object: JSONObject, _ place: JSONNode.Place) throws(RouteProblem) {
        var fields = FieldReader("routing", object, at: place)
        if let prefix = try fields.text("prefix") {
            do throws(RouteError) { defaults.routingPrefix = try RoutingPrefix(prefix).text } catch {
                throw fields.problem("prefix: \(error.description)")
            }
        }
        if let unknown = try Self.word("unknownPrefix", ["error", "default"], &fields) {
            defaults.sendsInvalidPrefixToDefault = unknown == "default"
        }
        if let number = try Self.whole("hostID", 0...Int64.max, &fields) { defaults.hostID = UInt64(number) }
        if let timeout = try Self.milliseconds("timeout", &fields) { defaults.requestTimeoutMilliseconds = timeout }
        if let big = try fields.object("bigValues") {
            var inner = FieldReader("routing: bigValues", big.object, at: big.place)
            defaults.bigValues = try Self.bigValues(&inner)
            try inner.finish()
        }
        try fields.finish()
    }

    // MARK: Scalars

    private static func refusal(_ name: String, _ type: SettingType, _ fields: FieldReader) -> RouteProblem {
        fields.problem("\(name): expected \(type.allowed)", at: fields.object[name])
    }

    static func read(
        _ name: String, _ type: SettingType, _ fields: inout FieldReader
    ) throws(RouteProblem) -> SettingValue? {
        guard let node = fields.value(name) else { return nil }
        guard let text = node.text, let value = type.value(of: text) else { throw refusal(name, type, fields) }
        return value
    }

    static func whole(
        _ name: String, _ range: ClosedRange<Int64>, _ fields: inout FieldReader
    ) throws(RouteProblem) -> Int64? {
        guard case .integer(let number) = try read(name, .integer(range), &fields) else { return nil }
        return number
    }

    static func flag(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> Bool? {
        guard case .boolean(let value) = try read(name, .boolean, &fields) else { return nil }
        return value
    }

    static func word(
        _ name: String, _ words: [String], _ fields: inout FieldReader
    ) throws(RouteProblem) -> String? {
        guard case .text(let word) = try read(name, .enumeration(words), &fields) else { return nil }
        return word
    }

    static func bytes(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> Int? {
        guard case .size(let size) = try read(name, .size(0...(1 << 40)), &fields) else { return nil }
        return Int(size)
    }

    /// An hour at most.
    static func milliseconds(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> Int? {
        let range: ClosedRange<UInt64> = 1_000_000...3_600_000_000_000
        guard case .duration(let time) = try read(name, .duration(range), &fields) else { return nil }
        return Int(time / 1_000_000)
    }

    /// Whole seconds; `never` is 0.
    static func seconds(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> UInt32? {
        if fields.object[name]?.text == "never" {
            _ = fields.value(name)
            return 0
        }
        let range: ClosedRange<UInt64> = 0...(UInt64(Int32.max) * 1_000_000_000)
        guard case .duration(let time) = try read(name, .duration(range), &fields) else { return nil }
        guard time % 1_000_000_000 == 0 else { throw fields.problem("\(name): whole seconds are expected") }
        return UInt32(time / 1_000_000_000)
    }

    static func number(
        _ name: String, _ range: ClosedRange<Double>, _ fields: inout FieldReader
    ) throws(RouteProblem) -> Double? {
        guard let node = fields.value(name) else { return nil }
        guard let number = number(node), range.contains(number) else {
            throw fields.problem("\(name): expected a number from \(range.lowerBound) to \(range.upperBound)", at: node)
        }
        return number
    }

    static func number(_ node: JSONNode) -> Double? {
        guard let text = node.text, let number = Double(text), number.isFinite else { return nil }
        return number
    }

    static func texts(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> [String]? {
        guard let node = fields.value(name) else { return nil }
        if let text = node.text { return [text] }
        guard let elements = node.array, elements.allSatisfy({ $0.text != nil }) else {
            throw fields.problem("\(name): a list of texts is expected", at: node)
        }
        return elements.compactMap(\.text)
    }

    // MARK: Pools

    /// A pool's number.
    mutating func pool(_ name: String, _ place: JSONNode.Place) throws(RouteProblem) -> Int {
        if let known = poolIndexes[name] { return known }
        guard let node = pools[name] else {
            let near = suggestion(for: name, among: pools.keys.sorted()).map { " (did you mean \($0)?)" } ?? ""
            throw RouteProblem("there is no pool \(name)\(near)", at: place)
        }
        guard let object = node.object else {
            throw RouteProblem("the pool \(name): a mapping (key: value) is expected", at: node.place)
        }
        var fields = FieldReader("the pool \(name)", object, at: node.place)
        let pool = try self.pool(name, &fields)
        try fields.finish()
        do throws(RouteError) {
            let index = try tree.add(pool)
            poolIndexes[name] = index
            return index
        } catch {
            throw RouteProblem(error.description, at: node.place)
        }
    }

    private mutating func pool(_ name: String, _ fields: inout FieldReader) throws(RouteProblem) -> RoutePool {
        var pool = RoutePool(name, servers: [])
        if let called = try fields.text("name") { pool.name = called }
        let servers = try fields.list("servers")
        pool.members = try fields.text("members")
        guard (servers == nil) != (pool.members == nil) else {
            throw fields.problem("either servers or members is expected")
        }
        for server in servers ?? [] { pool.servers.append(try self.server(server, fields)) }
        pool.hash = try Self.hash(&fields, standard: HashChoice())
        pool.requestTimeoutMilliseconds = try Self.milliseconds("timeout", &fields)
        pool.connectTimeoutMilliseconds = try Self.milliseconds("connectTimeout", &fields)
        pool.usesTLS = try Self.flag("tls", &fields) ?? false
        pool.keepsRoutingPrefix = try Self.flag("keepRoutingPrefix", &fields) ?? false
        pool.followsOwners = try Self.flag("followOwners", &fields) ?? false
        pool.consistency = try Self.consistency(of: pool, &fields)
        let spool = try fields.text("spool")
        pool.spool = ["true", "yes", "on"].contains(spool) ? pool.name : spool
        if ["false", "no", "off"].contains(spool) { pool.spool = nil }
        if pool.consistency != .lookAside, pool.spool != nil {
            throw fields.problem("spool: the pool has storage, and a delete that it missed is an error")
        }
        if let hedge = fields.value("hedge") { hedges[name] = hedge }
        pool.isErrorWhenEmpty = try Self.word("whenEmpty", ["error", "miss"], &fields) != "miss"
        if let ejection = try fields.object("ejection") {
            var inner = FieldReader("\(fields.what): ejection", ejection.object, at: ejection.place)
            let enter = try Self.whole("atMost", 1...65_536, &inner)
            let exit = try Self.whole("againFrom", 1...65_536, &inner)
            try inner.finish()
            guard let enter, let limits = PoolHealthLimits(enter: Int(enter), exit: Int(exit ?? enter)) else {
                throw inner.problem("atMost is expected, and againFrom not above it")
            }
            pool.health = limits
        }
        return pool
    }

    private static func consistency(
        of pool: RoutePool, _ fields: inout FieldReader
    ) throws(RouteProblem) -> PoolConsistency {
        let hasStorage = try flag("storage", &fields) ?? pool.followsOwners
        let word = try word("consistency", ["strict", "bounded"], &fields)
        let staleness = try milliseconds("staleness", &fields)
        if pool.followsOwners, !hasStorage { throw fields.problem("storage: nodes that own keys have a store") }
        do throws(RouteError) {
            return try PoolConsistency(hasStorage: hasStorage, consistency: word, stalenessMilliseconds: staleness)
        } catch {
            throw fields.problem(error.description)
        }
    }

    private func server(_ node: JSONNode, _ pool: FieldReader) throws(RouteProblem) -> PoolServer {
        func address(_ text: String) throws(RouteProblem) -> ServerAddress {
            do throws(RouteProblem) { return try ServerAddress(text, standardPort: 11211) } catch {
                throw pool.problem(error.text, at: node)
            }
        }
        if let text = node.text {
            let address = try address(text)
            return PoolServer(Server(host: address.host, port: address.port), usesTLS: address.usesTLS)
        }
        guard let object = node.object else { throw pool.problem("a server is a text or a mapping", at: node) }
        var fields = FieldReader("\(pool.what): a server", object, at: node.place)
        guard let text = try fields.text("address") else { throw fields.problem("address is missing") }
        let found = try address(text)
        let weight = try Self.number("weight", 0...1_000_000, &fields) ?? 1
        let name = try fields.text("name")
        let domain = try fields.text("domain").map { text in
            UInt32(text) ?? UInt32(truncatingIfNeeded: ConfigurationHash.value(of: text))
        }
        let usesTLS = try Self.flag("tls", &fields)
        let isWarming = try Self.word("state", ["up", "warming"], &fields) == "warming"
        try fields.finish()
        return PoolServer(
            Server(host: found.host, port: found.port, weight: weight, alias: name), failureDomain: domain ?? 0,
            usesTLS: usesTLS ?? found.usesTLS, isWarming: isWarming)
    }

    // MARK: Handles

    mutating func add(_ handle: RouteHandle, _ place: JSONNode.Place) throws(RouteProblem) -> RouteTree.ID {
        do throws(RouteError) { return try tree.add(handle) } catch {
            throw RouteProblem(error.description, at: place)
        }
    }

    /// The handle of a pool's name: the pool, or what hedges its reads.
    mutating func pooled(_ name: String, _ place: JSONNode.Place) throws(RouteProblem) -> RouteTree.ID {
        if let known = made[name] { return known }
        let raw = try add(.pool(try pool(name, place)), place)
        var id = raw
        if let hedge = hedges[name] {
            guard let object = hedge.object else {
                throw RouteProblem("the pool \(name): hedge: a mapping (key: value) is expected", at: hedge.place)
            }
            var fields = FieldReader("the pool \(name): hedge", object, at: hedge.place)
            var other: RouteTree.ID?
            // Reads of the other pool are not asked twice in their turn.
            if let to = try fields.text("to") { other = try add(.pool(try pool(to, hedge.place)), hedge.place) }
            id = try self.hedge(raw, other, &fields)
            try fields.finish()
        }
        made[name] = id
        return id
    }

    private mutating func named(_ name: String, _ place: JSONNode.Place) throws(RouteProblem) -> RouteTree.ID {
        if let known = made[name] { return known }
        if let definition = handles[name] {
            guard making.insert(name).inserted else {
                throw RouteProblem("the handle \(name) contains itself", at: definition.place)
            }
            defer { making.remove(name) }
            let id = try handle(definition)
            if tree.names[id] == nil { tree.names[id] = name }
            made[name] = id
            return id
        }
        if name == "nothing" { return try add(.null, place) }
        guard pools[name] != nil else {
            let names = pools.keys.sorted() + handles.keys.sorted() + ["nothing"]
            let near = suggestion(for: name, among: names).map { " (did you mean \($0)?)" } ?? ""
            throw RouteProblem("there is no pool or handle \(name)\(near)", at: place)
        }
        return try pooled(name, place)
    }

    /// The handle that a value stands for.
    mutating func handle(_ node: JSONNode) throws(RouteProblem) -> RouteTree.ID {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else {
            throw RouteProblem("handles nested more than \(Self.depthLimit) deep", at: node.place)
        }
        if let name = node.text { return try named(name, node.place) }
        guard let object = node.object else {
            throw RouteProblem("a name of a pool or a handle, or a mapping, is expected", at: node.place)
        }
        let kinds = object.keys.filter { Self.kinds[$0] != nil }
        guard kinds.count == 1, let kind = kinds.first else {
            let all = Self.kinds.keys.sorted().joined(separator: ", ")
            let what = kinds.isEmpty ? "none" : kinds.joined(separator: " and ")
            throw RouteProblem("a handle has one of \(all); this one has \(what)", at: node.place)
        }
        var fields = FieldReader(kind, object, at: node.place)
        let handle = try make(kind, &fields)
        try fields.finish()
        return handle
    }

    /// The handles of a list; `servers: POOL` in it stands for each server of the pool.
    mutating func list(_ node: JSONNode?, _ fields: FieldReader) throws(RouteProblem) -> [RouteTree.ID] {
        guard let node else { return [] }
        guard let elements = node.array else {
            if node.object?["servers"] != nil || node.text != nil {
                return try list(JSONNode(.array([node]), at: node.place), fields)
            }
            throw fields.problem("a list of handles is expected", at: node)
        }
        var result: [RouteTree.ID] = []
        for element in elements {
            if let object = element.object, let name = object["servers"]?.text, object.count == 1 {
                let index = try pool(name, element.place)
                guard tree.pools[index].members == nil else {
                    throw fields.problem(
                        "the servers of \(name) are looked up: they cannot stand one by one", at: element)
                }
                for server in tree.pools[index].servers.indices {
                    result.append(try add(.server(pool: index, index: server), element.place))
                }
            } else {
                result.append(try handle(element))
            }
        }
        return result
    }
}
