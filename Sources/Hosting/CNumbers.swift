// Martlet
// SPDX-License-Identifier: Apache-2.0

// Numbers as C's library reads them, because scripts rely on what memcached makes of theirs.

/// Whether C's isspace holds for the byte.
private func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (byte >= 9 && byte <= 13) }

/// A sign and digits at the start of a text; nil when there is no digit.
private func prefixNumber(_ text: String, radix: UInt64) -> (isNegative: Bool, magnitude: UInt64?, rest: Substring)? {
    let bytes = text.utf8
    var index = bytes.startIndex
    while index < bytes.endIndex, isSpace(bytes[index]) { bytes.formIndex(after: &index) }
    var isNegative = false
    if index < bytes.endIndex, bytes[index] == UInt8(ascii: "-") || bytes[index] == UInt8(ascii: "+") {
        isNegative = bytes[index] == UInt8(ascii: "-")
        bytes.formIndex(after: &index)
    }
    let start = index
    var magnitude: UInt64? = 0
    while index < bytes.endIndex {
        let digit = UInt64(bytes[index] &- UInt8(ascii: "0"))
        guard digit < radix else { break }
        if let value = magnitude {
            let (product, overflow) = value.multipliedReportingOverflow(by: radix)
            let (sum, carry) = product.addingReportingOverflow(digit)
            magnitude = overflow || carry ? nil : sum
        }
        bytes.formIndex(after: &index)
    }
    return index == start ? nil : (isNegative, magnitude, text[index...])
}

/// The value in the range of a C long, clamped as strtol clamps; nil beside a flag when it did not fit.
private func long(_ number: (isNegative: Bool, magnitude: UInt64?, rest: Substring)) -> (value: Int64, fits: Bool) {
    let limit = UInt64(Int64.max)
    if let magnitude = number.magnitude {
        if !number.isNegative, magnitude <= limit { return (Int64(magnitude), true) }
        if number.isNegative, magnitude <= limit + 1 { return (Int64(truncatingIfNeeded: 0 &- magnitude), true) }
    }
    return (number.isNegative ? .min : .max, false)
}

/// C's atoi: the number at the start of the text, 0 when there is none, cut to 32 bits.
package func cInteger(_ text: String) -> Int32 {
    guard let number = prefixNumber(text, radix: 10) else { return 0 }
    return Int32(truncatingIfNeeded: long(number).value)
}

/// C's strtol in octal, as memcached reads its access mask.
package func cOctal(_ text: String) -> UInt32 {
    guard let number = prefixNumber(text, radix: 8) else { return 0 }
    return UInt32(truncatingIfNeeded: long(number).value)
}

/// A whole number that is followed by nothing or by white space, cut to 32 bits; nil when there is none.
package func strictInteger(_ text: String) -> Int32? {
    guard let number = prefixNumber(text, radix: 10), endsThere(number.rest) else { return nil }
    let (value, fits) = long(number)
    return fits ? Int32(truncatingIfNeeded: value) : nil
}

/// The same without a sign.
package func strictUnsigned(_ text: String) -> UInt32? {
    guard let number = prefixNumber(text, radix: 10), endsThere(number.rest), let magnitude = number.magnitude else {
        return nil
    }
    if number.isNegative, magnitude > 0 { return nil }
    return UInt32(truncatingIfNeeded: magnitude)
}

/// C's atof: the decimal number at the start of the text; 0 when there is none.
package func cDouble(_ text: String) -> Double { prefixDouble(text)?.value ?? 0 }

/// A decimal number that is followed by nothing or by white space; nil when there is none.
package func strictDouble(_ text: String) -> Double? {
    guard let number = prefixDouble(text), endsThere(number.rest) else { return nil }
    return number.value
}

private func endsThere(_ rest: Substring) -> Bool { rest.utf8.first.map(isSpace) ?? true }

private func prefixDouble(_ text: String) -> (value: Double, rest: Substring)? {
    let trimmed = text.drop { $0.isASCII && $0.isWhitespace }
    var end = trimmed.firstIndex { !($0.isASCII && ($0.isNumber || "+-.eE".contains($0))) } ?? trimmed.endIndex
    while end > trimmed.startIndex {
        if let value = Double(trimmed[..<end]) { return (value, trimmed[end...]) }
        end = trimmed.index(before: end)
    }
    return nil
}
