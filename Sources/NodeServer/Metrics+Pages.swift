// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Admin
internal import Reactor
internal import Telemetry

/// The node's pages on the admin port.
extension Node {
    /// `/metrics`, `/livez`, `/healthz`, `/readyz` and `/stats.json`. `isStopping` tells whether the node was told to
    /// end.
    package func adminRoutes(isStopping: @escaping @Sendable () -> Bool) -> [AdminRoute] {
        var routes = [AdminPages.metrics { [self] in appendMetrics(to: &$0) }]
        routes += AdminPages.liveness()
        routes.append(AdminPages.readiness { [self] in readiness(isStopping: isStopping()) })
        routes.append(AdminPages.statistics { [self] in statisticsJSON() })
        return routes
    }

    /// What must hold for the node to be sent traffic. Too many connections are no reason: whoever takes traffic away
    /// from a busy node gives it to the next.
    package func readiness(isStopping: Bool) -> [HealthCheck] {
        let isListening = group.map { !$0.listeners.isEmpty } ?? false
        return [
            HealthCheck("listeners", failure: isListening ? nil : "nothing is listened on"),
            HealthCheck("serving", failure: isStopping ? "the node is stopping" : nil),
        ]
    }

    /// All statistics as one JSON object: the lists of `stats` by the names of its sub-commands, and what has a
    /// structure of its own. Connections are left out, there may be very many.
    package func statisticsJSON() -> String {
        let lists: [(String, StatisticsList)] = [
            ("stats", generalStatistics()), ("settings", settingsStatistics()), ("items", itemStatistics()),
            ("slabs", slabStatistics()), ("martlet", internalStatistics()),
        ]
        var members = lists.map { "\(jsonString($0)):\($1.json)" }
        let hot = shownHotKeys().map {
            "{\"key\":\(jsonString($0.name)),\"count\":\($0.count),\"error\":\($0.error)}"
        }
        members.append("\"hotKeys\":[\(hot.joined(separator: ","))]")
        let prefixes = prefixes.all().map { prefix, counts in
            "{\"prefix\":\(jsonString(percentEncoded(prefix.span))),\"gets\":\(counts.gets),\"hits\":\(counts.hits),"
                + "\"sets\":\(counts.sets),\"deletes\":\(counts.deletes)}"
        }
        members.append("\"prefixes\":[\(prefixes.joined(separator: ","))]")
        return "{\(members.joined(separator: ","))}\n"
    }
}

extension StatisticsList {
    /// The list as a JSON object.
    var json: String {
        let members = entries.map { entry in
            "\(jsonString(entry.name)):\(entry.isNumber ? entry.value : jsonString(entry.value))"
        }
        return "{\(members.joined(separator: ","))}"
    }
}
