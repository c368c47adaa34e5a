// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import StoragePostgres
import Testing

/// What the database refuses is heard of: at the start where it can be, and by the store's health later.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct RightsTests {
    /// A server with our tables and a role that may do everything with them.
    private func server() throws -> TestServer {
        let server = try TestServer()
        try PostgresBackend.createTables(PostgresConfiguration(url: server.url), captures: true)
        try server.sql(
            "CREATE ROLE clerk LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk; "
                + "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO clerk")
        return server
    }

    private func configuration(_ server: TestServer) -> PostgresConfiguration {
        var configuration = PostgresConfiguration(
            url: server.url.replacingOccurrences(of: "user=martlet", with: "user=clerk"))
        configuration.keepsOutbox = true
        configuration.reapMilliseconds = 100
        configuration.refusalMilliseconds = 500
        return configuration
    }

    private func await(_ backend: PostgresBackend, _ isWanted: (StorageHealth) -> Bool) -> Bool {
        for _ in 0..<400 {
            if isWanted(backend.health) { return true }
            usleep(25_000)
        }
        return false
    }

    @Test(arguments: [
        ("DELETE ON martlet_kv", "table martlet_kv"), ("UPDATE ON martlet_meta", "table martlet_meta"),
        ("DELETE ON martlet_outbox", "table martlet_outbox"), ("INSERT ON martlet_stream", "table martlet_stream"),
        ("DELETE ON martlet_meta", "table martlet_meta"), ("INSERT ON martlet_meta", "table martlet_meta"),
        ("DELETE ON martlet_home", "table martlet_home"), ("UPDATE ON martlet_home", "table martlet_home"),
        ("INSERT ON martlet_home", "table martlet_home"), ("DELETE ON martlet_lease", "table martlet_lease"),
        ("USAGE, UPDATE ON SEQUENCE martlet_stream_pub", "sequence martlet_stream_pub"),
        ("USAGE, UPDATE ON SEQUENCE martlet_outbox_id_seq", "martlet_outbox_id_seq"),
    ])
    func aStartWithoutARightSaysWhich(_ right: String, _ name: String) throws {
        let server = try server()
        try server.sql("REVOKE \(right) FROM clerk")
        let backend = PostgresBackend(configuration(server))
        do throws(StorageStartError) {
            try backend.start(Answers())
            backend.stop()
            Issue.record("it started without \(right)")
        } catch {
            #expect(error.description.contains("permission denied for"), "\(error)")
            #expect(error.description.contains(name), "\(error)")
        }
    }

    @Test func whatIsRefusedLaterIsInTheHealth() throws {
        let server = try server()
        let answers = Answers()
        let backend = PostgresBackend(configuration(server))
        try backend.start(answers)
        defer { backend.stop() }
        #expect(self.await(backend) { $0 == .ready })
        var token: UInt64 = 0
        func write(_ key: String) -> WriteOutcome? {
            token += 1
            backend.write([SubmittedWrite(token: token, write: SQLBed.make(.set, key, "v"))])
            return answers.write(token)
        }
        func figure(_ name: String) -> Double {
            backend.statistics().first { $0.name == "postgres_" + name }?.value ?? -1
        }
        #expect(write("a").version > 0)

        try server.sql("REVOKE INSERT ON martlet_kv FROM clerk")
        #expect(write("b").failure?.kind == .refused)
        let denied = "the database refuses writes: permission denied for table martlet_kv (SQLSTATE 42501)"
        #expect(backend.health == .readOnly(denied))
        // Nobody writes, and it still refuses; then it does not any more.
        usleep(2_500_000)
        #expect(backend.health == .readOnly(denied))
        try server.sql("GRANT INSERT ON martlet_kv TO clerk")
        #expect(self.await(backend) { $0 == .ready })
        #expect(write("b").version > 0)

        try server.sql("REVOKE USAGE, UPDATE ON SEQUENCE martlet_stream_pub FROM clerk")
        #expect(write("c").version > 0)
        let words = "the stream of changes stands still: permission denied for sequence martlet_stream_pub"
        #expect(self.await(backend) { $0 == .impaired(words + " (SQLSTATE 42501)") }, "\(backend.health)")
        let failures = figure("stream_failures")
        usleep(3_000_000)
        let more = figure("stream_failures") - failures
        #expect(more >= 1 && more <= 8, "\(more) more connections in three seconds")
        try server.sql("GRANT USAGE ON SEQUENCE martlet_stream_pub TO clerk")
        #expect(self.await(backend) { $0 == .ready })
        try server.awaitRows("FROM martlet_stream WHERE k = 'c'")

        try server.sql("REVOKE DELETE ON martlet_kv FROM clerk")
        let reaping = "what has expired cannot be deleted: permission denied for table martlet_kv (SQLSTATE 42501)"
        #expect(self.await(backend) { $0 == .impaired(reaping) }, "\(backend.health)")
        #expect(figure("reaps_failed") > 0)
        #expect(write("d").version > 0)
        try server.sql("GRANT DELETE ON martlet_kv TO clerk")
        #expect(self.await(backend) { $0 == .ready })
    }

    /// memcached's clients say "at once" with a negative time, and so may a program.
    @Test func aRecordOfANegativeExpiryCanBeRead() throws {
        let server = try server()
        let backend = PostgresBackend(configuration(server))
        try backend.start(Answers())
        defer { backend.stop() }
        let changes = try #require(backend.changes)
        try server.sql("INSERT INTO martlet_kv (k, exp, val) VALUES ('gone', -1, 'v')")
        try server.awaitRows("FROM martlet_stream WHERE k = 'gone'")
        let slot = try #require(Int(server.sql("SELECT slot FROM martlet_stream WHERE k = 'gone'")))
        let slice = try changes.records(slot: slot, after: 0, limitBytes: 10_000)
        let record = try #require(slice.records.first.flatMap { OutboxRecord(object: $0.bytes) })
        #expect(record.key == Array("gone".utf8) && record.operation == .set && record.expiryMilliseconds == 1)
    }
}
