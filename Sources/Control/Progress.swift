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

    /// Shows how many rows there were so far, and bytes where they are known, unless the line was shown a moment ago.
    mutating func show(rows: Int, bytes: Int? = nil, of total: Int? = nil) {
        var share = ""
        if let bytes {
            share = ", \(bytes >> 20) MiB"
            if let total, total > 0 { share += ", \(min(100, bytes * 100 / total))%" }
        }
        show("\(rows) rows\(share), \(Int(Double(rows) / max(seconds, 0.001))) rows/s")
    }

    /// Shows for how long something goes on, unless that was shown a moment ago.
    mutating func show(_ what: String) {
        guard isShown, Clock.monotonicNanoseconds() >= next else { return }
        next = Clock.monotonicNanoseconds() + 250_000_000
        hasLine = true
        writeWhole(Array("\r\(what), \(Int(seconds)) s   ".utf8), to: 2)
    }

    /// Ends the line.
    func finish() {
        if hasLine { writeWhole(Array("\n".utf8), to: 2) }
    }
}
