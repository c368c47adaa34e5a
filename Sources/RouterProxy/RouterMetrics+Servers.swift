// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Admin
internal import Platform
internal import Routing
internal import Telemetry

extension Router {
    /// How servers are spared that have too much to do.
    func appendOverloadMetrics(to page: inout Exposition) {
        let servers = plan.backends.map { (name: $0.name, totals: $0.totals()) }
        page.family(
            "martlet_router_server_limit", .gauge,
            help: "Commands that may be with the server at once, of all threads; 0 before it was first used.")
        for server in servers { page.sample(server.totals[.limit], ("server", server.name)) }
        page.family(
            "martlet_router_server_taken_out", .gauge,
            help: "Threads of the router that do not use the server, because it failed.")
        for server in servers { page.sample(server.totals[.ejected], ("server", server.name)) }
        page.family(
            "martlet_router_server_circuit_opens_total", .counter,
            help: "How often a thread took the server out because too large a part of its requests got no answer.")
        for server in servers { page.sample(server.totals[.circuitOpens], ("server", server.name)) }
        page.family("martlet_router_server_waiting", .gauge, help: "Commands that wait for room with the server.")
        for server in servers {
            page.sample(server.totals[.waiting] + server.totals[.waitingBinary], ("server", server.name))
        }
        page.family(
            "martlet_router_server_refusals_total", .counter, help: "Replies in which the server said that it is busy.")
        for server in servers { page.sample(server.totals[.refusals], ("server", server.name)) }
        page.family(
            "martlet_router_server_shed_total", .counter,
            help: "Requests refused as busy to spare the server: unsent, or after they waited for room.")
        for server in servers {
            page.sample(server.totals[.throttled], ("server", server.name), ("reason", "throttle"))
            page.sample(server.totals[.expired], ("server", server.name), ("reason", "wait"))
        }
    }
}

/// The servers in `/stats.json`.
extension Router {
    /// An object for each server: its state, what it was asked and answered, and its part of the keys.
    func backendList(_ plan: RouterPlan) -> String {
        let shares = plan.shares
        return plan.backends.enumerated().map { index, backend in
            let totals = backend.totals()
            let errors = totals[.lost] + totals[.connectErrors] + totals[.connectTimeouts] + totals[.unavailable]
            return "{\"name\":\(JSONString.quoted(backend.name)),\"state\":\"\(backend.state.text)\","
                + "\"share\":\(shares[index]),\"requests\":\(totals[.requests]),\"replies\":\(totals[.replies]),"
                + "\"errorReplies\":\(totals[.errorReplies]),\"timeouts\":\(totals[.timeouts]),\"errors\":\(errors),"
                + "\"busy\":\(totals[.busy]),\"limit\":\(totals[.limit]),\"takenOut\":\(totals[.ejected]),"
                + "\"waiting\":\(totals[.waiting] + totals[.waitingBinary]),"
                + "\"outstanding\":\(totals[.outstanding] + totals[.outstandingBinary])}"
        }.joined(separator: ",")
    }
}

extension RouterPlan {
    /// Keys that are looked up to see what part of all keys a server has.
    private static var sampledKeys: Int { 4096 }

    /// By server: the part of all keys whose gets go there first, by a sample; within 3% of the truth as a rule.
    /// Allocates and takes milliseconds: once for a plan, see ``shares``.
    func sampledShares() -> [Double] {
        let clock = RouteClock(
            nowNanoseconds: Clock.monotonicNanoseconds(), unixSeconds: Clock.realtimeNanoseconds() / 1_000_000_000)
        var counts: [String: Int] = [:]
        for number in 0..<Self.sampledKeys {
            let found = routes.explain(.get, key: Array("sample:\(number)".utf8), clock: clock)
            if let first = found.destinations.first { counts[first, default: 0] += 1 }
        }
        return routes.destinations.map { Double(counts[$0.name] ?? 0) / Double(Self.sampledKeys) }
    }
}
