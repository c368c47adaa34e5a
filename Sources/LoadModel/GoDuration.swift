// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Durations as k6's options spell them.
package enum GoDuration {
    private static let units: [(name: String, nanoseconds: Double)] = [
        ("ns", 1), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9),
        ("d", 86_400e9),
    ]

    /// Nanoseconds of `text`: `1m30s`, `500ms`, `1.5h`; a bare number is milliseconds. nil when it is no duration, is
    /// negative, or longer than a century.
    package static func parse(_ text: String) -> UInt64? {
        if let milliseconds = Double(text) {
            guard milliseconds >= 0, milliseconds < 3.2e12 else { return nil }
            return UInt64((milliseconds * 1e6).rounded())
        }
        var rest = Substring(text)
        var total = 0.0
        guard !rest.isEmpty else { return nil }
        while !rest.isEmpty {
            let digits = rest.prefix { $0.isNumber || $0 == "." }
            let unit = rest.dropFirst(digits.count).prefix { !$0.isNumber && $0 != "." }
            guard let number = Double(digits), let scale = units.first(where: { $0.name == unit })?.nanoseconds else {
                return nil
            }
            total += number * scale
            rest = rest.dropFirst(digits.count + unit.count)
        }
        return total < 3.2e18 ? UInt64(total.rounded()) : nil
    }
}
