// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import StorageRocksDB
import Testing

/// What each operation does to the store, seen by reads.
struct OperationTests {
    @Test func aSetIsReadBackWithItsFlagsExpiryAndVersion() throws {
        let bed = try StoreBed()
        let outcome = bed.write(.set, "a", "one") {
            $0.clientFlags = 0xdead_beef
            $0.expiryMilliseconds = bed.clock.now + 60_000
        }
        let row = try #require(outcome.row)
        #expect(row.version >> 16 == UInt64(bed.clock.now))
        #expect(bed.read("a") == .found(row))
        #expect(row.value == Array("one".utf8))
        #expect(row.clientFlags == 0xdead_beef)
        #expect(row.expiryMilliseconds == bed.clock.now + 60_000)
        #expect(bed.read("b") == .absent)
    }

    @Test func conditionsLookAtTheStoredRow() throws {
        let bed = try StoreBed()
        #expect(bed.write(.replace, "k", "x") == .notStored)
        #expect(bed.write(.append, "k", "x") == .notStored)
        #expect(bed.write(.prepend, "k", "x") == .notStored)
        #expect(bed.write(.increment, "k") == .notFound)
        #expect(bed.write(.touch, "k") == .notFound)
        #expect(bed.write(.delete, "k") == .notFound)
        #expect(bed.write(.set, "k", "x") { $0.compare = 5 } == .notFound)
        let added = bed.write(.add, "k", "1")
        #expect(added.version > 0)
        #expect(bed.write(.add, "k", "2") == .notStored)
        #expect(bed.write(.set, "k", "2") { $0.compare = added.version + 1 } == .exists)
        let compared = bed.write(.set, "k", "2") { $0.compare = added.version }
        #expect(compared.version > added.version)
        #expect(bed.write(.replace, "k", "10").row?.value == Array("10".utf8))
        #expect(bed.write(.append, "k", "5").row?.value == Array("105".utf8))
        #expect(bed.write(.prepend, "k", "2").row?.value == Array("2105".utf8))
        #expect(bed.write(.increment, "k") { $0.delta = 5 }.row?.value == Array("2110".utf8))
        #expect(bed.write(.decrement, "k") { $0.delta = 10_000 }.row?.value == Array("0   ".utf8))
        #expect(bed.write(.append, "k", "long") { $0.valueLimitBytes = 6 } == .tooLarge)
        let touched = bed.write(.touch, "k") { $0.expiryMilliseconds = bed.clock.now + 5_000 }
        #expect(touched.row?.expiryMilliseconds == bed.clock.now + 5_000)
        #expect(bed.row("k") == touched.row)
        let gone = bed.write(.delete, "k")
        #expect(gone == .deleted(version: gone.version))
        #expect(gone.version > touched.version)
        #expect(bed.read("k") == .absent)
        #expect(bed.write(.delete, "k") == .notFound)
        #expect(bed.write(.add, "k", "again").version > gone.version)
    }

    @Test func anEmptyAndALargeValueComeBack() throws {
        let bed = try StoreBed()
        bed.write(.set, "empty", "")
        #expect(bed.row("empty")?.value == [])
        let large = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        var write = StorageWrite(.set, key: Array("large".utf8))
        write.value = large
        bed.write(write)
        #expect(bed.row("large")?.value == large)
        let long = String(repeating: "k", count: 250)
        bed.write(.set, long, "v")
        #expect(bed.text(long) == "v")
    }

    @Test func writesOfOneBatchSeeEachOther() throws {
        let bed = try StoreBed()
        bed.write(.set, "n", "7")
        let operations: [StorageWrite] = [
            StoreBed.make(.increment, "n") { $0.delta = 1 }, StoreBed.make(.increment, "n") { $0.delta = 1 },
            StoreBed.make(.set, "n", "100"), StoreBed.make(.increment, "n") { $0.delta = 1 },
            StoreBed.make(.delete, "n"), StoreBed.make(.add, "n", "a"), StoreBed.make(.add, "n", "b"),
            StoreBed.make(.append, "n", "c"), StoreBed.make(.delete, "m"), StoreBed.make(.set, "m", "1"),
            StoreBed.make(.delete, "m"),
        ]
        let submitted = operations.map { SubmittedWrite(token: bed.nextToken(), write: $0) }
        bed.backend.write(submitted)
        let outcomes = submitted.map { bed.answers.write($0.token) }
        let texts = outcomes.map { $0.row.map { String(decoding: $0.value, as: UTF8.self) } }
        #expect(texts == ["8", "9", "100", "101", nil, "a", nil, "ac", nil, "1", nil])
        #expect(outcomes[6] == .notStored)
        #expect(outcomes[8] == .notFound)
        #expect(outcomes[4].version > 0 && outcomes[10].version > 0)
        let versions = outcomes.map(\.version).filter { $0 > 0 }
        #expect(versions == versions.sorted() && Set(versions).count == versions.count)
        #expect(bed.text("n") == "ac")
        #expect(bed.read("m") == .absent)
    }

    @Test func answersOfAKeyComeInTheOrderOfSubmission() throws {
        let bed = try StoreBed()
        bed.write(.set, "n", "0")
        let tokens = (0..<500).map { _ in bed.nextToken() }
        for token in tokens {
            bed.backend.write([
                SubmittedWrite(token: token, write: StoreBed.make(.increment, "n") { $0.delta = 1 })
            ])
        }
        let values = tokens.map { bed.answers.write($0).row?.value }
        #expect(values == (1...500).map { Array(String($0).utf8) })
        #expect(bed.answers.order.filter(Set(tokens).contains) == tokens)
        #expect(bed.answers.repeated == 0)
    }

    @Test func expiredRowsAreAbsentEverywhere() throws {
        let bed = try StoreBed()
        let expiry = bed.clock.now + 1_000
        let old = bed.write(.set, "k", "v") { $0.expiryMilliseconds = expiry }
        bed.clock.now = expiry - 1
        #expect(bed.text("k") == "v")
        bed.clock.now = expiry
        #expect(bed.read("k") == .absent)
        #expect(try bed.backend.scan(prefix: [], after: [], limit: 10).isEmpty)
        #expect(bed.write(.delete, "k") == .notFound)
        #expect(bed.write(.append, "k", "x") == .notStored)
        #expect(bed.write(.add, "k", "new").version > old.version)
        #expect(bed.text("k") == "new")
    }

    @Test func manyReadsTogetherGetTheirOwnRows() throws {
        let bed = try StoreBed()
        let writes = (0..<1_000).map {
            SubmittedWrite(
                token: bed.nextToken(), write: StoreBed.make(.set, "k\($0 * 7 % 1_000)", "v\($0 * 7 % 1_000)"))
        }
        bed.backend.write(writes)
        for write in writes { _ = bed.answers.write(write.token) }
        let reads = (0..<2_000).map { StorageRead(token: bed.nextToken(), key: Array("k\($0 * 13 % 2_000)".utf8)) }
        bed.backend.read(reads)
        for (index, read) in reads.enumerated() {
            let number = index * 13 % 2_000
            guard number < 1_000 else {
                #expect(bed.answers.read(read.token) == .absent)
                continue
            }
            guard case .found(let row)? = bed.answers.read(read.token) else {
                Issue.record("k\(number) is not there")
                continue
            }
            #expect(row.value == Array("v\(number)".utf8))
        }
        #expect(bed.figure("read_batches") < bed.figure("reads"))
        #expect(bed.answers.repeated == 0)
    }

    @Test func scanGivesLiveRowsInOrderBehindAKey() throws {
        let bed = try StoreBed()
        for key in ["b:2", "a:1", "b:10", "c:1", "b:1", "b:"] { bed.write(.set, key, "v") }
        bed.write(.delete, "b:10")
        func keys(_ prefix: String, _ after: String, _ limit: Int) throws -> [String] {
            try bed.backend.scan(prefix: Array(prefix.utf8), after: Array(after.utf8), limit: limit)
                .map { String(decoding: $0.key, as: UTF8.self) }
        }
        #expect(try keys("", "", 100) == ["a:1", "b:", "b:1", "b:2", "c:1"])
        #expect(try keys("b:", "", 100) == ["b:", "b:1", "b:2"])
        #expect(try keys("b:", "b:", 1) == ["b:1"])
        #expect(try keys("b:", "b:1", 100) == ["b:2"])
        #expect(try keys("b:", "z", 100) == [])
        #expect(try keys("b:", "a", 100) == ["b:", "b:1", "b:2"])
        #expect(try keys("", "b:", 2) == ["b:1", "b:2"])
    }

    @Test func scanEndsWithTheRowThatReachesItsBytes() throws {
        let bed = try StoreBed()
        for index in 1...9 { bed.write(.set, "k\(index)", String(repeating: "v", count: 98)) }
        func scan(_ bounds: ScanBounds) throws -> [StoredRow] {
            try bed.backend.scan(prefix: [], after: [], bounds).rows.map(\.row)
        }
        #expect(try scan(ScanBounds(rows: 9, bytes: 250)).count == 3)
        #expect(try scan(ScanBounds(rows: 9, bytes: 1)).count == 1)
        #expect(try scan(ScanBounds(rows: 2, bytes: 250)).count == 2)
        let keys = try scan(ScanBounds(rows: 9, bytes: 17, hasValues: false))
        #expect(keys.count == 9 && keys.allSatisfy { $0.value.isEmpty })
    }

    @Test func scanGoesOnBehindManyDeadRows() throws {
        let bed = try StoreBed { $0.scanLimit = 100 }
        for index in 0..<250 {
            bed.write(.set, "a\(1_000 + index)", "v") {
                $0.expiryMilliseconds = index < 125 ? bed.clock.now + 1_000 : 0
            }
        }
        for index in 125..<250 { bed.write(.delete, "a\(1_000 + index)") }
        bed.write(.set, "b", "live")
        bed.clock.now += 1_000
        var (found, pages, next): ([[UInt8]], Int, [UInt8]?) = ([], 0, [])
        while let last = next, pages < 100 {
            let page = try bed.backend.scan(prefix: [], after: last, ScanBounds(rows: 10))
            found += page.rows.map(\.key)
            (pages, next) = (pages + 1, page.next)
        }
        #expect(found == [Array("b".utf8)] && pages == 3)
        // The first page ends behind a hundred of them.
        let page = try bed.backend.scan(prefix: Array("a".utf8), after: [], ScanBounds(rows: 10))
        #expect(page.rows.isEmpty && page.next == Array("a1099".utf8))
        #expect(try bed.backend.scan(prefix: [], after: [], limit: 10).map(\.key) == [Array("b".utf8)])
    }

    @Test func groupWaitsForCompany() throws {
        let bed = try StoreBed {
            $0.durability = .group
            $0.groupWaitMicroseconds = 2_000
        }
        bed.write(.set, "first", "v")
        let before = bed.figure("commits")
        var tokens: [UInt64] = []
        for _ in 0..<200 {
            let token = bed.nextToken()
            tokens.append(token)
            bed.backend.write([SubmittedWrite(token: token, write: StoreBed.make(.set, "k\(token)", "v"))])
        }
        for token in tokens { #expect(bed.answers.write(token).version > 0) }
        let commits = bed.figure("commits") - before
        #expect(commits <= 20, "\(commits) commits for 200 writes")
        #expect(bed.figure("syncs") == bed.figure("commits"))
    }
}
