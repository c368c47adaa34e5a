// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

/// Makes a route tree of mcrouter's configuration, once its macros are expanded.
///
/// Source: mcrouter's documentation of pools and route handles. What is not supported is a problem that names it, its
/// place and what is allowed; nothing is left out silently.
struct MCRouterReader {
    var tree = RouteTree()
    let defaults: RouteDefaults
    let problems: ProblemList
    /// mcrouter's runtime variables; nil where there is no file of them.
    let variables: JSONObject?
    var pools: [String: JSONNode] = [:]
    private var inheriting: Set<String> = []
    private var settled: Set<String> = []
    private var registered: [String: JSONNode] = [:]
    private var seen: [String: [RouteTree.ID]] = [:]
    private var making: Set<String> = []
    private var depth = 0

    /// References and handles inside of each other.
    private static var depthLimit: Int { 120 }

    init(defaults: RouteDefaults, problems: ProblemList, variables: JSONObject? = nil) {
        self.defaults = defaults
        self.problems = problems
        self.variables = variables
    }

    static let topLevelKeys = ["pools", "named_handles", "route", "routes", "routing_options"]

    /// Reads a whole configuration. Throws the first problem.
    mutating func read(_ root: JSONNode) throws(RouteProblem) {
        guard let object = root.object else {
            throw RouteProblem("the configuration is \(root.kind); an object is expected", at: root.place)
        }
        var fields = FieldReader("the configuration", object, at: root.place)
        if let given = try fields.object("pools") {
            for entry in given.object.entries { pools[entry.key] = entry.value }
        }
        if let options = try fields.object("routing_options") { try read(options.object, at: options.place) }
        try readNamed(fields.value("named_handles"))
        let (route, routes) = (fields.value("route"), fields.value("routes"))
        for entry in object.entries where !Self.topLevelKeys.contains(entry.key) {
            problems.warn("\(entry.key) is not known and changes nothing", at: entry.value.place)
        }
        guard (route == nil) != (routes == nil) else {
            let both = route == nil ? "neither 'route' nor 'routes'" : "both 'route' and 'routes'"
            throw RouteProblem("\(both); one of them is expected", at: (route ?? root).place)
        }
        if let route {
            let selector = try self.selector(route)
            try add(defaults.routingPrefix, selector, route.place)
        }
        if let routes { try readRoutes(routes) }
    }

    private func read(_ options: JSONObject, at place: JSONNode.Place) throws(RouteProblem) {
        var fields = FieldReader("routing_options", options, at: place)
        try fields.refuse(
            ["enable_delete_distribution", "enable_set_distribution", "enable_async_dl_broadcast"],
            "it writes to a log that is mcrouter's owner's")
        for name in ["enable_cross_region_delete_rpc", "enable_cross_region_set_rpc", "enable_global_big_value_route"] {
            guard try fields.boolean(name) != false else { throw fields.problem("\(name): only true is supported") }
        }
        fields.ignore(
            ["enable_odsl_scuba", "enable_odsl_ods", "enable_cpu_monitor", "enable_reply_source"],
            "it is about mcrouter's own statistics", problems)
        try fields.finish()
    }

    private mutating func readNamed(_ named: JSONNode?) throws(RouteProblem) {
        guard let named else { return }
        switch named.content {
        case .array(let elements): for element in elements { _ = try list(element) }
        case .object(let object):
            for entry in object.entries {
                if let inner = entry.value.object?["name"], inner.text != entry.key {
                    throw RouteProblem(
                        "the named handle \(entry.key) is called \(inner.text ?? inner.kind) inside", at: inner.place)
                }
                registered[entry.key] = entry.value
            }
        default:
            throw RouteProblem("named_handles is \(named.kind); a list or an object is expected", at: named.place)
        }
    }

    private mutating func readRoutes(_ routes: JSONNode) throws(RouteProblem) {
        switch routes.content {
        case .array(let elements):
            for element in elements {
                guard let object = element.object else {
                    throw RouteProblem(
                        "an element of routes is \(element.kind); an object is expected", at: element.place)
                }
                var fields = FieldReader("an element of routes", object, at: element.place)
                let route = try fields.required("route")
                let aliases = try fields.list("aliases")
                try fields.finish()
                guard let aliases else { throw fields.problem("aliases is missing") }
                let selector = try selector(route)
                for alias in aliases {
                    guard let text = alias.text else {
                        throw RouteProblem("an alias is \(alias.kind); a text is expected", at: alias.place)
                    }
                    try add(text, selector, alias.place)
                }
            }
        case .object(let object):
            for entry in object.entries {
                let selector = try self.selector(entry.value)
                try add(entry.key, selector, entry.value.place)
            }
        default: throw RouteProblem("routes is \(routes.kind); a list or an object is expected", at: routes.place)
        }
    }

    private mutating func add(
        _ prefix: String, _ selector: PrefixChoice, _ place: JSONNode.Place
    ) throws(RouteProblem) {
        do throws(RouteError) { try tree.setCluster(try RoutingPrefix(prefix), selector) } catch {
            throw RouteProblem(error.description, at: place)
        }
    }

    /// What a routing prefix leads to: prefixes of keys, or one handle for all.
    private mutating func selector(_ node: JSONNode) throws(RouteProblem) -> PrefixChoice {
        guard let object = node.object, object["type"]?.text == "PrefixSelectorRoute" else {
            return PrefixChoice(otherwise: try one(node))
        }
        return try prefixes(FieldReader("PrefixSelectorRoute", object, at: node.place))
    }

    mutating func prefixes(_ fields: FieldReader) throws(RouteProblem) -> PrefixChoice {
        var fields = fields
        _ = (fields.value("type"), fields.value("name"))
        let (policies, wildcard) = (try fields.object("policies"), fields.value("wildcard"))
        try fields.finish()
        guard policies != nil || wildcard != nil else { throw fields.problem("neither policies nor wildcard") }
        var choice = PrefixChoice(otherwise: nil)
        for entry in (policies?.object.entries ?? []).sorted(by: { $0.key < $1.key }) {
            choice.policies[entry.key] = try one(entry.value)
        }
        if let wildcard { choice.otherwise = try one(wildcard) }
        return choice
    }

    // MARK: Handles

    func refusal(_ error: RouteError, _ place: JSONNode.Place) -> RouteProblem {
        RouteProblem(error.description, at: place)
    }

    mutating func add(_ handle: RouteHandle, _ place: JSONNode.Place) throws(RouteProblem) -> RouteTree.ID {
        do throws(RouteError) { return try tree.add(handle) } catch { throw refusal(error, place) }
    }

    /// The one handle that a value stands for.
    mutating func one(_ node: JSONNode) throws(RouteProblem) -> RouteTree.ID {
        let handles = try list(node)
        guard handles.count == 1 else {
            throw RouteProblem("\(handles.count) route handles, where one is expected", at: node.place)
        }
        return handles[0]
    }

    /// The handles that a value stands for: an object is one, a text names one or is a short form, a list is all in it.
    mutating func list(_ node: JSONNode) throws(RouteProblem) -> [RouteTree.ID] {
        depth += 1
        defer { depth -= 1 }
        guard depth < Self.depthLimit else {
            throw RouteProblem("route handles nested more than \(Self.depthLimit) deep", at: node.place)
        }
        switch node.content {
        case .array(let elements):
            var result: [RouteTree.ID] = []
            for element in elements {
                result += try list(element)
                guard result.count <= RouteTree.Limits.handles else {
                    throw RouteProblem("a list of more than \(RouteTree.Limits.handles) handles", at: node.place)
                }
            }
            return result
        case .object(let object):
            guard let name = object["name"]?.text else { return try make(object, node.place) }
            return try named(name, node)
        case .text(let text):
            if text.isEmpty { return [] }
            if let known = seen[text] { return known }
            if registered[text] != nil || making.contains(text) { return try named(text, node) }
            let handles: [RouteTree.ID]
            if let bar = text.firstIndex(of: "|") {
                let rest = String(text[text.index(after: bar)...])
                handles = try make(String(text[..<bar]), JSONNode(.text(rest), at: node.place), node.place)
            } else {
                handles = try make(text, nil, node.place)
            }
            seen[text] = handles
            return handles
        default:
            throw RouteProblem(
                "a route handle is \(node.kind); an object, a text or a list is expected", at: node.place)
        }
    }

    /// A handle that has a name is one handle, wherever it is named.
    private mutating func named(_ name: String, _ node: JSONNode) throws(RouteProblem) -> [RouteTree.ID] {
        if let known = seen[name] { return known }
        guard making.insert(name).inserted else {
            throw RouteProblem("the named handle \(name) contains itself", at: node.place)
        }
        defer { making.remove(name) }
        let definition = registered[name] ?? node
        let handles: [RouteTree.ID]
        if let object = definition.object {
            handles = try make(object, definition.place)
        } else {
            registered[name] = nil
            handles = try list(definition)
        }
        if handles.count == 1 { tree.names[handles[0]] = name }
        seen[name] = handles
        return handles
    }

    private mutating func make(_ object: JSONObject, _ place: JSONNode.Place) throws(RouteProblem) -> [RouteTree.ID] {
        guard let type = object["type"] else { throw RouteProblem("a route handle without type", at: place) }
        guard let name = type.text else {
            throw RouteProblem("type is \(type.kind); a text is expected", at: type.place)
        }
        return try make(name, JSONNode(.object(object), at: place), type.place)
    }

    // MARK: Pools

    /// A pool's object, with what it inherits.
    mutating func poolObject(
        _ node: JSONNode
    ) throws(RouteProblem) -> (name: String, object: JSONObject, place: JSONNode.Place) {
        if let object = node.object {
            guard let name = object["name"]?.text else {
                throw RouteProblem("a pool without name", at: node.place)
            }
            if pools[name] == nil { pools[name] = node }
            return try poolObject(JSONNode(.text(name), at: node.place))
        }
        guard let name = node.text else {
            throw RouteProblem("a pool is \(node.kind); a name or an object is expected", at: node.place)
        }
        guard let definition = pools[name] else {
            let known = pools.keys.sorted().prefix(20).joined(separator: ", ")
            throw RouteProblem("there is no pool \(name); there are: \(known.isEmpty ? "none" : known)", at: node.place)
        }
        guard var object = definition.object else {
            throw RouteProblem("the pool \(name) is \(definition.kind); an object is expected", at: definition.place)
        }
        guard !settled.contains(name), let parent = object["inherit"] else { return (name, object, definition.place) }
        guard inheriting.insert(name).inserted else {
            throw RouteProblem("the pool \(name) inherits from itself", at: parent.place)
        }
        guard inheriting.count < Self.depthLimit else {
            throw RouteProblem("pools inherit more than \(Self.depthLimit) deep", at: parent.place)
        }
        defer { inheriting.remove(name) }
        guard parent.text != nil else {
            throw RouteProblem("inherit is \(parent.kind); a text is expected", at: parent.place)
        }
        for entry in try poolObject(parent).object.entries where object[entry.key] == nil {
            object[entry.key] = entry.value
        }
        object["inherit"] = nil
        pools[name] = JSONNode(.object(object), at: definition.place)
        settled.insert(name)
        return (name, object, definition.place)
    }
}
