// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Admin
internal import Hosting
internal import Platform
internal import Reactor
internal import Routing
internal import Synchronization
internal import Telemetry
internal import Tracing

/// The router's pages on the admin port.
extension Router {
    func adminRoutes(_ drain: Drain, events: EventLog) -> [AdminRoute] {
        var routes = [AdminPages.metrics { [self] in appendMetrics(to: &$0) }]
        routes += AdminPages.liveness()
        routes.append(AdminPages.readiness { [self] in readiness(drain) })
        routes.append(AdminPages.statistics { [self] in statisticsJSON(drain, events) })
        routes.append(AdminPages.events(events))
        routes.append(configurationRecord.route)
        routes.append(
            AdminRoute("/ring", "the plan: pools, their servers, and whose part of the keys is how large") {
                [self] _ in .json(ringJSON)
            })
        routes.append(AdminPages.console())
        routes.append(
            drain.route { [self] in
                Drain.Clients(
                    connections: group?.connectionCount ?? 0,
                    active: group?.activeConnectionCount(withinNanoseconds: 1_000_000_000) ?? 0)
            })
        let names = ["op", "key"]
        routes.append(
            AdminRoute("/route", "which handles and servers a request takes: ?op=get&key=…", queryNames: names) {
                [self] request in
                guard let operation = RouteOperation(name: request.query["op"] ?? "get"),
                    let key = request.query["key"], !key.isEmpty
                else { return .failure("wanted is ?op=get&key=…", status: 400) }
                let clock = RouteClock(
                    nowNanoseconds: Clock.monotonicNanoseconds(),
                    unixSeconds: Clock.realtimeNanoseconds() / 1_000_000_000)
                return .json(plan.routes.explain(operation, key: Array(key.utf8), clock: clock).json + "\n")
            })
        return routes
    }

    /// A router is ready while it listens: servers that are down are answered for, by errors or by others.
    private func readiness(_ drain: Drain) -> [HealthCheck] {
        let isListening = group.map { !$0.listeners.isEmpty } ?? false
        let backends = plan.backends
        let areDown = !backends.isEmpty && backends.allSatisfy { $0.state == .waiting }
        return [
            HealthCheck("listeners", failure: isListening ? nil : "nothing is listened on"),
            HealthCheck("serving", failure: drain.obstacle.map { "the router is \($0)" }),
            HealthCheck("servers", failure: areDown ? "every server is down" : nil),
            HealthCheck("members", failure: plan.unknownMembers.map { "no members were found at \($0)" }),
        ]
    }

    private func statisticsJSON(_ drain: Drain, _ events: EventLog) -> String {
        let lists: [(String, StatisticsList)] = [
            ("stats", generalStatistics()), ("servers", serverStatistics()), ("pools", poolStatistics()),
            ("settings", settingsStatistics()), ("tenants", tenants.statistics),
        ]
        var members = lists.map { "\(JSONString.quoted($0)):\($1.json)" }
        let plan = self.plan
        let latencies = plan.backends.map { (name: $0.name, histogram: $0.latency()) }
        members.append(
            StatusDocument(
                role: "router", phase: drain.phase, checks: readiness(drain), latencies: latencies,
                configuration: configurationRecord.json, events: events
            ).members)
        members.append("\"backends\":[\(backendList(plan))]")
        return "{\(members.joined(separator: ","))}\n"
    }

    func appendMetrics(to page: inout Exposition) {
        page.family("martlet_router_info", .gauge, help: "The router's version.")
        page.sample(UInt64(1), ("version", ProductVersion.martlet))
        page.family("martlet_router_uptime_seconds", .gauge, help: "Seconds since the start.")
        page.sample((Clock.monotonicNanoseconds() - startedNanoseconds) / 1_000_000_000)
        appendRequestMetrics(to: &page)
        appendNetworkMetrics(to: &page)
        appendServerMetrics(to: &page)
        appendPoolMetrics(to: &page)
        appendSpoolMetrics(to: &page)
        tracing.appendMetrics(to: &page, prefix: "martlet_router_trace")
        configurationRecord.appendMetrics(to: &page, prefix: "martlet_router_config")
        appendMcrouterMetrics(to: &page)
        tenants.appendMetrics(to: &page, prefix: "martlet_router_tenant")
    }

    private func appendSpoolMetrics(to page: inout Exposition) {
        page.family("martlet_router_spool_bytes", .gauge, help: "Bytes of missed deletes on disk.")
        page.sample(UInt64(max(spool.bytes, 0)))
        page.family(
            "martlet_router_deletes_kept_total", .counter, help: "Deletes that a server missed and that are kept.")
        page.sample(spool.counters.kept.load(ordering: .relaxed))
        page.family(
            "martlet_router_deletes_refused_total", .counter,
            help: "Deletes that a server missed and that could not be kept.")
        page.sample(spool.counters.refused.load(ordering: .relaxed))
        page.family(
            "martlet_router_deletes_repeated_total", .counter, help: "Missed deletes that servers have done since.")
        page.sample(spool.counters.replayed.load(ordering: .relaxed))
        let (backends, pending, withheld) = (plan.backends, spool.pending, spool.withheld)
        page.family("martlet_router_server_missed_deletes", .gauge, help: "Deletes that the server has still to do.")
        for backend in backends { page.sample(UInt64(pending[backend.name] ?? 0), ("server", backend.name)) }
        page.family(
            "martlet_router_server_reads_withheld", .gauge,
            help: "Whether the server is not read from, because it missed deletes.")
        for backend in backends {
            page.sample(UInt64(withheld.contains(backend.name) ? 1 : 0), ("server", backend.name))
        }
    }

    private func appendRequestMetrics(to page: inout Exposition) {
        let sums = requestTotals()
        page.family("martlet_router_requests_total", .counter, help: "Clients' requests, by kind; a key is a get.")
        let kinds: [(String, RouterCounter)] = [
            ("get", .gets), ("set", .sets), ("delete", .deletes), ("arithmetic", .arithmetics), ("touch", .touches),
            ("other", .others),
        ]
        for (name, counter) in kinds { page.sample(sums[counter], ("kind", name)) }
        page.family(
            "martlet_router_get_parts_total", .counter, help: "Lines that gets of several keys were split into.")
        page.sample(sums[.fragments])
        page.family(
            "martlet_router_routed_total", .counter, help: "Requests that a route gave more than one server a part in.")
        page.sample(sums[.routed])
        page.family(
            "martlet_router_moved_total", .counter,
            help: "Commands sent again because another server than the one asked owned their key.")
        page.sample(sums[.moved])
        page.family(
            "martlet_router_hedges_total", .counter,
            help: "Reads that were asked of a second server, and those that were not though the first dawdled.")
        page.sample(sums[.hedges] - min(sums[.hedgeWins], sums[.hedges]), ("result", "lost"))
        page.sample(sums[.hedgeWins], ("result", "won"))
        page.sample(sums[.hedgesWithheld], ("result", "withheld"))
        page.family("martlet_router_refused_total", .counter, help: "Requests that the router refused.")
        page.sample(sums[.refused])
        page.family("martlet_router_hot_keys", .gauge, help: "Keys that are hot, counted by thread.")
        page.sample(sums[.hotKeys])
        page.family(
            "martlet_router_hot_hits_total", .counter, help: "Gets of hot keys that were answered from memory.")
        page.sample(sums[.hotHits])
        page.family(
            "martlet_router_hot_spread_total", .counter, help: "Gets of hot keys that went to a copy of theirs.")
        page.sample(sums[.hotSpread])
        page.family("martlet_router_hot_fills_total", .counter, help: "Copies of hot keys that were made.")
        page.sample(sums[.hotFills])
        page.family(
            "martlet_router_overflowed_total", .counter, help: "Values and replies refused for want of room.")
        page.sample(sums[.overflowed])
        page.family(
            "martlet_router_stashed_bytes_total", .counter, help: "Bytes of replies that waited for earlier ones.")
        page.sample(sums[.stashedBytes])
    }

    private func appendNetworkMetrics(to page: inout Exposition) {
        guard let group else { return }
        let network = group.totals()
        page.family("martlet_router_connections", .gauge, help: "Clients' connections.")
        page.sample(UInt64(group.connectionCount))
        let counters: [(String, String, ReactorCounter)] = [
            ("connections_rejected", "Connections refused because there were too many.", .connectionsRejected),
            ("read_bytes", "Bytes read, from clients and servers.", .bytesRead),
            ("written_bytes", "Bytes written, to clients and servers.", .bytesWritten),
            ("read_calls", "Calls of read.", .readCalls),
            ("write_calls", "Calls of write.", .writeCalls),
            ("slow_readers", "Connections closed because too much output waited for them.", .slowReaders),
            ("tls_handshake_errors", "TLS handshakes that failed.", .handshakeErrors),
            ("turns", "Turns of the event loops.", .turns),
        ]
        for (name, help, counter) in counters {
            page.family("martlet_router_\(name)_total", .counter, help: help)
            page.sample(network[counter])
        }
    }

    private func appendServerMetrics(to page: inout Exposition) {
        let servers = plan.backends.map { (name: $0.name, totals: $0.totals(), backend: $0) }
        page.family("martlet_router_server_up", .gauge, help: "Whether a connection to the server stands.")
        for server in servers { page.sample(UInt64(server.backend.state == .open ? 1 : 0), ("server", server.name)) }
        page.family("martlet_router_server_outstanding", .gauge, help: "Commands whose replies are to come.")
        for server in servers {
            page.sample(
                server.totals[.outstanding] + server.totals[.outstandingBinary], ("server", server.name))
        }
        let counters: [(String, String, BackendCounter)] = [
            ("requests", "Commands sent to the server.", .requests),
            ("replies", "Replies that came in time.", .replies),
            ("error_replies", "Replies to gets that were errors.", .errorReplies),
            ("late_replies", "Replies that came too late, and were discarded.", .lateReplies),
            ("connects", "Connections that came to stand.", .connects),
            ("connect_failures", "Connections that did not.", .connectFailures),
            ("disconnects", "Connections that broke.", .disconnects),
            ("read_bytes", "Bytes of replies from the server.", .bytesRead),
            ("written_bytes", "Bytes for the server.", .bytesWritten),
        ]
        for (name, help, counter) in counters {
            page.family("martlet_router_server_\(name)_total", .counter, help: help)
            for server in servers { page.sample(server.totals[counter], ("server", server.name)) }
        }
        page.family(
            "martlet_router_server_failures_total", .counter, help: "Requests without a reply of the server, by why.")
        let reasons: [(String, BackendCounter)] = [
            ("timeout", .timeouts), ("lost", .lost), ("connect_timeout", .connectTimeouts),
            ("connect_error", .connectErrors), ("unavailable", .unavailable), ("busy", .busy),
        ]
        for server in servers {
            for (reason, counter) in reasons {
                page.sample(server.totals[counter], ("server", server.name), ("reason", reason))
            }
        }
        appendOverloadMetrics(to: &page)
        page.family(
            "martlet_router_server_seconds", .histogram, help: "Time from a request's arrival to the server's reply.")
        for server in servers { page.sample(server.backend.latency(), ("server", server.name)) }
    }
}
