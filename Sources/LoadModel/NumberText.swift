// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Numbers and units as k6's summary writes them.
package enum NumberText {
    /// `value` with exactly `digits` decimals (0 to 9): `1.50`.
    package static func fixed(_ value: Double, _ digits: Int) -> String {
        guard value.isFinite else { return value.isNaN ? "NaN" : value < 0 ? "-Inf" : "+Inf" }
        var scale: UInt64 = 1
        for _ in 0..<digits { scale *= 10 }
        let magnitude = value.magnitude
        guard magnitude < 9e18 / Double(scale) else { return "\(value)" }
        let scaled = UInt64((magnitude * Double(scale)).rounded())
        let sign = value < 0 && scaled > 0 ? "-" : ""
        guard digits > 0 else { return sign + String(scaled) }
        let fraction = String(scaled % scale)
        return sign + String(scaled / scale) + "." + String(repeating: "0", count: digits - fraction.count) + fraction
    }

    /// At most `digits` decimals, without zeros at the end: `1.5`.
    package static func short(_ value: Double, _ digits: Int) -> String {
        var text = fixed(value, digits)
        guard text.contains("."), !text.contains("e") else { return text }
        while text.hasSuffix("0") { text.removeLast() }
        if text.hasSuffix(".") { text.removeLast() }
        return text
    }

    /// A number as JSON has it: the shortest text that reads back the same; what is not finite is null.
    package static func json(_ value: Double) -> String {
        guard value.isFinite else { return "null" }
        if value == value.rounded(), value.magnitude < 1e15 { return String(Int64(value)) }
        return "\(value)"
    }

    /// Bytes in powers of 1000: `5.1 kB`, `519 kB`.
    package static func bytes(_ value: Double) -> String {
        let units = ["B", "kB", "MB", "GB", "TB", "PB"]
        var (rest, unit) = (value, 0)
        while rest >= 1000, unit < units.count - 1 {
            rest /= 1000
            unit += 1
        }
        if unit == 0 || rest >= 10 { return "\(fixed(rest, 0)) \(units[unit])" }
        return "\(fixed(rest, 1)) \(units[unit])"
    }

    /// Milliseconds in the unit that fits (`117.57ms`, `1.01s`, `1m2s`), or in `unit`: `s`, `ms` or `us`.
    package static func duration(milliseconds: Double, unit: String? = nil) -> String {
        switch unit {
        case "s": return fixed(milliseconds / 1000, 2) + "s"
        case "ms": return fixed(milliseconds, 2) + "ms"
        case "us": return fixed(milliseconds * 1000, 2) + "µs"
        default: break
        }
        let magnitude = milliseconds.magnitude
        if magnitude == 0 { return "0s" }
        if magnitude < 0.001 { return short(milliseconds * 1e6, 2) + "ns" }
        if magnitude < 1 { return short(milliseconds * 1000, 2) + "µs" }
        if magnitude < 1000 { return short(milliseconds, 2) + "ms" }
        if magnitude < 60_000 { return short(milliseconds / 1000, 2) + "s" }
        guard magnitude < 1e18 else { return fixed(milliseconds / 1000, 0) + "s" }
        let seconds = UInt64((magnitude / 1000).rounded())
        return (milliseconds < 0 ? "-" : "") + wholeSeconds(seconds)
    }

    /// Nanoseconds as Go writes durations of configurations: `1m30s`, `500ms`, `10m0s`.
    package static func span(_ nanoseconds: UInt64) -> String {
        if nanoseconds % 1_000_000_000 == 0 { return wholeSeconds(nanoseconds / 1_000_000_000) }
        return duration(milliseconds: Double(nanoseconds) / 1e6)
    }

    /// A clock of a progress line: `00m10.3s`, or `01h02m03s`.
    package static func clock(_ nanoseconds: UInt64) -> String {
        let tenths = nanoseconds / 100_000_000
        let (minutes, rest) = (tenths / 600, tenths % 600)
        if minutes >= 60 { return "\(padded(minutes / 60, 2))h\(padded(minutes % 60, 2))m\(padded(rest / 10, 2))s" }
        return "\(padded(minutes, 2))m\(padded(rest / 10, 2)).\(rest % 10)s"
    }

    /// `value` with zeros in front, at least `width` digits.
    package static func padded(_ value: UInt64, _ width: Int) -> String {
        let text = String(value)
        return String(repeating: "0", count: max(0, width - text.count)) + text
    }

    private static func wholeSeconds(_ seconds: UInt64) -> String {
        if seconds < 60 { return "\(seconds)s" }
        if seconds < 3600 { return "\(seconds / 60)m\(seconds % 60)s" }
        return "\(seconds / 3600)h\(seconds % 3600 / 60)m\(seconds % 60)s"
    }
}
