// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A value of JSON, and where it stands.
package struct JSONNode: Sendable {
    /// A line of a file.
    package struct Place: Sendable, Equatable, CustomStringConvertible {
        /// The file's name.
        package let file: String
        /// From 1.
        package let line: Int

        /// A place.
        package init(file: String, line: Int) {
            self.file = file
            self.line = line
        }

        package var description: String { "\(file):\(line)" }
    }

    /// What it is, and what is in it.
    package indirect enum Content: Sendable {
        case null
        case boolean(Bool)
        case integer(Int64)
        case double(Double)
        case text(String)
        case array([JSONNode])
        case object(JSONObject)
    }

    /// What it is, and what is in it.
    package let content: Content
    /// Where it stands.
    package let place: Place
    /// How many values it is made of; parts that are used twice count twice, though they are there once.
    package let size: Int

    /// A value at a place.
    package init(_ content: Content, at place: Place) {
        self.content = content
        self.place = place
        var size = 1
        func add(_ part: JSONNode) { size = size.addingReportingOverflow(part.size).overflow ? .max : size + part.size }
        switch content {
        case .array(let elements): for element in elements { add(element) }
        case .object(let object): for entry in object.entries { add(entry.value) }
        default: break
        }
        self.size = size
    }

    /// What it is, for messages.
    package var kind: String {
        switch content {
        case .null: "null"
        case .boolean: "a boolean"
        case .integer: "a whole number"
        case .double: "a number"
        case .text: "a text"
        case .array: "a list"
        case .object: "an object"
        }
    }

    /// The text; nil when it is none.
    package var text: String? {
        if case .text(let text) = content { return text }
        return nil
    }

    /// The whole number; nil when it is none.
    package var integer: Int64? {
        if case .integer(let number) = content { return number }
        return nil
    }

    /// The number, whole or not; nil when it is none.
    package var number: Double? {
        switch content {
        case .integer(let number): Double(number)
        case .double(let number): number
        default: nil
        }
    }

    /// The boolean; nil when it is none.
    package var boolean: Bool? {
        if case .boolean(let value) = content { return value }
        return nil
    }

    /// The elements; nil when it is no list.
    package var array: [JSONNode]? {
        if case .array(let elements) = content { return elements }
        return nil
    }

    /// The object; nil when it is none.
    package var object: JSONObject? {
        if case .object(let object) = content { return object }
        return nil
    }

    /// Whether two values are the same, wherever they stand. A whole number equals one with a fraction of nothing.
    package static func isSame(_ left: JSONNode, _ right: JSONNode) -> Bool {
        switch (left.content, right.content) {
        case (.null, .null): return true
        case (.boolean(let left), .boolean(let right)): return left == right
        case (.integer(let left), .integer(let right)): return left == right
        case (.text(let left), .text(let right)): return left == right
        case (.array(let left), .array(let right)):
            return left.count == right.count && zip(left, right).allSatisfy { isSame($0, $1) }
        case (.object(let left), .object(let right)):
            return left.count == right.count
                && left.entries.allSatisfy { entry in right[entry.key].map { isSame($0, entry.value) } ?? false }
        default:
            guard let one = left.number, let other = right.number else { return false }
            return one == other
        }
    }
}

/// An object, whose entries keep their order.
package struct JSONObject: Sendable {
    /// The entries, each key once.
    package private(set) var entries: [(key: String, value: JSONNode)] = []
    private var places: [String: Int] = [:]

    /// An object without entries.
    package init() {}

    /// How many entries there are.
    package var count: Int { entries.count }
    /// The keys, in order.
    package var keys: [String] { entries.map(\.key) }

    /// The value of a key. Setting it keeps the place of one that was there.
    package subscript(key: String) -> JSONNode? {
        get { places[key].map { entries[$0].value } }
        set {
            if let place = places[key] {
                if let newValue {
                    entries[place].value = newValue
                } else {
                    entries.remove(at: place)
                    places = [:]
                    for (index, entry) in entries.enumerated() { places[entry.key] = index }
                }
            } else if let newValue {
                places[key] = entries.count
                entries.append((key, newValue))
            }
        }
    }
}

/// Why something that was read is refused, and where it stands.
package struct PlacedProblem: Error {
    /// What is wrong and what is allowed.
    package let text: String
    /// Where; nil when that is not known.
    package let place: JSONNode.Place?

    /// A problem at a place.
    package init(_ text: String, at place: JSONNode.Place?) {
        self.text = text
        self.place = place
    }

    /// The problem with its place, in one line.
    package var line: String { place.map { "\($0): \(text)" } ?? text }
}
