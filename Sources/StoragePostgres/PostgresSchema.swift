// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The tables of the store, and the statements that read and write them.
///
/// They are PostgreSQL's: arrays that are unnested, ON CONFLICT, several statements that change one table in WITH, and
/// sessions that are listed and can be ended. A server without the last is refused: see ``sessions``.
enum PostgresSchema {
    /// The format that this program writes, and the newest that it knows.
    ///
    /// Within a format, tables, columns and indexes are only added, by ``creation``, such that versions that do not
    /// know them go on. What older versions must not write to any more raises the number: they refuse to start then.
    static let format: Int64 = 1

    /// Whether the server lists the session that asks: 0 where it lists none. Without the list, nobody could say when
    /// an unknown outcome is settled.
    static let sessions = "SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid()"

    /// Whether somebody made tables already.
    static let isThere = "to_regclass('martlet_meta') IS NOT NULL"

    /// Needs the right to raise the mark, and changes nothing.
    static let markRights = "UPDATE martlet_meta SET number = number WHERE false"

    /// Something that a database of this version has: in the catalog it is found by `isThere`, and `text` makes it.
    /// Made only where it is missing: also `IF NOT EXISTS` waits for a lock on a table that is in use, and whoever
    /// writes waits behind it.
    struct Part {
        var isThere: String
        var text: String

        static func relation(_ name: String, _ text: String) -> Part {
            Part(isThere: "to_regclass('\(name)') IS NOT NULL", text: text)
        }

        static func table(_ name: String, _ columns: String) -> Part {
            relation(name, "CREATE TABLE IF NOT EXISTS \(name) (\(columns))")
        }

        static func column(_ table: String, _ name: String, _ type: String) -> Part {
            Part(
                isThere: "EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('\(table)') "
                    + "AND attname = '\(name)' AND NOT attisdropped)",
                text: "ALTER TABLE \(table) ADD COLUMN IF NOT EXISTS \(name) \(type)")
        }
    }

    /// What a database of this version consists of. What comes later needs what comes before.
    static let parts = tables + FleetSchema.parts + [HomeSchema.part]

    private static let tables = [
        Part.table("martlet_meta", "name text PRIMARY KEY, number bigint NOT NULL"),
        .table(
            "martlet_kv",
            "k bytea PRIMARY KEY, ver bigint NOT NULL, exp bigint NOT NULL, flags bigint NOT NULL, "
                + "del boolean NOT NULL, val bytea NOT NULL"),
        .relation("martlet_kv_exp", "CREATE INDEX IF NOT EXISTS martlet_kv_exp ON martlet_kv (exp) WHERE exp <> 0"),
        .relation("martlet_kv_del", "CREATE INDEX IF NOT EXISTS martlet_kv_del ON martlet_kv (ver) WHERE del"),
        .table(
            "martlet_outbox",
            "id bigserial PRIMARY KEY, op smallint NOT NULL, pool integer NOT NULL, k bytea NOT NULL, "
                + "ver bigint NOT NULL, exp bigint NOT NULL, ts bigint NOT NULL"),
        .column("martlet_outbox", "slot", "smallint NOT NULL DEFAULT 0"),
        .relation(
            "martlet_outbox_unplaced",
            "CREATE INDEX IF NOT EXISTS martlet_outbox_unplaced ON martlet_outbox (id) WHERE slot < 0"),
        .column("martlet_outbox", "trace", "text"),
        .relation("martlet_stream_pub", "CREATE SEQUENCE IF NOT EXISTS martlet_stream_pub"),
        .table(
            "martlet_stream",
            "pub bigint PRIMARY KEY, slot smallint NOT NULL, seq bigint NOT NULL, op smallint NOT NULL, "
                + "pool integer NOT NULL, k bytea NOT NULL, ver bigint NOT NULL, exp bigint NOT NULL, "
                + "ts bigint NOT NULL, at bigint NOT NULL, UNIQUE (slot, seq)"),
        .column("martlet_stream", "trace", "text"),
        .table("martlet_stream_slot", "slot smallint PRIMARY KEY, last bigint NOT NULL, kept bigint NOT NULL"),
    ]

    /// Rows that are there, in the same way. Behind ``parts``.
    static let rows = [
        Part(
            isThere: "(SELECT count(*) FROM martlet_stream_slot WHERE slot BETWEEN 0 AND 63) = 64",
            text: "INSERT INTO martlet_stream_slot SELECT g, 0, 0 FROM generate_series(0, 63) g "
                + "ON CONFLICT (slot) DO NOTHING"),
        Part(
            isThere: "(SELECT count(*) FROM martlet_meta "
                + "WHERE name IN ('format', 'version_mark', 'stream_epoch', 'stream_source')) = 4",
            text: """
                INSERT INTO martlet_meta VALUES ('format', \(format)), ('version_mark', 0), ('stream_epoch', 1),
                  ('stream_source', (random() * 9e18)::bigint) ON CONFLICT (name) DO NOTHING
                """),
    ]

    /// What a session is told first. A server whose commits are not durable by default makes ours durable; one that
    /// takes backslashes in literals for escapes would take our bytes for others.
    static func session(_ configuration: PostgresConfiguration) -> String {
        let timeout = configuration.statementTimeoutMilliseconds
        return """
            SELECT set_config('statement_timeout', '\(timeout)', false), set_config('lock_timeout', '0', false),
              set_config('idle_in_transaction_session_timeout', '30000', false),
              set_config('default_transaction_isolation', 'read committed', false),
              set_config('standard_conforming_strings', 'on', false),
              set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'on'
                ELSE current_setting('synchronous_commit') END, false),
              \(CaptureSchema.session(keepsOutbox: configuration.keepsOutbox))
            """
    }

    /// A statement that is prepared on each connection.
    enum Statement: String, CaseIterable {
        case rows, look, blind, guarded, mark, identity, gone, terminate, earlier, endEarlier, reap, share, fence, home,
            newest

        /// The types of its parameters, as PostgreSQL numbers them.
        var parameterTypes: [UInt32] {
            switch self {
            case .rows: [OID.byteaArray]
            case .look: [OID.byteaArray, OID.bigint]
            case .blind: OID.row + [OID.bigint]
            case .guarded: OID.row + [OID.bigintArray, OID.bigint]
            case .mark: [OID.bigint]
            case .identity: []
            case .gone, .terminate: [OID.integer, OID.bigint]
            case .earlier, .endEarlier: [OID.text, OID.text]
            case .reap: [OID.bigint, OID.bigint, OID.bigint, OID.bigint]
            case .share, .newest: []
            case .home: [OID.bigint]
            case .fence: [OID.bigint, OID.text, OID.bigint]
            }
        }

        /// Whether a store of these settings has a use for it; one that has none may lack its tables.
        func isUsed(_ configuration: PostgresConfiguration) -> Bool {
            switch self {
            case .fence: configuration.isShared
            case .home, .newest: configuration.keepsOutbox
            case .share: configuration.isShared || configuration.keepsOutbox
            default: true
            }
        }

        /// The statement; with a record for the outbox when somebody consumes it.
        func text(keepsOutbox: Bool) -> String {
            switch self {
            case .rows: "SELECT k, ver, exp, flags, del, val FROM martlet_kv WHERE k = ANY($1)"
            case .look:
                // Values only until there are so many bytes of them: lengths are known without them.
                """
                SELECT k, ver, exp, flags, del,
                  CASE WHEN sum(octet_length(val)) OVER (ORDER BY k ROWS UNBOUNDED PRECEDING) - octet_length(val) < $2
                    THEN val END
                FROM martlet_kv WHERE k = ANY($1)
                """
            case .blind: Self.blindText(keepsOutbox)
            case .guarded: Self.guardedText(keepsOutbox)
            case .mark: "UPDATE martlet_meta SET number = GREATEST(number, $1) WHERE name = 'version_mark'"
            case .identity: "SELECT pid, \(Self.startTime) FROM pg_stat_activity WHERE pid = pg_backend_pid()"
            case .gone: "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND \(Self.startTime) = $2"
            case .terminate:
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND \(Self.startTime) = $2"
            case .share: FleetSchema.share
            case .fence: FleetSchema.fence
            case .home: HomeSchema.fence
            case .newest: HomeSchema.newest
            case .earlier: "SELECT count(*) FROM \(Self.earlierSessions)"
            case .endEarlier: "SELECT pg_terminate_backend(pid) FROM \(Self.earlierSessions)"
            case .reap:
                // By the earlier of two clocks: the node's and, from the times that its settings say, the database's. A
                // node whose clock is ahead must not delete what is alive for all others.
                // An expired row whose version is ahead of the clock stays: without it, the key's next version could be
                // lower.
                // Each kind by its own index, oldest first. Rows that somebody holds are left for later: to wait for
                // them would hold up the writes behind.
                """
                WITH e AS (SELECT k FROM martlet_kv
                  WHERE exp <> 0 AND exp <= \(Self.expired) AND ver < \(Self.expired) << 16
                  ORDER BY exp LIMIT $3 FOR UPDATE SKIP LOCKED),
                t AS (SELECT k FROM martlet_kv WHERE del AND ver < \(Self.deleted) << 16 ORDER BY ver LIMIT $3
                  FOR UPDATE SKIP LOCKED),
                d AS (DELETE FROM martlet_kv WHERE k IN (SELECT k FROM e UNION ALL SELECT k FROM t) RETURNING 1)
                SELECT count(*) FROM d
                """
            }
        }

        private static let now = "(extract(epoch FROM now()) * 1000)::bigint"
        /// What expired by then is deleted, and tombstones that were written by then, in milliseconds.
        private static let expired = "LEAST($1, \(now) - 60000)"
        private static let deleted = "GREATEST(0, LEAST($2, \(now) - $4))"

        /// Sessions of this node's earlier processes: their name begins with the node's, and is not this process's. A
        /// session is listed until its transaction is over.
        private static let earlierSessions = """
            pg_stat_activity WHERE datname = current_database() AND left(application_name, length($1)) = $1
              AND application_name <> $2
            """

        /// When a session began, in microseconds: with the process's number it names the session, also after that
        /// number was given to another, and on another server.
        private static let startTime = "(extract(epoch FROM backend_start) * 1000000)::bigint"

        /// Sets without a condition. A stored version that is higher than the clock's wins, plus one, unless it is
        /// none. Where a trigger swallows one of them, the division by zero ends the transaction.
        private static func blindText(_ keepsOutbox: Bool) -> String {
            let write = """
                INSERT INTO martlet_kv (k, ver, exp, flags, del, val)
                SELECT k, ver, exp, flags, del, val FROM e ORDER BY k
                ON CONFLICT (k) DO UPDATE SET ver = CASE WHEN martlet_kv.ver < \(SQLRow.versions.upperBound)
                  THEN GREATEST(martlet_kv.ver + 1, EXCLUDED.ver) ELSE EXCLUDED.ver END, exp = EXCLUDED.exp,
                  flags = EXCLUDED.flags, del = EXCLUDED.del, val = EXCLUDED.val
                RETURNING k, ver, exp
                """
            let record = """
                , o AS (INSERT INTO martlet_outbox (op, pool, slot, k, ver, exp, ts, trace)
                  SELECT e.op, e.pool, e.slot, w.k, w.ver, w.exp, e.ts, e.trace FROM w JOIN e ON e.k = w.k)
                """
            return """
                WITH e AS (\(source)), w AS (\(write)) \(keepsOutbox ? record : "") SELECT k, ver FROM w UNION ALL
                SELECT NULL, 1 / (CASE WHEN (SELECT count(*) FROM w) = $12 THEN 1 ELSE 0 END)
                """
        }

        /// Changes that were decided upon a row that was read: all of them find it as it was, or the division by zero
        /// ends the transaction. A null in the place of a value leaves the row's value as it is, where it lies.
        private static func guardedText(_ keepsOutbox: Bool) -> String {
            let expecting = """
                SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                  AS e(k, ver, exp, flags, del, val, op, pool, ts, slot, trace, expect)
                """
            let record = """
                , o AS (INSERT INTO martlet_outbox (op, pool, slot, k, ver, exp, ts, trace)
                  SELECT op, pool, slot, k, ver, exp, ts, trace FROM e)
                """
            return """
                WITH e AS (\(expecting)),
                u AS (UPDATE martlet_kv t SET ver = e.ver, exp = e.exp, flags = e.flags, del = e.del,
                  val = coalesce(e.val, t.val) FROM e WHERE t.k = e.k AND t.ver = e.expect RETURNING 1),
                i AS (INSERT INTO martlet_kv (k, ver, exp, flags, del, val)
                  SELECT k, ver, exp, flags, del, val FROM e WHERE e.expect = 0 AND e.val IS NOT NULL ORDER BY k
                  ON CONFLICT (k) DO NOTHING RETURNING 1)
                \(keepsOutbox ? record : "")
                SELECT 1 / (CASE WHEN (SELECT count(*) FROM u) + (SELECT count(*) FROM i) = $13 THEN 1 ELSE 0 END)
                """
        }

        /// The rows of the parameters.
        private static let source = """
            SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
              AS e(k, ver, exp, flags, del, val, op, pool, ts, slot, trace)
            """
    }
}

/// PostgreSQL's numbers of types. Source: PostgreSQL 15, pg_type.dat.
enum OID {
    static let boolean: UInt32 = 16
    static let bytea: UInt32 = 17
    static let bigint: UInt32 = 20
    static let smallint: UInt32 = 21
    static let integer: UInt32 = 23
    static let text: UInt32 = 25
    static let booleanArray: UInt32 = 1_000
    static let byteaArray: UInt32 = 1_001
    static let smallintArray: UInt32 = 1_005
    static let integerArray: UInt32 = 1_007
    static let textArray: UInt32 = 1_009
    static let bigintArray: UInt32 = 1_016

    /// The columns of rows and their records: k, ver, exp, flags, del, val, op, pool, ts, slot, trace.
    static let row = [
        byteaArray, bigintArray, bigintArray, bigintArray, booleanArray, byteaArray, smallintArray, integerArray,
        bigintArray, smallintArray, textArray,
    ]
}
