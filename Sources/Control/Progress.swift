// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// A line about how far a long command is, on standard error, a few times a second; nothing for machines.
struct Progress {
    private let isShown: Bool
    private let began = Clock.monotonicNanoseconds()
    private var next: UInt64 = 0
    private var hasLine = false

    init(isShown: Bool) { self.isShown = isShown }

    /// Seconds since the start.
    var seconds: Double { Double(Clock.monotonicNanoseconds() - began) / 1e9 }

    /// Shows the line, unless one was shown a moment ago.
    mutating func show(rows: Int, bytes: Int, of total: Int? = nil) {
        guard isShown, Clock.monotonicNanoseconds() >= next else { return }
        next = Clock.monotonicNanoseconds() + 250_000_000
        hasLine = true
        let share = total.map { $0 > 0 ? ", \(min(100, bytes * 100 / $0))%" : "" } ?? ""
        let rate = Int(Double(rows) / max(seconds, 0.001))
        writeWhole(Array("\r\(rows) rows, \(bytes >> 20) MiB\(share), \(rate) rows/s   ".utf8), to: 2)
    }

    /// Ends the line.
    func finish() {
        if hasLine { writeWhole(Array("\n".utf8), to: 2) }
    }
}
