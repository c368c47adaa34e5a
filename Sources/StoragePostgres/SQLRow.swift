// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// A row as the statement `rows` gives it.
struct SQLRow {
    /// What versions are: others write to the table too, and one from the far future would be used up by the clock.
    static let versions: Range<Int64> = 0..<1 << 62
    /// What is said of a row with another one.
    static let oddVersion = StorageFailure(.refused, "the row's version is out of range")

    var key: [UInt8]
    var isTombstone: Bool
    var row: StoredRow
    /// Whether the value came with it.
    var hasValue: Bool

    /// Nil when the columns are not those of a row; a null in the place of the value is none that came.
    init?(_ columns: [[UInt8]?]) {
        guard columns.count == 6, let key = columns[0], let version = BinaryParameter.number(columns[1]),
            let expiry = BinaryParameter.number(columns[2]), let flags = BinaryParameter.number(columns[3]),
            let isDeleted = columns[4], isDeleted.count == 1
        else { return nil }
        hasValue = columns[5] != nil
        self.key = key
        isTombstone = isDeleted[0] == 1
        row = StoredRow(
            version: UInt64(bitPattern: version), expiryMilliseconds: expiry,
            clientFlags: UInt32(truncatingIfNeeded: flags), value: columns[5] ?? [])
    }

    /// Whether its version is one. Where it is not, commands on the key are refused until a set without a condition.
    var hasVersion: Bool { Self.versions.contains(Int64(bitPattern: row.version)) }

    /// The row, if it is there at `now`.
    func live(at now: Int64) -> StoredRow? { !isTombstone && row.isLive(at: now) ? row : nil }
}

/// Rows on their way to a table, column by column.
struct SQLColumns {
    private var keys: [[UInt8]] = []
    private var versions: [Int64] = []
    private var expiries: [Int64] = []
    private var flags: [Int64] = []
    private var deleted: [Bool] = []
    private var values: [[UInt8]?] = []
    private var operations: [Int16] = []
    private var pools: [Int32] = []
    private var times: [Int64] = []
    private var slots: [Int16] = []
    private var traces: [String?] = []
    private var expected: [Int64] = []

    var isEmpty: Bool { keys.isEmpty }

    /// Adds what becomes of one key; `expected` is the version that its row must have, 0 for none. With `.touch`, the
    /// value stays as it is.
    mutating func append(
        _ write: StorageWrite, _ operation: OutboxRecord.Operation, row: StoredRow, now: Int64, expected: UInt64
    ) {
        keys.append(write.key)
        versions.append(Int64(bitPattern: row.version))
        expiries.append(row.expiryMilliseconds)
        flags.append(Int64(row.clientFlags))
        deleted.append(operation == .delete)
        values.append(operation == .touch ? nil : row.value)
        operations.append(Int16(operation.rawValue))
        pools.append(Int32(write.pool))
        times.append(now)
        slots.append(Int16(StreamSlots.slot(keyHash: stableHash(write.key.span))))
        traces.append(write.trace)
        self.expected.append(Int64(bitPattern: expected))
    }

    /// As sets without a condition.
    var blind: SQLCall { SQLCall(.blind, row + [BinaryParameter.bigint(Int64(keys.count))]) }

    /// As changes that must find the rows as expected.
    var guarded: SQLCall {
        SQLCall(.guarded, row + [BinaryParameter.array(bigint: expected), BinaryParameter.bigint(Int64(keys.count))])
    }

    private var row: [[UInt8]] {
        [
            BinaryParameter.array(bytea: keys), BinaryParameter.array(bigint: versions),
            BinaryParameter.array(bigint: expiries), BinaryParameter.array(bigint: flags),
            BinaryParameter.array(boolean: deleted), BinaryParameter.array(bytea: values),
            BinaryParameter.array(smallint: operations), BinaryParameter.array(integer: pools),
            BinaryParameter.array(bigint: times), BinaryParameter.array(smallint: slots),
            BinaryParameter.array(text: traces),
        ]
    }
}
