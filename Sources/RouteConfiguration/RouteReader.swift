// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Routing
internal import Settings

/// What is wrong with a configuration, collected while it is read: one problem for each handle and pool.
final class ProblemList {
    private(set) var lines: [String] = []
    private(set) var warnings: [String] = []

    /// Problems that are told of.
    private static var maximumLines: Int { 50 }

    func add(_ problem: RouteProblem) {
        if lines.count < Self.maximumLines, !lines.contains(problem.line) { lines.append(problem.line) }
    }

    func warn(_ text: String, at place: JSONNode.Place) {
        let line = "\(place): \(text)"
        if warnings.count < Self.maximumLines, !warnings.contains(line) { warnings.append(line) }
    }
}

/// The fields of an object, of which each has to be asked for: what is left over is not known.
struct FieldReader {
    let what: String
    let object: JSONObject
    let place: JSONNode.Place
    private var known: Set<String> = []

    init(_ what: String, _ object: JSONObject, at place: JSONNode.Place) {
        self.what = what
        self.object = object
        self.place = place
    }

    func problem(_ text: String, at node: JSONNode? = nil) -> RouteProblem {
        RouteProblem("\(what): \(text)", at: node?.place ?? place)
    }

    mutating func value(_ name: String) -> JSONNode? {
        known.insert(name)
        return object[name]
    }

    mutating func required(_ name: String) throws(RouteProblem) -> JSONNode {
        guard let value = value(name) else { throw problem("\(name) is missing") }
        return value
    }

    mutating func text(_ name: String) throws(RouteProblem) -> String? {
        guard let value = value(name) else { return nil }
        guard let text = value.text else { throw problem("\(name) is \(value.kind); a text is expected", at: value) }
        return text
    }

    mutating func boolean(_ name: String) throws(RouteProblem) -> Bool? {
        guard let value = value(name) else { return nil }
        guard let boolean = value.boolean else {
            throw problem("\(name) is \(value.kind); true or false is expected", at: value)
        }
        return boolean
    }

    mutating func integer(_ name: String, in range: ClosedRange<Int64>) throws(RouteProblem) -> Int64? {
        guard let value = value(name) else { return nil }
        guard let number = value.integer, range.contains(number) else {
            throw problem(
                "\(name) is \(value.integer.map { "\($0)" } ?? value.kind); "
                    + "a whole number from \(range.lowerBound) to \(range.upperBound) is expected", at: value)
        }
        return number
    }

    mutating func number(_ name: String) throws(RouteProblem) -> Double? {
        guard let value = value(name) else { return nil }
        guard let number = value.number else {
            throw problem("\(name) is \(value.kind); a number is expected", at: value)
        }
        return number
    }

    mutating func list(_ name: String) throws(RouteProblem) -> [JSONNode]? {
        guard let value = value(name) else { return nil }
        guard let list = value.array else { throw problem("\(name) is \(value.kind); a list is expected", at: value) }
        return list
    }

    mutating func object(_ name: String) throws(RouteProblem) -> (object: JSONObject, place: JSONNode.Place)? {
        guard let value = value(name) else { return nil }
        guard let object = value.object else {
            throw problem("\(name) is \(value.kind); an object is expected", at: value)
        }
        return (object, value.place)
    }

    /// Fields that are known and say something that is not supported, unless they say it is off.
    mutating func refuse(_ names: [String], _ why: String) throws(RouteProblem) {
        for name in names {
            guard let value = value(name), value.boolean != false else { continue }
            throw problem("\(name) is not supported: \(why)", at: value)
        }
    }

    /// Fields that may be there and change nothing.
    mutating func ignore(_ names: [String], _ why: String, _ problems: ProblemList) {
        for name in names {
            if let value = value(name) { problems.warn("\(what): \(name) changes nothing: \(why)", at: value.place) }
        }
    }

    /// Refuses fields that nobody asked for.
    func finish() throws(RouteProblem) {
        for entry in object.entries where !known.contains(entry.key) {
            let near = suggestion(for: entry.key, among: known.sorted()).map { " (did you mean \($0)?)" } ?? ""
            throw problem(
                "\(entry.key) is not known\(near); allowed are \(known.sorted().joined(separator: ", "))",
                at: entry.value)
        }
    }
}

/// `host:port` and what else an address may hold.
struct ServerAddress {
    let host: String
    let port: Int
    let usesTLS: Bool?

    /// Reads `host:port`, `[v6]:port`, a path of a unix socket, or mcrouter's `host:port:protocol:tls`. Throws what is
    /// wrong.
    init(_ text: String, standardPort: Int? = nil) throws(RouteProblem) {
        func refusal(_ why: String) -> RouteProblem { RouteProblem("the server '\(text)': \(why)", at: nil) }
        if text.hasPrefix("/") || text.hasPrefix("unix:") {
            let path = text.hasPrefix("unix:") ? String(text.dropFirst(5)) : text
            guard path.hasPrefix("/"), path.utf8.count < 108 else { throw refusal("a path from / on, below 108 bytes") }
            (host, port, usesTLS) = (path, 0, nil)
            return
        }
        var rest: Substring
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { throw refusal("a ] is missing") }
            host = String(text[text.index(after: text.startIndex)..<end])
            rest = text[text.index(after: end)...]
        } else {
            let end = text.firstIndex(of: ":") ?? text.endIndex
            host = String(text[..<end])
            rest = text[end...]
        }
        guard !host.isEmpty, host.utf8.allSatisfy({ $0 > 32 && $0 != 127 }) else { throw refusal("no host name") }
        if rest.isEmpty, let standardPort {
            (port, usesTLS) = (standardPort, nil)
            return
        }
        guard rest.first == ":" else { throw refusal("expected HOST:PORT") }
        rest.removeFirst()
        let parts = rest.split(separator: ":", omittingEmptySubsequences: false)
        guard let number = Int(parts[0]), 1...65_535 ~= number else {
            throw refusal("a port from 1 to 65535 is expected")
        }
        port = number
        if parts.count > 1, parts[1] != "ascii", !parts[1].isEmpty {
            throw refusal("the protocol \(parts[1]) is not supported; ascii is")
        }
        if parts.count > 2 {
            switch parts[2] {
            case "plain", "": usesTLS = false
            case "ssl", "tls": usesTLS = true
            default: throw refusal("the encryption \(parts[2]) is not supported; plain and ssl are")
            }
        } else {
            usesTLS = nil
        }
        guard parts.count <= 3 || (parts.count == 4 && ["notcompressed", ""].contains(parts[3])) else {
            throw refusal("compression is not supported")
        }
    }
}
