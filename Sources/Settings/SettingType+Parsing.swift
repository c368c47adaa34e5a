// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A value that a type refuses, with what it allows: `is not true or false`.
struct BadValue: Error {
    let reason: String
}

extension SettingType {
    /// What is allowed, after "expected": `a whole number from 1 to 64`.
    package var allowed: String {
        switch self {
        case .boolean: "true or false"
        case .integer(let range): "a whole number from \(range.lowerBound) to \(range.upperBound)"
        case .size(let range):
            "a size from \(spell(size: range.lowerBound)) to \(spell(size: range.upperBound)), such as 64m or 4GiB"
        case .duration(let range):
            "a duration from \(spell(duration: range.lowerBound)) to \(spell(duration: range.upperBound)), "
                + "such as 250ms, 5s or 1d"
        case .text: "a text"
        case .list: "a list of texts"
        case .enumeration(let words): words.count == 1 ? words[0] : "one of " + words.joined(separator: ", ")
        case .mappings(let fields): "a list of mappings with " + fields.map(\.name).joined(separator: ", ")
        }
    }

    /// What a boolean's `text` says, in upper or lower case; nil when it is none of its values.
    package static func truth(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "yes", "on": true
        case "false", "no", "off": false
        default: nil
        }
    }

    /// The value that `text` spells.
    func parse(_ text: String) throws(BadValue) -> SettingValue {
        switch self {
        case .boolean:
            guard let isOn = Self.truth(text) else { throw BadValue(reason: "expected \(allowed)") }
            return .boolean(isOn)
        case .integer(let range):
            guard let number = Int64(text), range.contains(number) else {
                throw BadValue(reason: "expected \(allowed)")
            }
            return .integer(number)
        case .size(let range):
            let bytes = try parseSize(text, allowed)
            guard range.contains(bytes) else { throw BadValue(reason: "expected \(allowed)") }
            return .size(bytes)
        case .duration(let range):
            let nanoseconds = try parseDuration(text, allowed)
            guard range.contains(nanoseconds) else { throw BadValue(reason: "expected \(allowed)") }
            return .duration(nanoseconds)
        case .text: return .text(text)
        case .list: return .list(text.split(separator: ",").map { trimmed($0) }.filter { !$0.isEmpty })
        case .enumeration(let words):
            guard words.contains(text) else {
                let near = suggestion(for: text, among: words).map { "; did you mean \($0)?" } ?? ""
                throw BadValue(reason: "expected \(allowed)\(near)")
            }
            return .text(text)
        case .mappings: throw BadValue(reason: "expected \(allowed), in the configuration file")
        }
    }
}

private func trimmed(_ text: Substring) -> String {
    var rest = text
    while let first = rest.first, first.isWhitespace { rest.removeFirst() }
    while let last = rest.last, last.isWhitespace { rest.removeLast() }
    return String(rest)
}

/// Splits `12.5MiB` into the number and the unit.
private func splitUnit(_ text: Substring) -> (number: Substring, unit: Substring) {
    let end = text.firstIndex { !($0.isASCII && ($0.isNumber || $0 == ".")) } ?? text.endIndex
    return (text[..<end], text[end...])
}

/// `number` times `scale`; nil when it is not a plain decimal number, or too large.
private func scaled(_ number: Substring, by scale: UInt64) -> UInt64? {
    if let whole = UInt64(number) {
        let (product, overflow) = whole.multipliedReportingOverflow(by: scale)
        return overflow ? nil : product
    }
    guard number.first != ".", number.last != ".", let fraction = Double(number) else { return nil }
    let product = (fraction * Double(scale)).rounded()
    return product < 9e18 ? UInt64(product) : nil
}

private let sizeUnits: [(names: [String], bytes: UInt64)] = [
    (["", "b"], 1),
    (["k", "ki", "kib"], 1 << 10),
    (["m", "mi", "mib"], 1 << 20),
    (["g", "gi", "gib"], 1 << 30),
    (["t", "ti", "tib"], 1 << 40),
]

private func parseSize(_ text: String, _ allowed: String) throws(BadValue) -> UInt64 {
    let (number, unit) = splitUnit(Substring(text))
    let name = unit.lowercased()
    if ["kb", "mb", "gb", "tb"].contains(name) {
        // Some mean 1000 by it and some 1024: ask.
        throw BadValue(reason: "\(unit) can mean two things; write \(name.prefix(1).uppercased())iB (a power of 1024)")
    }
    guard let scale = sizeUnits.first(where: { $0.names.contains(name) })?.bytes,
        let bytes = scaled(number, by: scale)
    else { throw BadValue(reason: "expected \(allowed)") }
    return bytes
}

private let durationUnits: [(name: String, nanoseconds: UInt64)] = [
    ("ns", 1), ("us", 1000), ("µs", 1000), ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000),
    ("h", 3_600_000_000_000), ("d", 86_400_000_000_000), ("w", 604_800_000_000_000),
]

private func parseDuration(_ text: String, _ allowed: String) throws(BadValue) -> UInt64 {
    if text == "0" { return 0 }
    var rest = Substring(text)
    var total: UInt64 = 0
    repeat {
        let (number, after) = splitUnit(rest)
        let unit = after.prefix { !$0.isNumber }
        guard let scale = durationUnits.first(where: { $0.name == unit })?.nanoseconds,
            let part = scaled(number, by: scale)
        else {
            let missing = unit.isEmpty && !number.isEmpty ? "; the unit is missing" : ""
            throw BadValue(reason: "expected \(allowed)\(missing)")
        }
        let (sum, overflow) = total.addingReportingOverflow(part)
        if overflow { throw BadValue(reason: "expected \(allowed)") }
        total = sum
        rest = after.dropFirst(unit.count)
    } while !rest.isEmpty
    return total
}

/// A size in the largest unit that divides it: `64MiB`.
package func spell(size: UInt64) -> String {
    let names = ["", "KiB", "MiB", "GiB", "TiB"]
    var index = 0
    var value = size
    while value > 0, value % 1024 == 0, index < names.count - 1 {
        value /= 1024
        index += 1
    }
    return "\(value)\(names[index])"
}

/// A duration in the largest unit that divides it: `90s`, `1d`.
package func spell(duration: UInt64) -> String {
    if duration == 0 { return "0" }
    let units = durationUnits.filter { $0.name != "µs" && $0.name != "w" }
    let unit = units.last { duration % $0.nanoseconds == 0 } ?? units[0]
    return "\(duration / unit.nanoseconds)\(unit.name)"
}
