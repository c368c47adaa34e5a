// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Settings

/// `martletctl ring`, `hotkeys` and `events`: pages of several servers' admin ports, put together.
struct LookCommands {
    /// Admin ports, as they were given.
    private let addresses: [String]
    private let options: ControlOptions

    /// Servers that one run looks at, at most.
    private static var serverLimit: Int { 256 }

    init(_ addresses: [String], _ options: ControlOptions) throws(ControlError) {
        self.addresses = addresses.isEmpty ? [options["node"] ?? "127.0.0.1:9150"] : addresses
        self.options = options
        guard self.addresses.count <= Self.serverLimit else {
            throw ControlError(.usage, "at most \(Self.serverLimit) servers")
        }
    }

    /// A page of each server, as text and as JSON.
    private func pages(_ path: String) throws(ControlError) -> [(server: String, text: String, root: JSONObject)] {
        var pages: [(server: String, text: String, root: JSONObject)] = []
        for address in addresses {
            let base = address.contains("://") ? address : "http://" + address
            let answer = try HTTPClient(base: base, token: nil, timeoutSeconds: 5).send("GET", path)
            let root: JSONObject?
            do throws(PlacedProblem) { root = try JSONParser.parse(answer.body, file: path).object } catch {
                throw ControlError(.data, "\(address): \(error.line)")
            }
            guard let root else { throw ControlError(.data, "\(address)\(path): no object") }
            let lines = answer.text.split(separator: "\n").joined()
            pages.append((address, lines, root))
        }
        return pages
    }

    /// What a last column has at least beside the others; with less it stands below them.
    private static var narrowest: Int { 24 }

    /// Rows with their columns under each other. In a terminal, what does not fit goes on below.
    private static func table(_ rows: [[String]]) -> String {
        let columns = rows.map(\.count).max() ?? 0
        let widths = (0..<columns).map { column in
            rows.map { column < $0.count ? $0[column].count : 0 }.max() ?? 0
        }
        let window = ProcessControl.isTerminal(1) ? ProcessControl.terminalSize(1)?.columns : nil
        return rows.map { row in
            let head = row.dropLast().enumerated().map { column, cell in
                cell + String(repeating: " ", count: widths[column] - cell.count) + "  "
            }.joined()
            let last = row.last ?? ""
            guard let window, head.count + last.count > window else { return head + last + "\n" }
            guard head.count + narrowest <= window else {
                return ([head] + ControlText.wrap(last, indent: 4, width: window)).joined(separator: "\n") + "\n"
            }
            let lines = ControlText.wrap(last, indent: head.count, width: window)
            return head + lines.joined(separator: "\n").dropFirst(head.count) + "\n"
        }.joined()
    }

    // MARK: The ring

    /// Who is in the fleet, as each server knows it.
    func ring() throws(ControlError) -> String {
        let pages = try pages("/ring")
        if options.has("json") {
            let rings = pages.map { "{\"server\":\(JSONString.quoted($0.server)),\"ring\":\($0.text)}" }
            return "{\"servers\":[\(rings.joined(separator: ","))]}\n"
        }
        return pages.map { page in
            let epoch = page.root["epoch"]?.integer.map { ", epoch \($0)" } ?? ""
            let leased = page.root["leased"]?.boolean.map { $0 ? ", leased" : ", without a lease" } ?? ""
            let members = (page.root["members"]?.array ?? []).compactMap(\.object)
            let head = "\(page.server): \(page.root["role"]?.text ?? "-")\(epoch)\(leased)\n"
            let rows = members.isEmpty ? [["", "no members are known"]] : members.map(Self.member)
            return head + Self.table(rows)
        }.joined()
    }

    private static func member(_ member: JSONObject) -> [String] {
        var name = member["name"]?.text ?? ""
        if let host = member["host"]?.text, let port = member["port"]?.integer {
            let place = "\(host):\(port)"
            name = name.isEmpty || name == place ? place : "\(name) at \(place)"
        }
        let share = member["share"]?.number.map { FleetTable.percent($0) } ?? ""
        return ["", name, member["state"]?.text ?? "", share]
    }

    // MARK: Hot keys

    /// The keys that are read most, of all nodes together.
    func hotKeys() throws(ControlError) -> String {
        let pages = try pages("/stats.json")
        var found: [(server: String, key: String, count: Int64, error: Int64)] = []
        for page in pages {
            for row in (page.root["hotKeys"]?.array ?? []).compactMap(\.object) {
                guard let key = row["key"]?.text, let count = row["count"]?.integer else { continue }
                found.append((page.server, key, count, row["error"]?.integer ?? 0))
            }
        }
        found.sort { ($0.count, $1.key) > ($1.count, $0.key) }
        found = Array(found.prefix(try options.number("count") ?? 20))
        if options.has("json") {
            let keys = found.map { row in
                "{\"server\":\(JSONString.quoted(row.server)),\"key\":\(JSONString.quoted(row.key)),"
                    + "\"reads\":\(row.count),\"error\":\(row.error)}"
            }
            return "{\"keys\":[\(keys.joined(separator: ","))]}\n"
        }
        guard !found.isEmpty else { return "no key was sampled yet\n" }
        let rows = found.map { ["\($0.count)", "+-\($0.error)", $0.key, $0.server] }
        return Self.table([["reads", "error", "key or its hash", "server"]] + rows)
    }

    // MARK: Events

    /// What happened at all servers, in the order of time.
    func events() throws(ControlError) -> String {
        let pages = try pages("/events")
        var found: [(server: String, event: JSONObject)] = []
        for page in pages {
            for event in (page.root["events"]?.array ?? []).compactMap(\.object) { found.append((page.server, event)) }
        }
        found.sort { ($0.event["ts"]?.text ?? "") < ($1.event["ts"]?.text ?? "") }
        if let count = try options.number("count") { found = Array(found.suffix(count)) }
        if options.has("json") {
            let events = found.map { server, event in
                let fields = event.entries.map { "\(JSONString.quoted($0.key)):\(Self.json($0.value))" }
                return "{\"server\":\(JSONString.quoted(server)),\(fields.joined(separator: ","))}"
            }
            return "{\"events\":[\(events.joined(separator: ","))]}\n"
        }
        guard !found.isEmpty else { return "nothing happened yet\n" }
        let known: Set<String> = ["ts", "level", "msg", "event"]
        let rows = found.map { server, event in
            let fields = event.entries.filter { !known.contains($0.key) }.map { "\($0.key)=\(Self.text($0.value))" }
            let moment = (event["ts"]?.text ?? "").prefix(19) + "Z"
            return [
                String(moment), server, event["event"]?.text ?? "",
                ([event["msg"]?.text ?? ""] + fields).joined(separator: " "),
            ]
        }
        return Self.table(rows)
    }

    private static func text(_ node: JSONNode) -> String {
        switch node.content {
        case .text(let text): text
        case .integer(let number): "\(number)"
        case .double(let number): "\(number)"
        case .boolean(let isOn): "\(isOn)"
        case .null, .array, .object: ""
        }
    }

    private static func json(_ node: JSONNode) -> String {
        switch node.content {
        case .text(let text): JSONString.quoted(text)
        case .null, .array, .object: "null"
        default: text(node)
        }
    }
}
