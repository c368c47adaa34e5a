// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// A tier whose keys may move to another node at any moment, which then reads them from the same store.
struct SharedTierTests {
    private func bed(shares: Bool = true) throws -> TierBed {
        var configuration = StorageTierConfiguration()
        configuration.sharesKeys = shares
        return try TierBed(configuration: configuration)
    }

    /// A write is committed, the key moves, and its next owner shows what the write did, before its answer is here.
    @Test(arguments: [true, false]) func noCopyIsShownWhileAWriteIsUnderWay(shares: Bool) throws {
        let bed = try bed(shares: shares)
        bed.seed("k", "old")
        bed.read("k")
        bed.store.answerRead()
        #expect(bed.cached("k") == "old")
        bed.write(.set, "k", "new")
        let write = try #require(bed.store.writes.first)
        let outcome = bed.store.commit(write.write)
        #expect(bed.store.look(Array("k".utf8)) != .absent, "shown by the next owner")
        #expect(bed.cached("k") == (shares ? nil : "old"))
        let get = bed.read("k")
        #expect(bed.store.reads.isEmpty, "it waits for the write")
        bed.store.answerWrite(outcome)
        #expect(bed.answer(get) == "new")
        #expect(bed.cached("k") == "new")
    }

    @Test func ofSeveralWritesTheLastOneBringsTheCopyBack() throws {
        let bed = try bed()
        bed.write(.set, "k", "1")
        bed.write(.append, "k", "2")
        bed.store.answerWrite()
        #expect(bed.cached("k") == nil)
        bed.store.answerWrite()
        #expect(bed.cached("k") == "12")
    }
}
