// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Platform
internal import Reactor
internal import Synchronization
internal import Telemetry

extension RouterHandler {
    /// `stats`, `stats servers` and what else there is of the router itself.
    func statistics(
        _ slot: Int, _ request: Request, key: Span<UInt8>, _ line: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        let what: String
        if request.form == .binary {
            what = String(decoding: [UInt8](copying: key), as: UTF8.self)
        } else {
            let tokens = Tokenizer(line)
            guard tokens.count <= 2 else { return refuse(slot, request, .error, &output) }
            what = String(decoding: [UInt8](copying: line.extracting(tokens.range(1))), as: UTF8.self)
        }
        let list: StatisticsList
        switch what {
        case "": return gatherStatistics(slot, request)
        case "servers": list = router.serverStatistics()
        case "pools": list = router.poolStatistics()
        case "settings": list = router.settingsStatistics()
        case "tenants": list = router.tenants.statistics
        case "noreply": return refuse(slot, request, .error, &output)
        default:
            let text = Array("SERVER_ERROR the router has no stats \(what.prefix(64)): ask a server\r\n".utf8)
            return reply(slot, request, &output) { output in
                if request.form == .binary {
                    output.appendBinaryStatus(.notFound, replyTo: request)
                } else {
                    output.append(text.span)
                }
            }
        }
        reply(slot, request, &output) { list.append(to: &$0, replyTo: request) }
    }
}

extension Router {
    /// What `stats` shows: memcached's names where the router has such a thing.
    func generalStatistics() -> StatisticsList {
        var list = StatisticsList()
        let usage = ProcessUsage.current()
        let sums = requestTotals()
        list.add("pid", ProcessControl.identifier)
        list.add("uptime", (Clock.monotonicNanoseconds() - startedNanoseconds) / 1_000_000_000)
        list.add("time", Clock.realtimeNanoseconds() / 1_000_000_000)
        list.add("version", ProductVersion.memcached)
        list.add("martlet_version", ProductVersion.martlet)
        list.add("pointer_size", 64)
        list.add("rusage_user", microseconds: usage.userMicroseconds)
        list.add("rusage_system", microseconds: usage.systemMicroseconds)
        list.add("curr_connections", group?.connectionCount ?? 0)
        if let network = group?.totals() {
            list.add("total_connections", network[.connectionsTotal])
            list.add("rejected_connections", network[.connectionsRejected])
            list.add("bytes_read", network[.bytesRead])
            list.add("bytes_written", network[.bytesWritten])
            list.add("idle_kicks", network[.idleKicks])
        }
        list.add("threads", meters.count)
        list.add("cmd_get", sums[.gets])
        list.add("cmd_set", sums[.sets])
        list.add("cmd_delete", sums[.deletes])
        list.add("cmd_arithmetic", sums[.arithmetics])
        list.add("cmd_touch", sums[.touches])
        list.add("cmd_meta", sums[.metas])
        list.add("cmd_other", sums[.others])
        list.add("get_parts", sums[.fragments])
        list.add("routed", sums[.routed])
        list.add("moved", sums[.moved])
        list.add("hedges", sums[.hedges])
        list.add("hedge_wins", sums[.hedgeWins])
        list.add("hedges_withheld", sums[.hedgesWithheld])
        list.add("refused", sums[.refused])
        list.add("overflowed", sums[.overflowed])
        list.add("hot_keys", sums[.hotKeys])
        list.add("hot_hits", sums[.hotHits])
        list.add("hot_spread", sums[.hotSpread])
        list.add("hot_fills", sums[.hotFills])
        list.add("plan_epoch", plan.epoch)
        list.add("deletes_kept", spool.counters.kept.load(ordering: .relaxed))
        list.add("deletes_repeated", spool.counters.replayed.load(ordering: .relaxed))
        list.add("deletes_pending", spool.pending.values.reduce(0, +))
        let servers = plan.backends.map { $0.totals() }
        list.add("num_servers", servers.count)
        list.add("num_servers_up", plan.backends.count { $0.state == .open })
        list.add("server_requests", servers.reduce(0) { $0 + $1[.requests] })
        list.add("server_timeouts", servers.reduce(0) { $0 + $1[.timeouts] })
        list.add("server_outstanding", servers.reduce(0) { $0 + $1[.outstanding] + $1[.outstandingBinary] })
        return list
    }

    /// What `stats servers` shows: a line for each server.
    func serverStatistics() -> StatisticsList {
        var list = StatisticsList()
        let (pending, withheld) = (spool.pending, spool.withheld)
        for backend in plan.backends {
            let totals = backend.totals()
            let latency = backend.latency()
            let p50 = latency.bound(fraction: 0.5).map { "\($0 / 1000)" } ?? "-"
            let p99 = latency.bound(fraction: 0.99).map { "\($0 / 1000)" } ?? "-"
            let errors = totals[.lost] + totals[.connectErrors] + totals[.connectTimeouts] + totals[.unavailable]
            list.add(
                backend.name,
                "state:\(backend.state.text) requests:\(totals[.requests]) replies:\(totals[.replies]) "
                    + "timeouts:\(totals[.timeouts]) errors:\(errors) busy:\(totals[.busy]) "
                    + "error_replies:\(totals[.errorReplies]) late_replies:\(totals[.lateReplies]) "
                    + "connects:\(totals[.connects]) connect_failures:\(totals[.connectFailures]) "
                    + "disconnects:\(totals[.disconnects]) bytes_read:\(totals[.bytesRead]) "
                    + "bytes_written:\(totals[.bytesWritten]) "
                    + "outstanding:\(totals[.outstanding] + totals[.outstandingBinary]) "
                    + "limit:\(totals[.limit]) waiting:\(totals[.waiting] + totals[.waitingBinary]) "
                    + "refusals:\(totals[.refusals]) throttled:\(totals[.throttled]) expired:\(totals[.expired]) "
                    + "circuit_opens:\(totals[.circuitOpens]) taken_out:\(totals[.ejected]) "
                    + "missed_deletes:\(pending[backend.name] ?? 0) "
                    + "reads:\(withheld.contains(backend.name) ? "withheld" : "yes") "
                    + "p50_us:\(p50) p99_us:\(p99)")
        }
        return list
    }

    func settingsStatistics() -> StatisticsList {
        var list = StatisticsList()
        list.add("num_threads", meters.count)
        list.add("verbosity", 0)
        list.add("maxconns", group?.configuration.connectionLimit ?? 0)
        list.add("item_size_max", limits.valueBytes)
        list.add("flush_enabled", limits.allowsFlush)
        list.add("client_requests", limits.clientRequests)
        list.add("incoming_values", limits.incomingBytes)
        list.add("routed_bytes", limits.routedBytes)
        list.add("server_requests", limits.laneRequests)
        list.add("server_bytes", limits.laneBytes)
        list.add("server_queue_target_us", limits.backend.limit.targetNanoseconds / 1000)
        list.add("server_wait_us", limits.backend.waitNanoseconds / 1000)
        list.add("server_throttle", limits.backend.throttles)
        return list
    }

    func requestTotals() -> CounterTotals<RouterCounter> {
        var totals = CounterTotals<RouterCounter>()
        for meter in meters { totals.add(meter.counters) }
        return totals
    }
}

/// Sums over servers of what they count alike.
struct ServerSums {
    private var values: [UInt64] = Array(repeating: 0, count: Self.names.count)

    /// What is summed, by memcached's names.
    private static let names = [
        "curr_items", "total_items", "bytes", "limit_maxbytes", "evictions", "expired_unfetched", "get_hits",
        "get_misses",
        "delete_hits", "delete_misses", "incr_hits", "incr_misses", "decr_hits", "decr_misses", "cas_hits",
        "cas_misses",
        "cas_badval", "touch_hits", "touch_misses",
    ]

    /// Takes in `STAT` lines.
    mutating func add(_ lines: Span<UInt8>) {
        let text = String(decoding: [UInt8](copying: lines), as: UTF8.self)
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split(separator: " ")
            guard words.count == 3, let index = Self.names.firstIndex(of: String(words[1])),
                let value = UInt64(words[2])
            else { continue }
            values[index] &+= value
        }
    }

    func append(to list: inout StatisticsList) {
        for (name, value) in zip(Self.names, values) { list.add(name, value) }
    }
}

extension Backend {
    func totals() -> CounterTotals<BackendCounter> {
        var totals = CounterTotals<BackendCounter>()
        for meter in meters { totals.add(meter.counters) }
        return totals
    }

    func latency() -> HistogramSnapshot {
        var sum = HistogramSnapshot()
        for meter in meters {
            sum.add(meter.latency)
            sum.add(meter.exemplars)
        }
        return sum
    }

    /// The best that a reactor knows of it.
    var state: Lane.State {
        let states = meters.compactMap { Lane.State(rawValue: $0.state.load(ordering: .relaxed)) }
        return [Lane.State.open, .connecting, .waiting].first { states.contains($0) } ?? .idle
    }
}

extension Lane.State {
    var text: String {
        switch self {
        case .idle: "new"
        case .connecting: "connecting"
        case .open: "up"
        case .waiting: "down"
        }
    }
}
