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
        let after = bed.write(.append, "good", "w").version
        #expect(after > before && after < before + 1 << 32)
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
