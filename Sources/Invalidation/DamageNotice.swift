// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// Records that cannot be read: what a log and statistics tell of them, so that whoever sends many fills no disk. Pure.
package struct DamageNotice: Sendable {
    /// Between two lines of a log, in nanoseconds.
    package static let lineNanoseconds: UInt64 = 10_000_000_000
    /// For how long statistics tell of the last one, in nanoseconds.
    package static let reasonNanoseconds: UInt64 = 60_000_000_000

    private var untold: UInt64 = 0
    private var nextLine: UInt64 = 0
    private var last: (reason: String, end: UInt64) = ("", 0)

    /// None yet.
    package init() {}

    /// One more came at a reading of a monotonic clock. How many a line is to tell of now, this one among them; nil
    /// where a line told of others lately.
    package mutating func note(_ fault: RecordFault, at now: UInt64) -> UInt64? {
        let slot = fault.slot.map { " of slot \($0)" } ?? ""
        last = ("a record\(slot) cannot be read: \(fault.reason)", now &+ Self.reasonNanoseconds)
        untold += 1
        guard now >= nextLine else { return nil }
        nextLine = now &+ Self.lineNanoseconds
        defer { untold = 0 }
        return untold
    }

    /// Why the last one could not be read; empty when that was long ago.
    package func reason(at now: UInt64) -> String { now < last.end ? last.reason : "" }
}
