// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Storage

/// What a stream told of, as long as it is remembered.
struct ToldVersionsTests {
    private func row(_ version: UInt64) -> ReadOutcome {
        .found(StoredRow(version: version, expiryMilliseconds: 0, clientFlags: 0, value: []))
    }

    @Test func whatIsOlderIsBehind() {
        var told = ToldVersions(limit: 4, keptMilliseconds: 10)
        told.note(1, version: 5, isDeletion: false, atNanoseconds: 0)
        told.note(2, version: 5, isDeletion: true, atNanoseconds: 0)
        #expect(told.isAhead(of: row(4), 1, atNanoseconds: 0) && told.isAhead(of: row(4), 2, atNanoseconds: 0))
        #expect(!told.isAhead(of: row(5), 1, atNanoseconds: 0) && !told.isAhead(of: row(6), 2, atNanoseconds: 0))
        #expect(told.isAhead(of: .absent, 1, atNanoseconds: 0), "there is a row")
        #expect(!told.isAhead(of: .absent, 2, atNanoseconds: 0))
        #expect(!told.isAhead(of: .failed(StorageFailure(.refused, "test")), 1, atNanoseconds: 0))
        #expect(!told.isAhead(of: row(1), 3, atNanoseconds: 0), "nothing was told of it")
        told.note(1, version: 3, isDeletion: true, atNanoseconds: 0)
        #expect(told.isAhead(of: row(4), 1, atNanoseconds: 0), "what was told of later, and is older, changes nothing")
    }

    @Test func itIsForgottenAfterAWhile() {
        var told = ToldVersions(limit: 4, keptMilliseconds: 10)
        told.note(1, version: 5, isDeletion: false, atNanoseconds: 1_000_000)
        #expect(told.isAhead(of: row(4), 1, atNanoseconds: 10_999_999))
        #expect(!told.isAhead(of: row(4), 1, atNanoseconds: 11_000_000))
    }

    @Test func theOldestOnesMakeRoom() {
        var told = ToldVersions(limit: 3, keptMilliseconds: 1000)
        for hash in UInt64(1)...3 { told.note(hash, version: 5, isDeletion: false, atNanoseconds: 0) }
        told.note(1, version: 7, isDeletion: false, atNanoseconds: 0)
        #expect(told.count == 3, "its own earlier place was the oldest")
        told.note(4, version: 5, isDeletion: false, atNanoseconds: 0)
        #expect(told.count == 3)
        #expect(!told.isAhead(of: row(4), 2, atNanoseconds: 0))
        #expect(told.isAhead(of: row(6), 1, atNanoseconds: 0) && told.isAhead(of: row(4), 4, atNanoseconds: 0))
        for hash in UInt64(100)...200 {
            told.note(hash, version: 1, isDeletion: false, atNanoseconds: 0)
            #expect(told.count <= 3)
        }
    }

    @Test func rowsFromBeforeEverythingWasRemovedAreOlderForAWhile() {
        var told = ToldVersions(limit: 4, keptMilliseconds: 10)
        let now: UInt64 = 1_700_000_000_000
        told.noteEmptied(version: now << 16, atNanoseconds: 1_000_000)
        #expect(told.isAhead(of: row((now - 1) << 16), 1, atNanoseconds: 1_000_000))
        #expect(told.isAhead(of: row((now + 499) << 16), 1, atNanoseconds: 1_000_000), "clocks differ")
        #expect(!told.isAhead(of: row((now + 500) << 16), 1, atNanoseconds: 1_000_000))
        #expect(!told.isAhead(of: .absent, 1, atNanoseconds: 1_000_000))
        #expect(!told.isAhead(of: row((now - 1) << 16), 1, atNanoseconds: 11_000_000), "it is forgotten")
        told.noteEmptied(version: .max, atNanoseconds: 12_000_000)
        #expect(told.isAhead(of: row(.max - 1), 1, atNanoseconds: 12_000_000))
    }
}
