// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// The table that says which region is home, and the statements on it.
///
/// Who writes rows holds the lock of ``FleetSchema`` beside others until its transaction is over, and looks behind it
/// which promotion is the newest; who adds one holds it alone. So a database that is fenced has every write that was
/// acknowledged, and takes none behind it.
enum HomeSchema {
    /// What makes the table. `fenced` says that another region is to be home, or is; `whole`, beside that, that this
    /// promotion is in its last step. Of a home `previous`, `included` and `whole` are the succession of the stream's
    /// numbering; `seen` is up to when nothing is missing.
    static let part = PostgresSchema.Part.table(
        "martlet_home",
        "epoch bigint PRIMARY KEY, region text NOT NULL, fenced boolean NOT NULL, previous bigint NOT NULL, "
            + "included text NOT NULL, whole boolean NOT NULL, at bigint NOT NULL, seen bigint NOT NULL")

    /// Fails where the table is missing.
    static let check = "SELECT count(*) FROM martlet_home"

    /// Statements that need the rights of a region that another one takes over, or that takes over, and change nothing.
    /// A fence that could not be taken back would leave no region home.
    static let rights = [
        "INSERT INTO martlet_home SELECT * FROM martlet_home WHERE false "
            + "ON CONFLICT (epoch) DO UPDATE SET whole = true",
        "DELETE FROM martlet_home WHERE false",
        "INSERT INTO martlet_meta SELECT * FROM martlet_meta WHERE false "
            + "ON CONFLICT (name) DO UPDATE SET number = EXCLUDED.number",
        "DELETE FROM martlet_meta WHERE false", "DELETE FROM martlet_lease WHERE false",
    ]

    /// The newest promotion; no row before the first.
    static let newest = "SELECT epoch, region, fenced FROM martlet_home ORDER BY epoch DESC LIMIT 1"
    private static let last = "ORDER BY epoch DESC LIMIT 1"
    /// The fences in their last step, the newest last: each stays one whatever comes above it, but for a home.
    static let claims = "SELECT epoch, region FROM martlet_home WHERE \(isClaimed) ORDER BY epoch"
    private static let isClaimed =
        "fenced AND whole AND epoch > (SELECT coalesce(max(epoch), 0) FROM martlet_home WHERE NOT fenced)"

    /// Whether another region's promotion is in its last step.
    private static func isContested(_ term: HomeTerm) -> String {
        "EXISTS (SELECT 1 FROM martlet_home WHERE \(isClaimed) AND region <> \(text(term.region)))"
    }

    /// Fails with SQLSTATE 2201F unless the promotion is the newest, and the database is not fenced. Behind
    /// ``FleetSchema/share``.
    static let fence = """
        SELECT sqrt(CASE WHEN (SELECT coalesce(max(epoch), 0) FROM martlet_home) = $1
          AND NOT EXISTS (SELECT 1 FROM martlet_home WHERE epoch = $1 AND fenced) THEN 1 ELSE -1 END)
        """
    /// What a write is refused with whose promotion is not the newest, or whose database is fenced.
    static let fencedState = "2201F"

    private static let now = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

    /// Home says that it is there, and which numbering its stream has. What was acknowledged before is in every copy of
    /// the database that has this.
    ///
    /// One that is fenced says nothing: another region may be home, and acknowledge what is not here.
    static let heartbeat =
        "INSERT INTO martlet_meta SELECT * FROM (VALUES ('home_seen', \(now)), ('stream_identity', "
        + "\(StreamSchema.epoch))) v WHERE NOT (\(isFenced)) ON CONFLICT (name) DO UPDATE SET number = EXCLUDED.number"

    /// Whether the database is fenced: what its stream has is then not everything.
    static let isFenced =
        "SELECT EXISTS (SELECT 1 FROM martlet_home WHERE fenced "
        + "AND epoch = (SELECT max(epoch) FROM martlet_home))"

    /// What a database says of itself; in text.
    static let look = [
        "SELECT pg_is_in_recovery()", newest,
        "SELECT epoch, region, fenced FROM martlet_home WHERE NOT fenced \(last)", claims,
        "SELECT name, number FROM martlet_meta WHERE name IN ('stream_source', 'home_seen')",
    ]

    /// Fences for a promotion, unless it was taken back before, or there is a home as new, a fence of the same number,
    /// or one of another region that is in its last step. Gives the newest, those in their last step, and whether it
    /// was taken back.
    static func fence(for term: HomeTerm) -> [String] {
        let (number, bits) = (term.number, HomeTerm.identityBits)
        return FleetSchema.seize + [
            """
            INSERT INTO martlet_home SELECT \(term.epoch), \(text(term.region)), true, 0, '', false, \(now), 0
            WHERE NOT EXISTS (SELECT 1 FROM martlet_meta WHERE name = '\(mark(term))')
              AND NOT EXISTS (SELECT 1 FROM martlet_home WHERE epoch >= \(term.epoch))
              AND NOT EXISTS (SELECT 1 FROM (SELECT epoch, fenced FROM martlet_home \(last)) n
                WHERE n.fenced AND n.epoch >> \(bits) >= \(number))
              AND NOT \(isContested(term))
            """,
            newest, claims, "SELECT count(*) FROM martlet_meta WHERE name = '\(mark(term))'",
        ]
    }

    /// Goes on to the last step of a promotion that is the newest, unless another region's is in it: that may be known
    /// to hold, and was written down below. Gives the newest, and those in their last step.
    static func claim(_ term: HomeTerm) -> [String] {
        FleetSchema.seize + [
            "UPDATE martlet_home SET whole = true WHERE epoch = \(term.epoch) AND fenced "
                + "AND region = \(text(term.region)) AND epoch = (SELECT max(epoch) FROM martlet_home) "
                + "AND NOT \(isContested(term))",
            newest, claims,
        ]
    }

    /// Takes a fence back, and nothing else: another promotion's is taken back by who knows that it came to nothing.
    /// One that is still on its way comes behind the mark that is left, and to nothing. Gives the newest.
    static func release(_ term: HomeTerm) -> [String] {
        FleetSchema.seize + [
            "DELETE FROM martlet_home WHERE epoch = \(term.epoch) AND region = \(text(term.region)) AND fenced",
            "INSERT INTO martlet_meta VALUES ('\(mark(term))', \(now)) ON CONFLICT (name) DO NOTHING",
            "DELETE FROM martlet_meta WHERE left(name, 14) = 'home_released ' "
                + "AND number < \(now) - \(markMilliseconds)",
            newest,
        ]
    }

    /// How long it is remembered that a fence was taken back: longer than any statement is on its way.
    private static let markMilliseconds = 7 * 86_400_000

    private static func mark(_ term: HomeTerm) -> String { "home_released \(term.epoch)" }

    /// Fences for a promotion that holds, unless this region has been home since; a fence of it that is there, whose
    /// claim never came, is in its last step from now on. A newer fence does not keep it out: that one may be taken
    /// back. Gives the newest.
    static func yield(to term: HomeTerm) -> [String] {
        FleetSchema.seize + [
            "INSERT INTO martlet_home SELECT \(term.epoch), \(text(term.region)), true, 0, '', true, \(now), 0 "
                + "WHERE NOT EXISTS (SELECT 1 FROM martlet_home WHERE NOT fenced AND epoch > \(term.epoch)) "
                + "ON CONFLICT (epoch) DO UPDATE SET whole = true "
                + "WHERE martlet_home.fenced AND martlet_home.region = EXCLUDED.region",
            newest,
        ]
    }

    /// Ends a standby's following.
    static let endRecovery = "SELECT pg_promote(true, 60)"

    /// Says that a region is home, in a database that takes writes, and begins another numbering that goes on where the
    /// one before is. Versions are above all that the old home can have given until now, by clocks that differ by less
    /// than a second; leases of its nodes are void. Where a newer promotion is known, or another region's is in its
    /// last step and `overrides` is not set, nothing is done; where it is set, something may be missing. Gives the
    /// newest promotion, whether nothing is missing, and up to when that is so.
    static func promote(to term: HomeTerm, isWhole: Bool, overrides: Bool) -> [String] {
        let isHome = "EXISTS (SELECT 1 FROM martlet_home WHERE epoch = \(term.epoch) AND NOT fenced AND at = \(stamp))"
        let unclaimed = overrides ? "" : "AND NOT \(isContested(term))"
        return FleetSchema.seize + [
            StreamSchema.lock,
            """
            INSERT INTO martlet_home SELECT \(term.epoch), \(text(term.region)), false,
              coalesce((SELECT number FROM martlet_meta WHERE name = 'stream_identity'), 0),
              (SELECT string_agg(last::text, ',' ORDER BY slot) FROM martlet_stream_slot),
              \(isWhole) AND NOT \(isContested(term)), \(stamp),
              coalesce((SELECT number FROM martlet_meta WHERE name = 'home_seen'), 0)
            WHERE NOT EXISTS (SELECT 1 FROM martlet_home WHERE epoch > \(term.epoch)) \(unclaimed)
            ON CONFLICT (epoch) DO UPDATE SET fenced = false, previous = EXCLUDED.previous,
              included = EXCLUDED.included, whole = EXCLUDED.whole, at = EXCLUDED.at, seen = EXCLUDED.seen
              WHERE martlet_home.fenced AND martlet_home.region = EXCLUDED.region
            """,
            "UPDATE martlet_meta SET number = \(StreamSchema.promoted(term)) WHERE name = 'stream_epoch' AND \(isHome)",
            "INSERT INTO martlet_meta SELECT 'stream_promoted', \(StreamSchema.epoch) WHERE \(isHome) "
                + "ON CONFLICT (name) DO UPDATE SET number = EXCLUDED.number",
            "UPDATE martlet_meta SET number = GREATEST(number, (\(now) + 1000) << 16) WHERE name = 'version_mark'",
            "DELETE FROM martlet_lease WHERE \(isHome)",
            "SELECT epoch, region, fenced, whole, seen FROM martlet_home \(last)",
        ]
    }

    /// When the transaction began, in milliseconds of Unix time.
    private static let stamp = "(extract(epoch FROM transaction_timestamp()) * 1000)::bigint"

    /// What the newest home took over, and the epoch that its promotion began, which alone goes on behind that; no row
    /// where there was none.
    static let succession = """
        SELECT previous, included, whole,
          coalesce((SELECT number FROM martlet_meta WHERE name = 'stream_promoted'), 0)
        FROM martlet_home WHERE NOT fenced \(last)
        """

    /// What such a row says; nil for one that makes no sense.
    static func succession(_ row: [[UInt8]?]) -> (succession: StreamSuccession, epoch: Int64)? {
        let texts = row.compactMap { $0.map { String(decoding: $0, as: UTF8.self) } }
        guard texts.count == 4, let previous = Int64(texts[0]), let epoch = Int64(texts[3]) else { return nil }
        let included = texts[1].split(separator: ",").compactMap { Int64($0) }
        guard included.count == StreamSlots.count else { return nil }
        return (StreamSuccession(previous: previous, included: included, isWhole: texts[2] == "t"), epoch)
    }

    /// How many changes there are that the home of a succession does not have, and the times of the first and the last.
    /// Those that were committed and not numbered are among them, though some may be there. A database that was home
    /// itself behind the same numbering, by a promotion that another one overtook, has given numbers of its own since.
    static func leftBehind(_ succession: StreamSuccession) -> String {
        let rows = succession.included.enumerated().map { "(\($0.offset), \($0.element)::bigint)" }
        return """
            WITH own AS (SELECT string_to_array(included, ',') AS numbers FROM martlet_home
              WHERE NOT fenced AND previous = \(succession.previous) ORDER BY epoch DESC LIMIT 1)
            SELECT count(*), coalesce(min(ts), 0), coalesce(max(ts), 0), \(StreamSchema.epoch),
              (SELECT count(*) FROM own) FROM (
              SELECT s.ts FROM martlet_stream s JOIN (VALUES \(rows.joined(separator: ", "))) AS v (slot, seq)
                ON s.slot = v.slot
                WHERE s.seq > LEAST(v.seq, (SELECT numbers[v.slot + 1]::bigint FROM own))
              UNION ALL SELECT ts FROM martlet_outbox) x
            """
    }

    private static func text(_ name: String) -> String {
        "convert_from('\\x\(Hexadecimal.digits(Array(name.utf8)))'::bytea, 'UTF8')"
    }
}
