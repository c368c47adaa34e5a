// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Testing

@testable import NodeServer

/// What a node that joins reads of the others, and what it does not keep of that.
struct WarmUpTests {
    @Test(arguments: [
        ("key=a exp=-1 la=1 cas=2 fetch=no cls=1 size=70 flags=0 ", "a", 0, 70),
        ("key=user%3A1%20x exp=1999999999 la=1 cas=2 fetch=yes cls=2 size=9", "user:1 x", 1_999_999_999, 9),
        ("key=%25 exp=0", "%", 0, 0),
    ])
    func aLineOfADumpNamesAKey(_ line: String, _ key: String, _ expiry: Int64, _ size: Int) throws {
        let found = try #require(PeerShare.entry(Array(line.utf8)))
        #expect(found.0.key == Array(key.utf8) && found.0.expiry == expiry && found.size == size)
    }

    @Test(arguments: ["BUSY currently processing crawler request", "ERROR", "key=a", "exp=1", "key=%2 exp=1", ""])
    func otherLinesNameNone(_ line: String) {
        let isNone = PeerShare.entry(Array(line.utf8)) == nil
        #expect(isNone)
    }

    @Test func everyByteComesBackFromItsSpelling() {
        let bytes = (0...255).map { UInt8($0) }
        #expect(PercentEncoding.decoded(Array(PercentEncoding.encoded(bytes.span).utf8)) == bytes)
        for text in ["%zz", "%+1", "%-1", "%4", "%"] { #expect(PercentEncoding.decoded(Array(text.utf8)) == nil) }
    }

    @Test func whatIsDeletedIsKnownFromThenOn() {
        let keys = WarmingKeys()
        let before = Clock.monotonicNanoseconds()
        #expect(!keys.isDeleted(7, since: before) && !keys.isDeleted(8, since: before))
        keys.noteDelete(7)
        let after = Clock.monotonicNanoseconds() + 1
        #expect(keys.isDeleted(7, since: before) && !keys.isDeleted(8, since: before))
        #expect(!keys.isDeleted(7, since: after))
        keys.noteFlush()
        #expect(keys.isDeleted(8, since: before) && keys.isDeleted(9, since: before))
    }
}
