// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Settings

/// `martletctl stream status`: how the stream between regions goes at a node.
struct StreamCommand {
    private let client: HTTPClient

    init(_ client: HTTPClient) { self.client = client }

    /// The node's figures, in its order: a line each, or one JSON object.
    func status(asJSON: Bool) throws(ControlError) -> String {
        let answer = try client.send("GET", "/stats.json")
        let document: JSONNode
        do throws(PlacedProblem) {
            document = try JSONParser.parse(Array(answer.text.utf8), file: "/stats.json")
        } catch { throw ControlError(.data, "the node's statistics: \(error)") }
        guard case .object(let groups) = document.content,
            let stream = groups.entries.first(where: { $0.key == "stream" })?.value,
            case .object(let rows) = stream.content
        else { throw ControlError(.data, "the node tells nothing of streams: it is of an earlier version") }
        guard !rows.entries.isEmpty else {
            throw ControlError(.unavailable, "the node has no region: see `region` and `regions` in its configuration")
        }
        if asJSON {
            let members = rows.entries.map { Self.member($0.key, $0.value) }
            return "{\(members.joined(separator: ","))}\n"
        }
        let width = (rows.entries.map(\.key.count).max() ?? 0) + 2
        return rows.entries.map { row in
            row.key + String(repeating: " ", count: width - row.key.count) + Self.text(row.value) + "\n"
        }.joined()
    }

    /// Has the node ask again for what it misses, have records sent again, or give slots up.
    func order(_ word: String, _ options: ControlOptions) throws(ControlError) -> String {
        let slot = options["slot"]
        if let slot, slot != "all", !(Int(slot).map { (0...63).contains($0) } ?? false) {
            throw ControlError(.usage, "--slot=\(slot): expected a number from 0 to 63, or all")
        }
        if word == "skip", slot == nil {
            throw ControlError(.usage, "stream skip needs --slot: a number from 0 to 63, or all")
        }
        let answer = try client.send("POST", "/stream/\(word)" + (slot.map { "?slot=\($0)" } ?? ""))
        if options.has("json") { return answer.text }
        let count = Int(answer.field("slots") ?? "") ?? 0
        let slots = count == 1 ? "1 slot" : "\(count) slots"
        return switch word {
        case "repair": "What is missing was asked for again\n"
        case "replay": "What is kept of \(slots) comes again\n"
        default: "The copies of \(slots) are given up\n"
        }
    }

    private static func text(_ node: JSONNode) -> String {
        switch node.content {
        case .integer(let number): String(number)
        case .double(let number): String(number)
        case .boolean(let isOn): String(isOn)
        case .text(let text): text
        case .null, .array, .object: ""
        }
    }

    /// A source is a text, whatever its digits look like; an epoch is a number, and a text for programs that keep
    /// numbers as doubles.
    private static func member(_ name: String, _ value: JSONNode) -> String {
        switch name {
        case "source": "\"source\":\(JSONString.quoted(text(value)))"
        case "epoch": "\"epoch\":\(json(value)),\"epoch_text\":\(JSONString.quoted(text(value)))"
        default: "\(JSONString.quoted(name)):\(json(value))"
        }
    }

    /// Figures of the statistics are text there; a number is a number here.
    private static func json(_ node: JSONNode) -> String {
        switch node.content {
        case .text(let text):
            if let number = Int64(text) { String(number) } else { number(text) ?? JSONString.quoted(text) }
        case .integer, .double, .boolean: text(node)
        case .null, .array, .object: "null"
        }
    }

    private static func number(_ text: String) -> String? {
        let isPlain = text.utf8.allSatisfy { 48...57 ~= $0 || $0 == UInt8(ascii: ".") }
        guard isPlain, let number = Double(text), number.isFinite else { return nil }
        return "\(number)"
    }
}
