// Martlet
// SPDX-License-Identifier: Apache-2.0

import CacheEngine
import Hosting
import Memory
import Synchronization
import Testing

@testable import NodeServer

/// What `lru_crawler` walks and shows, without a network.
struct ItemDumpTests {
    /// Every item that a walk over all shards meets, as a line of the given kind.
    private func lines(of node: Node, _ form: ItemDump.Form) -> [String] {
        var lines: [String] = []
        for shard in 0..<node.engine.shardCount {
            let buckets = node.engine.bucketCount(shard: shard)
            for bucket in 0..<buckets {
                node.engine.forEachItem(shard: shard, bucket: bucket, of: buckets) { item, queue in
                    var line: [UInt8] = []
                    switch form {
                    case .properties:
                        ItemDump.appendProperties(of: item, queue: queue, now: 100, epoch: 1_000_000, to: &line)
                    case .commands: ItemDump.appendCommand(for: item, to: &line)
                    }
                    lines.append(String(decoding: line, as: UTF8.self))
                }
            }
        }
        return lines.sorted()
    }

    @Test func propertiesAreWrittenAsMemcachedWritesThem() throws {
        let node = try Node(NodeConfiguration())
        node.store("b:x", "z", expiry: 162, clientFlags: 5)
        let line = try #require(lines(of: node, .properties).first)
        let accessed = 1_000_000 + Int(node.clock.now())
        #expect(line == "key=b%3Ax exp=1000162 la=\(accessed) cas=1 fetch=no cls=1 size=28 flags=5 \n")
        node.store("a", "abc")
        #expect(lines(of: node, .properties)[0].hasPrefix("key=a exp=-1 la="))
    }

    @Test func commandsGetTheItemsBack() throws {
        let node = try Node(NodeConfiguration())
        node.store("plain", "1")
        node.store("bin\u{1}", "1", isKeyBinary: true)
        #expect(lines(of: node, .commands) == ["mg YmluAQ== b\r\n", "mg plain\r\n"])
    }

    @Test func walkMeetsEachItemOnceThoughTheIndexGrows() throws {
        var configuration = NodeConfiguration()
        configuration.memoryBytes = 8 << 20
        let node = try Node(configuration)
        let early = Set((0..<4000).map { "early\($0)" })
        for key in early { node.store(key, "v") }
        var met: [String: Int] = [:]
        var later = 0
        for shard in 0..<node.engine.shardCount {
            let before = node.engine.bucketCount(shard: shard)
            for bucket in 0..<before {
                node.engine.forEachItem(shard: shard, bucket: bucket, of: before) { item, _ in
                    let key = item.withKey { key in String(decoding: key.indices.map { key[$0] }, as: UTF8.self) }
                    met[key, default: 0] += 1
                }
                // Splits buckets before and behind the walk.
                for _ in 0..<96 where later < 10_000 {
                    node.store("later\(later)", "v")
                    later += 1
                }
            }
            if shard == 0 { #expect(node.engine.bucketCount(shard: shard) > before, "the index did not grow") }
        }
        #expect(node.engine.statistics().evictions == 0)
        #expect(met.filter { early.contains($0.key) }.count == early.count)
        #expect(met.values.allSatisfy { $0 == 1 })
    }

    @Test func scopesAreReadAsMemcachedReadsThem() {
        #expect(CrawlScope("all") == .all)
        #expect(CrawlScope("hash") == .hash)
        #expect(CrawlScope("1")?.contains(queue: 1) == true)
        #expect(CrawlScope("1")?.contains(queue: 2) == false)
        #expect(CrawlScope("2,,63")?.contains(queue: 2) == true)
        #expect(CrawlScope(",")?.isEmpty == true)
        for bad in ["0", "64", "x", "1,x", "-1", "all,1", "1.5"] { #expect(CrawlScope(bad) == nil, "\(bad)") }
    }

    @Test func crawlDropsWhatIsExpired() throws {
        let node = try Node(NodeConfiguration())
        let now = node.clock.now()
        for number in 0..<30 { node.store("lasting\(number)", "v") }
        for number in 0..<20 { node.store("ending\(number)", "v", expiry: now + 5) }
        node.clock.advance(by: 10)
        #expect(node.baseline.crawler.begin())
        #expect(!node.baseline.crawler.begin(), "one at a time")
        #expect(node.generalStatistics()["lru_crawler_running"] == "1")
        node.crawl()
        let list = node.generalStatistics()
        #expect(list["curr_items"] == "30")
        #expect(list["crawler_reclaimed"] == "20")
        #expect(list["crawler_items_checked"] == "50")
        #expect(list["reclaimed"] == "0")
        #expect(list["lru_crawler_running"] == "0")
        #expect(list["lru_crawler_starts"] == "1")
    }

    @Test func crawlerIsSwitchedOnAndOff() throws {
        var configuration = NodeConfiguration()
        configuration.tuning.runsCrawler = false
        let node = try Node(configuration)
        #expect(!node.isCrawlerOn)
        #expect(node.enableCrawler())
        #expect(node.isCrawlerOn && !node.enableCrawler())
        node.crawlerDisabled.store(true, ordering: .relaxed)
        #expect(node.settingsStatistics()["lru_crawler"] == "no")
        #expect(node.enableCrawler())
        #expect(node.settingsStatistics()["lru_crawler"] == "yes")
    }
}
