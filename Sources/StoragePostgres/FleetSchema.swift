// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// The tables by which the nodes that share a database agree on who owns what, and the statements on them.
///
/// One lock of the database gives everything its order: who writes rows, or says what it adopted, holds it shared until
/// its transaction is over; who changes the ring, or takes a name over, holds it alone. So a change of the ring comes
/// behind every write that carries the epoch before it, and ahead of all that will find the newer epoch; and nobody's
/// lease is from before a change unless it was there when the change was made.
enum FleetSchema {
    /// What makes the tables, where they are missing.
    static let parts = [
        PostgresSchema.Part.table("martlet_ring", "epoch bigint PRIMARY KEY, members bytea NOT NULL"),
        .table(
            "martlet_lease",
            "name text PRIMARY KEY, token bigint NOT NULL, epoch bigint NOT NULL, seen timestamptz NOT NULL"),
    ]

    /// Fails where the tables are missing.
    static let check = "SELECT (SELECT count(*) FROM martlet_ring) + (SELECT count(*) FROM martlet_lease)"

    private static let lock = "5570748135"

    /// Waits for the lock beside others.
    static let share = "SELECT pg_advisory_xact_lock_shared(\(lock))"
    /// Waits for the lock alone, and no longer than half a second: whoever writes waits behind it.
    static let seize = [
        "SELECT set_config('lock_timeout', '500', true)", "SELECT pg_advisory_xact_lock(\(lock))",
    ]

    /// Fails with SQLSTATE 2201E unless the epoch is the newest, and the process holds its name. Behind ``share``.
    static let fence = """
        SELECT ln(CASE WHEN (SELECT max(epoch) FROM martlet_ring) = $1
          AND EXISTS (SELECT 1 FROM martlet_lease WHERE name = $2 AND token = $3) THEN 1 ELSE 0 END)
        """
    /// What a write is refused with whose epoch or token is old.
    static let fencedState = "2201E"

    /// A process takes its name; the last statement gives a row where the name was taken and not given back: by the
    /// process itself, too, which then was not told who had it before. See
    /// ``LeaseRequest/takesName(from:ageMilliseconds:)``. Fails with SQLSTATE 2201E where nodes with other settings say
    /// something: such count only once all have been silent for longer than any lease.
    static func join(_ request: LeaseRequest) -> [String] {
        let (name, token, settings) = (text(request.name), number(request.token), number(request.settings))
        let areAlike = "EXISTS (SELECT 1 FROM martlet_meta WHERE name = 'ring_settings' AND number = \(settings))"
        let isAnyAwake =
            "EXISTS (SELECT 1 FROM martlet_lease WHERE token <> 0 "
            + "AND seen > clock_timestamp() - interval '2 minutes')"
        let silence = "interval '\(request.silenceMilliseconds) milliseconds'"
        let condition =
            request.silenceMilliseconds == 0
            ? ""
            : " WHERE l.token IN (0, \(token)) OR l.seen <= clock_timestamp() - \(silence)"
                + (request.isRestart ? " OR l.token >> 32 = \(token) >> 32" : "")
        return [
            "DELETE FROM martlet_lease WHERE NOT \(areAlike) AND NOT \(isAnyAwake)",
            "INSERT INTO martlet_meta VALUES ('ring_settings', \(settings)) ON CONFLICT (name) DO UPDATE "
                + "SET number = EXCLUDED.number WHERE NOT \(isAnyAwake)",
            "SELECT ln(CASE WHEN \(areAlike) THEN 1 ELSE 0 END)",
            """
            WITH o AS (SELECT 1 AS one FROM martlet_lease WHERE name = \(name) AND token <> 0),
            i AS (INSERT INTO martlet_lease AS l VALUES (\(name), \(token), 0, clock_timestamp())
              ON CONFLICT (name) DO UPDATE SET token = EXCLUDED.token, epoch = 0, seen = EXCLUDED.seen\(condition))
            SELECT one FROM o
            """,
        ]
    }

    /// A node says what it adopted; gives a row where it holds its name.
    static func say(_ request: LeaseRequest) -> String {
        "UPDATE martlet_lease SET epoch = \(request.adopted), seen = clock_timestamp() "
            + "WHERE name = \(text(request.name)) AND token = \(number(request.token)) RETURNING 1"
    }

    /// The rings from an epoch on; all that are kept where that one is not there any more.
    static func rings(from epoch: UInt64) -> String {
        "SELECT epoch, encode(members, 'hex') FROM martlet_ring WHERE epoch >= "
            + "coalesce((SELECT max(epoch) FROM martlet_ring WHERE epoch = \(epoch)), 0) ORDER BY epoch"
    }

    /// What every node said, and how long ago.
    static let nodes =
        "SELECT name, epoch, (extract(epoch FROM clock_timestamp() - seen) * 1000)::bigint "
        + "FROM martlet_lease ORDER BY name"

    /// Another ring behind the one of an epoch, if that is the newest; forgets those that are long past.
    static func change(after epoch: UInt64, to members: [RingMember]) -> [String] {
        let hexadecimal = Hexadecimal.digits(RingText.write(members))
        return [
            "INSERT INTO martlet_ring SELECT \(epoch + 1), '\\x\(hexadecimal)'::bytea "
                + "WHERE coalesce((SELECT max(epoch) FROM martlet_ring), 0) = \(epoch)",
            "DELETE FROM martlet_ring WHERE epoch <= \(epoch) - 64",
            "DELETE FROM martlet_lease WHERE seen < clock_timestamp() - interval '1 day'",
        ]
    }

    /// A process gives its name back: it shows no copies any more.
    static func release(name: String, token: UInt64) -> String {
        "UPDATE martlet_lease SET token = 0, epoch = \(Int64.max), seen = clock_timestamp() - interval '1 hour' "
            + "WHERE name = \(text(name)) AND token = \(number(token))"
    }

    private static func number(_ token: UInt64) -> Int64 { Int64(bitPattern: token) }

    private static func text(_ name: String) -> String {
        "convert_from('\\x\(Hexadecimal.digits(Array(name.utf8)))'::bytea, 'UTF8')"
    }
}
