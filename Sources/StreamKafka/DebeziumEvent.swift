// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Storage

/// What a message of Debezium's connector for PostgreSQL tells of the table of rows, in JSON or in Avro. Pure. Source:
/// Debezium 2.7 documentation, connector for PostgreSQL, Data change events and Snapshots.
enum DebeziumEvent: Equatable {
    /// Changes; none where it tells of nothing that matters.
    case changes([LoggedChange])
    /// A row of a snapshot that began at this place in the database's log: the connector may have missed what was
    /// before.
    case snapshot(Int64)
    /// It cannot be understood, for this reason.
    case damaged(String)

    /// What a message tells of. Throws where the schema of a part is not known that is needed.
    static func read(
        key: [UInt8]?, value: [UInt8]?, schema: (UInt32) throws(SchemaAwaited) -> WriterSchema
    ) throws(SchemaAwaited) -> DebeziumEvent {
        // Behind a deletion comes a tombstone, for compaction.
        guard let value else { return .changes([]) }
        let event: EventFields
        switch try EventFields.read(value, schema: schema) {
        case .fields(let fields): event = fields
        case .damaged(let reason): return .damaged(reason)
        }
        guard let operation = event.text("op") else { return .damaged("no op") }
        let source = event.fields("source")
        let time = min(max(0, source?.integer("ts_ms") ?? event.integer("ts_ms") ?? 0), Self.timeMax)
        let (before, after) = (event.fields("before"), event.fields("after"))
        switch operation {
        // Messages of programs; beginnings and ends of transactions.
        case "m", "BEGIN", "END": return .changes([])
        case "t":
            return .changes([
                LoggedChange(.flush, key: [], version: time << 16, timeMilliseconds: time, isUnconditional: true)
            ])
        case "r":
            // Somebody asked for rows again, while changes go on.
            guard source?.text("snapshot") == "incremental" else { return .snapshot(source?.integer("lsn") ?? time) }
            return of(after.flatMap { Row($0) }.map { $0.rereading(at: time) })
        case "c": return of(after.flatMap { Row($0) }.map { $0.insertion(at: time) })
        case "u":
            return of(after.flatMap { Row($0) }.map { $0.update(of: before.flatMap { Row($0) }, at: time) })
        case "d":
            var row = before.flatMap { Row($0) }
            if row == nil, let key, case .fields(let fields) = try EventFields.read(key, schema: schema) {
                row = Row(fields)
            }
            if let row, !row.wasThere(at: time) { return .changes([]) }
            return of(row?.deletion(at: time))
        default: return .damaged("an unknown op")
        }
    }

    /// Nobody has copies of keys that no client can name.
    private static func of(_ change: LoggedChange?) -> DebeziumEvent {
        guard let change else { return .damaged("no row with its key k") }
        return .changes(change.key.count <= 250 ? [change] : [])
    }

    /// Of each key the last change, which acts on any copy where one before it did. What is put into the outbox
    /// together is published in the order of the versions, which need not be that of the changes. Of those that are
    /// about all rows one is left, with the largest version: no row is there that one of them took away.
    static func lastOfEachKey(_ changes: [LoggedChange]) -> [LoggedChange] {
        var found: [LoggedChange] = []
        var places: [[UInt8]: Int] = [:]
        for change in changes.reversed() {
            if let place = places[change.key] {
                found[place].isUnconditional = found[place].isUnconditional || change.isUnconditional
                if change.operation == .flush { found[place].version = max(found[place].version, change.version) }
            } else {
                places[change.key] = found.count
                found.append(change)
            }
        }
        return found.reversed()
    }

    /// Times fit into versions: some 4,000 years.
    private static let timeMax: Int64 = 1 << 47 - 1

    /// What a message tells of a row: columns that it does not have are 0.
    private struct Row {
        let key: [UInt8]
        let version: Int64
        /// Whether it tells of the version.
        let hasVersion: Bool
        let expiry: Int64
        let isDeleted: Bool

        init?(_ columns: EventFields) {
            guard let key = columns.bytes("k"), !key.isEmpty else { return nil }
            self.key = key
            let (version, expiry) = (columns.integer("ver"), columns.integer("exp") ?? 0)
            self.version = max(0, version ?? 0)
            hasVersion = version != nil
            // It may say that it never was there, as memcached's clients do with a negative time.
            self.expiry = expiry < 0 ? 1 : expiry
            isDeleted = columns.boolean("del") ?? false
        }

        /// It was made: by a node, where its version is a time.
        func insertion(at time: Int64) -> LoggedChange {
            change(at: time, isUnconditional: version < Int64(CopySight.leastVersion))
        }

        /// It was changed: by whoever knows our versions, where its version grew. Without what it was before nobody can
        /// tell.
        func update(of before: Row?, at time: Int64) -> LoggedChange {
            let grew = before.map { $0.hasVersion && $0.key == key && version > $0.version } ?? false
            return change(at: time, isUnconditional: !grew)
        }

        /// It was read once more: what is cached of it may be anything.
        func rereading(at time: Int64) -> LoggedChange { change(at: time, isUnconditional: true) }

        private func change(at time: Int64, isUnconditional: Bool) -> LoggedChange {
            LoggedChange(
                isDeleted ? .delete : .set, key: key, version: version, expiryMilliseconds: isDeleted ? 0 : expiry,
                timeMilliseconds: time, isUnconditional: isUnconditional)
        }

        /// Whether anybody may have seen it: nodes take away what was deleted, or is over, long ago.
        func wasThere(at time: Int64) -> Bool { !isDeleted && !(expiry > 0 && expiry <= time) }

        func deletion(at time: Int64) -> LoggedChange {
            let next = version < Int64.max ? version + 1 : version
            return LoggedChange(
                .delete, key: key, version: max(next, time << 16), timeMilliseconds: time, isUnconditional: true)
        }
    }
}
