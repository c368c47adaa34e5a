// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// What the tier does one command after the other, and at its limits.
struct StorageTierTests {
    private func isNotSent(_ outcome: ReadOutcome?) -> Bool {
        if case .failed(let failure) = outcome { failure.kind == .notSent } else { false }
    }

    private func isNotSent(_ outcome: WriteOutcome?) -> Bool {
        if case .failed(let failure) = outcome { failure.kind == .notSent } else { false }
    }

    @Test func aMissIsReadFilledAndAnswered() throws {
        let bed = try TierBed()
        bed.seed("k", "value")
        let get = bed.read("k")
        #expect(bed.answers.reads.isEmpty)
        bed.store.answerRead()
        #expect(bed.answer(get) == "value")
        #expect(bed.cached("k") == "value")
        #expect(bed.statistic("fills") == 1)
    }

    @Test func aHerdCostsOneRead() throws {
        let bed = try TierBed()
        bed.seed("k", "value")
        let gets = (0..<10_000).map { _ in bed.read("k") }
        #expect(bed.store.readCount == 1)
        #expect(bed.statistic("waiters") == 10_000)
        bed.store.answerRead()
        #expect(gets.allSatisfy { bed.answer($0) == "value" })
        #expect(bed.store.readCount == 1)
        #expect(bed.answers.deliveries == 1, "one delivery for all of one receiver")
        #expect(bed.statistic("single_flight_savings") == 9999)
        #expect(bed.statistic("waiters") == 0)
    }

    /// Whoever was shown a copy behind its time waits for nothing; the store is asked once, and fills the cache.
    @Test func aRefreshIsOneReadThatNobodyWaitsFor() throws {
        let bed = try TierBed()
        bed.seed("k", "new")
        bed.copies.copies[Array("k".utf8)] = .found(
            StoredRow(version: 1, expiryMilliseconds: 0, clientFlags: 0, value: Array("old".utf8)))
        for _ in 0..<100 { bed.refresh("k") }
        #expect(bed.store.reads.count == 1)
        #expect(bed.statistic("refreshes") == 1 && bed.statistic("waiters") == 0)
        bed.store.answerRead()
        #expect(bed.cached("k") == "new")
        #expect(bed.answers.deliveries == 0)
        // One who does wait takes part in it.
        bed.refresh("k")
        bed.copies.copies[Array("k".utf8)] = nil
        let get = bed.read("k")
        #expect(bed.store.reads.count == 1)
        bed.store.answerRead()
        #expect(bed.answer(get) == "new")
    }

    @Test func aRefreshThatFailsOrComesTooLateLeavesTheCopy() throws {
        let bed = try TierBed()
        bed.copies.copies[Array("k".utf8)] = .found(
            StoredRow(version: 1, expiryMilliseconds: 0, clientFlags: 0, value: Array("old".utf8)))
        bed.refresh("k")
        bed.store.answerRead(.failed(StorageFailure(.refused, "no")))
        #expect(bed.cached("k") == "old")
        bed.refresh("k")
        bed.tick(after: 6000)
        #expect(bed.cached("k") == "old" && bed.statistic("reads_timed_out") == 0)
        // Another one is sent then; what comes late is ignored.
        bed.refresh("k")
        #expect(bed.store.reads.count == 2)
        bed.seed("k", "new")
        bed.store.answerRead()
        #expect(bed.cached("k") == "old")
        bed.store.answerRead()
        #expect(bed.cached("k") == "new")
    }

    @Test func aRefreshNeitherPassesAWriteNorOutlivesOne() throws {
        let bed = try TierBed()
        bed.seed("k", "old")
        bed.refresh("k")
        bed.write(.set, "k", "new")
        // Looked before the write, answered after it.
        let before = bed.store.look(Array("k".utf8))
        bed.store.answerWrite()
        bed.store.answerRead(before)
        #expect(bed.cached("k") == "new")
        bed.write(.set, "k", "newer")
        bed.refresh("k")
        #expect(bed.store.reads.isEmpty, "the write brings its own row")
        bed.store.answerWrite()
        #expect(bed.cached("k") == "newer")
    }

    /// However often a key is written meanwhile, there is one read at a time, and one for all who came since.
    @Test func aHerdAmongWritesReadsOneAtATime() throws {
        let bed = try TierBed()
        bed.seed("k", "value")
        for _ in 0..<100 {
            bed.read("k")
            bed.write(.set, "other key of the bucket", "value")
            #expect(bed.store.reads.count == 1)
        }
        bed.store.answerRead()
        #expect(bed.answers.reads.count == 1, "the others came after something had arrived")
        bed.store.answerRead()
        #expect(bed.answers.reads.count == 100)
        #expect(bed.store.readCount == 2)
    }

    @Test func aCommittedWriteIsInTheCacheBeforeItsAnswer() throws {
        let bed = try TierBed()
        let set = bed.write(.set, "k", "value")
        #expect(bed.cached("k") == nil && bed.answers.writes.isEmpty)
        bed.store.answerWrite()
        guard case .stored(let row) = bed.answers.writes[set] else { throw Missing() }
        #expect(bed.copy("k") == .found(row))
        bed.write(.delete, "k")
        bed.store.answerWrite()
        #expect(bed.copy("k") == .absent, "a delete is a definite answer")
    }

    private struct Missing: Error {}

    @Test func withoutANegativeTTLNothingIsRemembered() throws {
        var policy = StoragePoolPolicy()
        policy.negativeTTLMilliseconds = 0
        let bed = try TierBed(policy: policy)
        let get = bed.read("k")
        bed.store.answerRead()
        #expect(bed.answers.reads[get] == .absent)
        #expect(bed.copy("k") == nil)
        bed.write(.set, "k", "value")
        bed.store.answerWrite()
        bed.write(.delete, "k")
        bed.store.answerWrite()
        #expect(bed.copy("k") == nil)
    }

    @Test func writesOfAKeyGoOutInTheirOrder() throws {
        let bed = try TierBed()
        for index in 0..<50 { bed.write(.set, "k", "\(index)") }
        #expect(bed.store.writes.map { String(decoding: $0.write.value, as: UTF8.self) } == (0..<50).map(String.init))
        #expect(bed.isBusy("k"))
        bed.store.answerAll()
        #expect(bed.cached("k") == "49")
        #expect(!bed.isBusy("k"))
    }

    @Test func aReadGetsTheRowOfTheLastWriteBeforeIt() throws {
        let bed = try TierBed()
        bed.write(.set, "k", "first")
        let first = bed.read("k")
        bed.write(.append, "k", "+second")
        let second = bed.read("k")
        bed.write(.delete, "k")
        let third = bed.read("k")
        bed.store.answerWrite()
        #expect(bed.answer(first) == "first")
        #expect(bed.answers.reads[second] == nil)
        bed.store.answerWrite()
        bed.store.answerWrite()
        #expect(bed.answer(second) == "first+second")
        #expect(bed.answers.reads[third] == .absent)
        #expect(bed.store.readCount == 0)
    }

    @Test func aReadBehindAWriteThatTellsNothingIsSent() throws {
        let bed = try TierBed()
        bed.seed("k", "there")
        bed.write(.add, "k", "value")
        let get = bed.read("k")
        bed.store.answerWrite()
        #expect(bed.answers.reads[get] == nil)
        bed.store.answerRead()
        #expect(bed.answer(get) == "there")
        bed.write(.set, "k", "value")
        let behind = bed.read("k")
        bed.store.answerWrite(.failed(StorageFailure(.refused, "test")))
        bed.store.answerRead()
        #expect(bed.answer(behind) == "there")
    }

    @Test func aRowThatExpiresOnTheWayIsReadAgain() throws {
        let bed = try TierBed()
        bed.write(.set, "k", "short") { $0.expiryMilliseconds = bed.now + 10 }
        let get = bed.read("k")
        let row = bed.store.commit(bed.store.writes[0].write)
        bed.now += 20
        bed.store.answerWrite(row)
        #expect(bed.answers.reads[get] == nil, "nobody can tell whether it was live at its commit")
        bed.store.answerRead()
        #expect(bed.answers.reads[get] == .absent)
    }

    @Test func aKeyOfUnknownOutcomeIsReadButNotCachedUntilSettled() throws {
        let bed = try TierBed()
        bed.seed("k", "old")
        bed.write(.set, "k", "new")
        bed.store.answerWrite(.failed(StorageFailure(.unknownOutcome, "test")))
        #expect(bed.statistic("uncertain_keys") == 1)
        for _ in 0..<3 {
            bed.read("k")
            bed.store.answerRead()
            #expect(bed.copy("k") == nil)
        }
        let set = bed.write(.set, "k", "newer")
        bed.store.answerWrite()
        #expect(bed.answers.writes[set] != nil)
        #expect(bed.copy("k") == nil, "the write before it may yet come")
        bed.store.sink?.unknownOutcomesSettled()
        #expect(bed.statistic("uncertain_keys") == 0)
        bed.read("k")
        bed.store.answerRead()
        #expect(bed.cached("k") == "newer")
    }

    @Test func aLateAnswerMakesAKeyCertainAgain() throws {
        let bed = try TierBed()
        let set = bed.write(.set, "k", "value")
        bed.tick(after: 5001)
        #expect(bed.answers.writes[set] != nil)
        #expect(!bed.isBusy("k"), "nobody waits for it")
        bed.read("k")
        bed.store.answerRead()
        #expect(bed.copy("k") == nil)
        bed.store.answerWrite()
        #expect(bed.statistic("writes_late") == 1)
        bed.read("k")
        bed.store.answerRead()
        #expect(bed.cached("k") == "value")
    }

    @Test func anInvalidationDuringAWriteLeavesNoCopy() throws {
        let bed = try TierBed()
        bed.write(.set, "k", "ours")
        let get = bed.read("k")
        let ours = bed.store.commit(bed.store.writes[0].write)
        bed.seed("k", "theirs")
        bed.tier.noteInvalidation(key: Array("k".utf8), hash: bed.hash("k"))
        bed.store.answerWrite(ours)
        #expect(bed.copy("k") == nil)
        bed.store.answerRead()
        #expect(bed.answer(get) == "theirs")
    }

    @Test func aFailedCompareDropsTheCopy() throws {
        let bed = try TierBed()
        bed.seed("k", "value")
        bed.read("k")
        bed.store.answerRead()
        bed.write(.set, "k", "next") { $0.compare = 1 }
        bed.store.answerWrite()
        #expect(bed.copy("k") == nil, "it may be the copy whose version is wrong")
    }

    // MARK: Limits

    @Test func waitersOfAKeyAreBounded() throws {
        var configuration = StorageTierConfiguration()
        configuration.waitersPerKeyMax = 3
        let bed = try TierBed(configuration: configuration)
        let gets = (0..<5).map { _ in bed.read("k") }
        #expect(bed.answers.reads.count == 2)
        #expect(isNotSent(bed.answers.reads[gets[3]]) && isNotSent(bed.answers.reads[gets[4]]))
        bed.store.answerAll()
        #expect(bed.answers.reads[gets[2]] == .absent)
        #expect(bed.statistic("reads_refused") == 2)
    }

    @Test func waitersAreBoundedInAll() throws {
        var configuration = StorageTierConfiguration()
        configuration.waitersMax = 3
        let bed = try TierBed(configuration: configuration)
        for key in ["a", "b", "c"] { bed.read(key) }
        #expect(isNotSent(bed.answers.reads[bed.read("d")]))
    }

    @Test func readsInFlightAreBounded() throws {
        var configuration = StorageTierConfiguration()
        configuration.readsInFlightMax = 2
        let bed = try TierBed(configuration: configuration)
        bed.read("a")
        bed.read("b")
        #expect(isNotSent(bed.answers.reads[bed.read("c")]))
        #expect(bed.store.reads.count == 2)
        bed.store.answerRead()
        bed.read("c")
        #expect(bed.store.reads.count == 2)
    }

    /// A read that was given up is still storage's to answer: it counts.
    @Test func readsGivenUpCountUntilTheyAreAnswered() throws {
        var configuration = StorageTierConfiguration()
        configuration.readsInFlightMax = 2
        let bed = try TierBed(configuration: configuration)
        let gets = [bed.read("a"), bed.read("b")]
        bed.tick(after: 5001)
        #expect(gets.allSatisfy { if case .failed = bed.answers.reads[$0] { true } else { false } })
        #expect(isNotSent(bed.answers.reads[bed.read("c")]))
        bed.store.answerAll()
        #expect(bed.copies.copies.isEmpty, "what was given up is not cached")
        bed.read("c")
        bed.store.answerAll()
        #expect(bed.statistic("reads_in_flight") == 0)
    }

    @Test func touchIsShedFirstAndDeleteLast() throws {
        var configuration = StorageTierConfiguration()
        configuration.writesInFlightMax = 4
        configuration.deletesReservedMax = 2
        let bed = try TierBed(configuration: configuration)
        for _ in 0..<3 { bed.write(.set, "k", "v") }
        #expect(isNotSent(bed.answers.writes[bed.write(.touch, "k")]))
        bed.write(.set, "k", "v")
        #expect(isNotSent(bed.answers.writes[bed.write(.set, "k", "v")]))
        #expect(isNotSent(bed.answers.writes[bed.write(.increment, "k")]))
        bed.write(.delete, "k")
        bed.write(.delete, "k")
        #expect(isNotSent(bed.answers.writes[bed.write(.delete, "k")]))
        #expect(bed.store.writes.count == 6)
        bed.store.answerAll()
        #expect(bed.statistic("writes_refused") == 4)
        #expect(bed.statistic("writes_in_flight") == 0)
    }

    @Test func pastTheLimitOfUncertainKeysNothingIsCached() throws {
        var configuration = StorageTierConfiguration()
        configuration.uncertainKeysMax = 1
        let bed = try TierBed(configuration: configuration)
        for key in ["a", "b"] {
            bed.write(.set, key, "v")
            bed.store.answerWrite(.failed(StorageFailure(.unknownOutcome, "test")))
        }
        for key in ["b", "c"] {
            bed.read(key)
            bed.store.answerRead()
            #expect(bed.copy(key) == nil)
        }
        bed.store.sink?.unknownOutcomesSettled()
        bed.read("c")
        bed.store.answerRead()
        #expect(bed.copy("c") == .absent)
    }

    @Test func valuesAreBoundedByThePool() throws {
        var policy = StoragePoolPolicy()
        policy.valueLimitBytes = 4
        let bed = try TierBed(policy: policy)
        let set = bed.write(.set, "k", "12345")
        bed.store.answerWrite()
        #expect(bed.answers.writes[set] == .tooLarge)
    }

    /// Whoever still has time when a read is given up waits for another.
    @Test func aReadThatIsGivenUpIsSentAgainForTheOthers() throws {
        let bed = try TierBed()
        bed.seed("k", "value")
        let first = bed.read("k")
        bed.tick(after: 3000)
        let second = bed.read("k")
        #expect(bed.store.readCount == 1)
        bed.tick(after: 2001)
        #expect(bed.answers.reads[first] != nil && bed.answers.reads[second] == nil)
        #expect(bed.store.readCount == 2)
        bed.store.answerRead()
        #expect(bed.answers.reads[second] == nil, "that was the one that was given up")
        bed.store.answerRead()
        #expect(bed.answer(second) == "value")
    }

    @Test func readsBehindAWriteThatRunsOutOfTimeAreSent() throws {
        let bed = try TierBed()
        bed.seed("k", "old")
        bed.write(.set, "k", "new")
        bed.tick(after: 3000)
        let get = bed.read("k")
        bed.tick(after: 2001)
        #expect(bed.store.readCount == 1)
        bed.store.answerRead()
        #expect(bed.answer(get) == "old")
    }

    // MARK: The end

    @Test func stopAnswersEverybody() throws {
        let bed = try TierBed()
        let (get, set) = (bed.read("a"), bed.write(.set, "b", "v"))
        let behind = bed.read("b")
        bed.tier.stop()
        for token in [get, behind] { #expect(bed.answers.reads[token] != nil) }
        guard case .failed(let failure) = bed.answers.writes[set] else { throw Missing() }
        #expect(failure.kind == .unknownOutcome)
        #expect(isNotSent(bed.answers.reads[bed.read("a")]))
        #expect(isNotSent(bed.answers.writes[bed.write(.set, "a", "v")]))
    }

    @Test func figuresAreTheTiersThenTheBackends() throws {
        let bed = try TierBed()
        let names = bed.tier.statistics().map(\.name)
        #expect(names.first == "reads" && names.last == "manual")
        #expect(Set(names).count == names.count)
        #expect(bed.tier.health == .ready)
    }
}
