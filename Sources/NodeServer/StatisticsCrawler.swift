// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Platform
internal import Synchronization

/// What became of `lru_crawler`: whether a crawl or a dump runs, how many did, and what clients have set.
///
/// There is no crawler thread here that could be on or off: expired items leave by themselves. The commands that need
/// one in memcached work while it would run there.
final class CrawlerActivity: Sendable {
    struct Totals: Sendable {
        var starts: UInt64 = 0
        /// Items that crawls and dumps looked at.
        var checked: UInt64 = 0

        func since(_ earlier: Totals) -> Totals {
            Totals(starts: starts &- earlier.starts, checked: checked &- earlier.checked)
        }
    }

    /// What clients have set, for `stats settings`.
    struct Choices: Sendable {
        var sleepMicroseconds: UInt32?
        var toCrawl: UInt32?
        /// Whether a client said `enable` where the start options had switched it off.
        var wasEnabled = false
    }

    private let running = Atomic<Bool>(false)
    private let counted = Guarded(Totals())
    private let chosen = Guarded(Choices())

    var isRunning: Bool { running.load(ordering: .relaxed) }
    var totals: Totals { counted.withLock { $0 } }

    var choices: Choices {
        get { chosen.withLock { $0 } }
        set { chosen.withLock { $0 = newValue } }
    }

    /// Begins a crawl or a dump; false while another runs.
    func begin() -> Bool {
        guard running.compareExchange(expected: false, desired: true, ordering: .acquiringAndReleasing).exchanged else {
            return false
        }
        counted.withLock { $0.starts += 1 }
        return true
    }

    /// Ends it, with how many items it looked at.
    func end(checked: Int) {
        counted.withLock { $0.checked += UInt64(checked) }
        running.store(false, ordering: .releasing)
    }
}

extension Node {
    /// Whether memcached's crawler thread would run.
    var isCrawlerOn: Bool {
        guard !crawlerDisabled.load(ordering: .relaxed) else { return false }
        return configuration.tuning.runsCrawler || baseline.crawler.choices.wasEnabled
    }

    /// `lru_crawler enable`; false when it is on already.
    func enableCrawler() -> Bool {
        guard !isCrawlerOn else { return false }
        baseline.crawler.choices.wasEnabled = true
        crawlerDisabled.store(false, ordering: .relaxed)
        return true
    }

    /// `lru_crawler crawl`: drops expired items, of `tocrawl` items at least, and rests for `sleep` microseconds after
    /// each shard. The caller has begun it.
    func crawl() {
        let choices = baseline.crawler.choices
        let limit = choices.toCrawl.flatMap { $0 == 0 ? nil : Int($0) } ?? Int.max
        let began = clock.now()
        let reclaimedBefore = engine.statistics().swept
        var checked = 0
        for shard in 0..<engine.shardCount where checked < limit {
            checked += engine.withShard(number: shard) { $0.statistics.items }
            _ = engine.sweepExpired(shard: shard, now: clock.now())
            if let rest = choices.sleepMicroseconds, rest > 0 { Thread.sleep(microseconds: rest) }
        }
        baseline.crawler.end(checked: checked)
        watchers.noteCrawl(
            examined: checked, reclaimed: engine.statistics().swept &- reclaimedBefore, seconds: clock.now() &- began)
    }
}
