// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import StoragePostgres
import Testing

/// One transaction holds a bounded number of bytes, whatever rows small commands look at.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct LargeRowTests {
    @Test func smallCommandsOnLargeRowsAreSeveralTransactions() throws {
        let bed = try SQLBed {
            $0.writers = 1
            $0.keepsOutbox = true
            $0.statementTimeoutMilliseconds = 20_000
            $0.waitingMilliseconds = 60_000
        }
        try bed.server.sql(
            "INSERT INTO martlet_kv SELECT convert_to('k' || n, 'UTF8'), n, 0, 0, false, "
                + "(SELECT string_agg(sha256((n || '-' || m)::bytea), '') FROM generate_series(1, 32768) m) "
                + "FROM generate_series(10, 73) n")
        let before = bed.figure("commits")
        let expiry = bed.clock.now + 100_000
        let touches = (10..<74).map { number in
            SubmittedWrite(
                token: bed.nextToken(), write: SQLBed.make(.touch, "k\(number)") { $0.expiryMilliseconds = expiry })
        }
        // Each key twice, so that the order of a key's commands shows.
        let appends = (10..<74).flatMap { number in
            ["1", "2"].map { SubmittedWrite(token: bed.nextToken(), write: SQLBed.make(.append, "k\(number)", $0)) }
        }
        bed.backend.write(touches + appends)
        for write in touches {
            let row = bed.answers.write(write.token).row
            #expect(row?.expiryMilliseconds == expiry && row?.value.count == 1 << 20)
        }
        for (index, write) in appends.enumerated() {
            #expect(bed.answers.write(write.token).row?.value.count == (1 << 20) + 1 + index % 2)
        }
        // Four rows of a MiB are as much as one transaction looks at.
        let commits = bed.figure("commits") - before
        #expect(commits >= 16 && commits <= 70, "\(commits) transactions")
        #expect(bed.row("k17")?.value.suffix(2) == Array("12".utf8)[...])
        let hash = try bed.server.sql(
            "SELECT count(*) FROM martlet_kv WHERE exp = \(expiry) AND substr(val, 1, 32) = "
                + "sha256((substr(convert_from(k, 'UTF8'), 2) || '-1')::bytea)")
        #expect(hash == "64")
        #expect(bed.answers.repeated == 0)
    }

    /// The value stays where it lies.
    @Test func aTouchSendsNoValue() throws {
        let bed = try SQLBed { $0.writers = 1 }
        var write = SQLBed.make(.set, "k")
        write.value = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7) }
        let token = bed.nextToken()
        bed.backend.write([SubmittedWrite(token: token, write: write)])
        #expect(bed.answers.write(token).version > 0)
        let size = "SELECT pg_relation_size(reltoastrelid) FROM pg_class WHERE relname = 'martlet_kv'"
        let before = try bed.server.sql(size)
        for second in 1...5 {
            let touched = bed.write(.touch, "k") { $0.expiryMilliseconds = bed.clock.now + Int64(second) * 1_000 }
            #expect(touched.row?.value == write.value)
        }
        #expect(try bed.server.sql(size) == before)
        #expect(bed.row("k")?.value == write.value)
        #expect(bed.row("k")?.expiryMilliseconds == bed.clock.now + 5_000)
        // A row of another program that has no version yet is touched as well.
        try bed.server.sql("UPDATE martlet_kv SET ver = 0")
        #expect(bed.write(.touch, "k") { $0.expiryMilliseconds = 0 }.version > 0)
        #expect(bed.row("k")?.value == write.value)
    }

    /// Whoever takes "touch" for "another expiry and nothing else" would keep the old value.
    @Test func aSetAndATouchTogetherAreASetInTheStream() throws {
        let bed = try SQLBed {
            $0.writers = 1
            $0.keepsOutbox = true
        }
        bed.write(.set, "a", "1")
        bed.write(.set, "b", "1")
        let touch: (inout StorageWrite) -> Void = { $0.expiryMilliseconds = bed.clock.now + 100_000 }
        let writes = [
            SQLBed.make(.set, "a", "2"), SQLBed.make(.touch, "a", "", touch), SQLBed.make(.touch, "b", "", touch),
            SQLBed.make(.touch, "b", "", touch),
        ].map { SubmittedWrite(token: bed.nextToken(), write: $0) }
        bed.backend.write(writes)
        let outcomes = writes.map { bed.answers.write($0.token).version }
        #expect(bed.text("a") == "2" && bed.row("a")?.expiryMilliseconds == bed.clock.now + 100_000)
        try bed.server.awaitRows("FROM martlet_stream WHERE ver = \(outcomes[1])")
        try bed.server.awaitRows("FROM martlet_stream WHERE ver = \(outcomes[3])")
        #expect(try bed.server.sql("SELECT op FROM martlet_stream WHERE ver = \(outcomes[1])") == "0")
        #expect(try bed.server.sql("SELECT op FROM martlet_stream WHERE ver = \(outcomes[3])") == "2")
    }

    /// Rows that are asked for together come a few at a time, and each comes.
    @Test(arguments: [true, false])
    func aReadOfLargeRowsIsSeveralStatements(_ hasLargeRows: Bool) throws {
        let bed = try SQLBed {
            $0.readers = 1
            $0.hasLargeRows = hasLargeRows
            $0.readBatchBytes = 250_000
        }
        try bed.server.sql(
            "INSERT INTO martlet_kv SELECT convert_to('k' || n, 'UTF8'), n, 0, n, n % 10 = 3, "
                + "convert_to(repeat(chr(65 + n % 20), CASE WHEN n < 20 THEN 10 ELSE 100000 END), 'UTF8') "
                + "FROM generate_series(0, 59) n")
        let reads = (0..<64).map { StorageRead(token: bed.nextToken(), key: Array("k\($0)".utf8)) }
        bed.backend.read(reads)
        for (number, read) in reads.enumerated() {
            guard number < 60, number % 10 != 3 else {
                #expect(bed.answers.read(read.token) == .absent)
                continue
            }
            guard case .found(let row)? = bed.answers.read(read.token) else {
                Issue.record("k\(number) is not there")
                continue
            }
            #expect(row.value == [UInt8](repeating: UInt8(65 + number % 20), count: number < 20 ? 10 : 100_000))
            #expect(row.clientFlags == UInt32(number))
        }
        let most = bed.answers.deliveries.max() ?? 0
        #expect(hasLargeRows ? most <= 250_000 + 100_000 : most > 2_000_000, "\(bed.answers.deliveries)")
        #expect(bed.answers.repeated == 0)
    }
}
