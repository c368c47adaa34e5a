// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
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

    private func problems(_ settings: String) -> String {
        let text = "members: [\"127.0.0.1:1\"]\nregister: {address: \"127.0.0.1:1\"}\n" + settings
        let line = NodeCommandLine(
            program: "memcached", arguments: ["--config", "node.yaml"], environment: [:]
        ) { _ in .success(Array(text.utf8)) }
        do throws(StartRefusal) {
            _ = try line.configuration()
            return ""
        } catch { return error.errors }
    }

    /// It would come up with nothing, whatever others have.
    @Test(arguments: [
        ("5s", "5s", true), ("10s", "9s", true), ("10s", "11s", false), ("1s", "5s", true), ("1s", "6s", false),
    ])
    func aNodeOfARegionIsGivenTimeToFetch(_ bound: String, _ timeout: String, _ isRefused: Bool) {
        let region = "region: west\nregions: [{name: east, role: home, stream: \"127.0.0.1:2\"}, {name: west}]\n"
        let settings = "warmUp: {hash: multiProbe, timeout: \(timeout)}\nstream: {lagBound: \(bound)}\n"
        let found = problems(region + settings)
        let begins = bound == "10s" ? "10s" : "5s"
        #expect(
            found.contains("warmUp.timeout: \(timeout); nothing would be fetched before it, as") == isRefused,
            "\(found)")
        #expect(found.contains("begins \(begins) behind joining it (stream.lagBound") == isRefused)
        #expect(isRefused || found.isEmpty, "\(found)")
        #expect(problems("warmUp: {hash: multiProbe, timeout: \(timeout)}\n").isEmpty, "there is no stream to join")
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
