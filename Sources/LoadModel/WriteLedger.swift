// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Versions of one key that were surely overwritten: all up to one of them, but for some of the last 64.
package struct SupersededVersions: Sendable, Equatable, BitwiseCopyable {
    private var upTo: UInt32
    /// Bit `i` says that the version `i` before ``upTo`` is not among them.
    private var open: UInt64

    /// All versions up to `upTo`, but for those before it whose bits are set in `open`.
    package init(upTo: UInt32 = 0, open: UInt64 = 0) {
        self.upTo = upTo
        self.open = open
    }

    /// Whether `version` is one of them; 0 is none.
    package func contains(_ version: UInt32) -> Bool {
        guard version > 0, version <= upTo else { return false }
        let age = upTo - version
        return age >= 64 || open >> age & 1 == 0
    }

    /// Adds those of `other`.
    package mutating func formUnion(_ other: SupersededVersions) {
        let (newer, older) = upTo >= other.upTo ? (self, other) : (other, self)
        let distance = newer.upTo - older.upTo
        // Seen from the newer end, what lies above the older one's is open there. Shifts over 63 give zero.
        let olderOpen = older.open << distance | ~(UInt64.max << distance)
        self = SupersededVersions(upTo: newer.upTo, open: newer.open & olderOpen)
    }
}

/// What one writer knows of its own writes and deletes, so that it can tell a stale value. Keys are the hashes of their
/// texts, and times are nanoseconds of any clock that all calls have in common.
///
/// A value is stale when a later write of the same writer was sent after it was answered, and was acknowledged itself
/// before the read was sent. Two writes under way at once may land in either order, and neither makes the other stale;
/// one whose outcome is not known may land at any time.
package struct WriteLedger: Sendable {
    private struct Row: Sendable {
        var sent: UInt32 = 0
        /// Bit `i` says that version `sent - i` may still land.
        var open: UInt64 = 0
        var superseded = SupersededVersions()
        /// One that may still land is too old to be remembered: nothing can be told of the key any more.
        var isLost = false
    }

    /// What became of a version, for messages.
    private enum Step: String, Sendable {
        case sent
        case acknowledged
        case refused
    }

    private struct Event: Sendable {
        var key: UInt64
        var time: UInt64
        var version: UInt32
        var step: Step
    }

    private var rows: [UInt64: Row] = [:]
    /// The last events of all keys, from `oldest` on around.
    private var events: [Event] = []
    private var oldest = 0
    private let eventLimit: Int
    /// Keys that are remembered at most; values of others are checked for their bytes and keys only.
    private let limit: Int

    /// Versions of a key at most; behind them nothing is told of it any more.
    private let versionLimit: UInt32

    /// An empty one for at most `limit` keys, which has the last `eventLimit` events for messages.
    package init(limit: Int, versionLimit: UInt32 = .max, eventLimit: Int = 4096) {
        self.limit = limit
        self.versionLimit = versionLimit
        self.eventLimit = max(1, eventLimit)
    }

    /// A write or a delete of `key` is sent: its version, and what it supersedes when it takes effect. Version 0 is one
    /// that is not remembered.
    package mutating func send(
        _ key: UInt64, at time: UInt64 = 0
    ) -> (version: UInt32, supersedes: SupersededVersions) {
        guard rows[key] != nil || rows.count < limit else { return (0, SupersededVersions()) }
        var row = rows[key] ?? Row()
        defer { rows[key] = row }
        if row.isLost || row.open >> 63 == 1 || row.sent >= versionLimit {
            row = Row(sent: row.sent, isLost: true)
            return (0, SupersededVersions())
        }
        let supersedes = SupersededVersions(upTo: row.sent, open: row.open)
        row.sent += 1
        row.open = row.open << 1 | 1
        note(key, row.sent, .sent, time)
        return (row.sent, supersedes)
    }

    /// It took effect.
    package mutating func acknowledge(
        _ key: UInt64, version: UInt32, supersedes: SupersededVersions, at time: UInt64 = 0
    ) {
        settle(key, version: version, .acknowledged, time)
        guard version > 0, rows[key]?.isLost == false else { return }
        rows[key]?.superseded.formUnion(supersedes)
    }

    /// It was answered, and did not take effect.
    package mutating func settle(_ key: UInt64, version: UInt32, at time: UInt64 = 0) {
        settle(key, version: version, .refused, time)
    }

    private mutating func settle(_ key: UInt64, version: UInt32, _ step: Step, _ time: UInt64) {
        guard version > 0, let row = rows[key], !row.isLost else { return }
        rows[key]?.open = row.open & ~(1 << UInt64(row.sent - version))
        note(key, version, step, time)
    }

    private mutating func note(_ key: UInt64, _ version: UInt32, _ step: Step, _ time: UInt64) {
        let event = Event(key: key, time: time, version: version, step: step)
        guard events.count == eventLimit else { return events.append(event) }
        events[oldest] = event
        oldest = oldest + 1 == eventLimit ? 0 : oldest + 1
    }

    /// The versions of `key` that a read sent now must not see any more.
    package func superseded(_ key: UInt64) -> SupersededVersions { rows[key]?.superseded ?? SupersededVersions() }

    /// What is known of `key`, for a message: how many versions there are, and what became of the last ones, with times
    /// from `start` on.
    package func history(_ key: UInt64, since start: UInt64 = 0) -> String {
        guard let row = rows[key] else { return "never written by this run" }
        let open = row.open.nonzeroBitCount
        var text = "versions sent up to \(row.sent), \(open) of them without a known outcome"
        let last = (events[oldest...] + events[..<oldest]).filter { $0.key == key }.suffix(Self.shownEvents)
        guard !last.isEmpty else { return text }
        let steps = last.map { event in
            let milliseconds = Double(event.time - min(event.time, start)) / 1e6
            return "\(event.version) \(event.step.rawValue) at \(NumberText.fixed(milliseconds, 3)) ms"
        }
        text += "; " + steps.joined(separator: ", ")
        return text
    }

    /// Events of a key that are shown at most.
    private static let shownEvents = 8
}
