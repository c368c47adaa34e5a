// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// The races between fills, writes and invalidations, one interleaving each. Each test shows that the race does not
/// happen, and that it does once its guard is taken out.
struct RaceTests {
    private let unknown = StorageFailure(.unknownOutcome, "test")

    /// Whether the race happens with all guards, and without one.
    private func expect(
        _ guarded: WriteThroughGuards, _ happens: (WriteThroughGuards) throws -> Bool,
        at location: SourceLocation = #_sourceLocation
    ) rethrows {
        #expect(try !happens(.all), "the race happens", sourceLocation: location)
        #expect(
            try happens(.all.subtracting(guarded)), "without its guard the race does not happen",
            sourceLocation: location)
    }

    /// R1: a miss reads the old value; a write commits and installs the new one; then the old fill arrives.
    @Test func anOldFillDoesNotFollowAWrite() throws {
        try expect(.fills) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            let get = bed.read("k")
            let seen = bed.store.look(Array("k".utf8))
            let set = bed.write(.set, "k", "new")
            bed.store.answerWrite()
            #expect(bed.answers.writes[set] != nil)
            bed.store.answerRead(seen)
            #expect(bed.answer(get) == "old", "it was asked before the write")
            return bed.cached("k") == "old"
        }
    }

    /// R2: the invalidation comes first. A read that is sent behind it asks a source that does not have the new row
    /// yet, and its fill is the last to arrive.
    @Test(arguments: [StorageWrite.Operation.set, .add, .delete])
    func aFillFromASourceThatLagsDoesNotFollowAnInvalidation(_ operation: StorageWrite.Operation) throws {
        try expect(.laggingReads) { guards in
            var configuration = StorageTierConfiguration()
            configuration.followsChanges = true
            let bed = try TierBed(guards, configuration: configuration)
            let (key, hash) = (Array("k".utf8), bed.hash("k"))
            if operation != .add { bed.seed("k", "old") }
            bed.read("k")
            bed.store.answerRead()
            let lagging = bed.store.look(key)
            #expect(bed.copy("k") == lagging)
            var write = StorageWrite(operation, key: key)
            write.value = Array("new".utf8)
            let version =
                switch bed.store.commit(write) {
                case .stored(let row): row.version
                case .deleted(let version): version
                default: UInt64(0)
                }
            bed.tier.noteChange(
                key: key, hash: hash, version: version, isUnconditional: false, isDeletion: operation == .delete,
                row: nil, pool: 0)
            #expect(bed.copy("k") == nil)
            bed.read("k")
            bed.store.answerRead(lagging)
            let isStale = bed.copy("k") == lagging
            // The source has caught up: it is cached again.
            bed.read("k")
            bed.store.answerRead()
            #expect(bed.copy("k") == bed.store.look(key))
            return isStale
        }
    }

    /// R2: all rows were removed, and a read that is sent behind the word of it asks a source that has not heard of it.
    @Test func aFillFromASourceThatLagsDoesNotFollowAFlush() throws {
        try expect(.laggingReads) { guards in
            var configuration = StorageTierConfiguration()
            configuration.followsChanges = true
            let bed = try TierBed(guards, configuration: configuration)
            bed.seed("k", "old")
            let lagging = bed.store.look(Array("k".utf8))
            guard case .found(let row) = lagging else { return false }
            bed.tier.noteEmptied(version: row.version + 1)
            bed.read("k")
            bed.store.answerRead(lagging)
            return bed.copy("k") == lagging
        }
    }

    /// R2: the copy is as new as the record says, and is evicted: what lags must not fill it anew.
    @Test func aRecordThatTellsNothingNewCountsOnceTheCopyIsGone() throws {
        try expect(.laggingReads) { guards in
            var configuration = StorageTierConfiguration()
            configuration.followsChanges = true
            let bed = try TierBed(guards, configuration: configuration)
            let (key, hash) = (Array("k".utf8), bed.hash("k"))
            bed.seed("k", "old")
            let lagging = bed.store.look(key)
            bed.seed("k", "new")
            bed.read("k")
            bed.store.answerRead()
            var version: UInt64 = 0
            if case .found(let row)? = bed.copy("k") { version = row.version }
            let isNew = bed.tier.noteChange(
                key: key, hash: hash, version: version, isUnconditional: false, row: nil, pool: 0)
            #expect(version > 0 && !isNew)
            bed.evict("k")
            bed.read("k")
            bed.store.answerRead(lagging)
            return bed.copy("k") == lagging
        }
    }

    /// R2: the same where the read was sent before the invalidation came.
    @Test func anOldFillDoesNotFollowAnInvalidation() throws {
        try expect(.invalidations) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            bed.read("k")
            let seen = bed.store.look(Array("k".utf8))
            bed.seed("k", "new")
            bed.tier.noteInvalidation(key: Array("k".utf8), hash: bed.hash("k"))
            bed.store.answerRead(seen)
            return bed.cached("k") == "old"
        }
    }

    /// R3: as R1, and the cache has evicted what the write installed, and all that it knew of the key with it.
    @Test func evictionDoesNotTakeTheGuardAway() throws {
        try expect(.countersBesideCache) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            bed.read("k")
            let seen = bed.store.look(Array("k".utf8))
            bed.write(.set, "k", "new")
            bed.store.answerWrite()
            bed.evict("k")
            bed.store.answerRead(seen)
            return bed.cached("k") == "old"
        }
    }

    /// R5: a write without an answer is committed after a read has looked.
    @Test func aLateCommitFindsNoCopy() throws {
        try expect(.uncertainKeys) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            let set = bed.write(.set, "k", "new")
            let late = bed.store.writes[0].write
            bed.store.answerWrite(.failed(unknown))
            #expect(bed.answers.writes[set] == .failed(unknown))
            let get = bed.read("k")
            bed.store.answerRead()
            #expect(bed.answer(get) == "old", "nobody knows yet")
            _ = bed.store.commit(late)
            return bed.cached("k") == "old"
        }
    }

    /// R5: the same where the tier's own time limit ends the waiting.
    @Test func aWriteThatRanOutOfTimeLeavesNoCopy() throws {
        try expect(.timeouts) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            bed.read("k")
            bed.store.answerRead()
            #expect(bed.cached("k") == "old")
            let set = bed.write(.set, "k", "new")
            bed.tick(after: 6000)
            guard case .failed(let failure) = bed.answers.writes[set] else { return true }
            #expect(failure.kind == .unknownOutcome)
            _ = bed.store.commit(bed.store.writes[0].write)
            return bed.cached("k") == "old"
        }
    }

    /// R5: a write of the process before this one is committed after a read has looked.
    @Test func nothingIsCachedWhileAnEarlierProcessMayWrite() throws {
        try expect(.restarts) { guards in
            let bed = try TierBed(guards, mayHaveEarlierWrites: true)
            bed.seed("k", "old")
            bed.read("k")
            bed.store.answerRead()
            bed.seed("k", "new")
            let isStale = bed.cached("k") == "old"
            bed.store.sink?.unknownOutcomesSettled()
            bed.read("k")
            bed.store.answerRead()
            #expect(bed.cached("k") == "new", "settled, it is cached")
            return isStale
        }
    }

    /// R6: a miss finds nothing; an insert commits; then "not found" arrives.
    @Test func anOldNotFoundDoesNotFollowAnInsert() throws {
        try expect(.negativeFills) { guards in
            let bed = try TierBed(guards)
            bed.read("k")
            bed.write(.add, "k", "new")
            bed.store.answerWrite()
            bed.store.answerRead(.absent)
            return bed.copy("k") == .absent
        }
    }

    /// R6: an error is not a miss.
    @Test func anErrorIsNotCachedAsNotFound() throws {
        try expect(.definiteAnswers) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "there")
            let get = bed.read("k")
            let failure = StorageFailure(.refused, "test")
            bed.store.answerRead(.failed(failure))
            #expect(bed.answers.reads[get] == .failed(failure))
            return bed.copy("k") == .absent
        }
    }

    /// R7: a touch makes the row expire sooner; the copy must not outlive it.
    @Test func aCopyExpiresWhenTouchSaid() throws {
        try expect(.touches) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "value", expiry: bed.now + 1_000_000)
            bed.read("k")
            bed.store.answerRead()
            bed.write(.touch, "k") { $0.expiryMilliseconds = bed.now + 20_000 }
            bed.store.answerWrite()
            bed.now += 30_000
            guard case .found(let row) = bed.copy("k") else { return false }
            return bed.stored("k") == nil && row.isLive(at: bed.now)
        }
    }

    /// R7: a fill looked before a touch made the row live longer, and would end it too early.
    @Test func aFillDoesNotUndoATouch() throws {
        try expect(.fills) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "value", expiry: bed.now + 20_000)
            bed.read("k")
            let seen = bed.store.look(Array("k".utf8))
            bed.write(.touch, "k") { $0.expiryMilliseconds = bed.now + 1_000_000 }
            bed.store.answerWrite()
            bed.store.answerRead(seen)
            bed.now += 30_000
            guard case .found(let row) = bed.copy("k") else { return false }
            return bed.stored("k") == "value" && !row.isLive(at: bed.now)
        }
    }

    /// R8: a compare with the version of a copy that was dropped since, and filled again.
    @Test func aVersionOutlivesItsCopy() throws {
        try expect(.storedVersions) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "value")
            bed.read("k")
            bed.store.answerRead()
            guard case .found(let row) = bed.copy("k") else { return true }
            bed.tier.noteInvalidation(key: Array("k".utf8), hash: bed.hash("k"))
            let cas = bed.write(.set, "k", "next") { $0.compare = row.version }
            bed.store.answerWrite()
            return bed.answers.writes[cas] == .exists
        }
    }

    /// R9: a refused write leaves no version without its value.
    @Test func aRefusedWriteLeavesTheCopyAlone() throws {
        try expect(.wholeRows) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "value")
            bed.read("k")
            bed.store.answerRead()
            bed.write(.set, "k", "next")
            bed.store.answerWrite(.failed(StorageFailure(.refused, "disk full")))
            return bed.cached("k") != "value"
        }
    }

    /// R10: a fill began before flush_all and arrives after it.
    @Test func aFillDoesNotBringBackWhatWasFlushed() throws {
        try expect(.flushes) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            let get = bed.read("k")
            let seen = bed.store.look(Array("k".utf8))
            bed.seed("k", "written around the cache")
            bed.tier.noteFlush()
            bed.copies.copies = [:]
            bed.store.answerRead(seen)
            #expect(bed.answer(get) == "old")
            return bed.cached("k") == "old"
        }
    }

    /// A database took the place of another one while its rows and answers were on their way.
    @Test func nothingOfADatabaseThatWasReplacedIsCached() throws {
        let bed = try TierBed()
        bed.seed("read", "old")
        bed.seed("cached", "old")
        let first = bed.read("cached")
        bed.store.answerRead()
        #expect(bed.answer(first) == "old" && bed.cached("cached") == "old")
        let get = bed.read("read")
        let set = bed.write(.set, "written", "old")
        bed.tier.rowsReplaced()
        #expect(bed.cached("cached") == nil)
        bed.store.answerAll()
        #expect(bed.answer(get) == "old" && bed.answers.writes[set] != nil)
        #expect(bed.cached("read") == nil && bed.cached("written") == nil)
        bed.read("read")
        bed.store.answerAll()
        #expect(bed.cached("read") == "old", "what is asked later is cached")
    }

    /// R11: a get that comes after an acked write does not share a read that began before it.
    @Test func aGetDoesNotJoinAReadFromBeforeAWrite() throws {
        try expect(.joins) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            bed.read("k")
            let seen = bed.store.look(Array("k".utf8))
            let set = bed.write(.set, "k", "new")
            bed.store.answerWrite()
            #expect(bed.answers.writes[set] != nil, "acked")
            bed.evict("k")
            let get = bed.read("k")
            bed.store.answerRead(seen)
            if !bed.store.reads.isEmpty { bed.store.answerRead() }
            return bed.answer(get) == "old"
        }
    }

    /// A get behind a set on one connection, while the set is under way.
    @Test func aReadWaitsForTheWriteBeforeIt() throws {
        try expect(.readsBehindWrites) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            bed.write(.set, "k", "new")
            #expect(bed.isBusy("k"))
            let get = bed.read("k")
            if !bed.store.reads.isEmpty { bed.store.answerRead() }
            bed.store.answerAll()
            return bed.answer(get) == "old"
        }
    }

    /// A read shows what a write in flight did; the older copy must not be seen after it.
    @Test func noOlderCopyIsSeenAfterARead() throws {
        try expect(.readsAhead) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "first")
            bed.read("k")
            bed.write(.set, "k", "second")
            bed.store.answerWrite()
            #expect(bed.cached("k") == "second")
            bed.write(.set, "k", "third")
            _ = bed.store.commit(bed.store.writes[0].write)
            bed.store.answerRead()
            return bed.cached("k") == "second"
        }
    }

    /// The answer of a write says that it is durable.
    @Test func aWriteIsAnsweredAfterItsCommit() throws {
        try expect(.commitBeforeAnswer) { guards in
            let bed = try TierBed(guards)
            let set = bed.write(.set, "k", "new")
            return bed.answers.writes[set] != nil
        }
    }

    /// Whoever sees the answer of a write does not see an older copy after it.
    @Test func aWriteIsAnsweredAfterItsCacheStep() throws {
        try expect(.cacheBeforeAnswer) { guards in
            let bed = try TierBed(guards)
            bed.seed("k", "old")
            bed.read("k")
            bed.store.answerRead()
            bed.write(.set, "k", "new")
            bed.store.answerWrite()
            return bed.cached("k") == "old"
        }
    }

    /// A row that had expired when it was written is "not found" for a get behind it.
    @Test func anExpiredRowIsNotAnAnswer() throws {
        try expect(.expiry) { guards in
            let bed = try TierBed(guards)
            bed.write(.set, "k", "dead") { $0.expiryMilliseconds = bed.now - 1 }
            let get = bed.read("k")
            bed.store.answerAll()
            return bed.answer(get) == "dead"
        }
    }
}
