// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import StoragePostgres
import Testing

/// Databases in which others did something odd: it costs the commands that meet it, and no others.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct OddDatabaseTests {
    @Test func aVersionOutOfRangeIsRefusedAndNeverReachesTheClock() throws {
        let bed = try SQLBed { $0.writers = 1 }
        let before = bed.write(.set, "good", "v").version
        for (key, version) in [("below", "-1"), ("above", "9223372036854775807")] {
            try bed.server.sql("INSERT INTO martlet_kv VALUES ('\(key)', \(version), 0, 0, false, 'v')")
        }
        let odd = StorageFailure(.refused, "the row's version is out of range")
        let reads = ["below", "good", "above"].map { StorageRead(token: bed.nextToken(), key: Array($0.utf8)) }
        bed.backend.read(reads)
        #expect(bed.answers.read(reads[0].token) == .failed(odd))
        #expect(bed.answers.read(reads[2].token) == .failed(odd))
        guard case .found? = bed.answers.read(reads[1].token) else {
            Issue.record("a good row was not found")
            return
        }
        for operation: StorageWrite.Operation in [.add, .append, .increment, .touch, .delete] {
            for key in ["below", "above"] { #expect(bed.write(operation, key, "1") == .failed(odd)) }
        }
        // A dump passes over them, whatever its pages are.
        for rows in [1, 2, 100] {
            let (found, damage) = try pages(bed, rows: rows)
            #expect(found == ["good"], "pages of \(rows)")
            #expect(damage.map(\.key) == [Array("above".utf8), Array("below".utf8)])
            #expect(damage.allSatisfy { $0.isOneRow && $0.reason == odd.reason })
        }
        let after = bed.write(.append, "good", "w").version
        #expect(after > before && after < before + 1 << 32)
        // Also where the transaction has two of them.
        let two = (0..<2).map { number in
            SubmittedWrite(token: bed.nextToken(), write: SQLBed.make(.set, "below", number == 0 ? "first" : "mended"))
        }
        bed.backend.write(two)
        for write in two { #expect((1..<before + 1 << 32).contains(bed.answers.write(write.token).version)) }
        #expect(bed.text("below") == "mended")
        for key in ["below", "above"] {
            #expect(bed.write(.set, key, "mended").version < before + 1 << 32)
            #expect(bed.write(.append, key, "!").version > after)
            #expect(bed.text(key) == "mended!")
        }
        try bed.server.sql("UPDATE martlet_meta SET number = 9223372036854775807 WHERE name = 'version_mark'")
        #expect(throws: StorageStartError("storage: the row version_mark of the table martlet_meta is out of range")) {
            try bed.restart()
        }
    }

    private func pages(_ bed: SQLBed, rows: Int) throws -> (keys: [String], damage: [ScanDamage]) {
        var (keys, damage, next): ([String], [ScanDamage], [UInt8]?) = ([], [], [])
        while let last = next {
            let page = try bed.backend.scan(prefix: [], after: last, ScanBounds(rows: rows))
            keys += page.rows.map { String(decoding: $0.key, as: UTF8.self) }
            damage += page.damage
            next = page.next
        }
        return (keys, damage)
    }

    @Test func rowsThatNoClientCanHaveEndNoScan() throws {
        let bed = try SQLBed()
        for key in ["a", "k", "z"] { bed.write(.set, key, key) }
        for length in [0, 251, 300, 3_000] {
            try bed.server.sql("INSERT INTO martlet_kv VALUES (repeat('k', \(length))::bytea, 1, 0, 0, false, 'v')")
        }
        try bed.server.sql(
            "INSERT INTO martlet_kv VALUES ('flags', 1, 0, -1, false, 'v'), ('many', 1, 0, 1::bigint << 40, false, 'v')"
        )
        for rows in [1, 3, 100] {
            let (found, damage) = try pages(bed, rows: rows)
            #expect(found == ["a", "flags", "k", "many", "z"] && damage.isEmpty, "pages of \(rows)")
        }
    }

    @Test func aStretchOfDeadRowsIsPassedPageByPage() throws {
        let bed = try SQLBed { $0.statementTimeoutMilliseconds = 1_000 }
        try bed.server.sql(
            """
            INSERT INTO martlet_kv SELECT convert_to('k' || 100000 + n, 'UTF8'), 1, n % 2, 0, n % 2 = 0, ''
              FROM generate_series(1, 20000) n;
            INSERT INTO martlet_kv VALUES ('a', 1, 0, 0, false, 'v'), ('z', 1, 0, 0, false, 'v')
            """)
        let page = try bed.backend.scan(prefix: [], after: [], ScanBounds(rows: 10))
        #expect(page.rows.map(\.key) == [Array("a".utf8)] && page.next != nil && page.next != page.rows.last?.key)
        for rows in [1, 10] { #expect(try pages(bed, rows: rows).keys == ["a", "z"]) }
        // Nothing behind the prefix is looked at.
        let last = try bed.backend.scan(prefix: Array("a".utf8), after: [], ScanBounds(rows: 10))
        #expect(last.rows.count == 1 && last.next == nil)
        // A server that takes a fifth of a millisecond for each row gets past them as well.
        try bed.server.sql(
            """
            CREATE FUNCTION dawdle(del boolean) RETURNS boolean LANGUAGE plpgsql STABLE
              AS $$ BEGIN PERFORM pg_sleep(0.0002); RETURN del; END $$;
            ALTER TABLE martlet_kv RENAME TO rows;
            CREATE VIEW martlet_kv AS SELECT k, ver, exp, flags, dawdle(del) AS del, val FROM rows
            """)
        let slow = try bed.backend.scan(prefix: [], after: Array("k112000".utf8), ScanBounds(rows: 10))
        let next = try #require(slow.next)
        #expect(slow.rows.isEmpty && Array("k112000".utf8).lexicographicallyPrecedes(next))
    }

    @Test func aWriteThatATriggerSwallowsIsRefused() throws {
        let bed = try SQLBed { $0.writers = 1 }
        try bed.server.sql(
            "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN "
                + "IF NEW.val = convert_to(''gone'', ''UTF8'') THEN RETURN NULL; END IF; RETURN NEW; END'")
        try bed.server.sql(
            "CREATE TRIGGER swallow BEFORE INSERT OR UPDATE ON martlet_kv FOR EACH ROW EXECUTE FUNCTION swallow()")
        let writes = [("a", "1"), ("k", "gone"), ("b", "2")].map {
            SubmittedWrite(token: bed.nextToken(), write: SQLBed.make(.set, $0.0, $0.1))
        }
        bed.backend.write(writes)
        #expect(bed.answers.write(writes[0].token).version > 0)
        #expect(bed.answers.write(writes[1].token).failure?.kind == .refused)
        #expect(bed.answers.write(writes[2].token).version > 0)
        #expect(bed.read("k") == .absent)
        #expect(bed.text("a") == "1" && bed.text("b") == "2")
    }

    @Test func aRowThatCannotBeReadFailsNoOther() throws {
        let bed = try SQLBed { $0.readers = 1 }
        let keys = (0..<20).map { "k\($0)" }
        for key in keys { bed.write(.set, key, key) }
        try bed.server.sql(
            """
            CREATE FUNCTION fail() RETURNS bytea LANGUAGE plpgsql STABLE AS $$ BEGIN RAISE 'damaged'; END $$;
            ALTER TABLE martlet_kv RENAME TO rows;
            CREATE VIEW martlet_kv AS SELECT k, ver, exp, flags, del, CASE WHEN k = 'k7' THEN fail() ELSE val END AS val
              FROM rows
            """)
        let reads = keys.map { StorageRead(token: bed.nextToken(), key: Array($0.utf8)) }
        bed.backend.read(reads)
        for (key, read) in zip(keys, reads) {
            switch bed.answers.read(read.token) {
            case .found(let row)?: #expect(key != "k7" && row.value == Array(key.utf8))
            case .failed(let failure)?: #expect(key == "k7" && failure.kind == .refused, "\(key): \(failure)")
            default: Issue.record("\(key) is lost")
            }
        }
        #expect(bed.figure("reads_failed") == 1)
        for rows in [1, 3, 100] {
            var (found, damage, after): ([[UInt8]], [ScanDamage], [UInt8]?) = ([], [], [])
            while let last = after {
                let page = try bed.backend.scan(prefix: Array("k".utf8), after: last, ScanBounds(rows: rows))
                found += page.rows.map(\.key)
                damage += page.damage
                after = page.next
            }
            #expect(found == keys.filter { $0 != "k7" }.sorted().map { Array($0.utf8) }, "pages of \(rows)")
            #expect(damage.map(\.key) == [Array("k7".utf8)] && damage.allSatisfy(\.isOneRow))
            #expect(damage.first?.reason.contains("damaged") == true)
        }
    }

    /// Who asked has given up by then.
    @Test func whatIsOutOfTimeIsNotTriedAgain() throws {
        let bed = try SQLBed {
            $0.writers = 1
            $0.statementTimeoutMilliseconds = 1_000
            $0.waitingMilliseconds = 800
        }
        bed.write(.set, "k", "0")
        try bed.server.slowDown(seconds: 3)
        let writes = [("a", "1"), ("k", "slow")].map {
            SubmittedWrite(token: bed.nextToken(), write: SQLBed.make(.set, $0.0, $0.1))
        }
        bed.backend.write(writes)
        for write in writes { #expect(bed.answers.write(write.token).failure?.kind == .refused) }
        #expect(bed.read("a") == .absent)
        #expect(bed.text("k") == "0")
    }

    @Test func aServerThatListsNoSessionsIsRefused() throws {
        let server = try TestServer()
        try PostgresBackend.createTables(PostgresConfiguration(url: server.url))
        try server.sql("CREATE VIEW public.pg_stat_activity AS SELECT * FROM pg_catalog.pg_stat_activity WHERE false")
        let path = "&options=-csearch_path%3Dpublic,pg_catalog"
        let backend = PostgresBackend(PostgresConfiguration(url: server.url + path))
        do throws(StorageStartError) {
            try backend.start(Answers())
            backend.stop()
            Issue.record("it started")
        } catch { #expect(error.description.contains("does not list its sessions")) }
    }
}
