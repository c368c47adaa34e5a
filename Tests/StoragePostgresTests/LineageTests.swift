// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import Testing

@testable import StoragePostgres

/// Which server's rows are shown, and which of several is asked.
struct LineageTests {
    private let known = SQLLineage(system: 7, timeline: 3, database: 5, table: 16_384)

    private func changed(_ change: (inout SQLLineage) -> Void) -> SQLLineage {
        var other = known
        change(&other)
        return other
    }

    @Test func aLaterTimelineAndAnotherTableTakeTheirPlace() {
        #expect(known.relation(of: known) == .same)
        #expect(known.relation(of: changed { $0.timeline = 4 }) == .successor)
        #expect(known.relation(of: changed { $0.database = 6 }) == .successor)
        #expect(known.relation(of: changed { $0.table = 17_000 }) == .successor)
    }

    @Test func anEarlierTimelineAndAnotherServerAreRefused() {
        let refused = [
            changed { $0.timeline = 2 }, changed { $0.system = 8 }, changed { ($0.system, $0.timeline) = (8, 9) },
        ]
        for other in refused {
            guard case .refused = known.relation(of: other) else {
                Issue.record("\(other) was taken")
                continue
            }
        }
    }

    @Test func whatAServerDoesNotTellIsComparedWithNothing() throws {
        let silent = changed { ($0.system, $0.timeline, $0.table) = (nil, nil, nil) }
        #expect(known.relation(of: silent) == .same && silent.relation(of: known) == .same)
        let lineage = KnownLineage()
        var replaced = 0
        for found in [silent, known, silent] { #expect(try lineage.admit(found) { replaced += 1 } == 0) }
        #expect(lineage.current == known)
        #expect(try lineage.admit(changed { $0.timeline = 4 }) { replaced += 1 } == 1)
        #expect(replaced == 1 && lineage.generation == 1)
        #expect(throws: SQLFailure.self) { try lineage.admit(known) { replaced += 1 } }
        #expect(replaced == 1 && lineage.current?.timeline == 4)
    }

    @Test func aTableThatASessionFindsLaterTakesThePlaceOfTheOneBefore() throws {
        let lineage = KnownLineage()
        var replaced = 0
        #expect(try lineage.admit(known) { replaced += 1 } == 0)
        let place = changed { ($0.system, $0.timeline) = (nil, nil) }
        lineage.note(place, of: 0) { replaced += 1 }
        #expect(replaced == 0 && lineage.generation == 0)
        var other = place
        other.table = 17_000
        lineage.note(other, of: 0) { replaced += 1 }
        #expect(replaced == 1 && lineage.generation == 1)
        #expect(lineage.current == changed { $0.table = 17_000 })
        // What a session of before says does not count.
        lineage.note(place, of: 0) { replaced += 1 }
        #expect(replaced == 1 && lineage.current?.table == 17_000)
    }

    @Test func theServersOfAConnectionString() {
        typealias Target = SQLHosts.Target
        func targets(_ port: String) -> [Target] { [Target(host: "a", port: "6"), Target(host: "b", port: port)] }
        #expect(SQLHosts("postgresql://u@a:6,b:7/d").targets == targets("7"))
        #expect(SQLHosts("host=a,b port=6").targets == targets("6"))
        // Without ports, or with some, the library has a list with empty places, which it takes for its own port.
        for (hosts, a, b) in [("a,b", "5432", "5432"), ("a:6,b", "6", "5432"), ("a,b:7", "5432", "7")] {
            let expected = [Target(host: "a", port: a), Target(host: "b", port: b)]
            #expect(SQLHosts("postgresql://u@\(hosts)/d").targets == expected, "\(hosts)")
        }
        #expect(SQLHosts("host=a,b").targets == [Target(host: "a"), Target(host: "b")])
        #expect(SQLHosts("hostaddr=10.0.0.1,10.0.0.2").targets.map(\.address) == ["10.0.0.1", "10.0.0.2"])
        // The library says what is wrong with these, or has something in their place.
        for odd in ["postgresql:///d", "host=a,,b", "host=a,b port=1,2,3", "host=a,b hostaddr=10.0.0.1", "://"] {
            #expect(SQLHosts(odd).targets == [Target()], "\(odd)")
        }
    }

    @Test func theOneThatWasReachedIsTriedFirst() throws {
        let hosts = SQLHosts("postgresql://u@a:1,b:2,c:3/d")
        func order() -> [String?] { hosts.ordered.map(\.host) }
        #expect(order() == ["a", "b", "c"])
        hosts.noteUnreached(hosts.targets[0])
        // Another thread tried the same.
        hosts.noteUnreached(hosts.targets[0])
        #expect(order() == ["b", "c", "a"])
        hosts.noteReached(hosts.targets[2], at: nil)
        #expect(order() == ["c", "a", "b"])
        let named = SQLHosts("host=localhost,10.0.0.1").targets
        #expect(try hosts.addresses(of: named[0]).contains { $0.host == "localhost" && $0.address != nil })
        #expect(try hosts.addresses(of: named[1]) == [named[1]])
        let unix = SQLHosts("host=/tmp,/var/run port=1").targets
        #expect(try hosts.addresses(of: unix[0]) == [unix[0]])
        let unknown = SQLHosts.Target(host: "nowhere.invalid")
        #expect(throws: SQLFailure.self) { try hosts.addresses(of: unknown) }
    }
}

/// The same with a server.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct LineageOfServersTests {
    @Test func aServerThatDoesNotTellWhichItIsIsSaidToBeOne() throws {
        let server = try TestServer()
        try PostgresBackend.createTables(PostgresConfiguration(url: server.url))
        try server.sql(
            "CREATE ROLE clerk LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk; "
                + "REVOKE EXECUTE ON FUNCTION pg_control_system(), pg_walfile_name(pg_lsn) FROM public")
        let url = server.url.replacingOccurrences(of: "user=martlet", with: "user=clerk")
        let backend = PostgresBackend(PostgresConfiguration(url: url))
        try backend.start(Answers())
        defer { backend.stop() }
        let said = try #require(backend.notice)
        #expect(said.contains("pg_control_system() and pg_walfile_name()"), "\(said)")
    }

    /// As a `pg_restore --clean` does, by which no session ends.
    @Test func aTableThatTookThePlaceOfTheRowsIsNoticed() throws {
        let bed = try SQLBed()
        bed.write(.set, "k", "1")
        let identity = try #require(bed.backend.identity)
        try bed.server.sql(
            "BEGIN; ALTER TABLE martlet_kv RENAME TO before; CREATE TABLE martlet_kv (LIKE before INCLUDING ALL); "
                + "COMMIT")
        for _ in 0..<200 where bed.answers.replaced == 0 { usleep(25_000) }
        #expect(bed.answers.replaced == 1)
        #expect(bed.backend.identity != identity)
        #expect(bed.awaitHealth(.ready))
        #expect(bed.write(.set, "k", "2").version > 0)
        usleep(2_500_000)
        #expect(bed.answers.replaced == 1)
        #expect(bed.text("k") == "2")
    }

    /// A standby is asked while the primary cannot be reached, and not any longer.
    @Test func homeGoesBackToItsPrimary() throws {
        let (server, standby) = (try TestServer(), try TestServer())
        for one in [server, standby] { try PostgresBackend.createTables(PostgresConfiguration(url: one.url)) }
        try standby.becomeStandby()
        func home(_ servers: TestServer...) -> PostgresHome {
            let hosts = servers.map(\.directory).joined(separator: ",")
            let url = "host=\(hosts) port=\(TestServer.number) user=martlet dbname=postgres"
            return PostgresHome(PostgresConfiguration(url: url))
        }
        let (home, other) = (home(server, standby), home(standby, server))
        #expect(try !other.look().isStandby)
        #expect(try !home.look().isStandby)
        try server.stop("fast")
        #expect(try home.look().isStandby)
        try server.start()
        #expect(try !home.look().isStandby)
        #expect(try !other.look().isStandby)
    }

    /// A node whose clock is an hour ahead.
    @Test func whatIsAliveByTheDatabasesClockIsNotDeleted() throws {
        let bed = try SQLBed {
            $0.reapMilliseconds = 50
            $0.tombstoneMilliseconds = 1_800_000
        }
        let now = Int64(Date().timeIntervalSince1970 * 1_000)
        bed.clock.now = now - 7_200_000
        bed.write(.set, "gone", "v") { $0.expiryMilliseconds = now - 1_800_000 }
        bed.clock.now = now
        bed.write(.set, "alive", "v") { $0.expiryMilliseconds = now + 600_000 }
        bed.write(.set, "deleted", "v")
        bed.write(.delete, "deleted")
        bed.clock.now = now + 3_600_000
        try bed.server.awaitRows("FROM (SELECT 1) one WHERE NOT EXISTS (SELECT FROM martlet_kv WHERE k = 'gone')")
        usleep(500_000)
        let rows = try bed.server.sql("SELECT string_agg(convert_from(k, 'UTF8'), ' ' ORDER BY k) FROM martlet_kv")
        #expect(rows == "alive deleted")
    }

    /// Somebody holds the lock of those who publish for longer than a statement may take, again and again.
    @Test func aStreamThatStandsStillForWhatPassesIsTold() throws {
        let bed = try SQLBed {
            $0.keepsOutbox = true
            $0.statementTimeoutMilliseconds = 300
        }
        let lock = Process()
        lock.executableURL = URL(fileURLWithPath: TestServer.binaries + "/psql")
        lock.arguments = [bed.server.url, "-qc", "SELECT pg_advisory_lock(5570748134), pg_sleep(60)"]
        try lock.run()
        defer { lock.terminate() }
        let words = "the stream of changes stands still: canceling statement due to statement timeout (SQLSTATE 57014)"
        #expect(bed.awaitHealth(.impaired(words)), "\(bed.backend.health)")
        #expect(bed.write(.set, "k", "v").version > 0)
        try bed.server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        #expect(bed.awaitHealth(.ready))
    }
}
