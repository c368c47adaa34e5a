// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Texts as JSON. Source: RFC 8259.
package enum JSONText {
    /// An object of texts, by rising key.
    package static func object(_ fields: [String: String]) -> String {
        let pairs = fields.sorted { $0.key < $1.key }.map { key, value in
            "\(JSONString.quoted(key)):\(JSONString.quoted(value))"
        }
        return "{\(pairs.joined(separator: ","))}"
    }
}

/// Objects and arrays with four spaces of indentation a level, as k6's exports have them.
package struct JSONWriter {
    /// What was written so far.
    package private(set) var text = ""
    private var isFirst = [true]

    package init() {}

    private mutating func begin(_ key: String?) {
        if isFirst.count > 1 {
            text += isFirst[isFirst.count - 1] ? "\n" : ",\n"
            text += String(repeating: "    ", count: isFirst.count - 1)
        }
        isFirst[isFirst.count - 1] = false
        if let key { text += JSONString.quoted(key) + ": " }
    }

    /// Writes what is JSON already.
    package mutating func raw(_ key: String?, _ value: String) {
        begin(key)
        text += value
    }

    /// Writes a number.
    package mutating func number(_ key: String?, _ value: Double) { raw(key, NumberText.json(value)) }

    /// Writes a text.
    package mutating func string(_ key: String?, _ value: String) { raw(key, JSONString.quoted(value)) }

    /// Writes an object whose fields `body` writes.
    package mutating func object(_ key: String? = nil, _ body: (inout JSONWriter) -> Void) {
        nest(key, "{", "}", body)
    }

    /// Writes an array whose elements `body` writes.
    package mutating func array(_ key: String? = nil, _ body: (inout JSONWriter) -> Void) { nest(key, "[", "]", body) }

    private mutating func nest(_ key: String?, _ open: String, _ close: String, _ body: (inout JSONWriter) -> Void) {
        begin(key)
        text += open
        isFirst.append(true)
        body(&self)
        if !isFirst.removeLast() { text += "\n" + String(repeating: "    ", count: isFirst.count - 1) }
        text += close
    }
}
