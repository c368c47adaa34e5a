// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Telemetry

/// What requests take that enter the routes by one handle and that are more than one server's.
final class RouteMeter: Sendable {
    /// The handle's name, or the routing prefix and the key's prefix that lead to it first.
    let name: String
    /// By reactor: from a request's arrival to its reply.
    let latencies: [RouteLatency]

    init(_ name: String, reactors: Int, isTraced: Bool) {
        self.name = name
        latencies = (0..<reactors).map { _ in RouteLatency(isTraced: isTraced) }
    }

    /// A meter for each handle that requests enter by; those of `old` go on under their names.
    static func meters(
        for tree: RouteTree, keeping old: [Int: RouteMeter]?, reactors: Int, isTraced: Bool
    ) -> [Int: RouteMeter] {
        let known = Dictionary(old?.values.map { ($0.name, $0) } ?? []) { first, _ in first }
        var meters: [Int: RouteMeter] = [:]
        for (prefix, selector) in tree.clusters {
            let entries = [("", selector.otherwise)] + selector.policies.sorted { $0.key < $1.key }.map { ($0, $1) }
            for case (let start, let id?) in entries where meters[id.index] == nil {
                let name = tree.names[id] ?? prefix.text + start
                meters[id.index] = known[name] ?? RouteMeter(name, reactors: reactors, isTraced: isTraced)
            }
        }
        return meters
    }

    func sum() -> HistogramSnapshot {
        var sum = HistogramSnapshot()
        for latency in latencies {
            sum.add(latency.histogram)
            sum.add(latency.exemplars)
        }
        return sum
    }
}

/// One reactor's histogram of a ``RouteMeter``.
final class RouteLatency: Sendable {
    let histogram = LatencyHistogram()
    /// The last traced request of each of its buckets.
    let exemplars: ExemplarCells

    init(isTraced: Bool) { exemplars = ExemplarCells(isOn: isTraced) }
}
