// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Which handles and destinations a request takes.
package struct RouteExplanation: Sendable, Equatable {
    /// A handle or a destination, and how deep below the root it is.
    package struct Line: Sendable, Equatable {
        /// 0 at the root.
        package let depth: Int
        /// What it is.
        package let text: String
    }

    /// What was asked.
    package let operation: RouteOperation
    /// The key, as text.
    package let key: String
    /// Handles that the request may pass, each above those it hands the request to.
    package let handles: [Line]
    /// Where requests are sent when no destination has the key and none is out of order, in this order.
    package let destinations: [String]

    /// The handles, indented by their depth, with the destinations among them: mcrouter's `route_handles`.
    package var text: String {
        handles.map { String(repeating: " ", count: $0.depth) + $0.text + "\n" }.joined()
    }

    /// The destinations, as mcrouter's `route` gives them.
    package var destinationText: String { destinations.joined(separator: "\r\n") }

    /// All of it as JSON.
    package var json: String {
        let lines = handles.map { "{\"depth\":\($0.depth),\"handle\":\(JSONString.quoted($0.text))}" }
        return "{\"operation\":\(JSONString.quoted(operation.name)),\"key\":\(JSONString.quoted(key)),"
            + "\"destinations\":[\(destinations.map { JSONString.quoted($0) }.joined(separator: ","))],"
            + "\"handles\":[\(lines.joined(separator: ","))]}"
    }
}

extension RoutePlan {
    /// Which handles and destinations a request takes. Allocates.
    ///
    /// What hangs on the time is told for `clock`; what hangs on chance or on earlier requests, as for the first one.
    package func explain(_ operation: RouteOperation, key: [UInt8], clock: RouteClock) -> RouteExplanation {
        var walk = RouteWalk(plan: self, operation: operation, clock: clock)
        if defaults.bigValues != nil { walk.line("big-value", 0) }
        walk.visitRoot(key: key, depth: defaults.bigValues == nil ? 0 : 1)
        return RouteExplanation(
            operation: operation, key: String(decoding: key, as: UTF8.self), handles: walk.lines,
            destinations: recorded(operation, key, clock).map { destinations[$0].name })
    }

    /// Sends a request nowhere, answers each part of it as if the key was not there, and says where the parts went.
    private func recorded(_ operation: RouteOperation, _ key: [UInt8], _ clock: RouteClock) -> [Int] {
        guard !key.isEmpty else { return [] }
        let target = target(of: key.span, for: operation)
        if target.kind == .destination { return [Int(target.destination)] }
        let engine = RouteEngine(plan: self, seed: 0, nowNanoseconds: clock.nowNanoseconds)
        var machine = RouteMachine()
        var actions: [RouteAction] = []
        var found: [Int] = []
        let nothing: [UInt8] = []
        machine.start(
            RouteRequest(operation), key: key.span, value: nothing.span, engine: engine, clock: clock, actions: &actions
        )
        while !actions.isEmpty, found.count < 1_000 {
            switch actions.removeFirst() {
            case .send(let request):
                found.append(request.destination)
                machine.reply(
                    request.token, RouteReply(request.operation.defaultResult), value: nothing.span, engine: engine,
                    clock: clock, actions: &actions)
            case .wait(let token, let time):
                let later = RouteClock(nowNanoseconds: time, unixSeconds: clock.unixSeconds)
                machine.wake(token, engine: engine, clock: later, actions: &actions)
            case .reply: break
            }
            while let ticket = engine.nextResumable() {
                machine.resume(ticket, engine: engine, clock: clock, actions: &actions)
            }
        }
        return found
    }
}

/// Walks the handles that a request may pass.
struct RouteWalk {
    let plan: RoutePlan
    let operation: RouteOperation
    var clock: RouteClock?
    var isFirstOnly = false
    private(set) var lines: [RouteExplanation.Line] = []
    private(set) var destinations: [Int] = []
    private var selected = -1

    /// Handles that are told of.
    private static var maximumLines: Int { 10_000 }

    init(plan: RoutePlan, operation: RouteOperation, clock: RouteClock? = nil, isFirstOnly: Bool = false) {
        self.plan = plan
        self.operation = operation
        self.clock = clock
        self.isFirstOnly = isFirstOnly
    }

    private var isFull: Bool { lines.count >= Self.maximumLines || (isFirstOnly && !destinations.isEmpty) }

    mutating func line(_ text: String, _ depth: Int) {
        if !isFirstOnly { lines.append(RouteExplanation.Line(depth: depth, text: text)) }
    }

    mutating func visitRoot(key: [UInt8], depth: Int) {
        let length = RoutingPrefix.length(in: key.span)
        line("root" + (length > 0 ? "|prefix=\(String(decoding: key[..<length], as: UTF8.self))" : ""), depth)
        for handle in plan.clusters.handles(of: key.span, prefixLength: length) {
            visit(Int(handle), key: key, depth: depth + 1)
        }
    }

    private mutating func destination(_ pool: Int, _ number: Int, _ depth: Int) {
        let index = plan.pools[pool].servers.firstIndex(of: number) ?? 0
        destinations.append(number)
        let destination = plan.destinations[number]
        line(
            "host|pool=\(plan.pools[pool].name)|id=\(index)|ap=\(destination.name)"
                + "|timeout=\(destination.requestTimeoutMilliseconds)ms"
                + "|keep_routing_prefix=\(plan.pools[pool].keepsRoutingPrefix)|tls=\(destination.usesTLS)"
                + "|failure_domain=\(destination.failureDomain)", depth)
    }

    private func bareIndex(_ choice: Int32, _ key: [UInt8]) -> Int {
        let bare = key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count)
        return plan.choices[Int(choice)].index(of: bare)
    }

    mutating func visit(_ handle: Int, key: [UInt8], depth: Int) {
        guard !isFull else { return }
        let route = plan.tree.handles[handle]
        let name = plan.tree.names[RouteTree.ID(index: handle)].map { " (\($0))" } ?? ""
        switch route {
        case .server(let pool, let index): return destination(pool, plan.pools[pool].servers[index], depth)
        case .pool(let pool):
            line("pool|\(plan.pools[pool].name)|\(plan.tree.pools[pool].hash.text)\(name)", depth)
            let choice = plan.poolChoice[pool]
            if choice >= 0 { selected = bareIndex(choice, key) }
            if !plan.pools[pool].destinations.isEmpty {
                destination(pool, plan.pools[pool].destinations[choice >= 0 ? selected : 0], depth + 1)
            }
            if operation.group != .get, let next = plan.joining(key, pool: pool) { destination(pool, next, depth + 1) }
            return
        case .copy(let pool, let number):
            line("\(route.title)\(name)", depth)
            if let index = plan.copy(number, ofKey: key, pool: pool) {
                destination(pool, plan.pools[pool].destinations[index], depth + 1)
            }
            return
        default: break
        }
        line(route.title + name, depth)
        for next in below(handle, route, key) {
            visit(next.handle.index, key: next.key ?? key, depth: depth + 1)
        }
    }

    /// The children that a request may be handed to.
    private mutating func below(
        _ handle: Int, _ route: RouteHandle, _ key: [UInt8]
    ) -> [(handle: RouteTree.ID, key: [UInt8]?)] {
        switch route {
        case .hash(let children, _, _, _):
            guard plan.handleChoice[handle] >= 0 else { return children.map { ($0, nil) } }
            selected = bareIndex(plan.handleChoice[handle], key)
            return [(children[selected], nil)]
        case .prefixes:
            let bare = key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count)
            let next = plan.prefixes[Int(plan.prefixIndex[handle])].value(of: RoutePlan.routingKey(bare))
            return next < 0 ? [] : [(RouteTree.ID(index: Int(next)), nil)]
        case .operations(let table, let otherwise):
            return (table[operation] ?? otherwise).map { [($0, nil)] } ?? []
        case .modifyKey(let child, let change): return [(child, change.applied(to: key))]
        case .migrate(let from, let to, let start, let interval):
            guard let now = clock?.unixSeconds, operation != .delete else { return [(from, nil), (to, nil)] }
            let bare = key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count)
            let hash = spooky32(RoutePlan.routingKey(bare), seed: 0)
            return [(now < start &+ interval &+ UInt64(hash) % max(interval, 1) ? from : to, nil)]
        case .shardSplit(let child, let splits):
            let keys = splits.keys(
                of: key, isDelete: operation == .delete, hostID: plan.defaults.hostID,
                unixSeconds: clock?.unixSeconds ?? 0, longest: RouteMachine.maximumKeyBytes)
            return keys.map { $0.map { (child, $0) } } ?? [(child, nil)]
        case .failover(let failover): return tried(failover, key)
        case .rateLimit(let child, _, _): return [(child, nil)]
        default:
            if let only = route.transparentChild(for: operation, hostID: plan.defaults.hostID) { return [(only, nil)] }
            return route.children.map { ($0, nil) }
        }
    }

    private mutating func tried(
        _ failover: FailoverRoute, _ key: [UInt8]
    ) -> [(handle: RouteTree.ID, key: [UInt8]?)] {
        guard case .deterministic(let policy) = failover.policy, let first = failover.children.first else {
            return failover.children.map { ($0, nil) }
        }
        var inner = RouteWalk(plan: plan, operation: operation, clock: clock, isFirstOnly: true)
        inner.visit(first.index, key: key, depth: 0)
        var progress = FailoverProgress()
        progress.normalIndex = inner.selected
        var result: [(handle: RouteTree.ID, key: [UInt8]?)] = [(first, nil)]
        while progress.chosen < min(policy.maximumTries, failover.children.count) {
            plan.advance(&progress, policy, failover.children, key: key, operation)
            progress.chosen += 1
            result.append((failover.children[progress.child], nil))
        }
        return result
    }
}

extension HashChoice {
    /// How a key is looked at, for explanations.
    var text: String {
        let name =
            switch method {
            case .scheme(let scheme): "\(scheme)"
            case .constShard: "constShard"
            }
        return salt.isEmpty ? name : name + "|salt=" + String(decoding: salt, as: UTF8.self)
    }
}

extension RouteHandle {
    /// What it is, for explanations. Source: the names that mcrouter's handles have there.
    var title: String {
        switch self {
        case .pool, .server: "host"
        case .copy(_, let number): "copy|\(number)"
        case .hedge: "hedge"
        case .hash(_, _, _, let hash): "selection|hash|\(hash.text)"
        case .prefixes: "prefix-selector"
        case .operations: "operation-selector"
        case .allSync: "all-sync"
        case .allAsync: "all-async"
        case .allFastest: "all-fastest"
        case .allInitial: "all-initial"
        case .allMajority: "all-majority"
        case .random: "random"
        case .failover: "failover"
        case .missFailover: "miss-failover"
        case .warmUp: "warm-up"
        case .slowWarmUp: "slow-warmup"
        case .migrate: "migrate"
        case .shadow: "shadow"
        case .keySplit(_, let replicas, let allSync, let firstHit):
            "keysplit|replicas=\(replicas)|all-sync=\(allSync)|first-hit=\(firstHit)"
        case .shardSplit: "shard-split"
        case .rateLimit: "rate-limit"
        case .outstandingLimit(_, let limit): "outstanding-limit|limit=\(limit)"
        case .bigValue(_, let values):
            "big-value|split_threshold=\(values.thresholdBytes)|batch_size=\(values.batchSize)"
        case .modifyKey: "modify-key"
        case .modifyExptime(_, .set(let exptime)): "modify-exptime|set|exptime=\(exptime)"
        case .modifyExptime(_, .atMost(let exptime)): "modify-exptime|min|exptime=\(exptime)"
        case .l1l2: "l1l2-cache"
        case .l1l2SizeSplit: "l1l2-sizesplit"
        case .latency: "latency-injection"
        case .error(_, let result): "error|\(result.name)"
        case .null: "null"
        }
    }
}
