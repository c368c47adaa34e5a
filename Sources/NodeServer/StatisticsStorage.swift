// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Storage
internal import Telemetry

/// `stats storage`, and the same figures in /metrics.
extension Node {
    func storageStatistics() -> StatisticsList {
        var list = StatisticsList()
        list.add("storage_backend", configuration.storage.backend.rawValue)
        guard let storage else { return list }
        list.add("storage_health", storage.tier.health.text)
        if let identity = storage.backend.identity { list.add("store_identity", identity) }
        for figure in storage.tier.statistics() {
            let isWhole = figure.value == figure.value.rounded() && figure.value.magnitude < 1e15
            list.add(figure.name, isWhole ? "\(Int64(figure.value))" : fixedPoint(figure.value, decimals: 6))
        }
        for durations in storage.durations {
            for figure in durations.figures {
                list.add(figure.name, fixedPoint(Double(figure.nanoseconds) / 1e9, decimals: 6))
            }
        }
        list.add("storage_errors", counters.reduce(0) { $0 + $1.commands.load(.storageErrors) })
        list.add("stale_answers", counters.reduce(0) { $0 + $1.commands.load(.staleAnswers) })
        list.add("stale_hits", counters.reduce(0) { $0 + $1.commands.load(.staleHits) })
        list.add("negative_hits", counters.reduce(0) { $0 + $1.commands.load(.negativeHits) })
        list.add("waiting_row_bytes", storage.waitingRowBytes)
        list.add("waiting_row_limit_bytes", configuration.storage.waitingRowBytes)
        list.add("rows_given_up", storage.rowsGivenUp)
        list.add("incoming_value_bytes", storage.intake.bytes)
        list.add("incoming_value_limit_bytes", storage.intake.limitBytes)
        list.add("incoming_values_refused", storage.intake.refused)
        list.add("incoming_values_given_up", storage.intake.givenUp)
        if let ownership { addOwnership(ownership, to: &list) }
        return list
    }

    private func addOwnership(_ ownership: NodeOwnership, to list: inout StatisticsList) {
        let view = ownership.view
        list.add("ring_epoch", view.epoch)
        list.add("ring_members", view.members.map(\.name).joined(separator: ","))
        list.add("ring_is_member", view.isMember ? 1 : 0)
        list.add("ring_is_leased", ownership.isLeased ? 1 : 0)
        list.add("ring_is_opening", view.isClosing ? 1 : 0)
        list.add("ring_is_doubtful", view.isDoubtful ? 1 : 0)
        for (name, count) in ownership.counts.listed { list.add("ring_\(name)", count) }
    }

    private func appendOwnershipMetrics(_ ownership: NodeOwnership, to page: inout Exposition) {
        let view = ownership.view
        page.family("martlet_ring_epoch", .gauge, help: "The epoch of the ring that the node answers by.")
        page.sample(view.epoch)
        page.family("martlet_ring_members", .gauge, help: "Members of that ring.")
        page.sample(UInt64(view.members.count))
        page.family("martlet_ring_leased", .gauge, help: "1 while the node may show copies.")
        page.sample(UInt64(ownership.isLeased ? 1 : 0))
        page.family("martlet_ring_events_total", .counter, help: "What the node did about who owns what, by kind.")
        for (name, count) in ownership.counts.listed { page.sample(count, ("event", name)) }
    }

    func appendStorageMetrics(to page: inout Exposition) {
        guard let storage else { return }
        page.family("martlet_storage_up", .gauge, help: "1 while the store takes reads and writes.")
        page.sample(UInt64(storage.tier.health.takesWrites ? 1 : 0))
        page.family(
            "martlet_storage_stale_answers_total", .counter,
            help: "Reads that a copy behind its time answered because the store did not.")
        page.sample(counters.reduce(0) { $0 + $1.commands.load(.staleAnswers) })
        page.family(
            "martlet_storage_stale_hits_total", .counter,
            help: "Reads that a copy behind its time answered while the store was asked for a newer one.")
        page.sample(counters.reduce(0) { $0 + $1.commands.load(.staleHits) })
        page.family(
            "martlet_storage_negative_hits_total", .counter,
            help: "Reads that the cache answered with the store's word that there is no row.")
        page.sample(counters.reduce(0) { $0 + $1.commands.load(.negativeHits) })
        page.family(
            "martlet_storage_waiting_row_bytes", .gauge,
            help: "Rows that the store gave and that wait for clients who do not read.")
        page.sample(UInt64(storage.waitingRowBytes))
        page.family(
            "martlet_storage_waiting_row_limit_bytes", .gauge, help: "The most that such rows may have.")
        page.sample(UInt64(configuration.storage.waitingRowBytes))
        page.family(
            "martlet_storage_rows_given_up_total", .counter,
            help: "Rows that were given up because their clients did not read; they got an error instead.")
        page.sample(storage.rowsGivenUp)
        page.family(
            "martlet_storage_incoming_value_bytes", .gauge,
            help: "Values on their way to the store that did not arrive at once, as they were announced.")
        page.sample(UInt64(storage.intake.bytes))
        page.family(
            "martlet_storage_incoming_value_limit_bytes", .gauge, help: "The most that such values may have.")
        page.sample(UInt64(storage.intake.limitBytes))
        page.family(
            "martlet_storage_incoming_values_refused_total", .counter, help: "Values for which there was no room.")
        page.sample(storage.intake.refused)
        page.family(
            "martlet_storage_incoming_values_given_up_total", .counter,
            help: "Values that stood still while there was no room for others, and were refused.")
        page.sample(storage.intake.givenUp)
        for figure in storage.tier.statistics() {
            let isCounter = figure.kind == .counter
            let name = "martlet_storage_\(figure.name)\(isCounter && !figure.name.hasSuffix("_total") ? "_total" : "")"
            page.family(name, isCounter ? .counter : .gauge, help: figure.help)
            page.sample(figure.value)
        }
        for durations in storage.durations {
            for figure in durations.figures {
                let isSum = figure.name.hasSuffix("_sum")
                page.family(
                    "martlet_storage_\(figure.name)\(isSum ? "_total" : "")", isSum ? .counter : .gauge,
                    help: figure.help)
                page.sample(Double(figure.nanoseconds) / 1e9)
            }
            page.family("martlet_storage_\(durations.name)_duration_seconds", .histogram, help: durations.help)
            page.sample(durations.summary.histogram)
        }
        if let ownership { appendOwnershipMetrics(ownership, to: &page) }
    }
}

extension NamedDurations {
    /// The sum, the median and the 99th percentile since the start.
    fileprivate var figures: [(name: String, nanoseconds: UInt64, help: String)] {
        [
            ("\(name)_seconds_sum", summary.sumNanoseconds, help),
            (
                "\(name)_seconds_p50", summary.bound(fraction: 0.5) ?? 0,
                "Half of the \(things) since the start took at most this."
            ),
            (
                "\(name)_seconds_p99", summary.bound(fraction: 0.99) ?? 0,
                "99 of 100 \(things) since the start took at most this."
            ),
        ]
    }
}

extension StorageHealth {
    /// Whether reads and writes work.
    fileprivate var takesWrites: Bool {
        switch self {
        case .ready, .impaired: true
        case .readOnly, .unavailable: false
        }
    }

    /// As one line.
    var text: String {
        switch self {
        case .ready: "ready"
        case .impaired(let reason): "impaired: \(reason)"
        case .readOnly(let reason): "read-only: \(reason)"
        case .unavailable(let reason): "unavailable: \(reason)"
        }
    }
}
