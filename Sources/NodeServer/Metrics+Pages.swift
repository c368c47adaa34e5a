// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Admin
package import Hosting
internal import Reactor
internal import Storage
package import Telemetry

/// The node's pages on the admin port.
extension Node {
    /// `/metrics`, `/livez`, `/healthz`, `/readyz`, `/stats.json` and `/drain`.
    package func adminRoutes(_ drain: Drain, events: EventLog = EventLog()) -> [AdminRoute] {
        var routes = [AdminPages.metrics { [self] in appendMetrics(to: &$0) }]
        routes += AdminPages.liveness()
        routes.append(AdminPages.readiness { [self] in readiness(drain) })
        routes.append(AdminPages.statistics { [self] in statisticsJSON(drain, events: events) })
        routes.append(AdminPages.events(events))
        routes.append(configurationRecord.route)
        routes.append(AdminRoute("/ring", "who is in the fleet, as this node knows it") { [self] _ in .json(ringJSON) })
        routes.append(AdminPages.console())
        routes.append(drain.route { [self] in clients })
        routes += storageRoutes()
        routes += streamRoutes()
        routes += monitorRoutes()
        routes += regionRoutes()
        return routes
    }

    private var clients: Drain.Clients {
        Drain.Clients(
            connections: group?.connectionCount ?? 0,
            active: group?.activeConnectionCount(withinNanoseconds: 1_000_000_000) ?? 0)
    }

    /// What must hold for the node to be sent traffic. Too many connections are no reason: whoever takes traffic away
    /// from a busy node gives it to the next. Nor is a shared store that is away: it is away for every node, and this
    /// one still serves what is cached. An embedded store that fails is this node's own, and another may do better.
    package func readiness(_ drain: Drain) -> [HealthCheck] {
        let isListening = group.map { !$0.listeners.isEmpty } ?? false
        var checks = [
            HealthCheck("listeners", failure: isListening ? nil : "nothing is listened on"),
            HealthCheck("serving", failure: drain.obstacle.map { "the node is \($0)" }),
        ]
        if let warmUp, warmUp.isWarming {
            checks.append(HealthCheck("warm-up", failure: "the node fetches its share of the keys"))
        }
        if let health = storage?.tier.health {
            let isShared = configuration.storage.backend != .rocksdb
            checks.append(HealthCheck("storage", failure: health == .ready ? nil : health.text, isAdvisory: isShared))
        }
        return checks
    }

    /// All statistics as one JSON object: the lists of `stats` by the names of its sub-commands, and what has a
    /// structure of its own. Connections are left out, there may be very many.
    package func statisticsJSON(_ drain: Drain? = nil, events: EventLog = EventLog()) -> String {
        let lists: [(String, StatisticsList)] = [
            ("stats", generalStatistics()), ("settings", settingsStatistics()), ("items", itemStatistics()),
            ("slabs", slabStatistics()), ("martlet", internalStatistics()), ("storage", storageStatistics()),
            ("stream", streamStatistics()),
            ("overload", overloadStatistics()), ("tenants", tenants.statistics),
        ]
        var members = lists.map { "\(JSONString.quoted($0)):\($1.json)" }
        let hot = shownHotKeys().map {
            "{\"key\":\(JSONString.quoted($0.name)),\"count\":\($0.count),\"error\":\($0.error)}"
        }
        members.append("\"hotKeys\":[\(hot.joined(separator: ","))]")
        let prefixes = prefixes.all().map { prefix, counts in
            "{\"prefix\":\(JSONString.quoted(PercentEncoding.encoded(prefix.span))),\"gets\":\(counts.gets),"
                + "\"hits\":\(counts.hits),\"sets\":\(counts.sets),\"deletes\":\(counts.deletes)}"
        }
        members.append("\"prefixes\":[\(prefixes.joined(separator: ","))]")
        members.append("\"cluster\":\(JSONString.quoted(configuration.clusterName))")
        if let drain {
            let latencies = CommandKind.allCases.map { (name: $0.label, histogram: latency(of: $0)) }
            members.append(
                StatusDocument(
                    role: "node", phase: drain.phase, checks: readiness(drain), latencies: latencies,
                    configuration: configurationRecord.json, events: events
                ).members)
        }
        return "{\(members.joined(separator: ","))}\n"
    }
}
