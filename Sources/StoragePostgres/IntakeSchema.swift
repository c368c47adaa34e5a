// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// The statements by which changes come in that another log of the database tells of. Where that log is read is a row
/// of `martlet_meta` for each of its partitions.
enum IntakeSchema {
    private static func name(_ log: String, _ partition: Int? = nil) -> String {
        let text = Array("input:\(log):\(partition.map { String($0) } ?? "")".utf8)
        return "convert_from('\\x\(Hexadecimal.digits(text))'::bytea, 'UTF8')"
    }

    /// Without quotes the least number would be the negative of one that is too large.
    private static func number(_ number: Int64) -> String { "'\(number)'::bigint" }

    /// The names of a log's rows end in the partition's number, behind this many characters; and the numbers.
    static func places(_ log: String) -> String {
        "SELECT substr(name, length(\(name(log))) + 1), number FROM martlet_meta WHERE starts_with(name, \(name(log)))"
    }

    /// Moves a partition's place from where it is said to be, and puts the changes into the outbox, or does neither;
    /// gives a row where it did. One statement: who comes second waits for the first, and finds the place moved.
    static func take(
        _ changes: [LoggedChange], of log: String, partition: Int, from place: Int64?, to next: Int64
    ) -> String {
        let row = name(log, partition)
        // A place that somebody took away is not made anew by who read before.
        let isKnown = place == nil ? "true" : "EXISTS (SELECT 1 FROM martlet_meta WHERE name = \(row))"
        let first = """
            p AS (INSERT INTO martlet_meta SELECT \(row), \(number(next)) WHERE \(isKnown) ON CONFLICT (name) DO UPDATE
              SET number = EXCLUDED.number WHERE martlet_meta.number = \(number(place ?? -1)) RETURNING 1)
            """
        if changes.isEmpty { return "WITH \(first) SELECT 1 FROM p" }
        let rows = changes.map { change in
            // What is about all rows is put into each slot by who publishes.
            let slot = change.operation == .flush ? -1 : StreamSlots.slot(keyHash: stableHash(change.key.span))
            let captured = change.isUnconditional ? CaptureSchema.captured : 0
            return "(\(Int64(change.operation.rawValue) + captured), \(slot), decode('"
                + "\(Hexadecimal.digits(change.key))', 'hex'), \(number(change.version)), "
                + "\(number(change.expiryMilliseconds)), \(number(change.timeMilliseconds)))"
        }
        return """
            WITH \(first),
            o AS (INSERT INTO martlet_outbox (op, pool, slot, k, ver, exp, ts)
              SELECT v.op, -1, v.slot, v.k, v.ver, v.exp, v.ts
              FROM (VALUES \(rows.joined(separator: ", "))) AS v (op, slot, k, ver, exp, ts)
              WHERE EXISTS (SELECT 1 FROM p))
            SELECT 1 FROM p
            """
    }
}
