// Martlet
// SPDX-License-Identifier: Apache-2.0

import Discovery
import MemcacheProtocol
import Memory
import Testing

@testable import MartletClient

/// Requests and replies as bytes.
struct WireTests {
    static func meta(_ request: CacheRequest) -> String {
        var buffer = OutputBuffer(capacity: 64)
        buffer.append(meta: request)
        return buffer.withSpan { String(decoding: [UInt8](copying: $0), as: UTF8.self) }
    }

    static func classic(_ request: CacheRequest) -> String {
        var buffer = OutputBuffer(capacity: 64)
        buffer.append(classic: request)
        return buffer.withSpan { String(decoding: [UInt8](copying: $0), as: UTF8.self) }
    }

    @Test func requestsCarryTheirTrace() throws {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        let trace = try #require(TraceContext(header))
        #expect(trace.traceparent == header && trace.isSampled)
        var request = CacheRequest(operation: .get, key: "k")
        request.trace = trace.traceparent
        #expect(Self.meta(request) == "mg k v f c L\(header)\r\n")
        request.operation = .store(.set)
        request.value = [65]
        #expect(Self.meta(request) == "ms k 1 L\(header)\r\nA\r\n")
        request.operation = .get
        #expect(Self.classic(request) == "gets k\r\n")
        #expect(TraceContext("01" + header.dropFirst(2) + "-more")?.traceparent == "01" + header.dropFirst(2))
        #expect(TraceContext(header.dropLast() + "0")?.isSampled == false)
        for wrong in [
            "", "00-", "ff" + header.dropFirst(2), header + "-more", header.uppercased(), String(header.dropLast()),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00\r\n" + header.dropFirst(2),
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", header.dropLast(2) + "0 ",
        ] {
            #expect(TraceContext(String(wrong)) == nil, "\(wrong)")
        }
    }

    @Test func requestsAreMemcachedsOwn() {
        var lease = CacheRequest(operation: .lease, key: "k")
        (lease.lease, lease.number) = (30, 5)
        #expect(Self.meta(lease) == "mg k v f c N30 R5\r\n")
        var store = CacheRequest(operation: .store(.add), key: "k")
        (store.value, store.flags, store.expiry, store.cas) = ([65, 66], 7, 60, 9)
        #expect(Self.meta(store) == "ms k 2 ME T60 F7 C9\r\nAB\r\n")
        store.operation = .store(.cas)
        #expect(Self.classic(store) == "cas k 7 60 2 9\r\nAB\r\n")
        store.operation = .store(.set)
        #expect(Self.classic(store) == "set k 7 60 2\r\nAB\r\n")
        var count = CacheRequest(operation: .increment, key: "n")
        (count.number, count.initial, count.lease) = (3, 10, 60)
        #expect(Self.meta(count) == "ma n v MI D3 J10 N60\r\n")
        #expect(Self.classic(count) == "incr n 3\r\n")
        var stale = CacheRequest(operation: .invalidate, key: "k")
        (stale.expiry, stale.cas) = (30, 4)
        #expect(Self.meta(stale) == "md k I T30 C4\r\n")
        #expect(Self.meta(CacheRequest(operation: .get, key: "ü")) == "mg ü v f c\r\n")
    }

    @Test func timesToLiveAreMemcachedsOwn() {
        #expect(CacheRequest.expiry(nil) == 0)
        #expect(CacheRequest.expiry(.milliseconds(1)) == 1)
        #expect(CacheRequest.expiry(.milliseconds(1_001)) == 2)
        #expect(CacheRequest.expiry(.zero) == -1)
        #expect(CacheRequest.expiry(.seconds(-3)) == -1)
        #expect(CacheRequest.expiry(.seconds(2_592_000)) == 2_592_000)
        #expect(CacheRequest.expiry(.seconds(2_592_001)) > 1_700_000_000)
    }

    @Test func keysAreChecked() {
        for key in ["k", String(repeating: "x", count: 250), "schlüssel"] { #expect(CacheRequest.isKey(key)) }
        for key in ["", String(repeating: "x", count: 251), "a b", "a\nb", "a\u{7f}"] {
            #expect(!CacheRequest.isKey(key))
        }
    }

    /// The replies that `text` holds, each to `operation`, however it arrives in pieces.
    static func replies(_ text: String, _ operation: CacheRequest.Operation) -> [CacheReply]? {
        let bytes = Array(text.utf8)
        var whole: [CacheReply]?
        for cut in 0...bytes.count {
            var found: [CacheReply] = []
            var start = 0
            for end in [cut, bytes.count] {
                let input = Array(bytes[..<end])
                reading: while start < end {
                    switch ReplyReading.next(input.span, at: &start, operation, valueLimit: 100) {
                    case .reply(let reply): found.append(reply)
                    case .incomplete(let needed):
                        #expect(needed == 0 || needed > end - start)
                        break reading
                    case .nonsense: return nil
                    }
                }
            }
            if let whole { #expect(whole == found, "cut at \(cut)") }
            whole = found
        }
        return whole
    }

    @Test func repliesAreReadHoweverTheyAreCut() throws {
        let leased = try #require(
            Self.replies("VA 3 f7 c12 W\r\nabc\r\nVA 0 c13 f0 Z\r\n\r\nVA 1 X W\r\nq\r\nEN\r\n", .lease))
        #expect(leased.count == 4)
        #expect(leased[0].bytes == [97, 98, 99] && leased[0].flags == 7 && leased[0].cas == 12 && leased[0].hasWon)
        #expect(leased[1].isTaken && leased[1].bytes.isEmpty && leased[1].cas == 13 && !leased[1].hasWon)
        #expect(leased[2].isStale && leased[2].hasWon)
        #expect(leased[3].kind == .missing)
        let classic = try #require(Self.replies("VALUE k 9 5 4711\r\nEND\r\n\r\nEND\r\nEND\r\n", .get))
        #expect(classic.map(\.kind) == [.value, .missing])
        #expect(classic[0].bytes == Array("END\r\n".utf8) && classic[0].flags == 9 && classic[0].cas == 4711)
        let stored = try #require(
            Self.replies("HD\r\nSTORED\r\nNS\r\nNOT_STORED\r\nEX\r\nEXISTS\r\nNF\r\n", .store(.set)))
        #expect(stored.map(\.kind) == [.done, .done, .notStored, .notStored, .exists, .exists, .missing])
        let refused = try #require(Self.replies("SERVER_ERROR 307 busy\r\nERROR\r\n", .delete))
        #expect(refused.map(\.kind) == [.refused("307 busy"), .refused("")])
        #expect(CacheError.isBusy("307 busy") && CacheError.isBusy("out of memory: busy"))
        #expect(!CacheError.isBusy("object too large for cache"))
        #expect(try #require(Self.replies("5\r\n", .increment))[0].bytes == [53])
    }

    @Test(arguments: [
        "VA 3\r\nabcd\r\n", "VA 101\r\n", "STORED\r\n", "hello\r\n", "VALUE k x 3\r\nabc\r\n", "5\r\n", "HD\r\n",
    ])
    func nonsenseIsNoReplyToAGet(text: String) { #expect(Self.replies(text, .get) == nil) }

    @Test(arguments: ["VA 1\r\na\r\n", "EN\r\n", "END\r\n", "MN\r\n"])
    func nonsenseIsNoReplyToASet(text: String) { #expect(Self.replies(text, .store(.set)) == nil) }

    @Test func clustersAreRead() {
        let text = "CONFIG cluster 0 44\r\n3\na.example|10.0.0.1|11211 b.example||11212\n\r\n\r\nEND\r\n"
        let bytes = Array(text.utf8)
        guard case .whole(let answer) = ClusterAnswer.read(bytes) else {
            Issue.record("\(ClusterAnswer.read(bytes))")
            return
        }
        #expect(answer.version == 3)
        #expect(answer.members.map(\.host) == ["a.example", "b.example"])
        #expect(answer.members.map(\.address) == ["10.0.0.1", nil])
        #expect(answer.members.map(\.port) == [11211, 11212])
        #expect(ClusterAnswer.read(Array(bytes.prefix(30))) == .incomplete)
        #expect(ClusterAnswer.read(Array("ERROR\r\n".utf8)) == .nonsense)
        #expect(ClusterAnswer.read(Array("CONFIG cluster 0 99999999999\r\n".utf8)) == .nonsense)
    }

    @Test func settingsThatCannotBeAreNamed() {
        var configuration = ClientConfiguration(servers: ["127.0.0.1:1"])
        #expect(configuration.problem == nil)
        configuration.retries = 17
        #expect(configuration.problem == "retries is 17: allowed is 0 to 16")
        configuration.retries = 1
        configuration.timeout = .zero
        #expect(configuration.problem?.hasPrefix("timeout is 0.0 seconds") == true)
    }
}
