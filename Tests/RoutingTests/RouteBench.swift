// Martlet
// SPDX-License-Identifier: Apache-2.0

@testable import Routing

/// A tree of one-server pools, and servers that answer as a test says.
///
/// What is sent is written as `get k@a`: the operation, the key and the server, and behind it what is not the client's
/// own: `ttl=`, `value=`, `flags=`, `cas=`; `+` marks a failover, `~` a shadow, and `*` what nobody waits for.
struct RouteBench {
    var tree = RouteTree()
    var defaults = RouteDefaults()
    var clock = RouteClock(nowNanoseconds: 1_000_000_000, unixSeconds: 1_000)
    var engine: RouteEngine?

    /// A pool of one server of that name.
    mutating func server(_ name: String) -> RouteTree.ID {
        let pool = RoutePool(name, servers: [PoolServer(Server(host: name, port: 11211))])
        return handle(.pool(index(pool)))
    }

    mutating func index(_ pool: RoutePool) -> Int {
        do { return try tree.add(pool) } catch { preconditionFailure(error.description) }
    }

    mutating func handle(_ handle: RouteHandle) -> RouteTree.ID {
        do { return try tree.add(handle) } catch { preconditionFailure(error.description) }
    }

    /// Makes a handle the root of keys without a routing prefix.
    mutating func root(_ handle: RouteTree.ID) {
        do {
            try tree.setCluster(try RoutingPrefix(defaults.routingPrefix), PrefixChoice(otherwise: handle))
        } catch {
            preconditionFailure(error.description)
        }
    }

    /// A bench whose root is made from servers of those names.
    static func of(_ names: String..., make: ([RouteTree.ID]) -> RouteHandle) -> RouteBench {
        var bench = RouteBench()
        let servers = names.map { bench.server($0) }
        let root = bench.handle(make(servers))
        bench.root(root)
        return bench
    }

    func plan() -> RoutePlan {
        do { return try RoutePlan(tree, defaults: defaults) } catch { preconditionFailure(error.description) }
    }

    /// A reply of a server.
    struct Answer: ExpressibleByStringLiteral {
        var reply: RouteReply
        var value: [UInt8] = []

        init(
            _ result: RouteResult, flags: UInt32 = 0, cas: UInt64 = 0, ttl: Int64? = nil, lease: Bool = false,
            _ value: String = ""
        ) {
            reply = RouteReply(result, flags: flags, casToken: cas, exptime: ttl, hasLease: lease)
            self.value = bytes(value)
        }

        init(stringLiteral name: String) {
            guard let result = RouteResult.allCases.first(where: { "\($0)" == name }) else {
                preconditionFailure("no result \(name)")
            }
            self.init(result)
        }
    }

    /// What came of a request.
    struct Outcome {
        var sent: [String] = []
        var reply: FinalReply?
        var waits: [UInt64] = []

        /// The reply, with the server that it comes from.
        var answer = ""
    }

    /// Routes a request. `answers` has servers' answers by `operation@server` or `server`; others answer as if they had
    /// nothing. `order` names the servers that answer first, in that order; the others answer as they are asked.
    mutating func route(
        _ operation: RouteOperation, _ key: String = "k", _ answers: [String: Answer] = [:], order: [String] = [],
        request: RouteRequest? = nil, value: String = ""
    ) -> Outcome {
        let engine = self.engine ?? RouteEngine(plan: plan(), seed: 1, nowNanoseconds: clock.nowNanoseconds)
        self.engine = engine
        var outcome = Outcome()
        var machine = RouteMachine()
        var actions: [RouteAction] = []
        var pending: [SubRequest] = []
        var all: [Int: SubRequest] = [:]
        var wakes: [(token: Int, time: UInt64)] = []
        let (keyBytes, valueBytes) = (bytes(key), bytes(value))
        var request = request ?? RouteRequest(operation)
        request.operation = operation
        machine.start(
            request, key: keyBytes.span, value: valueBytes.span, engine: engine, clock: clock, actions: &actions)
        while true {
            for action in actions {
                switch action {
                case .send(let sub):
                    pending.append(sub)
                    all[sub.token] = sub
                    outcome.sent.append(Self.text(sub, key, engine.plan))
                case .wait(let token, let time):
                    wakes.append((token, time))
                    outcome.waits.append(time)
                case .reply(let reply):
                    precondition(outcome.reply == nil, "two replies")
                    outcome.reply = reply
                    outcome.answer = Self.text(reply, all, engine.plan)
                }
            }
            actions.removeAll()
            if let ticket = engine.nextResumable() {
                machine.resume(ticket, engine: engine, clock: clock, actions: &actions)
                continue
            }
            let hosts = pending.map { engine.plan.destinations[$0.destination].host }
            if let next = order.lazy.compactMap({ hosts.firstIndex(of: $0) }).first ?? pending.indices.first {
                let sub = pending.remove(at: next)
                let host = hosts[next]
                let name = "\(sub.operation.name)@\(host)"
                let keyed = "\(Self.keyText(sub, key))@\(host)"
                let answer = answers[name] ?? answers[keyed] ?? answers[host] ?? Answer(sub.operation.defaultResult)
                machine.reply(
                    sub.token, answer.reply, value: answer.value.span, engine: engine, clock: clock, actions: &actions)
            } else if !wakes.isEmpty {
                let wake = wakes.removeFirst()
                clock = RouteClock(nowNanoseconds: max(clock.nowNanoseconds, wake.time), unixSeconds: clock.unixSeconds)
                machine.wake(wake.token, engine: engine, clock: clock, actions: &actions)
            } else {
                break
            }
        }
        precondition(machine.isFinished, "a machine that is not finished")
        return outcome
    }

    private static func keyText(_ sub: SubRequest, _ key: String) -> String {
        switch sub.key {
        case .request(let start): String(decoding: bytes(key)[start...], as: UTF8.self)
        case .bytes(let bytes): String(decoding: bytes, as: UTF8.self)
        }
    }

    private static func text(_ sub: SubRequest, _ key: String, _ plan: RoutePlan) -> String {
        var text = "\(sub.operation.name) \(keyText(sub, key))@\(plan.destinations[sub.destination].host)"
        if let exptime = sub.exptime { text += " ttl=\(exptime)" }
        switch sub.value {
        case .request: break
        case .slice(let range): text += " value=\(range.lowerBound)..\(range.upperBound)"
        case .reply(let token): text += " value=#\(token)"
        case .bytes(let bytes): text += " value='\(String(decoding: bytes, as: UTF8.self))'"
        }
        if let flags = sub.flags { text += " flags=\(flags)" }
        if let token = sub.casToken { text += " cas=\(token)" }
        if sub.kind != .normal { text += sub.kind == .failover ? " +" : " ~" }
        return text + (sub.isDetached ? " *" : "")
    }

    private static func text(_ reply: FinalReply, _ sent: [Int: SubRequest], _ plan: RoutePlan) -> String {
        var text = "\(reply.result)"
        switch reply.source {
        case .token(let token): text += "@" + (sent[token].map { plan.destinations[$0.destination].host } ?? "?")
        case .pieces(let tokens): text += "@" + tokens.map { "#\($0)" }.joined(separator: ",")
        case .made: break
        }
        if let flags = reply.flags { text += " flags=\(flags)" }
        if let token = reply.casToken { text += " cas=\(token)" }
        return text
    }
}
