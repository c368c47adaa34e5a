// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Settings

/// Members of a file that somebody else writes: looked at again and again, and read when it changed.
struct FileSource {
    private let path: String
    private let intervalMilliseconds: UInt64

    private static var limitBytes: Int { 4 << 20 }

    init(_ path: String, _ intervalMilliseconds: UInt64) {
        self.path = path
        self.intervalMilliseconds = max(intervalMilliseconds, 10)
    }

    func run(_ reporter: MemberReporter) {
        var last: [UInt8]?
        while !reporter.isStopped {
            do throws(SystemError) {
                // A file is small: reading it is as cheap as asking whether it changed, and misses nothing.
                let bytes = try readFile(path, limitBytes: Self.limitBytes)
                if bytes != last {
                    last = bytes
                    report(bytes, reporter)
                }
            } catch {
                last = nil
                reporter.failed(error.description)
            }
            reporter.wait(milliseconds: intervalMilliseconds)
        }
    }

    private func report(_ bytes: [UInt8], _ reporter: MemberReporter) {
        do throws(SettingsError) {
            reporter.found(try Self.members(bytes, file: path))
        } catch {
            reporter.failed(error.description)
        }
    }

    /// The members that a file lists.
    static func members(_ bytes: [UInt8], file: String) throws(SettingsError) -> [Member] {
        guard var root = try SettingsNode.parse(bytes, file: file) else { return [] }
        // A list, or a mapping that has one.
        if case .mapping(let entries) = root.content, let listed = entries.first(where: { $0.key == "members" }) {
            root = listed.value
        }
        guard case .sequence(let elements) = root.content else {
            throw SettingsError(["\(file):\(root.line): a list of members is expected"])
        }
        var members: [Member] = []
        for element in elements { members.append(try member(element, file)) }
        return members
    }

    private static func member(_ node: SettingsNode, _ file: String) throws(SettingsError) -> Member {
        func problem(_ text: String) -> SettingsError { SettingsError(["\(file):\(node.line): \(text)"]) }
        func address(_ text: String) throws(SettingsError) -> (host: String, port: Int) {
            do throws(MemberSource.Problem) { return try MemberSource.address(text[...]) } catch {
                throw problem(error.description)
            }
        }
        switch node.content {
        case .scalar(let text, _):
            let (host, port) = try address(text)
            return Member(host: host, port: port)
        case .mapping(let entries):
            var texts: [String: String] = [:]
            for entry in entries {
                guard case .scalar(let text, _) = entry.value.content,
                    ["address", "host", "port", "weight", "name", "zone", "state"].contains(entry.key)
                else {
                    throw problem(
                        "\(entry.key): address, host, port, weight, name, zone and state are allowed, each a text")
                }
                texts[entry.key] = text
            }
            guard let spelled = texts["address"] ?? texts["host"] else { throw problem("address or host is missing") }
            var (host, port) = try address(spelled)
            if let given = texts["port"] {
                guard let number = Int(given), 1...65_535 ~= number else {
                    throw problem("port: 1 to 65535 is expected")
                }
                port = number
            }
            var weight = 1.0
            if let given = texts["weight"] {
                guard let number = Double(given), number > 0, number <= 1_000_000 else {
                    throw problem("weight: a number above 0 is expected")
                }
                weight = number
            }
            guard [nil, "up", "warming"].contains(texts["state"]) else {
                throw problem("state: up or warming is expected")
            }
            return Member(
                host: host, port: port, weight: weight, name: texts["name"], zone: texts["zone"],
                isWarming: texts["state"] == "warming")
        case .sequence: throw problem("a member is host:port, or a mapping")
        }
    }
}
