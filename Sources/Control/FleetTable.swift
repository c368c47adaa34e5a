// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform

/// One server in the table of `martletctl top`: what changed between two looks.
struct FleetRow {
    let address: String
    /// `node`, `router`, or `-` where nobody answered.
    let role: String
    /// `serving`, `degraded`, `draining`, `ending`, `not ready`, or `no answer`.
    let state: String
    /// Why it is not simply serving.
    let reason: String?
    /// The digest of its configuration; nil where it tells none.
    private(set) var configuration: String?
    private(set) var uptimeSeconds = 0.0
    /// A second: reads, writes, evictions, requests refused.
    private(set) var reads: Double?
    private(set) var writes: Double?
    private(set) var evictions: Double?
    private(set) var shed: Double?
    /// Of the reads in between; nil for a router, which does not know, and where there were none.
    private(set) var hitRatio: Double?
    /// Upper bounds in microseconds of what was answered in between; nil without answers.
    private(set) var p50: Double?
    private(set) var p99: Double?
    /// Of the limit; nil for a router.
    private(set) var memory: Double?
    private(set) var items: Double?
    private(set) var connections = 0.0
    /// Of one processor.
    private(set) var processor: Double?

    init(_ address: String, now: ServerSample, before: ServerSample) {
        self.address = address
        guard now.failure == nil else {
            role = "-"
            state = "no answer"
            reason = now.failure
            return
        }
        role = now.text("role") ?? "-"
        let complaints = now.complaints
        let phase = now.text("phase") ?? "-"
        if phase != "serving" || complaints.isEmpty {
            state = phase
        } else {
            state = complaints.allSatisfy(\.isAdvisory) ? "degraded" : "not ready"
        }
        reason = complaints.isEmpty ? nil : complaints.map { "\($0.name): \($0.reason)" }.joined(separator: "; ")
        configuration = now.configuration
        let isNode = role == "node"
        uptimeSeconds = now.number("stats", "uptime")
        connections = now.number("stats", "curr_connections")
        if isNode {
            let limit = now.number("stats", "limit_maxbytes")
            memory = limit > 0 ? now.number("martlet", "engine_used_bytes") / limit : nil
            items = now.number("stats", "curr_items")
        }
        let elapsed = (now.moment - before.moment) / 1e6
        // A server that began anew has no rates yet.
        guard before.failure == nil, elapsed > 0,
            now.number("stats", "pid") == before.number("stats", "pid")
        else { return }
        func rate(_ names: String...) -> Double {
            max(0, names.reduce(0) { $0 + now.number("stats", $1) - before.number("stats", $1) } / elapsed)
        }
        reads = rate("cmd_get")
        writes =
            isNode
            ? rate("cmd_set", "delete_hits", "delete_misses", "incr_hits", "incr_misses", "decr_hits", "decr_misses")
            : rate("cmd_set", "cmd_delete", "cmd_arithmetic")
        if isNode {
            evictions = rate("evictions")
            // Tenants count once more what their requests' classes count.
            let total = { (sample: ServerSample) in
                sample.sum("overload", prefix: "shed_") - sample.sum("overload", prefix: "shed_tenant_")
                    - sample.number("overload", "shed_ratio")
            }
            shed = max(0, (total(now) - total(before)) / elapsed)
            let (hits, misses) = (rate("get_hits"), rate("get_misses"))
            hitRatio = hits + misses > 0 ? hits / (hits + misses) : nil
        } else {
            shed = rate("refused")
        }
        processor = rate("rusage_user", "rusage_system")
        let (bounds, counts) = now.latencies
        let old = before.latencies.counts
        let grown = counts.indices.map { index in index < old.count ? counts[index] - old[index] : counts[index] }
        p50 = Self.quantile(0.5, bounds, grown)
        p99 = Self.quantile(0.99, bounds, grown)
    }

    /// The bound under which `fraction` of the commands stayed; infinite above the last one.
    static func quantile(_ fraction: Double, _ bounds: [Double], _ counts: [Double]) -> Double? {
        let total = counts.reduce(0, +)
        guard total > 0 else { return nil }
        var seen = 0.0
        for (index, count) in counts.enumerated() {
            seen += count
            if seen >= fraction * total { return index < bounds.count ? bounds[index] : .infinity }
        }
        return nil
    }
}

/// The servers of a fleet as text, or as one line of JSON.
enum FleetTable {
    private static let heads = [
        "server", "role", "state", "up", "reads/s", "writes/s", "hits", "p50", "p99", "memory", "items", "evict/s",
        "shed/s", "conns", "cpu",
    ]

    /// Columns in the order in which they are left out where the table is too wide.
    private static let expendable = [
        "role", "up", "items", "evict/s", "p50", "conns", "memory", "cpu", "shed/s", "hits",
    ]

    /// A line for each server, and one for all nodes; within `width` columns, where one is given.
    static func text(_ rows: [FleetRow], width: Int?) -> String {
        var table = [heads]
        for row in rows {
            table.append([
                row.address, row.role, row.state, span(row.uptimeSeconds), short(row.reads), short(row.writes),
                percent(row.hitRatio), time(row.p50), time(row.p99), percent(row.memory), short(row.items),
                short(row.evictions), short(row.shed), short(row.connections), percent(row.processor),
            ])
        }
        if rows.count > 1 { table.append(total(rows)) }
        let widths = heads.indices.map { column in table.map { $0[column].count }.max() ?? 0 }
        let shown = columns(widths, within: width ?? .max)
        var text = ""
        for line in table {
            let cells = shown.map { column in
                let padding = String(repeating: " ", count: widths[column] - line[column].count)
                return column < 3 ? line[column] + padding : padding + line[column]
            }
            text += cells.joined(separator: "  ") + "\n"
        }
        for row in rows where row.reason != nil {
            text += "\n" + ControlText.wrap("\(row.address): \(row.reason ?? "")").joined(separator: "\n") + "\n"
        }
        for line in differences(rows) { text += "\n" + ControlText.wrap(line).joined(separator: "\n") + "\n" }
        return text
    }

    /// Whether nodes, or routers, were told different things.
    private static func differences(_ rows: [FleetRow]) -> [String] {
        ["node", "router"].compactMap { role in
            let told = rows.filter { $0.role == role && $0.configuration != nil }
            let groups = Dictionary(grouping: told) { $0.configuration ?? "" }
            guard groups.count > 1 else { return nil }
            let parts = groups.sorted { $0.key < $1.key }.map { digest, rows in
                "\(digest) at \(rows.map(\.address).joined(separator: ", "))"
            }
            return "The \(role)s' configurations differ: \(parts.joined(separator: "; "))"
        }
    }

    /// The columns that fit, in their order.
    private static func columns(_ widths: [Int], within width: Int) -> [Int] {
        var shown = Array(heads.indices)
        for name in expendable {
            let total = shown.reduce(0) { $0 + widths[$1] + 2 } - 2
            guard total > width else { break }
            shown.removeAll { heads[$0] == name }
        }
        return shown
    }

    private static func total(_ rows: [FleetRow]) -> [String] {
        // A router's requests are the nodes' requests once more.
        let nodes = rows.filter { $0.role == "node" }
        func sum(_ read: (FleetRow) -> Double?) -> String { short(nodes.compactMap(read).reduce(0, +)) }
        let hits = nodes.reduce(0) { $0 + ($1.hitRatio ?? 0) * ($1.reads ?? 0) }
        let reads = nodes.reduce(0) { $0 + ($1.hitRatio == nil ? 0 : $1.reads ?? 0) }
        return [
            "all nodes", "\(nodes.count)", "", "", sum(\.reads), sum(\.writes),
            percent(reads > 0 ? hits / reads : nil), "", time(nodes.compactMap(\.p99).max()), "", sum(\.items),
            sum(\.evictions), sum(\.shed), sum(\.connections), "",
        ]
    }

    static func json(_ rows: [FleetRow]) -> String {
        let servers = rows.map { row in
            let figures: [(String, Double?)] = [
                ("uptimeSeconds", row.uptimeSeconds), ("readsPerSecond", row.reads), ("writesPerSecond", row.writes),
                ("hitRatio", row.hitRatio), ("p50Microseconds", row.p50), ("p99Microseconds", row.p99),
                ("memory", row.memory), ("items", row.items), ("evictionsPerSecond", row.evictions),
                ("shedPerSecond", row.shed), ("connections", row.connections), ("processor", row.processor),
            ]
            let members = figures.map { name, value in
                "\"\(name)\":\(value.map { $0.isFinite ? number($0) : "null" } ?? "null")"
            }
            let texts = [("server", row.address), ("role", row.role), ("state", row.state)]
                .map { "\"\($0.0)\":\(JSONString.quoted($0.1))" }
            return "{\(texts.joined(separator: ",")),\"reason\":\(row.reason.map { JSONString.quoted($0) } ?? "null"),"
                + "\"configuration\":\(row.configuration.map { JSONString.quoted($0) } ?? "null"),"
                + "\(members.joined(separator: ","))}"
        }
        return "{\"servers\":[\(servers.joined(separator: ","))]}\n"
    }

    private static func number(_ value: Double) -> String {
        value == value.rounded() && value.magnitude < 1e15 ? "\(Int64(value))" : "\(value)"
    }

    // MARK: Figures for people

    private static func decimal(_ value: Double, _ unit: String) -> String {
        let tenths = Int((value * 10).rounded())
        return tenths >= 1000 ? "\(tenths / 10)\(unit)" : "\(tenths / 10).\(tenths % 10)\(unit)"
    }

    static func short(_ value: Double?) -> String {
        guard let value else { return "-" }
        if value >= 1e9 { return decimal(value / 1e9, "G") }
        if value >= 1e6 { return decimal(value / 1e6, "M") }
        if value >= 1e4 { return decimal(value / 1e3, "k") }
        return value == value.rounded() || value >= 100 ? "\(Int(value.rounded()))" : decimal(value, "")
    }

    static func percent(_ value: Double?) -> String { value.map { decimal($0 * 100, "%") } ?? "-" }

    static func time(_ microseconds: Double?) -> String {
        guard let microseconds else { return "-" }
        guard microseconds.isFinite else { return ">1.6s" }
        if microseconds < 1000 { return "\(Int(microseconds))us" }
        return microseconds < 1e6 ? decimal(microseconds / 1000, "ms") : decimal(microseconds / 1e6, "s")
    }

    static func span(_ seconds: Double) -> String {
        let whole = Int(seconds)
        if whole >= 86_400 { return "\(whole / 86_400)d\(whole / 3600 % 24)h" }
        if whole >= 3600 { return "\(whole / 3600)h\(whole / 60 % 60)m" }
        return whole >= 60 ? "\(whole / 60)m\(whole % 60)s" : "\(whole)s"
    }
}
