// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Platform
internal import Reactor
internal import Synchronization
internal import Telemetry

/// The families of mcrouter's exporter, under its names, with its types and labels, as far as this router counts such
/// a thing: so that dashboards and alerts made for it go on. Its averages a second (`mcrouter_commands` and its like)
/// are not among them: the rate of a counter says the same. Source: mcrouter_exporter.
extension Router {
    func appendMcrouterMetrics(to page: inout Exposition) {
        appendMcrouterProcess(to: &page)
        let sums = requestTotals()
        page.family("mcrouter_command_count", .counter, help: "Requests of clients, by operation.")
        let kinds: [(String, RouterCounter)] = [
            ("get", .gets), ("set", .sets), ("delete", .deletes), ("incr", .arithmetics), ("touch", .touches),
            ("metaget", .metas),
        ]
        for (name, counter) in kinds { page.sample(sums[counter], ("cmd", name)) }
        appendMcrouterResults(to: &page)
        appendMcrouterServers(to: &page)
        page.family("mcrouter_asynclog_requests", .counter, help: "Failed deletes that were written to the spool.")
        page.sample(spool.counters.kept.load(ordering: .relaxed))
    }

    private func appendMcrouterProcess(to page: inout Exposition) {
        let usage = ProcessUsage.current()
        let now = Clock.realtimeNanoseconds() / 1_000_000_000
        let uptime = (Clock.monotonicNanoseconds() - startedNanoseconds) / 1_000_000_000
        let moments = configurationRecord.moments
        page.family("mcrouter_up", .gauge, help: "Whether the router answers.")
        page.sample(UInt64(1))
        page.family("mcrouter_start_time_seconds", .counter, help: "The Unix time of the start.")
        page.sample(now - min(uptime, now))
        page.family("mcrouter_version", .gauge, help: "The version of the router.")
        page.sample(UInt64(1), ("version", ProductVersion.martlet))
        page.family("mcrouter_config_failures", .counter, help: "Configurations that could not be used.")
        page.sample(configurationRecord.refusals)
        page.family("mcrouter_config_last_attempt", .gauge, help: "The Unix time at which one was read last.")
        page.sample(moments.attempted)
        page.family("mcrouter_config_last_success", .gauge, help: "The Unix time at which one was taken last.")
        page.sample(moments.taken)
        page.family("mcrouter_clients", .counter, help: "Clients' connections.")
        page.sample(UInt64(clamping: group?.connectionCount ?? 0))
        page.family("mcrouter_cpu_seconds_total", .counter, help: "Processor time of the process.")
        page.sample(Double(usage.userMicroseconds + usage.systemMicroseconds) / 1e6)
        page.family("mcrouter_resident_memory_bytes", .counter, help: "Memory of the process in use.")
        page.sample(UInt64(clamping: usage.residentBytes))
        page.family("mcrouter_virtual_memory_bytes", .counter, help: "Memory of the process mapped.")
        page.sample(UInt64(clamping: usage.virtualBytes))
    }

    private func appendMcrouterResults(to page: inout Exposition) {
        let servers = plan.backends.map { $0.totals() }
        func sum(_ counter: BackendCounter) -> UInt64 { servers.reduce(0) { $0 &+ $1[counter] } }
        page.family("mcrouter_request_count", .counter, help: "Requests to servers, by what became of them.")
        page.sample(sum(.requests), ("type", "sent"))
        page.sample(sum(.replies), ("type", "replied"))
        let failures = sum(.timeouts) + sum(.lost) + sum(.connectTimeouts) + sum(.connectErrors) + sum(.unavailable)
        page.sample(failures + sum(.busy), ("type", "error"))
        page.sample(sum(.replies) - min(sum(.replies), sum(.errorReplies)), ("type", "success"))
        page.family("mcrouter_result_all_count", .counter, help: "Replies that are errors, by why.")
        page.sample(sum(.busy), ("reply", "busy"))
        page.sample(sum(.connectErrors), ("reply", "connect_error"))
        page.sample(sum(.connectTimeouts), ("reply", "connect_timeout"))
        page.sample(sum(.timeouts), ("reply", "data_timeout"))
        page.sample(sum(.errorReplies), ("reply", "error"))
        page.sample(requestTotals()[.refused], ("reply", "local_error"))
        page.sample(sum(.unavailable), ("reply", "tko"))
        page.family(
            "mcrouter_proxy_reqs_processing", .gauge, help: "Requests that are with servers and not answered yet.")
        page.sample(sum(.outstanding) + sum(.outstandingBinary))
        page.family("mcrouter_proxy_reqs_waiting", .gauge, help: "Requests that wait until they are sent.")
        page.sample(sum(.waiting) + sum(.waitingBinary))
    }

    private func appendMcrouterServers(to page: inout Exposition) {
        let servers = plan.backends.map { (name: $0.name, totals: $0.totals(), backend: $0) }
        page.family("mcrouter_servers", .gauge, help: "Servers, by state.")
        let states = servers.map(\.backend.state)
        page.sample(UInt64(states.count { $0 == .open }), ("state", "up"))
        page.sample(UInt64(states.count { $0 == .waiting }), ("state", "down"))
        page.sample(UInt64(states.count { $0 == .idle || $0 == .connecting }), ("state", "new"))
        page.sample(UInt64(0), ("state", "closed"))
        page.family("mcrouter_duration_us", .gauge, help: "Time of a request on average, since the start.")
        var all = HistogramSnapshot()
        for server in servers { for meter in server.backend.meters { all.add(meter.latency) } }
        page.sample(Self.average(all))
        page.family("mcrouter_server_duration_us", .gauge, help: "Time of a request on average, by server.")
        for server in servers { page.sample(Self.average(server.backend.latency()), ("server", server.name)) }
        let gauges: [(String, String, (CounterTotals<BackendCounter>) -> UInt64)] = [
            (
                "proxy_reqs_processing", "Requests that are with the server and not answered yet.",
                { $0[.outstanding] + $0[.outstandingBinary] }
            ),
            (
                "proxy_reqs_waiting", "Requests that wait until they are sent to the server.",
                { $0[.waiting] + $0[.waitingBinary] }
            ),
        ]
        for (name, help, read) in gauges {
            page.family("mcrouter_server_\(name)", .gauge, help: help)
            for server in servers { page.sample(read(server.totals), ("server", server.name)) }
        }
        let counters: [(String, String, BackendCounter)] = [
            ("timeout_count", "Requests that the server did not answer in time.", .timeouts),
            ("connect_timeout_count", "Connections to the server that took too long.", .connectTimeouts),
            ("remote_error_count", "Replies of the server that are errors.", .errorReplies),
            ("tko", "How often the server was taken out.", .circuitOpens),
        ]
        for (name, help, counter) in counters {
            page.family("mcrouter_server_memcached_\(name)", .counter, help: help)
            for server in servers { page.sample(server.totals[counter], ("server", server.name)) }
        }
    }

    private static func average(_ histogram: HistogramSnapshot) -> Double {
        let count = histogram.count
        return count == 0 ? 0 : Double(histogram.sumNanoseconds) / Double(count) / 1000
    }
}
