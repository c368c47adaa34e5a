// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MemcacheProtocol

/// The only event that `text` makes; records an issue when there is another number of them.
func only(_ text: String, _ location: SourceLocation = #_sourceLocation) -> Event {
    let (events, violation) = Transcript.events(of: Array(text.utf8))
    #expect(violation == nil, sourceLocation: location)
    #expect(events.count == 1, "\(text.debugDescription): \(events)", sourceLocation: location)
    return events.first ?? .close
}

/// The events that `text` makes.
func events(_ text: String, cuts: [Int] = []) -> [Event] {
    Transcript.events(of: Array(text.utf8), cuts: cuts).events
}

extension Event {
    var keyText: String { String(decoding: key, as: UTF8.self) }
    var valueText: String { String(decoding: value, as: UTF8.self) }
    var isQuiet: Bool { traits.contains(.quiet) }
}

@Suite struct ClassicParsingTests {
    @Test(arguments: [("get", Verb.get), ("gets", .gets)])
    func getYieldsItsKey(name: String, verb: Verb) {
        for end in ["\r\n", "\n", "  \r\n"] {
            let event = only("\(name) key\(end)")
            #expect(event.verb == verb && event.keyText == "key" && event.traits == .lastKey)
        }
    }

    @Test func getOfSeveralKeysYieldsEachAndMarksTheLast() {
        let list = events("get a  bb c \r\n")
        #expect(list.map(\.keyText) == ["a", "bb", "c"])
        #expect(list.map { $0.traits.contains(.lastKey) } == [false, false, true])
        #expect(list.allSatisfy { $0.verb == .get })
    }

    @Test func gatCarriesItsTimeToEachKey() {
        let list = events("gats -1 a b\r\n")
        #expect(list.map(\.verb) == [.gats, .gats])
        #expect(list.map(\.exptime) == [-1, -1])
        #expect(only("gat x a\r\n").error == .invalidExptime)
        #expect(only("gat 1\r\n").error == .badCommandLine)
    }

    @Test func keyOf250BytesIsTheLongest() {
        let longest = String(repeating: "k", count: 250)
        #expect(only("get \(longest)\r\n").keyText == longest)
        #expect(only("get \(longest)k\r\n").error == .badCommandLine)
        #expect(only("delete \(longest)k\r\n").error == .badCommandLine)
        #expect(only("mg \(longest)k v\r\n").error == .badCommandLine)
        #expect(events("get a b \(longest) c\r\n").count == 4)
        #expect(only("get a \(longest)k b\r\n").error == .badCommandLine, "refused before its first key")
    }

    @Test func keysMayHoldAnythingButSpaceAndLineFeed() {
        #expect(only("get a\tb\u{0}c\u{1}\r\n").key == [97, 9, 98, 0, 99, 1])
        #expect(only("get k\r\r\n").key == [107, 13])
    }

    @Test func lineTooShortOrWithoutArgumentsIsRefused() {
        for line in [
            "\r\n", "a\r\n", "mn\n", "get\r\n", "get \r\n", "set a 0 0\r\n", "delete\r\n", "incr a\r\n", "touch a\r\n",
        ] {
            #expect(only(line).error == .badCommandLine, "\(line.debugDescription)")
        }
    }

    @Test func setYieldsAllOfIt() {
        let event = only("set key 5 -7 3\r\nabc\r\n")
        #expect(event.verb == .set && event.keyText == "key" && event.valueText == "abc" && !event.isQuiet)
        #expect(event.clientFlags == 5 && event.exptime == -7)
        #expect(only("set key 4294967295 0 3 noreply\r\nabc\r\n").isQuiet)
        #expect(only("set key 0 0 3 noreply\nabc\r\n").isQuiet)
        #expect(only("set key 0 0 3 other\r\nabc\r\n").isQuiet == false)
        #expect(only("set key 0 0 0\r\n\r\n").value.isEmpty)
        #expect(only("set  key 0 0  3\r\nabc\r\n").keyText == "key")
    }

    @Test(arguments: [
        ("add", Verb.add), ("replace", .replace), ("append", .append), ("prepend", .prepend), ("set", .set),
    ])
    func storageCommandsHaveTheirVerbs(name: String, verb: Verb) {
        #expect(only("\(name) k 1 2 3\r\nabc\r\n").verb == verb)
    }

    @Test func casNeedsItsNumber() {
        #expect(only("cas k 0 0 1 18446744073709551615\r\nx\r\n").cas == UInt64.max)
        #expect(only("cas k 0 0 1 5 noreply\r\nx\r\n").isQuiet)
        let refused = only("cas k 0 0 1\r\nx\r\n")
        #expect(refused.error == .badCommandLine && refused.swallowed == 3 && !refused.isQuiet)
        let hidden = only("cas k 0 0 1 noreply\r\nx\r\n")
        #expect(hidden.error == .badCommandLine && hidden.swallowed == 3 && hidden.isQuiet)
    }

    @Test func valueMayHoldLineEnds() {
        #expect(only("set k 0 0 7\r\na\r\nb\r\nc\r\n").valueText == "a\r\nb\r\nc")
    }

    @Test func valueWithoutItsLineEndKeepsItsVerbAndSaysSo() {
        let list = events("set k 0 0 3\r\nabcdXget k\r\n")
        #expect(list.map(\.verb) == [.set, .get])
        #expect(list.first?.error == .badDataChunk)
    }

    @Test func flagsAndTimesAreAsLenientAsTheLibrary() {
        #expect(only("set k +5 0 0\r\n\r\n").clientFlags == 5)
        #expect(only("set k 4294967296 0 0\r\n\r\n").clientFlags == 0)
        #expect(only("set k 1\tx 0 0\r\n\r\n").clientFlags == 1)
        #expect(only("set k \t 7 0\r\n\r\n").clientFlags == 7, "white space is skipped into the next token")
        #expect(only("set k -18446744073709551615 0 0\r\n\r\n").clientFlags == 1)
        #expect(only("set k -1 0 0\r\n\r\n").error == .badCommandLine)
        #expect(only("set k 1x 0 0\r\n\r\n").error == .badCommandLine)
        #expect(only("set k 18446744073709551616 0 0\r\n\r\n").error == .badCommandLine)
        #expect(only("set k 0 4294967297 0\r\n\r\n").exptime == 1)
        #expect(only("set k 0 9223372036854775808 0\r\n\r\n").error == .badCommandLine)
    }

    @Test func lengthIsStrictAndBadOnesSwallowNothing() {
        for length in ["-1", "x", "+1", "1x", "2147483646", "99999999999", "000000000001"] {
            let event = only("set k 0 0 \(length)\r\n")
            #expect(event.error == .badCommandLine && event.swallowed == 0, "\(length)")
        }
        #expect(only("set k 0 0 -\r\n\r\n").value.isEmpty, "memcached reads a lone minus as 0")
        let huge = only("set k 0 0 2147483645\r\n")
        #expect(huge.kind == .truncated)
    }

    @Test func countingAndTouchingAreStrict() {
        #expect(only("incr k 18446744073709551615\r\n").delta == UInt64.max)
        #expect(only("decr k 18446744073709551616\r\n").error == .invalidDelta)
        #expect(only("incr k -1\r\n").error == .invalidDelta)
        #expect(only("touch k 2147483647\r\n").exptime == 2_147_483_647)
        #expect(only("touch k 2147483648\r\n").error == .invalidExptime)
        #expect(only("incr k noreply\r\n").isQuiet, "an error that nobody hears")
        #expect(only("delete k 0 noreply\r\n").isQuiet)
        #expect(only("delete noreply\r\n").isQuiet && only("delete noreply\r\n").keyText == "noreply")
        #expect(only("delete a b c d e\r\n").keyText == "a")
    }

    @Test func unknownCommandsAreErrors() {
        for line in ["nonsense\r\n", " get k\r\n", "GET k\r\n", "gett k\r\n", "mm k\r\n", "\r \r\n"] {
            #expect(only(line).error == .error, "\(line.debugDescription)")
        }
        #expect(only("nonsense noreply\r\n").isQuiet)
    }

    @Test func httpIsClosed() {
        #expect(only("GET / HTTP/1.1\r\nHost: x\r\n\r\n").kind == .close)
        #expect(only("x HTTP/\r\n").kind == .close)
        #expect(only("HTTP/1.1\r\n").error == .error)
        #expect(only("x HTTP\r\n").error == .error)
    }

    @Test(arguments: [
        ("flush_all", Verb.flushAll), (" flush_all", .flushAll), ("version", .version), ("stats", .stats),
        ("stats a b", .stats),
        ("shutdown", .shutdown), ("watch", .watch), ("cache_memlimit 1", .cacheMemlimit),
        ("lru_crawler x", .lruCrawler),
        ("lru", .lru), ("slabs", .slabs), ("extstore", .extstore), ("refresh_certs", .refreshCerts),
        ("debugtime p", .debugtime), ("config get cluster", .config),
    ])
    func operatorCommandsKeepTheirLine(text: String, verb: Verb) {
        let event = only(text + "\r\n")
        #expect(event.verb == verb && event.line == Array((text + "\r\n").utf8))
    }

    @Test func flushAllTakesADelay() {
        #expect(only("flush_all 9\r\n").exptime == 9)
        #expect(only("flush_all -9 noreply\r\n").exptime == -9)
        #expect(only("flush_all noreply\r\n").isQuiet)
        #expect(only("flush_all noreply\r\n").error.isNone)
        let bad = only("flush_all x\r\n")
        #expect(bad.verb == .flushAll && bad.error == .invalidExptime)
    }

    @Test func verbosityTakesALevel() {
        #expect(only("verbosity 2\r\n").delta == 2)
        #expect(only("verbosity\r\n").error == .badCommandLine)
        #expect(only("verbosity noreply\r\n").isQuiet)
    }

    @Test func quitEndsTheConnection() {
        #expect(events("quit\r\nget a\r\n").map(\.verb) == [.quit])
        #expect(only("quit now\r\n").traits == .closesAfterReply)
    }

    @Test func noreplyCountsOnlyAmongTheFirst23Tokens() {
        let filler = String(repeating: "x ", count: 20)
        #expect(only("delete k \(filler)noreply\r\n").isQuiet)
        #expect(!only("delete k \(filler)x noreply\r\n").isQuiet)
    }
}
