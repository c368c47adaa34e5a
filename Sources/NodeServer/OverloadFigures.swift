// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Overload
internal import Telemetry

/// What one reactor's overload control counts, and how it stands.
enum OverloadCounter: Int, CounterIndex {
    // By class and reason, in the order of both.
    case invalidationRatio, invalidationAge, invalidationShare
    case criticalRatio, criticalAge, criticalShare
    case standardRatio, standardAge, standardShare
    case sheddableRatio, sheddableAge, sheddableShare
    case backgroundRatio, backgroundAge, backgroundShare
    /// As of the last step.
    case delayNanoseconds, ratioMillionths, isOverloaded, entries, level, tenants

    /// The counter of a class and a reason.
    static func shed(_ requestClass: RequestClass, _ reason: ShedReason) -> OverloadCounter {
        let number = Int(requestClass.rawValue) * ShedReason.allCases.count + Int(reason.rawValue)
        guard let counter = OverloadCounter(rawValue: number) else { preconditionFailure("a class without counters") }
        return counter
    }
}

/// One reactor's figures.
final class OverloadFigures: Sendable {
    let counters = CounterSet<OverloadCounter>()

    func noteShed(_ requestClass: RequestClass, _ reason: ShedReason, count: Int = 1) {
        counters.add(.shed(requestClass, reason), UInt64(count))
    }
}

/// `stats overload`, and the same in /metrics.
extension Node {
    func overloadStatistics() -> StatisticsList {
        var list = StatisticsList()
        let settings = configuration.overload
        list.add("overload_target_us", settings.controller.targetNanoseconds / 1000)
        list.add("overload_dry_run", settings.controller.isDryRun ? "yes" : "no")
        list.add("overload_reply", settings.reply.rawValue)
        list.add("overload_tenant", settings.tenant.rawValue)
        list.add("overloaded", overload.reduce(0) { $0 + $1.counters.load(.isOverloaded) })
        list.add("overloads", overload.reduce(0) { $0 + $1.counters.load(.entries) })
        list.add("queue_delay_us", (overload.map { $0.counters.load(.delayNanoseconds) }.max() ?? 0) / 1000)
        list.add(
            "shed_ratio",
            fixedPoint(Double(overload.map { $0.counters.load(.ratioMillionths) }.max() ?? 0) / 1e6, decimals: 6))
        list.add("admission_level", overload.map { $0.counters.load(.level) }.min() ?? 0)
        list.add("active_tenants", overload.map { $0.counters.load(.tenants) }.max() ?? 0)
        for requestClass in RequestClass.allCases {
            for reason in ShedReason.allCases {
                list.add("shed_\(requestClass.label)_\(reason.label)", shed(requestClass, reason))
            }
        }
        for tenant in tenants.all {
            list.add("shed_tenant_\(tenant.name)", tenant.totals[.shed])
            list.add("over_quota_tenant_\(tenant.name)", tenant.totals.over)
        }
        return list
    }

    private func shed(_ requestClass: RequestClass, _ reason: ShedReason) -> UInt64 {
        overload.reduce(0) { $0 + $1.counters.load(.shed(requestClass, reason)) }
    }

    /// What was refused in all, for the log.
    var sheddingFigures: SheddingWatch.Figures {
        var refused: UInt64 = 0
        for requestClass in RequestClass.allCases {
            for reason in ShedReason.allCases { refused &+= shed(requestClass, reason) }
        }
        let ratio = Double(overload.map { $0.counters.load(.ratioMillionths) }.max() ?? 0) / 1e6
        let delay = (overload.map { $0.counters.load(.delayNanoseconds) }.max() ?? 0) / 1000
        return SheddingWatch.Figures(refused: refused, ratio: ratio, detail: "requests waited \(delay) us")
    }

    func appendOverloadMetrics(to page: inout Exposition) {
        page.family(
            "martlet_shed_total", .counter, help: "Requests refused because the node was overloaded, by class and why.")
        for requestClass in RequestClass.allCases {
            for reason in ShedReason.allCases {
                page.sample(shed(requestClass, reason), ("class", requestClass.label), ("reason", reason.label))
            }
        }
        page.counter(
            "martlet_overloads_total", "Overloads that began, of all reactors.",
            overload.reduce(0) { $0 + $1.counters.load(.entries) })
        page.gauge(
            "martlet_overloaded_reactors", "Reactors that are overloaded now.",
            overload.reduce(0) { $0 + $1.counters.load(.isOverloaded) })
        page.family(
            "martlet_queue_delay_seconds", .gauge, help: "Least queueing delay of the last 20 ms, by reactor.")
        for (index, figures) in overload.enumerated() {
            page.sample(Double(figures.counters.load(.delayNanoseconds)) / 1e9, ("reactor", "\(index)"))
        }
        page.family(
            "martlet_shed_ratio", .gauge, help: "Share of the offered cost that is refused, by reactor.")
        for (index, figures) in overload.enumerated() {
            page.sample(Double(figures.counters.load(.ratioMillionths)) / 1e6, ("reactor", "\(index)"))
        }
    }
}
