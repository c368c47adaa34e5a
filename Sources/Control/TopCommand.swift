// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Settings

/// `martletctl top`: nodes and routers side by side, as they change.
struct TopCommand {
    /// Admin ports, as they were given.
    private let addresses: [String]
    private let clients: [HTTPClient]
    private let isJSON: Bool
    /// Columns that somebody said there are; nil asks the terminal.
    private let columns: Int?
    private let isWide: Bool
    /// Seconds between two looks.
    private let interval: Int
    /// How many tables are shown; nil goes on until the process is ended.
    private let count: Int?

    /// Servers that one run looks at, at most.
    private static var serverLimit: Int { 256 }

    init(_ addresses: [String], _ options: ControlOptions, environment: [String: String]) throws(ControlError) {
        let wanted = addresses.isEmpty ? [options["node"] ?? "127.0.0.1:9150"] : addresses
        guard wanted.count <= Self.serverLimit else {
            throw ControlError(.usage, "top: at most \(Self.serverLimit) servers")
        }
        self.addresses = wanted
        var clients: [HTTPClient] = []
        for address in wanted {
            let base = address.contains("://") ? address : "http://" + address
            clients.append(try HTTPClient(base: base, token: nil, timeoutSeconds: 5))
        }
        self.clients = clients
        isJSON = options.has("json")
        columns = environment["COLUMNS"].flatMap { Int($0) }
        isWide = options.has("wide")
        interval = try options.seconds("interval") ?? 1
        count = try options.number("count")
    }

    /// Columns for a table; nil shows all there are. Looked up for each: windows change.
    private var width: Int? {
        guard !isWide else { return nil }
        return max(columns ?? ProcessControl.terminalSize(1)?.columns ?? ControlText.lineWidth, ControlText.lineWidth)
    }

    /// Shows tables until that is enough. On a terminal each takes the place of the one before.
    func run() throws(ControlError) -> String {
        let isLive = !isJSON && count == nil && ProcessControl.isTerminal(1)
        let parking = Parking()
        var before = look()
        guard before.contains(where: { $0.failure == nil }) else {
            throw ControlError(.unavailable, before.map { $0.failure ?? "" }.joined(separator: "\n"))
        }
        var shown = 0
        while true {
            parking.wait(parking.ticket, timeoutNanoseconds: UInt64(interval) * 1_000_000_000)
            let now = look()
            let rows = zip(addresses, zip(now, before)).map { FleetRow($0, now: $1.0, before: $1.1) }
            let text = isJSON ? FleetTable.json(rows) : FleetTable.text(rows, width: width)
            before = now
            shown += 1
            if shown == count { return text }
            writeWhole(Array((isLive ? "\u{1B}[H\u{1B}[2J" + text : text).utf8), to: 1)
        }
    }

    private func look() -> [ServerSample] {
        clients.map { client in
            do throws(ControlError) {
                return ServerSample(try client.send("GET", "/stats.json").body)
            } catch {
                return ServerSample(failure: error.description)
            }
        }
    }
}

/// What a server said at one moment.
struct ServerSample {
    /// Why there is nothing.
    var failure: String?
    private var root: JSONObject?

    init(failure: String) { self.failure = failure }

    init(_ document: [UInt8]) {
        do throws(PlacedProblem) {
            root = try JSONParser.parse(document, file: "stats.json").object
        } catch {
            failure = error.line
        }
    }

    /// A text of the document.
    func text(_ name: String) -> String? { root?[name]?.text }

    /// A number of one of its lists; 0 where there is none. Text that is a number counts as one.
    func number(_ list: String, _ name: String) -> Double {
        guard let value = root?[list]?.object?[name] else { return 0 }
        return value.number ?? value.text.flatMap { Double($0) } ?? 0
    }

    /// The sum of a list's numbers whose names begin so.
    func sum(_ list: String, prefix: String) -> Double {
        guard let object = root?[list]?.object else { return 0 }
        return object.keys.filter { $0.hasPrefix(prefix) }.reduce(0) { $0 + number(list, $1) }
    }

    /// When it was made, by the server's clock, in microseconds.
    var moment: Double { root?["monotonicMicroseconds"]?.number ?? 0 }

    /// The digest of its configuration; nil of an earlier version.
    var configuration: String? { root?["configuration"]?.object?["digest"]?.text }

    /// What readiness complains of.
    var complaints: [(name: String, reason: String, isAdvisory: Bool)] {
        (root?["checks"]?.array ?? []).compactMap { check in
            guard let check = check.object, let reason = check["failure"]?.text else { return nil }
            return (check["name"]?.text ?? "", reason, check["advisory"]?.boolean ?? false)
        }
    }

    /// The bounds of latency's buckets in microseconds, and how many commands each has, the unbounded one last.
    var latencies: (bounds: [Double], counts: [Double]) {
        let bounds = (root?["latencyBoundsMicroseconds"]?.array ?? []).map { $0.number ?? 0 }
        var counts = [Double](repeating: 0, count: bounds.count + 1)
        guard let histograms = root?["latencies"]?.object else { return (bounds, counts) }
        for (_, histogram) in histograms.entries {
            for (index, count) in (histogram.array ?? []).enumerated() where index < counts.count {
                counts[index] += count.number ?? 0
            }
        }
        return (bounds, counts)
    }
}
