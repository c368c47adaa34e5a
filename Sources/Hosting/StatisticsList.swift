// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Admin
package import MemcacheProtocol
package import Memory

/// Names and values of one `stats` answer, in order: shown as text lines, as binary packets, or as JSON.
package struct StatisticsList: Sendable {
    /// A name and its value.
    package struct Entry: Sendable, Equatable {
        /// What it is called.
        package let name: String
        /// As it is shown.
        package let value: String
        /// Whether `value` is spelled as a JSON number.
        package let isNumber: Bool
    }

    /// What was added, in order.
    package private(set) var entries: [Entry] = []

    /// The value of `name`, if there is one.
    package subscript(name: String) -> String? { entries.first { $0.name == name }?.value }

    /// An empty list.
    package init() {}

    /// Adds a text.
    package mutating func add(_ name: String, _ value: String) {
        entries.append(Entry(name: name, value: value, isNumber: false))
    }

    /// Adds a number.
    package mutating func add(_ name: String, _ value: some BinaryInteger) {
        entries.append(Entry(name: name, value: String(value), isNumber: true))
    }

    /// Adds a yes or a no.
    package mutating func add(_ name: String, _ value: Bool) { add(name, value ? "yes" : "no") }

    /// Adds a number with a fixed count of decimals.
    package mutating func add(_ name: String, _ value: Double, decimals: Int) {
        entries.append(Entry(name: name, value: fixedPoint(value, decimals: decimals), isNumber: value.isFinite))
    }

    /// Adds a time in seconds with six decimals.
    package mutating func add(_ name: String, microseconds: UInt64) {
        let fraction = String(microseconds % 1_000_000)
        let zeros = String(repeating: "0", count: 6 - fraction.count)
        entries.append(Entry(name: name, value: "\(microseconds / 1_000_000).\(zeros)\(fraction)", isNumber: true))
    }

    /// Adds the same number, 0, under many names: what memcached counts and this cache has nothing of.
    package mutating func addZeros(_ names: String...) {
        for name in names { add(name, 0) }
    }

    /// Appends the list and its end, in the protocol of `request`.
    package func append(to output: inout OutputBuffer, replyTo request: borrowing Request) {
        if request.form == .binary {
            for entry in entries {
                let name = Array(entry.name.utf8)
                let value = Array(entry.value.utf8)
                output.appendBinaryStatistic(name: name.span, value: value.span, replyTo: request)
            }
            Self.appendBinaryEnd(to: &output, replyTo: request)
        } else {
            for entry in entries {
                output.append("STAT ")
                output.append(string: entry.name)
                output.append(UInt8(ascii: " "))
                output.append(string: entry.value)
                output.append("\r\n")
            }
            output.append("END\r\n")
        }
    }

    /// Appends the packet that ends a binary list.
    package static func appendBinaryEnd(to output: inout OutputBuffer, replyTo request: borrowing Request) {
        let nothing: [UInt8] = []
        output.appendBinaryStatistic(name: nothing.span, value: nothing.span, replyTo: request)
    }
}

/// A number with a fixed count of decimals (0 to 9), rounded to the nearest as C's printf does for numbers of ordinary
/// size.
package func fixedPoint(_ value: Double, decimals: Int) -> String {
    guard value.isFinite, value.magnitude < 1e9 else { return "\(value)" }
    var scale = 1.0
    for _ in 0..<decimals { scale *= 10 }
    let scaled = UInt64((value.magnitude * scale).rounded(.toNearestOrEven))
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard decimals > 0 else { return "\(sign)\(scaled)" }
    let fraction = String(scaled % UInt64(scale))
    let zeros = String(repeating: "0", count: decimals - fraction.count)
    return "\(sign)\(scaled / UInt64(scale)).\(zeros)\(fraction)"
}

extension StatisticsList {
    /// The list as a JSON object.
    package var json: String {
        let members = entries.map { entry in
            "\(JSONString.quoted(entry.name)):\(entry.isNumber ? entry.value : JSONString.quoted(entry.value))"
        }
        return "{\(members.joined(separator: ","))}"
    }
}
