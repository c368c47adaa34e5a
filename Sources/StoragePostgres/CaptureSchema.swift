// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// Triggers that put what other programs do to the table of rows into the outbox, in their own transactions, and have
/// the version of a row grow where they did not see to it. What the nodes do themselves, which say so in their
/// sessions, passes by at the cost of a comparison.
///
/// The functions run with the rights of who made them, so that a program needs rights to the table of rows only.
enum CaptureSchema {
    /// What a session of a node says first: what it does has versions, and records, unless it keeps none.
    static func session(keepsOutbox: Bool) -> String {
        "set_config('martlet.writer', 'node', false), set_config('martlet.outbox', "
            + "'\(keepsOutbox ? "own" : "none")', false)"
    }

    /// Added to the operation's number in the outbox: the record is of another program's change.
    static let captured: Int64 = 16

    private static let isOther = "current_setting('martlet.writer', true) IS DISTINCT FROM 'node'"
    /// Without a record of its own: another program's, or that of a node that keeps no outbox.
    private static let isUnrecorded = isOther + " OR current_setting('martlet.outbox', true) = 'none'"
    private static let now = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

    /// A function that finds what it names in `schema` and nowhere else: whoever may write rows may make tables of his
    /// own that are only his session's, and names that have no schema would be found there first.
    private static func function(_ name: String, _ body: String, in schema: String) -> String {
        """
        CREATE OR REPLACE FUNCTION \(schema).\(name)() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
          SET search_path = pg_catalog, \(schema), pg_temp AS $martlet$ BEGIN \(body) END $martlet$
        """
    }

    /// The schema that the tables are in, in quotes where it needs them.
    static let schema =
        "SELECT quote_ident(nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        + "WHERE c.oid = to_regclass('martlet_kv')"

    /// Whether there are functions of an earlier version that this role may replace.
    static let isOutdated = """
        SELECT EXISTS (SELECT 1 FROM pg_proc WHERE proname IN ('martlet_advance', 'martlet_capture')
          AND pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('martlet_kv'))
          AND pg_has_role(proowner, 'USAGE') AND NOT \(isSafe))
        """

    private static let isSafe = "coalesce(array_to_string(proconfig, ',') LIKE '%pg_catalog, %, pg_temp', false)"

    /// The names of functions of an earlier version in other schemas, which no trigger calls any more.
    static let leftovers = """
        SELECT quote_ident(nspname) || '.' || proname || '()' FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
          WHERE proname IN ('martlet_advance', 'martlet_capture') AND pronargs = 0 AND prorettype = 'trigger'::regtype
          AND pronamespace <> (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('martlet_kv'))
          AND pg_has_role(proowner, 'USAGE') AND NOT \(isSafe)
          AND NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgfoid = p.oid)
        """

    /// Where a record's slot is not known: SQL has no function for it. Who publishes works it out.
    private static func record(
        _ operation: String, _ key: String, _ version: String, _ expiry: String, _ schema: String
    ) -> String {
        "INSERT INTO \(schema).martlet_outbox (op, pool, slot, k, ver, exp, ts) "
            + "VALUES (\(operation), -1, -1, \(key), \(version), \(expiry), \(now));"
    }

    /// The functions of the triggers. No table is locked for them.
    static func functions(in schema: String) -> [String] {
        func add(_ operation: String, _ key: String, _ version: String, _ expiry: String) -> String {
            record(operation, key, version, expiry, schema)
        }
        return [
            function(
                "martlet_advance",
                """
                IF TG_OP = 'UPDATE' AND NEW.k = OLD.k THEN
                  NEW.ver := GREATEST(OLD.ver + 1, CASE WHEN NEW.ver > OLD.ver THEN NEW.ver ELSE 0 END, \(now) << 16);
                ELSE
                  NEW.ver := GREATEST(NEW.ver, \(now) << 16);
                END IF;
                RETURN NEW;
                """, in: schema),
            function(
                "martlet_capture",
                """
                IF TG_OP = 'DELETE' AND current_setting('martlet.writer', true) = 'node' THEN
                  -- A node deletes only what has expired, and tombstones past their time.
                  RETURN NULL;
                END IF;
                IF TG_OP = 'TRUNCATE' THEN
                  \(add("\(captured + 3)", "''", "\(now) << 16", "0"))
                  RETURN NULL;
                END IF;
                IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND NEW.k <> OLD.k) THEN
                  \(add("\(captured + 1)", "OLD.k", "GREATEST(OLD.ver + 1, \(now) << 16)", "0"))
                END IF;
                IF TG_OP <> 'DELETE' THEN
                  \(add("CASE WHEN NEW.del THEN \(captured + 1) ELSE \(captured) END", "NEW.k", "NEW.ver", "NEW.exp"))
                END IF;
                RETURN NULL;
                """, in: schema),
        ]
    }

    /// Makes the triggers, behind their functions: where one of them is missing, off, of an earlier version, or calls a
    /// function in another schema.
    static func triggers(in schema: String) -> [PostgresSchema.Part] {
        let calling = working(
            "tgname IN (\(names)) AND EXISTS (SELECT 1 FROM pg_proc p JOIN pg_class c ON c.oid = tgrelid "
                + "WHERE p.oid = tgfoid AND p.pronamespace = c.relnamespace)")
        let isThere = "\(calling) = \(triggers) AND \(recording) = \(recordingTriggers)"
        let texts = [
            """
            CREATE OR REPLACE TRIGGER martlet_advance BEFORE INSERT OR UPDATE ON martlet_kv FOR EACH ROW
              WHEN (\(isOther)) EXECUTE FUNCTION \(schema).martlet_advance()
            """,
            """
            CREATE OR REPLACE TRIGGER martlet_capture AFTER INSERT OR UPDATE OR DELETE ON martlet_kv FOR EACH ROW
              WHEN (\(isUnrecorded)) EXECUTE FUNCTION \(schema).martlet_capture()
            """,
            """
            CREATE OR REPLACE TRIGGER martlet_capture_all AFTER TRUNCATE ON martlet_kv FOR EACH STATEMENT
              WHEN (\(isUnrecorded)) EXECUTE FUNCTION \(schema).martlet_capture()
            """,
        ]
        return [defaults] + texts.map { PostgresSchema.Part(isThere: isThere, text: $0) }
    }

    /// Other programs need not know the columns.
    private static let defaults = PostgresSchema.Part(
        isThere: "(SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('martlet_kv') AND atthasdef "
            + "AND attname IN ('ver', 'exp', 'flags', 'del')) = 4",
        text: "ALTER TABLE martlet_kv ALTER COLUMN ver SET DEFAULT 0, ALTER COLUMN exp SET DEFAULT 0, "
            + "ALTER COLUMN flags SET DEFAULT 0, ALTER COLUMN del SET DEFAULT false")

    private static func working(_ names: String) -> String {
        "(SELECT count(*) FROM pg_trigger WHERE tgrelid = 'martlet_kv'::regclass AND tgenabled IN ('O', 'A') "
            + "AND \(names))"
    }

    /// How many of the triggers are there and switched on, ``triggers`` if all.
    static let working = working("tgname IN (\(names))")
    private static let names = "'martlet_advance', 'martlet_capture', 'martlet_capture_all'"
    static let triggers: Int64 = 3

    /// How many of them make records of what nodes do that keep no outbox, ``recordingTriggers`` if all.
    static let recordingTriggers: Int64 = 2
    static let recording = working("pg_get_triggerdef(oid) LIKE '%martlet.outbox%'")

    /// Takes them away: what is "there" is that one is not. Versions grow for as long as there are records of changes.
    static let removal =
        ["martlet_capture", "martlet_capture_all", "martlet_advance"].map { name in
            PostgresSchema.Part(
                isThere: "NOT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass('martlet_kv') "
                    + "AND tgname = '\(name)')",
                text: "DROP TRIGGER IF EXISTS \(name) ON martlet_kv")
        } + [
            PostgresSchema.Part(
                isThere: "false", text: "DROP FUNCTION IF EXISTS martlet_advance(), martlet_capture()")
        ]

    /// Records whose slot is to be worked out, at most `limit`.
    static func unplaced(limit: Int) -> String {
        "SELECT id, encode(k, 'hex') FROM martlet_outbox WHERE slot < 0 ORDER BY id LIMIT \(limit)"
    }

    /// Says which slots they are in. One that is about all rows is put into each slot: slots are not ordered among each
    /// other, and are lost each by itself, so that in one alone it would not be behind what was done before it.
    static func place(_ records: [(id: Int64, slot: Int)]) -> String {
        let rows = records.map { "(\($0.id), \($0.slot))" }.joined(separator: ", ")
        let flush = OutboxRecord.Operation.flush.rawValue
        return """
            WITH v (id, slot) AS (VALUES \(rows)),
            i AS (INSERT INTO martlet_outbox (op, pool, slot, k, ver, exp, ts)
              SELECT o.op, o.pool, s.slot, o.k, o.ver, o.exp, o.ts FROM martlet_outbox o JOIN v ON o.id = v.id
              CROSS JOIN generate_series(0, \(StreamSlots.count - 1)) AS s (slot)
              WHERE o.slot < 0 AND o.op & \(captured - 1) = \(flush) AND s.slot <> v.slot)
            UPDATE martlet_outbox o SET slot = v.slot FROM v WHERE o.id = v.id
            """
    }
}
