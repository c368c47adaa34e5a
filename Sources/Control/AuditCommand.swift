// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform

/// `martletctl audit`: reads the home region's stream, and looks some time after each change what nodes have cached of
/// its key. A copy that is older than the change is stale.
struct AuditCommand {
    /// A node that is looked at.
    private struct Target {
        var name: String
        var host: String
        var port: UInt16
        /// What it is looked at over; nil before it is.
        var connection: CacheConnection?
        /// Why it did not answer last.
        var problem: String?
    }

    /// A key that is to be looked at.
    private struct Check {
        var key: [UInt8]
        var version: UInt64
        /// Which window, and when.
        var window: Int
        var dueNanoseconds: UInt64
    }

    /// A copy that should not be there.
    private struct Finding {
        var node: String
        var key: String
        var shown: UInt64
        var version: UInt64
        var seconds: Int
    }

    private static var findingsMax: Int { 100 }
    private static var checksMax: Int { 1_000_000 }

    private var reader: StreamReader
    private let access: CacheAccess
    private var targets: [Target]
    private let seconds: Int
    private let rate: Int
    private let isJSON: Bool
    private var windows: [ConsistencyWindow]
    private var waiting: [Check] = []
    private var findings: [Finding] = []
    private var records = 0
    private var skipped = 0
    /// Places of the stream whose records did not come.
    private var gaps = 0

    init(
        _ addresses: [String], _ options: ControlOptions, _ client: HTTPClient, _ access: CacheAccess
    ) throws(ControlError) {
        self.access = access
        guard !addresses.isEmpty else {
            throw ControlError(.usage, "audit needs the nodes to look at, HOST:PORT of each")
        }
        var targets: [Target] = []
        for address in addresses {
            guard let colon = address.lastIndex(of: ":"), let port = UInt16(address[address.index(after: colon)...])
            else { throw ControlError(.usage, "\(address): expected HOST:PORT") }
            var host = address[..<colon]
            if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
            targets.append(Target(name: address, host: String(host), port: port))
        }
        self.targets = targets
        var windows: [ConsistencyWindow] = []
        for text in (options["after"] ?? "1,10").split(separator: ",") {
            guard let seconds = Int(text), (1...3600).contains(seconds) else {
                throw ControlError(.usage, "--after=\(text): expected seconds from 1 to 3600, several with commas")
            }
            windows.append(ConsistencyWindow(seconds: seconds))
        }
        self.windows = windows
        seconds = try options.seconds("for") ?? 30
        rate = try options.number("rate") ?? 1000
        isJSON = options.has("json")
        reader = try StreamReader(client, begin: options["begin"] ?? "now")
    }

    /// Looks for as long as was asked, and until everything was looked at. What is stale is an error.
    mutating func run() throws(ControlError) -> String {
        let parking = Parking()
        let end = Clock.monotonicNanoseconds() &+ UInt64(seconds) * 1_000_000_000
        var second: (started: UInt64, taken: Int) = (0, 0)
        while true {
            let now = Clock.monotonicNanoseconds()
            var hasMore = false
            if now < end {
                let (lines, more) = try reader.next()
                hasMore = more
                for line in lines { note(line, &second) }
            }
            try look()
            if now >= end, waiting.isEmpty { break }
            if !hasMore { parking.wait(parking.ticket, timeoutNanoseconds: 50_000_000) }
        }
        let report = isJSON ? json : text
        guard findings.isEmpty else {
            writeWhole(Array(report.utf8), to: 1)
            throw ControlError(.data, "copies are older than changes; the report names \(findings.count) of them")
        }
        if let blind = windows.first(where: { $0[.failed] > 0 && $0.looks == 0 }) {
            writeWhole(Array(report.utf8), to: 1)
            let reasons = targets.compactMap(\.problem).joined(separator: "; ")
            throw ControlError(
                .unavailable, "no node answered after \(blind.seconds) s: nothing was looked at: \(reasons)")
        }
        return report
    }

    private mutating func note(_ line: StreamLine, _ second: inout (started: UInt64, taken: Int)) {
        if ["lost", "reset", "damaged"].contains(line["op"] ?? "") { gaps += 1 }
        guard let key = line.key, let version = line["version"].flatMap({ UInt64($0) }),
            ["set", "delete", "touch"].contains(line["op"] ?? "")
        else { return }
        records += 1
        let now = Clock.monotonicNanoseconds()
        if now > second.started + 1_000_000_000 { second = (now, 0) }
        // What no line can hold is left out.
        let isPlain = !key.contains { $0 <= 32 || $0 == 127 }
        guard isPlain, second.taken < rate, waiting.count < Self.checksMax else {
            skipped += 1
            return
        }
        second.taken += 1
        for (index, window) in windows.enumerated() {
            waiting.append(
                Check(
                    key: key, version: version, window: index,
                    dueNanoseconds: now &+ UInt64(window.seconds) * 1_000_000_000))
        }
    }

    /// Looks at what is due by now, at every node.
    private mutating func look() throws(ControlError) {
        let now = Clock.monotonicNanoseconds()
        let due = Array(waiting.filter { $0.dueNanoseconds <= now }.prefix(1000))
        guard !due.isEmpty else { return }
        var left = due.count
        waiting.removeAll { check in
            guard left > 0, check.dueNanoseconds <= now else { return false }
            left -= 1
            return true
        }
        for index in targets.indices { look(index, due) }
    }

    private mutating func look(_ index: Int, _ due: [Check]) {
        let keys = due.map(\.key)
        // A connection that stood may be over by now, which says nothing of the node.
        for isLast in targets[index].connection == nil ? [true] : [false, true] {
            do throws(ControlError) {
                let replies = try ask(index, keys)
                for (check, reply) in zip(due, replies) { judge(check, reply, targets[index].name) }
                return
            } catch {
                targets[index].connection = nil
                if isLast { targets[index].problem = error.description }
            }
        }
        for check in due { windows[check.window].note(.failed) }
    }

    /// `me` looks at the copy, and reads nothing where there is none.
    private mutating func ask(_ index: Int, _ keys: [[UInt8]]) throws(ControlError) -> [String] {
        let target = targets[index]
        let connection: CacheConnection
        if let open = target.connection {
            connection = open
        } else {
            connection = try access.connect(host: target.host, port: target.port, timeoutSeconds: 5)
            targets[index].connection = connection
        }
        try connection.write(keys.flatMap { Array("me ".utf8) + $0 + [13, 10] })
        var bytes: [UInt8] = []
        var lines = 0
        while lines < keys.count {
            let more = try connection.read(limit: 64 << 10)
            lines += more.count { $0 == 10 }
            bytes += more
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\r\n").map(String.init)
    }

    private mutating func judge(_ check: Check, _ reply: String, _ name: String) {
        let sight = Self.sight(reply)
        let verdict = CopyVerdict(sight, version: check.version)
        windows[check.window].note(verdict)
        guard verdict == .stale, case .copy(let shown) = sight, findings.count < Self.findingsMax else { return }
        findings.append(
            Finding(
                node: name, key: PercentEncoding.encoded(check.key.span), shown: shown, version: check.version,
                seconds: windows[check.window].seconds))
    }

    /// What a reply to `me` tells; nil where it is none.
    private static func sight(_ reply: String) -> CopySight? {
        if reply == "EN" { return .nothing }
        guard reply.hasPrefix("ME "),
            let version = reply.split(separator: " ").first(where: { $0.hasPrefix("cas=") })
        else { return nil }
        return UInt64(version.dropFirst(4)).map { .copy($0) }
    }

    // MARK: The report

    private var text: String {
        var lines = ["\(records) changes in \(seconds) s, \(skipped) of them left out; \(targets.count) nodes"]
        if gaps > 0 { lines.append("\(gaps) gaps in the stream: changes in them were not looked at") }
        for window in windows {
            lines.append(
                "after \(window.seconds) s: \(window.looks) looks, \(window[.stale]) stale, \(window[.absent]) without "
                    + "a copy, \(window[.unversioned]) with one of a client's, \(window[.failed]) failed; "
                    + window.confidence)
        }
        for target in targets { if let problem = target.problem { lines.append("did not answer: \(problem)") } }
        for finding in findings {
            lines.append(
                "stale: \(finding.node) has version \(finding.shown) of \(finding.key) \(finding.seconds) s after "
                    + "\(finding.version)")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private var json: String {
        let shown = windows.map { window in
            "{\"afterSeconds\":\(window.seconds),\"checks\":\(window.looks),\"stale\":\(window[.stale]),"
                + "\"absent\":\(window[.absent]),\"unversioned\":\(window[.unversioned]),"
                + "\"failed\":\(window[.failed]),\"samples\":\(window.samples)}"
        }
        let found = findings.map { finding in
            "{\"node\":\(JSONString.quoted(finding.node)),\"key\":\(JSONString.quoted(finding.key)),"
                + "\"shown\":\(finding.shown),\"version\":\(finding.version),\"afterSeconds\":\(finding.seconds)}"
        }
        let problems = targets.compactMap(\.problem).map(JSONString.quoted).joined(separator: ",")
        return "{\"records\":\(records),\"skipped\":\(skipped),\"gaps\":\(gaps),\"problems\":[\(problems)],"
            + "\"windows\":[\(shown.joined(separator: ","))],\"stale\":[\(found.joined(separator: ","))]}\n"
    }
}
