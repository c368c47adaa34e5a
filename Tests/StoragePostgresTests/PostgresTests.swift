// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Memory
import Storage
import StoragePostgres
import Telemetry
import Testing

/// The backend on a real PostgreSQL server, which each test starts for itself.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct PostgresTests {
    @Test func conditionsLookAtTheStoredRow() throws {
        let bed = try SQLBed()
        #expect(bed.write(.replace, "k", "x") == .notStored)
        #expect(bed.write(.append, "k", "x") == .notStored)
        #expect(bed.write(.increment, "k") == .notFound)
        #expect(bed.write(.touch, "k") == .notFound)
        #expect(bed.write(.delete, "k") == .notFound)
        #expect(bed.write(.set, "k", "x") { $0.compare = 5 } == .notFound)
        let added = bed.write(.add, "k", "1") { $0.clientFlags = 0xffff_ffff }
        #expect(bed.read("k") == added.row.map { .found($0) })
        #expect(bed.row("k")?.clientFlags == 0xffff_ffff)
        #expect(bed.write(.add, "k", "2") == .notStored)
        #expect(bed.write(.set, "k", "2") { $0.compare = added.version + 1 } == .exists)
        let compared = bed.write(.set, "k", "2") { $0.compare = added.version }
        #expect(compared.version > added.version)
        #expect(bed.write(.replace, "k", "10").row?.value == Array("10".utf8))
        #expect(bed.write(.append, "k", "5").row?.value == Array("105".utf8))
        #expect(bed.write(.prepend, "k", "2").row?.value == Array("2105".utf8))
        #expect(bed.write(.increment, "k") { $0.delta = 5 }.row?.value == Array("2110".utf8))
        let touched = bed.write(.touch, "k") { $0.expiryMilliseconds = bed.clock.now + 5_000 }
        #expect(bed.row("k") == touched.row)
        let gone = bed.write(.delete, "k")
        #expect(gone == .deleted(version: gone.version) && gone.version > touched.version)
        #expect(bed.read("k") == .absent)
        #expect(bed.write(.set, "k", "new").version > gone.version)
        var large = SQLBed.make(.set, "large")
        large.value = (0..<2_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let token = bed.nextToken()
        bed.backend.write([SubmittedWrite(token: token, write: large)])
        #expect(bed.answers.write(token).version > 0)
        #expect(bed.row("large")?.value == large.value)
        #expect(bed.write(.set, "empty").version > 0)
        #expect(bed.row("empty")?.value == [])
    }

    @Test func writesOfOneTransactionSeeEachOther() throws {
        let bed = try SQLBed { $0.writers = 1 }
        bed.write(.set, "n", "7")
        let operations: [StorageWrite] = [
            SQLBed.make(.increment, "n") { $0.delta = 1 }, SQLBed.make(.set, "n", "100"),
            SQLBed.make(.increment, "n") { $0.delta = 1 }, SQLBed.make(.delete, "n"), SQLBed.make(.add, "n", "a"),
            SQLBed.make(.add, "n", "b"), SQLBed.make(.append, "n", "c"), SQLBed.make(.set, "blind", "x"),
            SQLBed.make(.delete, "m"), SQLBed.make(.set, "m", "1"), SQLBed.make(.delete, "m"),
        ]
        let submitted = operations.map { SubmittedWrite(token: bed.nextToken(), write: $0) }
        bed.backend.write(submitted)
        let outcomes = submitted.map { bed.answers.write($0.token) }
        let texts = outcomes.map { $0.row.map { String(decoding: $0.value, as: UTF8.self) } }
        #expect(texts == ["8", "100", "101", nil, "a", nil, "ac", "x", nil, "1", nil])
        #expect(outcomes[5] == .notStored && outcomes[8] == .notFound)
        #expect(bed.row("n") == outcomes[6].row)
        #expect(bed.row("blind") == outcomes[7].row)
        #expect(bed.read("m") == .absent)
        #expect(bed.figure("commits") == 2)
        let commits = try #require(bed.backend.durations().first { $0.name == "postgres_commit" }).summary
        #expect(commits.histogram.count == 2 && commits.sumNanoseconds > 0)
    }

    @Test func manyWritesKeepTheirOrderAndScanShowsThem() throws {
        let bed = try SQLBed()
        let tokens = (0..<2_000).map { index in
            let token = bed.nextToken()
            let write =
                index % 2 == 0
                ? SQLBed.make(.set, "k\(index % 100)", "\(index)")
                : SQLBed.make(.append, "k\(index % 100 - 1)", ".\(index)")
            bed.backend.write([SubmittedWrite(token: token, write: write)])
            return token
        }
        for token in tokens { #expect(bed.answers.write(token).version > 0) }
        #expect(bed.figure("commits") < 1_000)
        let rows = try bed.backend.scan(prefix: Array("k".utf8), after: [], limit: 1_000)
        #expect(rows.count == 50)
        #expect(rows.map(\.key).sorted { $0.lexicographicallyPrecedes($1) } == rows.map(\.key))
        for (key, row) in rows {
            let number = Int(String(decoding: key.dropFirst(), as: UTF8.self)) ?? 0
            #expect(String(decoding: row.value, as: UTF8.self) == "\(1_900 + number).\(1_901 + number)")
        }
        #expect(
            try bed.backend.scan(prefix: Array("k".utf8), after: Array("k96".utf8), limit: 10).map(\.key) == [
                Array("k98".utf8)
            ])
        #expect(try bed.backend.scan(prefix: Array("x".utf8), after: [], limit: 10).isEmpty)
        #expect(bed.answers.repeated == 0)
    }

    @Test func versionsAreAboveWhatOthersStored() throws {
        let bed = try SQLBed()
        let first = bed.write(.set, "k", "v")
        // Another node, an hour ahead.
        let ahead = (UInt64(bed.clock.now) + 3_600_000) << 16
        try bed.server.sql("UPDATE martlet_kv SET ver = \(ahead)")
        let blind = bed.write(.set, "k", "w")
        #expect(blind.version == ahead + 1 && first.version < ahead)
        #expect(bed.row("k") == blind.row)
        #expect(bed.write(.append, "k", "x").version > blind.version)
        bed.clock.now -= 7_200_000
        let before = bed.write(.set, "other", "v").version
        try bed.restart()
        #expect(bed.write(.set, "fresh", "v").version > before)
    }

    @Test func whatAnotherProgramChangedMeanwhileIsSeen() throws {
        let bed = try SQLBed { $0.writers = 1 }
        bed.write(.set, "n", "0")
        let tokens = (0..<200).map { _ in bed.nextToken() }
        for (index, token) in tokens.enumerated() {
            bed.backend.write([SubmittedWrite(token: token, write: SQLBed.make(.increment, "n") { $0.delta = 1 })])
            if index % 40 == 0 {
                try bed.server.sql(
                    "UPDATE martlet_kv SET val = convert_to((convert_from(val, 'UTF8')::int + 1000)::text, 'UTF8'), "
                        + "ver = ver + 1 WHERE k = 'n'")
            }
        }
        for token in tokens { #expect(bed.answers.write(token).version > 0) }
        #expect(bed.text("n") == "5200")
    }

    @Test func theStreamHasARecordOfEveryChange() throws {
        let bed = try SQLBed { $0.keepsOutbox = true }
        let stored = bed.write(.set, "a", "1")
        let touched = bed.write(.touch, "a") { $0.expiryMilliseconds = bed.clock.now + 100_000 }
        let deleted = bed.write(.delete, "a")
        bed.write(.delete, "a")
        let expected = "0|a|\(stored.version)\n2|a|\(touched.version)\n1|a|\(deleted.version)"
        var shown = ""
        for _ in 0..<200 where shown != expected {
            usleep(50_000)
            shown = try bed.server.sql(
                "SELECT op, convert_from(k, 'UTF8'), ver FROM martlet_stream WHERE ver >= \(stored.version) "
                    + "ORDER BY seq")
        }
        #expect(shown == expected)
        #expect(try bed.server.sql("SELECT count(*) FROM martlet_outbox") == "0")
        let changes = try #require(bed.backend.changes)
        let ticket = changes.beginProof()
        var last: [Int64]?
        for _ in 0..<200 where last == nil {
            usleep(50_000)
            last = changes.proof(ticket)
        }
        let slot = StreamSlots.slot(keyHash: stableHash(Array("a".utf8).span))
        let sequences = try #require(last)
        let slice = try changes.records(slot: slot, after: sequences[slot] - 3, limitBytes: 1 << 20)
        #expect(slice.records.count == 3)
    }

    @Test func aRowWithALongValueComesWithoutItAndIsNotTakenForNone() throws {
        let bed = try SQLBed { $0.keepsOutbox = true }
        let long = bed.write(.set, "long", String(repeating: "x", count: 1000))
        let short = bed.write(.set, "short", "v") { $0.clientFlags = 7 }
        bed.write(.set, "gone", "v")
        bed.write(.delete, "gone")
        let changes = try #require(bed.backend.changes)
        let keys = ["long", "gone", "none", "short"].map { Array($0.utf8) }
        var rows: [StoredRow?] = []
        for _ in 0..<200 where rows.isEmpty {
            usleep(50_000)
            rows = (try? changes.rows(keys, limitBytes: 10, valueMax: 999)) ?? []
        }
        try #require(rows.count == 4)
        #expect(rows.map { $0?.version } == [long.version, nil, nil, short.version])
        #expect(rows[0]?.value == [] && rows[0]?.partialLength == 1000)
        #expect(rows[3]?.value == Array("v".utf8) && rows[3]?.clientFlags == 7 && rows[3]?.partialLength == nil)
        let whole = try changes.rows(keys, limitBytes: 10, valueMax: 1000)
        #expect(whole.map { $0?.value.count } == [1000, nil, nil])
    }

    /// What another log tells of goes in whatever numbers it has; once, from the place where its reader is.
    @Test func changesOfAnotherLogGoInWithAnyNumbers() throws {
        let bed = try SQLBed { $0.keepsOutbox = true }
        bed.write(.set, "a", "1")
        let intake: any ChangeIntake = try #require(bed.backend.changes as? any ChangeIntake)
        let changes = [Int64.min, -1, 0, .max].map {
            LoggedChange(
                .set, key: [1], version: $0, expiryMilliseconds: $0, timeMilliseconds: $0, isUnconditional: true)
        }
        var isTaken: Bool?
        for _ in 0..<200 where isTaken == nil {
            usleep(50_000)
            isTaken = try? intake.take(changes, of: "t", partition: 3, from: nil, to: .max)
        }
        #expect(isTaken == true)
        #expect(try intake.take(changes, of: "t", partition: 3, from: 5, to: 6) == false)
        #expect(try intake.places(of: "t") == [3: .max])
        var shown = ""
        for _ in 0..<200 where shown != "4" {
            usleep(50_000)
            shown = try bed.server.sql("SELECT count(*) FROM martlet_stream WHERE op = 16 AND k = '\\x01'")
        }
        #expect(shown == "4")
    }

    /// A publisher of the stream, whom the end of a region's role waits for, may ask until then and later.
    @Test func whoAsksForRecordsOfAStoreThatHasEndedIsAnsweredAtOnce() throws {
        let bed = try SQLBed {
            $0.keepsOutbox = true
            $0.statementTimeoutMilliseconds = 20_000
        }
        let changes = try #require(bed.backend.changes)
        var isThere = false
        for _ in 0..<400 where !isThere {
            usleep(25_000)
            isThere = (try? changes.rows([[1]], limitBytes: 1_000, valueMax: 1_000)) != nil
        }
        #expect(isThere)
        bed.backend.stop()
        let took = ContinuousClock().measure {
            #expect(throws: StorageFailure.self) { try changes.records(slot: 0, after: 0, limitBytes: 1_000) }
            #expect(throws: StorageFailure.self) { try changes.rows([[1]], limitBytes: 1_000, valueMax: 1_000) }
        }
        #expect(took < .seconds(5), "\(took)")
    }

    /// Of a write that is traced, the stream tells whose trace it belongs to; a text of another length is nobody's.
    @Test func recordsHaveTheTraceOfTheirWrite() throws {
        let bed = try SQLBed { $0.keepsOutbox = true }
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        bed.write(.set, "blind", "1") { $0.trace = trace }
        bed.write(.set, "blind", "2")
        bed.write(.add, "guarded", "1") { $0.trace = trace }
        try bed.server.sql(
            "INSERT INTO martlet_outbox (op, pool, slot, k, ver, exp, ts, trace) "
                + "VALUES (0, 0, \(StreamSlots.slot(keyHash: stableHash(Array("odd".utf8).span))), 'odd', 5, 0, 0, 'x')"
        )
        let changes = try #require(bed.backend.changes)
        var place: UInt64 = 0
        var found: [String: [String?]] = [:]
        for _ in 0..<200 where found.values.reduce(0, { $0 + $1.count }) < 4 {
            usleep(50_000)
            for entry in changes.tail.read(from: &place, limit: 1_000) ?? [] {
                let record = try #require(OutboxRecord(object: entry.bytes))
                found[String(decoding: record.key, as: UTF8.self), default: []].append(record.trace)
            }
        }
        #expect(found == ["blind": [trace, nil], "guarded": [trace], "odd": [nil]])
    }

    @Test func aSessionThatIsEndedIsReplacedAndItsOutcomeSettled() throws {
        let bed = try SQLBed { $0.writers = 1 }
        bed.write(.set, "k", "0")
        try bed.server.slowDown(seconds: 1)
        let token = bed.nextToken()
        bed.backend.write([SubmittedWrite(token: token, write: SQLBed.make(.set, "k", "slow"))])
        usleep(300_000)
        try bed.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%martlet_kv%' "
                + "AND state = 'active' AND pid <> pg_backend_pid()")
        #expect(bed.answers.write(token).failure?.kind == .unknownOutcome)
        #expect(bed.answers.awaitSettled())
        #expect(bed.text("k") == "0")
        #expect(bed.awaitHealth(.ready))
        #expect(bed.write(.set, "k", "1").version > 0)
        #expect(bed.figure("writes_unknown") == 1)
    }

    /// A node ends the sessions of its earlier processes when it starts.
    @Test(arguments: ["prod/cache-0/1", "prod/cache-01", String(repeating: "prod/", count: 20)])
    func sessionsOfANodeAreLeftAloneWhoseNameOnlyBeginsAlike(name: String) throws {
        let bed = try SQLBed { $0.instance = name }
        let sessions = try Set(bed.server.sessions())
        #expect(!sessions.isEmpty)
        for (instance, areEnded) in [("prod/cache-0", false), (name, true)] {
            var configuration = bed.configuration
            configuration.instance = instance
            let backend = PostgresBackend(configuration)
            try backend.start(Answers())
            let left = try sessions.intersection(bed.server.sessions())
            #expect(areEnded ? left.isEmpty : left == sessions)
            backend.stop()
        }
    }

    @Test(arguments: [("host:11211", "host:11211"), ("host:/run/a b/\u{e9}.sock", "host:/run/a_b/__.sock")])
    func whatANodeIsCalledByItsAddressIsAName(address: String, name: String) {
        #expect(PostgresConfiguration.instance(address) == name)
    }

    @Test func aSlowStatementIsRefusedAndNothingIsDone() throws {
        let bed = try SQLBed {
            $0.writers = 1
            $0.statementTimeoutMilliseconds = 300
        }
        bed.write(.set, "k", "0")
        try bed.server.slowDown(seconds: 5)
        let writes = [("a", "1"), ("k", "slow"), ("b", "2")].map {
            SubmittedWrite(token: bed.nextToken(), write: SQLBed.make(.set, $0.0, $0.1))
        }
        bed.backend.write(writes)
        #expect(bed.answers.write(writes[0].token).version > 0)
        #expect(bed.answers.write(writes[1].token).failure?.kind == .refused)
        #expect(bed.answers.write(writes[2].token).version > 0)
        #expect(bed.text("k") == "0" && bed.text("a") == "1" && bed.text("b") == "2")
    }

    /// A session that is ended while a row is looked at, before anything was changed.
    @Test func aSessionThatIsEndedBeforeTheChangeHasDoneNothing() throws {
        let bed = try SQLBed { $0.writers = 1 }
        bed.write(.set, "k", "0")
        let lock = Process()
        lock.executableURL = URL(fileURLWithPath: TestServer.binaries + "/psql")
        lock.arguments = [
            bed.server.url, "-qc", "BEGIN; LOCK TABLE martlet_kv; SELECT pg_sleep(3); COMMIT",
        ]
        try lock.run()
        try bed.server.awaitRows(
            "FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation = 'martlet_kv'::regclass")
        let token = bed.nextToken()
        bed.backend.write([SubmittedWrite(token: token, write: SQLBed.make(.append, "k", "1"))])
        try bed.server.awaitRows(
            "FROM pg_stat_activity WHERE application_name LIKE 'martlet %' AND wait_event_type = 'Lock'")
        try bed.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'martlet %' "
                + "AND state = 'active'")
        #expect(bed.answers.write(token).failure?.kind == .refused)
        lock.waitUntilExit()
        #expect(bed.figure("writes_unknown") == 0)
        #expect(bed.text("k") == "0")
    }

    /// An error at the commit itself: a conflict or a constraint says no; what says that it does not know, is believed.
    @Test func anErrorAtTheCommitIsDefiniteOnlyWhereItSaysSo() throws {
        let bed = try SQLBed { $0.writers = 1 }
        bed.write(.set, "k", "0")
        try bed.server.sql(
            """
            CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              IF NEW.val LIKE 'e_____' THEN
                RAISE EXCEPTION 'at the commit' USING ERRCODE = substr(convert_from(NEW.val, 'UTF8'), 2);
              END IF; RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR UPDATE ON martlet_kv DEFERRABLE INITIALLY DEFERRED
              FOR EACH ROW EXECUTE FUNCTION fail()
            """)
        #expect(bed.write(.set, "k", "e23514").failure?.kind == .refused)
        #expect(bed.write(.set, "k", "eP0001").failure?.kind == .refused)
        #expect(bed.text("k") == "0")
        #expect(bed.write(.set, "k", "e40003").failure?.kind == .unknownOutcome)
        #expect(bed.answers.awaitSettled())
        #expect(bed.awaitHealth(.ready))
        #expect(bed.write(.set, "k", "e58030").failure?.kind == .unknownOutcome)
        #expect(bed.text("k") == "0")
    }

    @Test func aServerThatCrashesLosesNothingAcknowledged() throws {
        let bed = try SQLBed()
        var versions: [String: UInt64] = [:]
        for turn in 0..<3 {
            var tokens: [UInt64: String] = [:]
            for index in 0..<600 {
                let (token, key) = (bed.nextToken(), "k\(index % 50)")
                tokens[token] = key
                bed.backend.write([SubmittedWrite(token: token, write: SQLBed.make(.set, key, "\(turn).\(index)"))])
                if index == 300 { usleep(20_000) }
            }
            try bed.server.stop("immediate")
            var unknown: Set<String> = []
            for (token, key) in tokens.sorted(by: { $0.key < $1.key }) {
                let outcome = bed.answers.write(token)
                if outcome.version > 0 {
                    versions[key] = outcome.version
                } else if outcome.failure?.kind == .unknownOutcome {
                    unknown.insert(key)
                } else {
                    #expect(outcome.failure != nil)
                }
            }
            #expect(bed.awaitDown())
            guard case .failed? = bed.read("k1") else {
                Issue.record("a read was answered without a server")
                return
            }
            #expect(bed.write(.set, "k1", "x").failure?.kind == .notSent)
            try bed.server.start()
            #expect(bed.awaitHealth(.ready))
            for (key, version) in versions {
                let row = try #require(bed.row(key))
                #expect(unknown.contains(key) ? row.version >= version : row.version == version)
                versions[key] = row.version
            }
        }
        #expect(bed.answers.repeated == 0)
    }

    @Test func whatIsOverIsDeleted() throws {
        let bed = try SQLBed {
            $0.reapMilliseconds = 50
            $0.tombstoneMilliseconds = 1_000_000
        }
        bed.clock.fallBehind()
        bed.write(.set, "short", "v") { $0.expiryMilliseconds = bed.clock.now + 1_000 }
        bed.write(.set, "long", "v") { $0.expiryMilliseconds = bed.clock.now + 90_000_000 }
        bed.write(.set, "gone", "v")
        bed.write(.delete, "gone")
        func rows() throws -> String {
            try bed.server.sql("SELECT string_agg(convert_from(k, 'UTF8'), ' ' ORDER BY k) FROM martlet_kv")
        }
        #expect(try rows() == "gone long short")
        bed.clock.now += 100_000
        #expect(bed.read("short") == .absent)
        var looks = 0
        while try rows() != "gone long", looks < 100 {
            usleep(100_000)
            looks += 1
        }
        #expect(try rows() == "gone long")
        bed.clock.now += 1_000_000
        while try rows() != "long", looks < 200 {
            usleep(100_000)
            looks += 1
        }
        #expect(try rows() == "long")
    }

    /// More than one batch of each kind, and a queue that is never empty for long.
    @Test func whatIsOverIsDeletedUnderLoadAsFastAsItComes() throws {
        let bed = try SQLBed {
            $0.writers = 1
            $0.commitLimit = 64
            $0.reapMilliseconds = 1_500
            $0.reapLimit = 250
        }
        bed.clock.fallBehind()
        try bed.server.sql(
            """
            INSERT INTO martlet_kv SELECT convert_to('expired' || g, 'UTF8'), 1, \(bed.clock.now), 0, false, '' FROM
              generate_series(1, 2000) g;
            INSERT INTO martlet_kv SELECT convert_to('deleted' || g, 'UTF8'), 1, 0, 0, true, '' FROM
              generate_series(1, 2000) g
            """)
        // One that somebody holds holds up nobody.
        let lock = Process()
        lock.executableURL = URL(fileURLWithPath: TestServer.binaries + "/psql")
        lock.arguments = [
            bed.server.url, "-qc",
            "BEGIN; SELECT FROM martlet_kv WHERE k = 'expired7' FOR UPDATE; SELECT pg_sleep(60)",
        ]
        try lock.run()
        defer { lock.terminate() }
        let held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        for _ in 0..<200 where try bed.server.sql(held) != "1" { usleep(50_000) }
        bed.clock.now += 100_000
        var tokens: [UInt64] = []
        let end = Date() + 30
        var turn = 0
        while bed.figure("reaped") < 3_999, Date() < end {
            // More than a transaction takes: something waits whenever one is over.
            let writes = (0..<128).map { index in
                SubmittedWrite(token: bed.nextToken(), write: SQLBed.make(.set, "k\(index)", "\(turn)"))
            }
            bed.backend.write(writes)
            tokens += writes.map(\.token)
            if turn > 0 { #expect(bed.answers.write(tokens[turn * 128 - 1]).version > 0) }
            turn += 1
        }
        #expect(bed.figure("reaped") == 3_999)
        #expect(try bed.server.sql("SELECT count(*) FROM martlet_kv WHERE ver = 1") == "1")
        #expect(bed.answers.write(tokens[tokens.count - 1]).version > 0)
    }

    @Test func aWrongStartSaysWhy() throws {
        let server = try TestServer()
        func refusal(_ url: String) -> String {
            var configuration = PostgresConfiguration(url: url)
            configuration.connectTimeoutMilliseconds = 1_000
            let backend = PostgresBackend(configuration)
            do throws(StorageStartError) {
                try backend.start(Answers())
                backend.stop()
                return "started"
            } catch { return error.description }
        }
        for odd in ["postgresql://u:se@cret@h/d", "postgresql://u:se/cret@h/d", "secret", "postgresql://u:%secret@h/"] {
            #expect(refusal(odd).contains("storage.url") && !refusal(odd).contains("cret"))
        }
        #expect(refusal("").contains("storage.url is empty"))
        #expect(refusal(server.url).contains("no tables of ours: make them with"))
        #expect(refusal("postgresql:///postgres?host=/nowhere&user=martlet").contains("No such file or directory"))
        #expect(
            refusal("postgresql:///nothing?" + (server.url.split(separator: "?").last ?? "")).contains("does not exist")
        )
        try PostgresBackend.createTables(PostgresConfiguration(url: server.url))
        try PostgresBackend.createTables(PostgresConfiguration(url: server.url))
        #expect(refusal(server.url) == "started")
        try server.sql("UPDATE martlet_meta SET number = 2 WHERE name = 'format'")
        #expect(refusal(server.url).contains("format 2; this version knows formats up to 1"))
        // From here on a password is asked for.
        try server.sql("ALTER ROLE martlet PASSWORD 'right'")
        try server.sql("UPDATE martlet_meta SET number = 1 WHERE name = 'format'")
        let rules = server.directory + "/data/pg_hba.conf"
        try "local all all scram-sha-256\n".write(toFile: rules, atomically: false, encoding: .utf8)
        try server.sql("SELECT pg_reload_conf()")
        usleep(300_000)
        #expect(refusal(server.url + "&password=wrong").contains("password authentication failed"))
        #expect(!refusal(server.url + "&password=wrong").contains("wrong\""))
        #expect(refusal(server.url + "&password=right") == "started")
    }
}
