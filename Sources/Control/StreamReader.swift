// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform

/// Reads a node's stream through its admin port, a page of lines at a time.
struct StreamReader {
    private let client: HTTPClient
    /// Where it goes on: `cursor=…` or `from=…`.
    private var place: String
    /// The cursor behind what was read; nil before the first page.
    private(set) var cursor: String?

    /// Begins at `begin`: `now`, `kept`, or a cursor.
    init(_ client: HTTPClient, begin: String) throws(ControlError) {
        self.client = client
        let isWord = begin == "now" || begin == "kept"
        let isCursor = begin.utf8.allSatisfy { 48...57 ~= $0 || 97...102 ~= $0 || $0 == 45 || $0 == 46 }
        guard isWord || (isCursor && begin.contains(".")) else {
            throw ControlError(.usage, "--begin=\(begin): expected now, kept, or a cursor")
        }
        place = isWord ? "from=\(begin)" : "cursor=\(begin)"
    }

    /// The next records, a line of JSON each, and whether there are more by now.
    mutating func next() throws(ControlError) -> (lines: [StreamLine], hasMore: Bool) {
        let answer = try client.send("GET", "/stream/records?\(place)")
        var lines = answer.text.split(separator: "\n").map { StreamLine(text: String($0)) }
        guard let last = lines.popLast(), last["op"] == "cursor", let cursor = last["cursor"] else {
            throw ControlError(.data, "the node's answer has no cursor: it is of an earlier version")
        }
        self.cursor = cursor
        place = "cursor=\(cursor)"
        return (lines, last["more"] == "true")
    }
}

/// A line of the stream's page: a flat JSON object.
struct StreamLine {
    let text: String

    /// The text of a field; nil when it is not there, or null.
    subscript(_ name: String) -> String? { HTTPClient.Answer(status: 200, body: Array(text.utf8)).field(name) }

    /// The key's bytes; nil where the line is about none.
    var key: [UInt8]? {
        guard let text = self["key"], !text.isEmpty else { return nil }
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            let digits = String(decoding: rest.prefix(2), as: UTF8.self)
            guard let value = Hexadecimal.bytes(digits), value.count == 1 else { return nil }
            bytes += value
            rest = rest.dropFirst(2)
        }
        return bytes
    }

    /// The line for people.
    var shown: String {
        switch self["op"] ?? "" {
        case "lost": return "slot \(self["slot"] ?? "?"): records up to \(self["through"] ?? "?") are not kept any more"
        case "damaged": return "slot \(self["slot"] ?? "?"): record \(self["seq"] ?? "?") cannot be read"
        case "reset":
            return "another epoch: \(self["epoch"] ?? "?") of \(self["source"] ?? "?"); records may be missing"
        case let operation:
            let milliseconds = self["ts_ms"].flatMap { Int64($0) } ?? 0
            let time = BackupCommands.time(milliseconds / 1000).dropLast()
            let thousandths = "\(1000 + milliseconds % 1000)".dropFirst()
            let name = operation + String(repeating: " ", count: max(0, 6 - operation.count))
            return "\(time).\(thousandths)Z \(name) \(self["region"] ?? "") slot \(self["slot"] ?? "") "
                + "seq \(self["seq"] ?? "") version \(self["version"] ?? "") \(self["key"] ?? "")"
        }
    }
}

/// `martletctl stream tail`: a node's stream, as it comes.
struct StreamTail {
    private var reader: StreamReader
    private let cursorPath: String?
    private let count: Int?
    private let endsWhenIdle: Bool
    private let isJSON: Bool

    /// Begins where the file of the cursor says, if there is one, else where `--begin` does.
    init(_ options: ControlOptions, _ client: HTTPClient) throws(ControlError) {
        cursorPath = options["cursor-file"]
        var begin = options["begin"] ?? "now"
        if let cursorPath, fileLength(cursorPath) != nil {
            let bytes = try system { () throws(SystemError) in try readFile(cursorPath, limitBytes: 4096) }
            begin = String(decoding: bytes.prefix { $0 != 10 }, as: UTF8.self)
        }
        reader = try StreamReader(client, begin: begin)
        count = try options.number("count")
        endsWhenIdle = options.has("once")
        isJSON = options.has("json")
    }

    /// Prints records until there were enough of them, or without end.
    mutating func run() throws(ControlError) -> String {
        let parking = Parking()
        var left = count ?? .max
        while true {
            let (lines, hasMore) = try reader.next()
            for line in lines.prefix(left) {
                writeWhole(Array(((isJSON ? line.text : line.shown) + "\n").utf8), to: 1)
            }
            // A page is there again as long as it is not all printed.
            if lines.count <= left { try keepCursor() }
            left -= min(left, lines.count)
            if left == 0 || (endsWhenIdle && !hasMore) { return "" }
            if !hasMore { parking.wait(parking.ticket, timeoutNanoseconds: 100_000_000) }
        }
    }

    private func keepCursor() throws(ControlError) {
        guard let cursorPath, let cursor = reader.cursor else { return }
        try system { () throws(SystemError) in try writeFile(cursorPath, Array((cursor + "\n").utf8)) }
    }
}
