// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// The statements of the stream. They run under one lock of the database, so that there is one publisher at a time: it
/// takes committed records out of the outbox, gives them their numbers, and puts them in the table of the stream, in
/// one transaction. A record is visible only when its transaction is over, and nothing but publishing takes it away: so
/// none is passed over, however long a transaction takes; and of one key's records the versions give the order.
enum StreamSchema {
    /// Fails where the tables, or columns of them, are missing.
    static let check = "SELECT (SELECT count(*) FROM martlet_stream_slot), (SELECT trace FROM martlet_stream LIMIT 1)"

    /// Statements that need the rights of those who publish, and change nothing.
    static let rights = [
        identity, publish(limit: 0), CaptureSchema.place([(id: -1, slot: 0)]), beginEpoch(after: -1),
        release([(slot: -1, through: 0)]), remove(after: 0, through: -1),
    ]

    /// Sequences that the role may take no number of.
    static let closedSequences = """
        SELECT name FROM unnest(ARRAY['martlet_stream_pub', pg_get_serial_sequence('martlet_outbox', 'id')]) name
        WHERE name IS NOT NULL AND NOT has_sequence_privilege(name, 'USAGE, UPDATE')
        """

    /// Waits for the lock, which the transaction holds to its end.
    static let lock = "SELECT pg_advisory_xact_lock(5570748134)"

    /// Milliseconds of Unix time by the database's clock: when records are let go, no clock of a node counts.
    private static let now = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

    /// Publishes the oldest records whose slots are known; gives how many. Of a key's the versions give the order; but
    /// none comes before another program's that was put there before it: that row may have been deleted, and made again
    /// with a lower version. (What another program did has no pool.)
    static func publish(limit: Int) -> String {
        """
        WITH d AS (DELETE FROM martlet_outbox WHERE id IN (SELECT id FROM martlet_outbox WHERE slot >= 0
            ORDER BY id LIMIT \(limit))
          RETURNING id, op, pool, slot, k, ver, exp, ts, trace),
        w AS (SELECT d.id, max(d.ver) FILTER (WHERE d.pool < 0) OVER (PARTITION BY d.k ORDER BY d.id) AS least
          FROM d WHERE d.k IN (SELECT k FROM d WHERE pool < 0)),
        n AS (SELECT d.*, s.last
            + row_number() OVER (PARTITION BY d.slot ORDER BY GREATEST(d.ver, w.least), d.id) AS seq
          FROM d JOIN martlet_stream_slot s ON s.slot = d.slot LEFT JOIN w ON w.id = d.id),
        i AS (INSERT INTO martlet_stream (pub, slot, seq, op, pool, k, ver, exp, ts, trace, at)
          SELECT nextval('martlet_stream_pub'), slot, seq, op, pool, k, ver, exp, ts, trace, \(now)
          FROM (SELECT * FROM n ORDER BY slot, seq) o),
        u AS (UPDATE martlet_stream_slot t SET last = m.last
          FROM (SELECT slot, max(seq) AS last FROM n GROUP BY slot) m WHERE t.slot = m.slot)
        SELECT count(*) FROM d
        """
    }

    /// What was published behind `place`, in order.
    static func read(after place: Int64, limit: Int) -> String {
        "SELECT pub, \(columns) FROM martlet_stream WHERE pub > \(place) ORDER BY pub LIMIT \(limit)"
    }

    /// Records of one slot behind a number.
    static func read(slot: Int, after sequence: Int64, limit: Int) -> String {
        "SELECT pub, \(columns) FROM martlet_stream WHERE slot = \(slot) AND seq > \(sequence) "
            + "ORDER BY seq LIMIT \(limit)"
    }

    private static let columns = "slot, seq, op, pool, encode(k, 'hex'), ver, exp, ts, trace"

    /// The source and its epoch: the table's own, and the server's timeline, which changes when a standby takes over
    /// and may lack what the old server committed last.
    static let identity = """
        SELECT (SELECT number FROM martlet_meta WHERE name = 'stream_source'), \(epoch),
          (SELECT coalesce(max(pub), 0) FROM martlet_stream)
        """

    /// The epoch that records have.
    static let epoch = """
        ((SELECT number FROM martlet_meta WHERE name = 'stream_epoch') << 32 | \(timeline))
        """

    /// The timeline that a primary writes on, from the moment on that it takes writes. (`pg_control_checkpoint` tells
    /// it a checkpoint later.)
    static let timeline = "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint"

    /// The table's part of the epoch behind a promotion. Two standbys of one server that are both promoted have one
    /// source and one timeline, and what they commit differs: the promotions' numbers and bits tell them apart, and
    /// order them as the promotions are ordered. Followers refuse an epoch before theirs.
    static func promoted(_ term: HomeTerm) -> String {
        let bits = term.epoch >> (HomeTerm.identityBits - 16) & 0xFFFF
        return "greatest((number >> 16) + 1, \(term.number)) << 16 | \(bits)"
    }

    /// The epoch, and of each slot the last number and the one that what is kept follows.
    static let state = """
        SELECT (SELECT number FROM martlet_meta WHERE name = 'stream_epoch'),
          (SELECT string_agg(slot || ':' || last || ':' || kept, ',') FROM martlet_stream_slot)
        """

    /// What is in the place of a record: nothing where it was let go.
    static func mark(_ place: Int64) -> String {
        "SELECT slot, seq, ver FROM martlet_stream WHERE pub = \(place)"
    }

    /// Begins another epoch, unless another node did.
    static func beginEpoch(after epoch: Int64) -> String {
        "UPDATE martlet_meta SET number = number + 1 WHERE name = 'stream_epoch' AND number = \(epoch)"
    }

    /// How many records are not published yet, at most `limit`; about how many bytes one has that is, in the table and
    /// its indexes; and how many triggers capture what other programs do.
    static func surroundings(limit: Int) -> String {
        """
        SELECT (SELECT count(*) FROM (SELECT 1 FROM martlet_outbox LIMIT \(limit)) o),
          (SELECT coalesce(avg(pg_column_size(s.*)), 0)::bigint + \(indexBytes)
            FROM (SELECT * FROM martlet_stream ORDER BY pub DESC LIMIT 256) s), \(CaptureSchema.working)
        """
    }

    /// What a record takes beside its columns: a pointer to it in its page, and an entry in each of two indexes.
    private static let indexBytes = 48

    /// Whether a node said a moment ago that this database is home and followed; and how many triggers make records of
    /// what nodes do that do not say so.
    static let isFollowed = """
        SELECT EXISTS (SELECT 1 FROM martlet_meta WHERE name = 'home_seen' AND number > \(now) - 60000),
          \(CaptureSchema.recording)
        """

    // MARK: Letting records go

    // In three transactions: what is old is found without the lock, said to be gone under it, and removed without it.
    // Nobody waits for more than one update of 64 rows. What is read behind `place` is bounded, so that nothing depends
    // on how large the table is.

    /// By slot, the last number and place of the records that are next to be let go, and how many there are: those that
    /// are too old, and the first `excess` in any case.
    static func old(after place: Int64, keepMilliseconds: Int64, excess: Int64, limit: Int) -> String {
        """
        WITH o AS (SELECT pub, slot, seq, at, row_number() OVER (ORDER BY pub) AS n FROM martlet_stream
          WHERE pub > \(place) ORDER BY pub LIMIT \(limit)),
        y AS (SELECT min(pub) AS pub FROM o WHERE at >= \(now) - \(keepMilliseconds) AND n > \(excess))
        SELECT slot, max(seq), max(pub), count(*) FROM o WHERE pub < coalesce((SELECT pub FROM y), \(Int64.max))
        GROUP BY slot
        """
    }

    /// Says that records of slots are not kept up to some numbers.
    static func release(_ slots: [(slot: Int64, through: Int64)]) -> String {
        let rows = slots.map { "(\($0.slot), \($0.through))" }.joined(separator: ", ")
        return "UPDATE martlet_stream_slot t SET kept = GREATEST(t.kept, v.seq) "
            + "FROM (VALUES \(rows)) AS v (slot, seq) WHERE t.slot = v.slot"
    }

    /// Removes records.
    static func remove(after place: Int64, through end: Int64) -> String {
        "DELETE FROM martlet_stream WHERE pub > \(place) AND pub <= \(end)"
    }

    // MARK: Rows

    /// The rows of keys in hexadecimal digits: which one, its numbers, whether it is among those whose values have
    /// `limitBytes` together, the value unless it is too long, and how long it is.
    static func rows(_ keys: [String], limitBytes: Int, valueMax: Int) -> String {
        let list = keys.map { "decode('\($0)', 'hex')" }.joined(separator: ", ")
        let size = "(CASE WHEN octet_length(t.val) <= \(valueMax) THEN octet_length(t.val) ELSE 0 END)"
        return """
            SELECT n, ver, exp, flags, fits, CASE WHEN fits AND octet_length(val) <= \(valueMax)
              THEN encode(val, 'hex') END, octet_length(val)
            FROM (SELECT w.n, t.ver, t.exp, t.flags, t.val,
                sum(\(size)) OVER (ORDER BY w.n) - \(size) < \(limitBytes) AS fits
              FROM unnest(ARRAY[\(list)]) WITH ORDINALITY AS w (k, n) JOIN martlet_kv t ON t.k = w.k
              WHERE NOT t.del) x ORDER BY n
            """
    }
}
