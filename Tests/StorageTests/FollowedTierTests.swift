// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// A tier whose store others write to as well: nobody is shown what is older than what he was shown.
struct FollowedTierTests {
    private func bed(follows: Bool = true) throws -> TierBed {
        var configuration = StorageTierConfiguration()
        configuration.followsChanges = follows
        return try TierBed(configuration: configuration)
    }

    /// A read is sent, an own delete is done, another node stores a row, and the read finds that.
    @Test func notFoundIsNotShownBehindARowThatAReadFound() throws {
        let bed = try bed()
        bed.seed("k", "old")
        let get = bed.read("k")
        bed.write(.delete, "k")
        bed.store.answerWrite()
        #expect(bed.copy("k") == .absent)
        bed.seed("k", "of another node")
        bed.store.answerRead()
        #expect(bed.answer(get) == "of another node")
        #expect(bed.copy("k") == nil)
    }

    /// Where nobody else writes, too: the copy may go by another clock than the row.
    @Test(arguments: [StorageWrite.Operation.append, .prepend, .replace], [true, false])
    func notStoredTellsThatTheRowIsGone(_ operation: StorageWrite.Operation, follows: Bool) throws {
        let bed = try bed(follows: follows)
        bed.seed("k", "old")
        bed.read("k")
        bed.store.answerRead()
        #expect(bed.cached("k") == "old")
        bed.store.rows = [:]
        let write = bed.write(operation, "k", "x")
        bed.store.answerWrite()
        #expect(bed.answers.writes[write] == .notStored)
        #expect(bed.copy("k") == nil)
    }

    @Test func notStoredTellsThatThereIsARow() throws {
        let bed = try bed()
        bed.read("k")
        bed.store.answerRead()
        #expect(bed.copy("k") == .absent)
        bed.seed("k", "of another node")
        let write = bed.write(.add, "k", "x")
        bed.store.answerWrite()
        #expect(bed.answers.writes[write] == .notStored)
        #expect(bed.copy("k") == nil)
    }

    @Test func whereNobodyElseWritesTheCopyStays() throws {
        let bed = try bed(follows: false)
        bed.seed("k", "old")
        bed.read("k")
        bed.store.answerRead()
        bed.write(.add, "k", "x")
        bed.store.answerWrite()
        #expect(bed.cached("k") == "old")
    }

    /// Another region decided the write, and told its version and length only: nobody is shown the part that is known.
    @Test func whatIsNotAllKnownIsNotCachedAndNotShown() throws {
        let bed = try bed()
        bed.seed("k", "old")
        bed.read("k")
        bed.store.answerRead()
        let write = bed.write(.append, "k", "!")
        let get = bed.read("k")
        bed.store.rows[Array("k".utf8)]?.value = Array("old!".utf8)
        var row = StoredRow(version: 1 << 40, expiryMilliseconds: 0, clientFlags: 0, value: [])
        row.partialLength = 4
        bed.store.answerWrite(.stored(row))
        #expect(bed.answers.writes[write] == .stored(row))
        #expect(bed.copy("k") == nil)
        bed.store.answerRead()
        #expect(bed.answer(get) == "old!")
        #expect(bed.cached("k") == "old!")
    }
}
