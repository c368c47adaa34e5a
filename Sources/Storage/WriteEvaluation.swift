// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What a write does to a row: the one place that knows memcached's conditions, for backends that read, decide and
/// write under a lock of the key. Source: memcached protocol.txt, and what memcached 1.6.45 answers.
package enum WriteEvaluation: Sendable, Equatable {
    /// This row takes the place of what was there. Its version is 0: the backend's clock gives one at commit.
    case put(StoredRow)
    /// A tombstone takes the place of the live row.
    case tombstone
    /// Nothing changes.
    case refuse(WriteOutcome)

    /// Decides `write` against the live row of its key, nil where there is none: an expired row and a tombstone are
    /// none. Allocates the new value only.
    package static func decide(_ write: StorageWrite, live: StoredRow?) -> WriteEvaluation {
        switch write.operation {
        case .set:
            if write.compare != 0 {
                guard let live else { return .refuse(.notFound) }
                guard live.version == write.compare else { return .refuse(.exists) }
            }
            return store(write)
        // add and replace look at whether there is a row; memcached ignores a version beside them.
        case .add: return live == nil ? store(write) : .refuse(.notStored)
        case .replace: return live == nil ? .refuse(.notStored) : store(write)
        case .append, .prepend:
            guard let live else { return .refuse(.notStored) }
            return join(write, live)
        case .appendOrCreate, .prependOrCreate:
            guard let live else { return store(write) }
            return join(write, live)
        case .increment, .decrement: return count(write, live)
        case .delete:
            guard let live else { return .refuse(.notFound) }
            return matches(write, live) ? .tombstone : .refuse(.exists)
        case .touch:
            guard var row = live else { return .refuse(.notFound) }
            guard matches(write, row) else { return .refuse(.exists) }
            row.version = 0
            row.earlierExpiryMilliseconds = write.tellsEarlierExpiry ? row.expiryMilliseconds : nil
            row.expiryMilliseconds = write.expiryMilliseconds
            return .put(row)
        }
    }

    /// Whether the write asks for no version, or for this row's.
    private static func matches(_ write: StorageWrite, _ live: StoredRow) -> Bool {
        write.compare == 0 || write.compare == live.version
    }

    /// A row of what the client sent and nothing else.
    private static func store(_ write: StorageWrite) -> WriteEvaluation {
        guard write.value.count <= write.valueLimitBytes else { return .refuse(.tooLarge) }
        return .put(
            StoredRow(
                version: 0, expiryMilliseconds: write.expiryMilliseconds, clientFlags: write.clientFlags,
                value: write.value))
    }

    /// Append and prepend keep the row's flags and expiry.
    private static func join(_ write: StorageWrite, _ live: StoredRow) -> WriteEvaluation {
        guard matches(write, live) else { return .refuse(.exists) }
        let (length, isTooLong) = live.value.count.addingReportingOverflow(write.value.count)
        guard !isTooLong, length <= write.valueLimitBytes else { return .refuse(.tooLarge) }
        let isAppend = write.operation == .append || write.operation == .appendOrCreate
        var row = live
        row.version = 0
        row.earlierExpiryMilliseconds = nil
        row.value.reserveCapacity(length)
        if isAppend { row.value += write.value } else { row.value = write.value + live.value }
        return .put(row)
    }

    /// Counts: 64 bits, up past the end wraps, down stops at 0. A result of fewer digits keeps the value's length and
    /// is padded with spaces.
    private static func count(_ write: StorageWrite, _ live: StoredRow?) -> WriteEvaluation {
        guard var row = live else {
            guard let initial = write.initial else { return .refuse(.notFound) }
            var fresh = write
            fresh.value = decimal(initial)
            fresh.expiryMilliseconds = write.initialExpiryMilliseconds ?? write.expiryMilliseconds
            return store(fresh)
        }
        // memcached's order of the checks: an empty value, the version, the digits.
        guard !row.value.isEmpty else { return .refuse(.notNumeric) }
        guard matches(write, row) else { return .refuse(.exists) }
        guard let current = number(row.value) else { return .refuse(.notNumeric) }
        let isUp = write.operation == .increment
        let result = isUp ? current &+ write.delta : (write.delta > current ? 0 : current - write.delta)
        var text = decimal(result)
        while text.count < row.value.count { text.append(UInt8(ascii: " ")) }
        guard text.count <= max(write.valueLimitBytes, row.value.count) else { return .refuse(.tooLarge) }
        row.version = 0
        row.value = text
        row.earlierExpiryMilliseconds = write.tellsEarlierExpiry ? row.expiryMilliseconds : nil
        if write.setsExpiry { row.expiryMilliseconds = write.expiryMilliseconds }
        return .put(row)
    }

    /// A stored value as a number, as `parseStoredNumber(_:)` reads it; nil for what is none.
    package static func number(_ bytes: [UInt8]) -> UInt64? { parseStoredNumber(bytes.span) }

    /// A number in decimal digits.
    package static func decimal(_ value: UInt64) -> [UInt8] {
        if value == 0 { return [48] }
        var digits: [UInt8] = []
        digits.reserveCapacity(20)
        var rest = value
        while rest > 0 {
            digits.append(UInt8(48 + rest % 10))
            rest /= 10
        }
        digits.reverse()
        return digits
    }
}
