// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Settings

/// `martletctl region status` and `region promote`: which region is home, and making another one that.
struct RegionCommands {
    private let client: HTTPClient
    private let options: ControlOptions
    private var isJSON: Bool { options.has("json") }

    init(_ options: ControlOptions, _ client: HTTPClient) {
        self.options = options
        self.client = client
    }

    /// What the node knows.
    func status() throws(ControlError) -> String {
        let answer = try client.send("GET", "/region")
        if isJSON { return answer.text }
        let document: JSONNode
        do throws(PlacedProblem) {
            document = try JSONParser.parse(Array(answer.text.utf8), file: "/region")
        } catch { throw ControlError(.data, "the node's answer: \(error)") }
        let row = Row(document)
        var rows = [
            ["region", "\(row["region"]), \(row["role"])"],
            ["home", "\(row["home"]), promotion \(row["epoch"])"],
        ]
        if let database = row.object("database") {
            var text = database["state"]
            if !database["reason"].isEmpty { text += ": \(database["reason"])" }
            if database["state"] == "fenced" {
                text += " by promotion \(database["epoch"]) of \(database["fenced_for"])"
                if database["last_step"] == "true" { text += ", in its last step" }
                if let seconds = Int64(database["standstill_s"]) {
                    text += ": nobody takes writes, for \(seconds) s so far"
                }
            }
            if database["state"] == "standby", let behind = Int64(database["behind_ms"]) {
                text +=
                    behind < 0
                    ? ", of a home that never said anything in it"
                    : ", has everything that was acknowledged until \(Self.seconds(behind)) ago"
            }
            rows.append(["database", text])
        } else {
            rows.append(["database", "none: the region cannot be promoted"])
        }
        for peer in row.list("peers") {
            let said = peer["home"].isEmpty ? "" : "says that \(peer["home"]) is home, promotion \(peer["epoch"])"
            let text = peer["answers"] == "true" ? said : "does not answer: \(peer["reason"])"
            rows.append(["region \(peer["region"])", text])
        }
        if let left = row.object("left_behind") {
            let (first, last) = (Self.time(left["first_ms"]), Self.time(left["last_ms"]))
            rows.append(["left behind", "at most \(left["at_most"]) changes, from \(first) to \(last)"])
        }
        let width = (rows.map(\.[0].count).max() ?? 0) + 2
        return rows.map { $0[0] + String(repeating: " ", count: width - $0[0].count) + $0[1] + "\n" }.joined()
    }

    /// Makes a region home, and says what that came to.
    func promote(_ region: String) throws(ControlError) -> String {
        let timeout = try options.number("timeout") ?? 10
        guard timeout <= 600 else { throw ControlError(.usage, "--timeout=\(timeout): expected up to 600 seconds") }
        let name = PercentEncoding.encoded(Array(region.utf8).span)
        let loss = options.has("accept-loss") ? "&accept-loss=1" : ""
        let begun = try client.send("POST", "/region/promote?region=\(name)&timeout=\(timeout)\(loss)")
        let parking = Parking()
        var phase = ""
        while true {
            let status = try client.send("GET", "/region/promotion")
            guard status.field("number") == begun.field("number") else {
                throw ControlError(.unavailable, "the node knows nothing of it any more: it restarted")
            }
            if let now = status.field("phase"), now != phase, !isJSON {
                phase = now
                writeWhole(Array("\(phase)\n".utf8), to: 2)
            }
            if status.field("running") != "true" {
                if let failure = status.field("failure") { throw ControlError(.unavailable, failure) }
                return isJSON ? status.text : Self.told(status)
            }
            parking.wait(parking.ticket, timeoutNanoseconds: 50_000_000)
        }
    }

    private static func told(_ status: HTTPClient.Answer) -> String {
        func number(_ name: String) -> Int64 { status.field(name).flatMap { Int64($0) } ?? 0 }
        let (home, old) = (status.field("home") ?? "", status.field("old_home") ?? "")
        let head = "\(home) is home since promotion \(number("epoch")); it took \(seconds(number("took_ms"))).\n"
        if status.field("lossless") == "true" {
            return head + "Nothing that \(old) acknowledged is lost.\n"
        }
        let (safe, end) = (time("\(number("safe_until_ms"))"), time("\(number("given_up_ms"))"))
        return head + "Everything that \(old) acknowledged until \(safe) is there. What it acknowledged later may be "
            + "lost:\n\(seconds(number("loss_window_ms"))), if it had stopped by \(end); else until it hears of this.\n"
    }

    private static func seconds(_ milliseconds: Int64) -> String {
        let rest = "\(1000 + milliseconds % 1000)".dropFirst()
        return "\(milliseconds / 1000).\(rest) s"
    }

    private static func time(_ text: String) -> String {
        let milliseconds = Int64(text) ?? 0
        let rest = "\(1000 + milliseconds % 1000)".dropFirst()
        return "\(BackupCommands.time(milliseconds / 1000).dropLast()).\(rest)Z"
    }
}

/// A JSON object whose fields are read as text.
private struct Row {
    private let entries: [(key: String, value: JSONNode)]

    init(_ node: JSONNode) {
        guard case .object(let object) = node.content else {
            entries = []
            return
        }
        entries = object.entries.map { ($0.key, $0.value) }
    }

    private func node(_ name: String) -> JSONNode? { entries.first { $0.key == name }?.value }

    subscript(_ name: String) -> String {
        switch node(name)?.content {
        case .text(let text): text
        case .integer(let number): String(number)
        case .double(let number): String(number)
        case .boolean(let isOn): String(isOn)
        case nil, .null, .array, .object: ""
        }
    }

    func object(_ name: String) -> Row? {
        guard let node = node(name), case .object = node.content else { return nil }
        return Row(node)
    }

    func list(_ name: String) -> [Row] {
        guard case .array(let nodes) = node(name)?.content else { return [] }
        return nodes.map { Row($0) }
    }
}
