// Martlet
// SPDX-License-Identifier: Apache-2.0

import Admin
import Hosting
import Memory
import Telemetry
import Testing

@testable import NodeServer

/// The node's page of metrics.
struct MetricsTests {
    private func page(_ node: Node, _ format: Exposition.Format = .prometheus) -> [Substring] {
        var exposition = Exposition(format: format)
        node.appendMetrics(to: &exposition)
        exposition.finish()
        return String(decoding: exposition.bytes, as: UTF8.self).split(separator: "\n")
    }

    /// What memcached_exporter shows of a memcached without disk storage and proxy: family and type.
    static let exporterFamilies = """
        memcached_accepting_connections gauge|memcached_commands_total counter
        memcached_connections_listener_disabled_total counter|memcached_connections_rejected_total counter
        memcached_connections_total counter|memcached_connections_yielded_total counter
        memcached_current_bytes gauge|memcached_current_connections gauge|memcached_current_items gauge
        memcached_direct_reclaims_total counter|memcached_item_no_memory_total counter
        memcached_item_too_large_total counter|memcached_items_evicted_total counter
        memcached_items_reclaimed_total counter|memcached_items_total counter|memcached_limit_bytes gauge
        memcached_lru_crawler_enabled gauge|memcached_lru_crawler_hot_max_factor gauge
        memcached_lru_crawler_hot_percent gauge|memcached_lru_crawler_items_checked_total counter
        memcached_lru_crawler_maintainer_thread gauge|memcached_lru_crawler_moves_to_cold_total counter
        memcached_lru_crawler_moves_to_warm_total counter|memcached_lru_crawler_moves_within_lru_total counter
        memcached_lru_crawler_reclaimed_total counter|memcached_lru_crawler_sleep gauge
        memcached_lru_crawler_starts_total counter|memcached_lru_crawler_to_crawl gauge
        memcached_lru_crawler_warm_max_factor gauge|memcached_lru_crawler_warm_percent gauge
        memcached_malloced_bytes gauge|memcached_max_connections gauge
        memcached_process_system_cpu_seconds_total counter|memcached_process_user_cpu_seconds_total counter
        memcached_read_bytes_total counter|memcached_slab_chunk_size_bytes gauge|memcached_slab_chunks_free gauge
        memcached_slab_chunks_free_end gauge|memcached_slab_chunks_per_page gauge|memcached_slab_chunks_used gauge
        memcached_slab_cold_items gauge|memcached_slab_commands_total counter|memcached_slab_current_chunks gauge
        memcached_slab_current_items gauge|memcached_slab_current_pages gauge|memcached_slab_hot_age_seconds gauge
        memcached_slab_hot_items gauge|memcached_slab_items_age_seconds gauge
        memcached_slab_items_crawler_reclaimed_total counter|memcached_slab_items_evicted_nonzero_total counter
        memcached_slab_items_evicted_time_seconds counter|memcached_slab_items_evicted_total counter
        memcached_slab_items_evicted_unfetched_total counter|memcached_slab_items_expired_unfetched_total counter
        memcached_slab_items_moves_to_cold counter|memcached_slab_items_moves_to_warm counter
        memcached_slab_items_moves_within_lru counter|memcached_slab_items_outofmemory_total counter
        memcached_slab_items_reclaimed_total counter|memcached_slab_items_tailrepairs_total counter
        memcached_slab_lru_hits_total counter|memcached_slab_mem_requested_bytes counter
        memcached_slab_warm_age_seconds gauge|memcached_slab_warm_items gauge|memcached_time_seconds gauge
        memcached_up gauge|memcached_uptime_seconds counter|memcached_version gauge
        memcached_written_bytes_total counter
        """.split(whereSeparator: { $0 == "|" || $0 == "\n" }).map { $0.trimmingSpaces() }

    @Test func familiesAreThoseOfTheExporter() throws {
        let node = try Node(NodeConfiguration())
        node.store("a", "value")
        let types = page(node).filter { $0.hasPrefix("# TYPE memcached_") }.map { String($0.dropFirst(7)) }
        #expect(types.sorted() == Self.exporterFamilies.sorted())
        #expect(Set(types).count == types.count)
    }

    @Test(arguments: [Exposition.Format.prometheus, .openMetrics])
    func everySampleFollowsItsFamily(format: Exposition.Format) throws {
        let node = try Node(NodeConfiguration())
        node.store("a", "value")
        var family = ""
        var helped: Set<Substring> = []
        for line in page(node, format) where line != "# EOF" {
            let words = line.split(separator: " ")
            if line.hasPrefix("# HELP") {
                #expect(words.count > 3, "\(line) does not help")
                #expect(helped.insert(words[2]).inserted)
            } else if line.hasPrefix("# TYPE") {
                family = String(words[2])
                #expect(helped.contains(words[2]))
            } else {
                #expect(line.hasPrefix(family), "\(line) in \(family)")
            }
        }
        #expect(helped.count > 100)
    }

    @Test func commandsAreToldByOutcome() throws {
        let node = try Node(NodeConfiguration())
        node.counters[0].commands.add(.getHits, 5)
        node.counters[1].commands.add(.getMisses, 2)
        node.counters[0].commands.add(.cmdSet, 9)
        node.counters[0].commands.add(.casHits, 3)
        node.counters[0].latencies[CommandKind.get.rawValue].record(nanoseconds: 60_000, count: 7)
        let lines = page(node)
        #expect(lines.contains("memcached_commands_total{command=\"get\",status=\"hit\"} 5"))
        #expect(lines.contains("memcached_commands_total{command=\"get\",status=\"miss\"} 2"))
        #expect(lines.contains("memcached_commands_total{command=\"set\",status=\"hit\"} 6"))
        #expect(lines.contains("memcached_version{version=\"1.6.45\"} 1"))
        #expect(lines.contains("martlet_command_duration_seconds_bucket{command=\"get\",le=\"5e-05\"} 0"))
        #expect(lines.contains("martlet_command_duration_seconds_bucket{command=\"get\",le=\"0.0001\"} 7"))
        #expect(lines.contains("martlet_command_duration_seconds_count{command=\"get\"} 7"))
    }

    @Test func resetDoesNotTouchMetrics() throws {
        let node = try Node(NodeConfiguration())
        node.counters[0].commands.add(.getHits, 5)
        node.store("a", "value")
        node.resetStatistics()
        let lines = page(node)
        #expect(lines.contains("memcached_commands_total{command=\"get\",status=\"hit\"} 5"))
        #expect(lines.contains("memcached_items_total 1"))
        #expect(node.generalStatistics()["get_hits"] == "0")
    }

    @Test func hotKeysAreNoLabelsUnlessAskedFor() throws {
        for shows in [false, true] {
            var configuration = NodeConfiguration()
            configuration.showsHotKeys = shows
            configuration.hotKeysShown = 3
            let node = try Node(configuration)
            var sampler = HotKeySampler(node.hotKeys, reactor: 0)
            for number in 0..<40 {
                let key = Array("secret\(number)".utf8)
                for _ in 0..<1000 { sampler.note(UInt64(number), key.span) }
            }
            let lines = page(node)
            #expect(lines.contains { $0.contains("secret") } == shows)
            #expect(lines.filter { $0.hasPrefix("martlet_hot_key_reads{") }.count == 3)
            #expect(node.statisticsJSON().contains("secret") == shows)
        }
    }

    @Test func prefixesAreTold() throws {
        let node = try Node(NodeConfiguration())
        node.prefixes.noteGet(Array("us\"er:1".utf8).span, isHit: true)
        node.prefixes.noteGet(Array("us\"er:2".utf8).span, isHit: false)
        let line = "martlet_prefix_commands_total{prefix=\"us%22er\",command=\"get\",status=\"miss\"} 1"
        #expect(page(node).contains { $0 == line })
    }

    @Test func prefixesAreBounded() throws {
        let node = try Node(NodeConfiguration())
        for number in 0..<3000 { node.prefixes.noteSet(Array("p\(number):1".utf8).span) }
        node.prefixes.noteGet(Array("popular:1".utf8).span, isHit: true)
        let lines = page(node).filter { $0.hasPrefix("martlet_prefix_commands_total{") }
        #expect(lines.count == 4000)
        #expect(lines.contains { $0.contains("prefix=\"popular\"") })
    }

    @Test func jsonHoldsTheLists() throws {
        let node = try Node(NodeConfiguration())
        node.store("a", "value")
        let text = node.statisticsJSON()
        #expect(text.hasPrefix("{\"stats\":{\"pid\":"))
        #expect(text.contains("\"curr_items\":1,"))
        #expect(text.contains("\"version\":\"1.6.45\""))
        #expect(text.contains("\"growth_factor\":1.25,"))
        #expect(text.contains("\"hotKeys\":[]"))
        #expect(text.hasSuffix("}\n"))
    }

    @Test func readinessNeedsListenersAndEndsWithThem() throws {
        let node = try Node(NodeConfiguration())
        let drain = Drain(DrainConfiguration())
        #expect(node.readiness(drain).map { $0.failure != nil } == [true, false])
        drain.advance(to: .draining)
        #expect(node.readiness(drain).map { $0.failure != nil } == [true, true])
    }
}

extension Substring {
    fileprivate func trimmingSpaces() -> String { String(drop { $0 == " " }) }
}
