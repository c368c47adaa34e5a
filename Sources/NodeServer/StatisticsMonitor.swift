// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Invalidation
internal import Telemetry

/// What the consistency monitor has found, in `stats stream` and /metrics.
extension Node {
    func addMonitor(to list: inout StatisticsList) {
        guard let figures = monitorFigures else { return }
        list.add("monitor_changes", figures.changes)
        list.add("monitor_followed", figures.followed)
        list.add("monitor_nodes", figures.replicas)
        list.add("monitor_store_reads", figures.reads)
        for window in figures.windows {
            let name = "consistency:\(window.seconds)s"
            list.add("\(name):samples", window.samples)
            list.add("\(name):stale", window[.stale])
            list.add("\(name):nines", fixedPoint(window.nines, decimals: 2))
        }
        for cause in InconsistencyCause.allCases where figures.causes.indices.contains(cause.rawValue) {
            list.add("stale_\(cause)", figures.causes[cause.rawValue])
        }
        list.add("stale_unexplained", figures.unexplained)
    }

    func appendMonitorMetrics(to page: inout Exposition) {
        guard let figures = monitorFigures else { return }
        page.counter("martlet_consistency_changes_total", "Changes of the node's stream.", figures.changes)
        page.counter(
            "martlet_consistency_followed_total", "Changes that the consistency monitor followed up.", figures.followed)
        page.gauge("martlet_consistency_waiting", "Changes that wait for their last look.", figures.waiting)
        page.gauge("martlet_consistency_nodes", "Nodes that were asked last.", figures.replicas)
        page.family(
            "martlet_consistency_looks_total", .counter,
            help: "Looks at nodes' copies, by the time since the change, and what was seen.")
        for window in figures.windows {
            for verdict in CopyVerdict.allCases {
                page.sample(window[verdict], ("after", "\(window.seconds)s"), ("seen", "\(verdict)"))
            }
        }
        page.family(
            "martlet_consistency_nines", .gauge,
            help: "How consistent copies are so long after a change, in nines: as the sample shows at 95% confidence.")
        for window in figures.windows { page.sample(window.nines, ("after", "\(window.seconds)s")) }
        page.family(
            "martlet_consistency_samples", .gauge, help: "How many looks that rests on, since the start.")
        for window in figures.windows { page.sample(window.samples, ("after", "\(window.seconds)s")) }
        page.family(
            "martlet_consistency_causes_total", .counter,
            help: "Copies that were older than a change, by why; each window counts its own.")
        for cause in InconsistencyCause.allCases where figures.causes.indices.contains(cause.rawValue) {
            page.sample(figures.causes[cause.rawValue], ("cause", "\(cause)"))
        }
        page.sample(figures.unexplained, ("cause", "unexplained"))
        page.counter(
            "martlet_consistency_store_reads_total", "Rows that were looked up in the store for suspects.",
            figures.reads)
    }
}
