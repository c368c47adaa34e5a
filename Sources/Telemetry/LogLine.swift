// Martlet
// SPDX-License-Identifier: Apache-2.0

/// One log line while it is put together.
struct LogLine {
    private(set) var bytes: [UInt8] = []
    private let configuration: Log.Configuration
    /// Room kept for the end of the line.
    private static let endBytes = 32

    init(_ configuration: Log.Configuration) {
        self.configuration = configuration
        bytes.reserveCapacity(256)
    }

    /// Writes the time, the level and the message.
    mutating func begin(_ level: Log.Level, _ message: String, at realtimeNanoseconds: UInt64) {
        if configuration.hasPriorityPrefix { append("<\(level.priority)>") }
        let time = timestamp(realtimeNanoseconds)
        switch configuration.format {
        case .json:
            append("{\"ts\":\"\(time)\",\"level\":\"\(level.rawValue)\",\"msg\":")
            appendQuoted(message)
        case .logfmt:
            append("ts=\(time) level=\(level.rawValue) msg=")
            appendQuoted(message)
        }
    }

    /// Writes one field, or nothing when the line would become too long.
    mutating func append(_ name: String, _ value: Log.Field) {
        let before = bytes.count
        switch configuration.format {
        case .json:
            append(",")
            appendQuoted(name)
            append(":")
        case .logfmt:
            append(" \(name)=")
        }
        switch value {
        case .text(let text): appendText(text)
        case .integer(let number): append(String(number))
        case .unsigned(let number): append(String(number))
        case .number(let number): append(number.isFinite ? "\(number)" : "null")
        case .boolean(let truth): append(truth ? "true" : "false")
        }
        if bytes.count + Self.endBytes > configuration.lineLimitBytes { bytes.removeLast(bytes.count - before) }
    }

    /// Writes what ends a line.
    mutating func end() {
        append(configuration.format == .json ? "}\n" : "\n")
    }

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    private mutating func appendText(_ text: String) {
        var shown = text
        if shown.utf8.count > configuration.fieldLimitBytes {
            // Bytes cut in the middle of a character become a replacement character.
            shown = String(decoding: shown.utf8.prefix(configuration.fieldLimitBytes), as: UTF8.self) + "…"
        }
        let isPlain = configuration.format == .logfmt && !shown.isEmpty && shown.utf8.allSatisfy(isPlainLogfmtByte)
        if isPlain { append(shown) } else { appendQuoted(shown) }
    }

    /// A JSON string; logfmt readers take the same for a quoted value.
    private mutating func appendQuoted(_ text: String) {
        append("\"")
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): append("\\\"")
            case UInt8(ascii: "\\"): append("\\\\")
            case UInt8(ascii: "\n"): append("\\n")
            case UInt8(ascii: "\r"): append("\\r")
            case UInt8(ascii: "\t"): append("\\t")
            case 0..<0x20, 0x7F:
                let digits = String(byte, radix: 16)
                append(digits.utf8.count == 1 ? "\\u000\(digits)" : "\\u00\(digits)")
            default: bytes.append(byte)
            }
        }
        append("\"")
    }
}

/// Whether a logfmt value may contain the byte without quotes.
private func isPlainLogfmtByte(_ byte: UInt8) -> Bool {
    byte > 0x20 && byte != 0x7F && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "=") && byte != UInt8(ascii: "\\")
}

/// Nanoseconds since the epoch as RFC 3339 in UTC with microseconds: `2026-08-30T12:00:00.000001Z`.
///
/// The date is Howard Hinnant's civil_from_days, with years that begin in March.
func timestamp(_ realtimeNanoseconds: UInt64) -> String {
    let microseconds = realtimeNanoseconds / 1000
    let seconds = microseconds / 1_000_000
    let secondOfDay = Int(seconds % 86_400)
    let day = Int(seconds / 86_400) + 719_468
    let era = day / 146_097
    let dayOfEra = day % 146_097
    let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    let date = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    let clock = "\(padded(secondOfDay / 3600, 2)):\(padded(secondOfDay / 60 % 60, 2)):\(padded(secondOfDay % 60, 2))"
    let fraction = padded(Int(microseconds % 1_000_000), 6)
    return "\(padded(year, 4))-\(padded(month, 2))-\(padded(date, 2))T\(clock).\(fraction)Z"
}

/// `value` with zeros in front up to `width` digits.
private func padded(_ value: Int, _ width: Int) -> String {
    let digits = String(value)
    return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
}
