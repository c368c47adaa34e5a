// Martlet
// SPDX-License-Identifier: Apache-2.0

import CacheEngine
import Hosting
import MemcacheProtocol
import Memory
import Telemetry
import Testing

@testable import NodeServer

/// What `stats` and its sub-commands answer, without a network.
struct StatisticsTests {
    /// The keys of plain `stats` of memcached 1.6.45 with `-o no_lru_crawler,no_lru_maintainer`, in its order.
    static let plainKeys = """
        pid uptime time version libevent pointer_size rusage_user rusage_system max_connections curr_connections
        total_connections rejected_connections connection_structures response_obj_oom response_obj_count
        response_obj_bytes read_buf_count read_buf_bytes read_buf_bytes_free read_buf_oom reserved_fds cmd_get cmd_set
        cmd_flush cmd_touch cmd_meta get_hits get_misses get_expired get_flushed delete_misses delete_hits incr_misses
        incr_hits decr_misses decr_hits cas_misses cas_hits cas_badval touch_hits touch_misses store_too_large
        store_no_memory auth_cmds auth_errors bytes_read bytes_written limit_maxbytes accepting_conns
        listen_disabled_num time_in_listen_disabled_us threads conn_yields hash_power_level hash_bytes
        hash_is_expanding slab_reassign_rescues slab_reassign_chunk_rescues slab_reassign_inline_reclaim
        slab_reassign_busy_items slab_reassign_busy_deletes slab_reassign_busy_nomem slab_reassign_last_busy_status
        slab_reassign_running slabs_moved malloc_fails log_worker_dropped log_worker_written log_watcher_skipped
        log_watcher_sent log_watchers unexpected_napi_ids round_robin_fallback bytes curr_items total_items
        slab_global_page_pool expired_unfetched evicted_unfetched evictions reclaimed crawler_reclaimed
        crawler_items_checked lrutail_reflocked
        """.split(whereSeparator: \.isWhitespace).map(String.init)

    @Test func plainStatisticsHaveMemcachedsKeysInItsOrder() throws {
        var configuration = NodeConfiguration()
        configuration.tuning.runsCrawler = false
        configuration.tuning.maintainsLRU = false
        let list = try Node(configuration).generalStatistics()
        #expect(Self.plainKeys.count == 84)
        #expect(list.entries.map(\.name) == Self.plainKeys)
    }

    @Test func defaultStatisticsAddWhatTheCrawlerAndTheMaintainerTell() throws {
        let keys = try Node(NodeConfiguration()).generalStatistics().entries.map(\.name)
        let extra = [
            "lru_crawler_running", "lru_crawler_starts", "lru_maintainer_juggles", "evicted_active", "moves_to_cold",
            "moves_to_warm", "moves_within_lru", "direct_reclaims", "lru_bumps_dropped",
        ]
        #expect(keys.filter { !Self.plainKeys.contains($0) } == extra)
        #expect(keys.filter { Self.plainKeys.contains($0) } == Self.plainKeys)
    }

    @Test func keysFollowTheOptions() throws {
        var configuration = NodeConfiguration()
        configuration.refusesBeyondLimit = false
        configuration.idleTimeoutSeconds = 5
        configuration.tuning.reassignsSlabs = false
        let list = try Node(configuration).generalStatistics()
        #expect(list["rejected_connections"] == nil)
        #expect(list["idle_kicks"] == "0")
        #expect(!list.entries.contains { $0.name.hasPrefix("slab_reassign") })
    }

    @Test func countsWhatTheReactorsCount() throws {
        let node = try Node(NodeConfiguration())
        node.counters[0].commands.add(.cmdGet, 3)
        node.counters[1].commands.add(.cmdGet, 4)
        node.counters[1].commands.add(.getHits, 2)
        let list = node.generalStatistics()
        #expect(list["cmd_get"] == "7")
        #expect(list["get_hits"] == "2")
        #expect(list["version"] == "1.6.45")
        #expect(list["threads"] == "4")
    }

    @Test func resetBeginsCountersAnewAndKeepsWhatIsHeld() throws {
        let node = try Node(NodeConfiguration())
        node.store("a", "value")
        node.counters[0].commands.add(.cmdSet)
        node.prefixes.isOn = true
        node.prefixes.noteSet(Array("p:1".utf8).span)
        #expect(node.answer("stats reset") == "RESET\r\n")
        node.counters[0].commands.add(.cmdSet, 2)
        node.store("b", "value")
        let list = node.generalStatistics()
        #expect(list["cmd_set"] == "2")
        #expect(list["total_items"] == "1")
        #expect(list["curr_items"] == "2")
        #expect(node.answer("stats detail dump") == "END\r\n")
        // Metrics go on: they are not what was reset.
        #expect(node.figures().commands[.cmdSet] == 3)
    }

    @Test func settingsTellTheConfiguration() throws {
        var configuration = NodeConfiguration()
        configuration.memoryBytes = 100 << 20
        configuration.prefixDelimiter = UInt8(ascii: "/")
        configuration.allowsShutdown = true
        configuration.tuning.growthFactor = 1.1
        let node = try Node(configuration)
        let list = node.settingsStatistics()
        let expected = [
            "maxbytes": "104857600", "stat_key_prefix": "/", "shutdown_command": "yes", "growth_factor": "1.10",
            "inter": "NULL", "domain_socket": "NULL", "umask": "700", "binding_protocol": "auto-negotiate",
            "slab_automove_freeratio": "0.010", "ssl_min_version": "tlsv1.2", "client_flags_size": "4",
        ]
        for (name, value) in expected { #expect(list[name] == value, "\(name)") }
        #expect(list.entries.count == 77)
        #expect(Set(list.entries.map(\.name)).count == list.entries.count)
    }

    @Test func itemsAndSlabsTellTheQueues() throws {
        let node = try Node(NodeConfiguration())
        #expect(node.answer("stats items") == "END\r\n")
        #expect(node.answer("stats slabs") == "STAT active_slabs 0\r\nSTAT total_malloced 0\r\nEND\r\n")
        for number in 0..<10 { node.store("key\(number)", "0123456789") }
        let items = node.itemStatistics()
        #expect(items["items:1:number"] == "10")
        #expect(items["items:1:mem_requested"] == "\(10 * (16 + 4 + 10))")
        #expect(items["items:2:number"] == nil)
        let slabs = node.slabStatistics()
        #expect(slabs["1:used_chunks"] == "10")
        #expect(slabs["1:chunk_size"] == "30")
        #expect(slabs["active_slabs"] == "1")
    }

    @Test func subcommandsAreAbbreviatedAsInMemcached() throws {
        let node = try Node(NodeConfiguration())
        let settings = node.answer("stats settings")
        #expect(settings.hasPrefix("STAT maxbytes 67108864\r\n") && settings.hasSuffix("\r\nEND\r\n"))
        #expect(node.answer("stats s") == settings)
        #expect(node.answer("stats r") == "RESET\r\n")
        #expect(node.answer("stats  sizes ") == "STAT sizes_status disabled\r\nEND\r\n")
        #expect(node.answer("stats size") == "ERROR\r\n")
        #expect(node.answer("stats i") == "ERROR\r\n")
        #expect(node.answer("stats ext") == "END\r\n")
        #expect(node.answer("stats proxy") == "ERROR\r\n")
        #expect(node.answer("stats conns") == "END\r\n")
    }

    @Test func detailIsSwitchedAndDumped() throws {
        let node = try Node(NodeConfiguration())
        let usage = "CLIENT_ERROR usage: stats detail on|off|dump\r\n"
        #expect(node.answer("stats detail") == usage)
        #expect(node.answer("stats detail foo") == usage)
        #expect(node.answer("stats detail on") == "OK\r\n")
        #expect(node.settingsStatistics()["detail_enabled"] == "yes")
        node.prefixes.noteGet(Array("foo:1".utf8).span, isHit: true)
        node.prefixes.noteGet(Array("foo:2".utf8).span, isHit: false)
        node.prefixes.noteDelete(Array("bar:2".utf8).span)
        #expect(
            node.answer("stats detail dump")
                == "PREFIX bar get 0 hit 0 set 0 del 1\r\nPREFIX foo get 2 hit 1 set 0 del 0\r\nEND\r\n")
        #expect(node.answer("stats detail off") == "OK\r\n")
        #expect(node.settingsStatistics()["detail_enabled"] == "no")
    }

    @Test func cacheDumpShowsItemsOfAClass() throws {
        let node = try Node(NodeConfiguration())
        node.store("plain", "abc")
        #expect(node.answer("stats cachedump 1 0") == "ITEM plain [3 b; 0 s]\r\nEND\r\n")
        #expect(node.answer("stats cachedump 2 0") == "END\r\n")
        #expect(node.answer("stats cachedump 63 1") == "END\r\n")
        #expect(node.answer("stats cachedump") == "CLIENT_ERROR bad command line\r\n")
        #expect(node.answer("stats cachedump 1") == "CLIENT_ERROR bad command line\r\n")
        #expect(node.answer("stats cachedump x 1") == "CLIENT_ERROR bad command line format\r\n")
        #expect(node.answer("stats cachedump 64 1") == "CLIENT_ERROR Illegal slab id\r\n")
        for number in 0..<50 { node.store("more\(number)", "z") }
        #expect(node.answer("stats cachedump 1 7").split(separator: "\r\n").count == 8)
    }

    @Test func cacheDumpStopsAtTwoMegabytes() throws {
        let node = try Node(NodeConfiguration())
        let long = String(repeating: "k", count: 240)
        for number in 0..<12_000 { node.store("\(long)\(number)", "") }
        let text = node.answer("stats cachedump 1 0")
        #expect(text.utf8.count <= 2 << 20 && text.utf8.count > (2 << 20) - 1024)
        #expect(text.hasSuffix("]\r\nEND\r\n"))
    }

    @Test func sizesAreCountedInStepsOf32Bytes() throws {
        var configuration = NodeConfiguration()
        configuration.tuning.tracksSizes = true
        let node = try Node(configuration)
        #expect(node.answer("stats sizes") == "END\r\n")
        // A header of 16 bytes, a key of 2.
        for number in 0..<5 { node.store("a\(number)", String(repeating: "x", count: 14)) }
        node.store("b0", String(repeating: "x", count: 15))
        node.store("c0", String(repeating: "x", count: 100_000))
        let large = (100_018 + 31) / 32 * 32
        #expect(node.answer("stats sizes") == "STAT 32 5\r\nSTAT 64 1\r\nSTAT \(large) 1\r\nEND\r\n")
        #expect(node.settingsStatistics()["track_sizes"] == "yes")
    }

    @Test func dumpsAreRefusedWhereForbidden() throws {
        var configuration = NodeConfiguration()
        configuration.allowsDump = false
        let node = try Node(configuration)
        #expect(node.answer("stats detail on") == "CLIENT_ERROR stats detail not allowed\r\n")
        #expect(node.answer("stats cachedump 1 1") == "CLIENT_ERROR stats cachedump not allowed\r\n")
    }

    @Test func binaryStatisticsEndWithAnEmptyOne() throws {
        let node = try Node(NodeConfiguration())
        let packets = BinaryPacket.parse(node.answerBinary("sizes"))
        #expect(packets.map(\.key) == ["sizes_status", ""])
        #expect(packets.map(\.value) == ["disabled", ""])
        #expect(packets.allSatisfy { $0.status == 0 && $0.opaque == 7 })
        #expect(BinaryPacket.parse(node.answerBinary("")).count == 94)
        #expect(BinaryPacket.parse(node.answerBinary("reset")).map(\.key) == [""])
        #expect(BinaryPacket.parse(node.answerBinary("nothing")).map(\.status) == [1])
        #expect(BinaryPacket.parse(node.answerBinary("detail on")).map(\.key) == [""])
        #expect(node.prefixes.isOn)
        let dump = BinaryPacket.parse(node.answerBinary("detail dump"))
        #expect(dump.map(\.key) == ["detailed", ""] && dump[0].value == "END\r\n")
        #expect(BinaryPacket.parse(node.answerBinary("detail")).map(\.status) == [1])
    }

    @Test func hotKeysAreHashedUnlessAskedFor() throws {
        for shows in [false, true] {
            var configuration = NodeConfiguration()
            configuration.showsHotKeys = shows
            let node = try Node(configuration)
            var sampler = HotKeySampler(node.hotKeys, reactor: 0)
            let key = Array("secret:1".utf8)
            for _ in 0..<1000 { sampler.note(1, key.span) }
            let name = node.hotKeyStatistics()["hotkey:1:key"]
            #expect(name == (shows ? "secret%3A1" : hashedName(key.span)))
            #expect(node.hotKeyStatistics()["hotkey:1:count"] != nil)
            #expect(hashedName(key.span).utf8.count == 16)
        }
        var configuration = NodeConfiguration()
        configuration.countsHotKeys = false
        #expect(try Node(configuration).answer("stats hotkeys") == "STAT hotkeys_status disabled\r\nEND\r\n")
    }

    @Test func decimalsAreRoundedAsCRoundsThem() {
        #expect(fixedPoint(1.25, decimals: 2) == "1.25")
        #expect(fixedPoint(0.2, decimals: 2) == "0.20")
        #expect(fixedPoint(2, decimals: 3) == "2.000")
        #expect(fixedPoint(-0.5, decimals: 1) == "-0.5")
        #expect(fixedPoint(0.999, decimals: 2) == "1.00")
    }
}

extension Node {
    /// The reply to a line of text.
    func answer(_ line: String) -> String {
        var request = Request()
        request.form = .classic
        var output = OutputBuffer(capacity: 4096)
        let bytes = Array("\(line)\r\n".utf8)
        let key: [UInt8] = []
        answerStatistics(request, key: key.span, bytes.span, &output)
        return output.withSpan { span in String(decoding: span.indices.map { span[$0] }, as: UTF8.self) }
    }

    /// The reply to a binary stat.
    func answerBinary(_ key: String) -> [UInt8] {
        var request = Request()
        request.form = .binary
        request.opaque = 7
        var output = OutputBuffer(capacity: 4096)
        let bytes = Array(key.utf8)
        let line: [UInt8] = []
        answerStatistics(request, key: bytes.span, line.span, &output)
        return output.withSpan { span in span.indices.map { span[$0] } }
    }

    /// Stores an item straight into the engine.
    func store(_ key: String, _ value: String, expiry: UInt32 = 0, clientFlags: UInt32 = 0, isKeyBinary: Bool = false) {
        let key = Array(key.utf8)
        let value = Array(value.utf8)
        let now = clock.now()
        let hash = stableHash(key.span, seed: engine.hashSeed)
        var request = StoreRequest(
            mode: .set, clientFlags: clientFlags, expiry: expiry, compare: 0, version: engine.newVersion())
        request.isKeyBinary = isKeyBinary
        let result = engine.withShard(hash) { $0.store(hash, key: key.span, value: value.span, request, now: now) }
        precondition(result.outcome == .stored, "a test's item was not stored")
    }
}

/// One reply of the binary protocol.
struct BinaryPacket {
    let status: Int
    let opaque: UInt32
    let key: String
    let value: String

    static func parse(_ bytes: [UInt8]) -> [BinaryPacket] {
        var packets: [BinaryPacket] = []
        var offset = 0
        while offset < bytes.count {
            func number(_ start: Int, _ length: Int) -> Int {
                bytes[offset + start..<offset + start + length].reduce(0) { $0 << 8 | Int($1) }
            }
            let keyLength = number(2, 2)
            let body = offset + 24
            let end = body + number(8, 4)
            packets.append(
                BinaryPacket(
                    status: number(6, 2), opaque: UInt32(number(12, 4)),
                    key: String(decoding: bytes[body..<body + keyLength], as: UTF8.self),
                    value: String(decoding: bytes[body + keyLength..<end], as: UTF8.self)))
            offset = end
        }
        return packets
    }
}
