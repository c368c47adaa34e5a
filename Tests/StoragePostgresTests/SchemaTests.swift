// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import StoragePostgres
import Testing

/// Tables of other versions, and the session that pages of rows are read by.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct SchemaTests {
    /// What a database consists of.
    private func shape(_ server: TestServer) throws -> String {
        try server.sql(
            "SELECT string_agg(relname || ' ' || coalesce(attname, ''), ',' ORDER BY relname, attnum) FROM pg_class c "
                + "LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
                + "WHERE relname LIKE 'martlet%'")
            + (try server.sql("SELECT to_regclass('martlet_meta')").isEmpty
                ? "" : server.sql("SELECT * FROM martlet_meta ORDER BY name"))
    }

    @Test(arguments: [2, 0]) func aDatabaseOfAnotherFormatIsLeftAsItIs(_ format: Int) throws {
        let server = try TestServer()
        let configuration = PostgresConfiguration(url: server.url)
        try PostgresBackend.createTables(configuration)
        // The other version has no lease, its outbox no slots, and it knows nothing of streams.
        try server.sql(
            "DROP TABLE martlet_lease; ALTER TABLE martlet_outbox DROP COLUMN slot; DROP TABLE martlet_stream; "
                + "DELETE FROM martlet_meta WHERE name = 'stream_epoch'; "
                + "UPDATE martlet_meta SET number = \(format) WHERE name = 'format'")
        let before = try shape(server)
        do throws(StorageStartError) {
            try PostgresBackend.createTables(configuration)
            Issue.record("format \(format) was taken")
        } catch {
            #expect(error.description.contains("the tables have format \(format)"))
            #expect(error.description.contains(format > 1 ? "knows formats up to 1" : "numbered from 1"))
        }
        #expect(try shape(server) == before)
        let backend = PostgresBackend(configuration)
        #expect(throws: StorageStartError.self) { try backend.start(Answers()) }
    }

    @Test func aServerThatListsNoSessionsIsRefusedBeforeAnythingIsMade() throws {
        let server = try TestServer()
        // As CockroachDB: the list is there, and empty.
        try server.sql("CREATE VIEW pg_stat_activity AS SELECT * FROM pg_catalog.pg_stat_activity WHERE false")
        let configuration = PostgresConfiguration(url: server.url + "&options=-csearch_path%3Dpublic,pg_catalog")
        func reason(_ body: () throws(StorageStartError) -> Void) -> String {
            do throws(StorageStartError) { try body() } catch { return error.description }
            return "taken"
        }
        let words = "does not list its sessions in pg_stat_activity"
        let said = reason { () throws(StorageStartError) in try PostgresBackend.createTables(configuration) }
        #expect(said.contains(words))
        #expect(try shape(server).isEmpty)
        try PostgresBackend.createTables(PostgresConfiguration(url: server.url))
        let backend = PostgresBackend(configuration)
        #expect(reason { () throws(StorageStartError) in try backend.start(Answers()) }.contains(words))
    }

    @Test func whatAnEarlierVersionOfTheFormatLacksIsAddedAndItsRowsStay() throws {
        let bed = try SQLBed()
        let version = bed.write(.set, "k", "v").version
        bed.backend.stop()
        let whole = try shape(bed.server)
        try bed.server.sql("DROP TABLE martlet_lease; ALTER TABLE martlet_outbox DROP COLUMN slot")
        try PostgresBackend.createTables(bed.configuration)
        #expect(try shape(bed.server).split(separator: ",").count == whole.split(separator: ",").count)
        try bed.restart()
        #expect(bed.text("k") == "v")
        #expect(bed.write(.append, "k", "!").version > version)
    }

    @Test func oneSessionReadsAllPagesAndGoesWhenNobodyAsks() throws {
        let bed = try SQLBed { $0.scanIdleMilliseconds = 500 }
        let tokens = (0..<600).map { number -> UInt64 in
            let token = bed.nextToken()
            let write = SQLBed.make(.set, "k\(1_000 + number)", "v")
            bed.backend.write([SubmittedWrite(token: token, write: write)])
            return token
        }
        for token in tokens { #expect(bed.answers.write(token).version > 0) }
        try bed.server.sql("ALTER SYSTEM SET log_connections = on")
        try bed.server.sql("SELECT pg_reload_conf()")
        usleep(300_000)
        func connections() throws -> Int {
            try String(contentsOfFile: bed.server.directory + "/log", encoding: .utf8)
                .components(separatedBy: "connection authorized").filter { $0.contains("application_name=martlet") }
                .count
        }
        let before = try connections()
        let sessions = try bed.server.sessions().count
        var (keys, last): ([[UInt8]], [UInt8]) = ([], [])
        for _ in 0..<100 {
            let page = try bed.backend.scan(prefix: [], after: last, ScanBounds(rows: 20))
            keys += page.rows.map(\.key)
            guard let end = page.next else { break }
            last = end
        }
        #expect(keys == (0..<600).map { Array("k\(1_000 + $0)".utf8) })
        #expect(try connections() == before + 1)
        // Set up as the others are.
        #expect(try bed.server.sessions().count == sessions + 1)
        for _ in 0..<200 {
            if try bed.server.sessions().count == sessions { break }
            usleep(50_000)
        }
        #expect(try bed.server.sessions().count == sessions, "nobody asked for half a second")
        // And the next page finds another one, also when the server ends it.
        #expect(try bed.backend.scan(prefix: [], after: last.dropLast() + [0], ScanBounds(rows: 2)).rows.count > 0)
        try bed.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                + "WHERE query LIKE '%AS before%' AND application_name LIKE 'martlet %'")
        #expect(try bed.backend.scan(prefix: [], after: [], ScanBounds(rows: 2)).rows.count == 2)
    }

    @Test func aPageThatTakesTooLongIsRefusedByTheServer() throws {
        let bed = try SQLBed {
            $0.statementTimeoutMilliseconds = 300
            $0.readers = 1
        }
        for index in 0..<5 { bed.write(.set, "k\(index)", "v") }
        try bed.server.sql(
            """
            CREATE FUNCTION dawdle() RETURNS bytea LANGUAGE plpgsql VOLATILE
              AS $$ BEGIN PERFORM pg_sleep(20); RETURN ''; END $$;
            ALTER TABLE martlet_kv RENAME TO rows;
            CREATE VIEW martlet_kv AS
              SELECT k, ver, exp, flags, del, CASE WHEN k = 'k3' THEN dawdle() ELSE val END AS val FROM rows
            """)
        let behind = Array("k3".utf8)
        #expect(try bed.backend.scan(prefix: [], after: behind, ScanBounds(rows: 200)).rows.count == 1)
        let began = Date()
        do throws(StorageFailure) {
            _ = try bed.backend.scan(prefix: [], after: Array("k2".utf8), ScanBounds(rows: 200))
            Issue.record("a page that takes 20 s was read")
        } catch { #expect(error.reason.contains("statement timeout"), "\(error.reason)") }
        // Before the server's answer the client would wait for two seconds more.
        #expect(Date().timeIntervalSince(began) < 10)
        #expect(try bed.backend.scan(prefix: [], after: behind, ScanBounds(rows: 200)).rows.count == 1)
    }
}
