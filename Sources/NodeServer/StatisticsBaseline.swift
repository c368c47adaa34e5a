// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Platform
internal import Reactor
internal import Telemetry

/// What a node has counted and what it holds, at one moment.
struct NodeFigures: Sendable {
    var commands = CounterTotals<NodeCounter>()
    var network = CounterTotals<ReactorCounter>()
    var engine = EngineStatistics()
    var watching = WatchHub.Totals()
    var crawler = CrawlerActivity.Totals()

    /// The same with every counter as if it had begun at `earlier`; what is held now stays as it is.
    func since(_ earlier: NodeFigures) -> NodeFigures {
        var result = self
        result.commands = commands.since(earlier.commands)
        result.network = network.since(earlier.network)
        result.engine = engine.since(earlier.engine)
        result.watching.written &-= earlier.watching.written
        result.watching.skipped &-= earlier.watching.skipped
        result.watching.sent &-= earlier.watching.sent
        result.crawler = crawler.since(earlier.crawler)
        return result
    }
}

extension EngineStatistics {
    /// The same with every counter as if it had begun at `earlier`.
    func since(_ earlier: EngineStatistics) -> EngineStatistics {
        var result = self
        result.totalItems &-= earlier.totalItems
        result.evictions &-= earlier.evictions
        result.mainEvictions &-= earlier.mainEvictions
        result.evictedWithExpiry &-= earlier.evictedWithExpiry
        result.mainEvictedWithExpiry &-= earlier.mainEvictedWithExpiry
        result.evictedUnfetched &-= earlier.evictedUnfetched
        result.expiredUnfetched &-= earlier.expiredUnfetched
        result.expiredOnAccess &-= earlier.expiredOnAccess
        result.reclaimed &-= earlier.reclaimed
        result.swept &-= earlier.swept
        result.promotions &-= earlier.promotions
        result.reinsertions &-= earlier.reinsertions
        result.ghostHits &-= earlier.ghostHits
        result.compactions &-= earlier.compactions
        result.outOfMemory &-= earlier.outOfMemory
        if result.evictions == 0 { result.lastEvictedAge = 0 }
        return result
    }
}

/// What a node had counted at the last `stats reset`. Counters never go back, because only their threads write them,
/// and because /metrics must not; `stats` shows what came since. Safe to use from any thread.
final class StatisticsBaseline: Sendable {
    /// Crawls and dumps, which are counted here and nowhere else.
    let crawler = CrawlerActivity()
    private let atReset = Guarded(NodeFigures())

    /// The figures at the last reset; all 0 before the first.
    var figures: NodeFigures { atReset.withLock { $0 } }

    /// Makes `figures` what later ones are compared with.
    func take(_ figures: NodeFigures) { atReset.withLock { $0 = figures } }
}

extension Node {
    /// What was counted since the start. Takes every shard's lock in turn.
    func figures() -> NodeFigures {
        var figures = NodeFigures()
        for reactor in counters { figures.commands.add(reactor.commands) }
        if let group { figures.network = group.totals() }
        figures.engine = engine.statistics()
        figures.watching = watchers.totals
        figures.crawler = baseline.crawler.totals
        return figures
    }

    /// What was counted since the last `stats reset`.
    func figuresSinceReset() -> NodeFigures { figures().since(baseline.figures) }

    /// `stats reset`: counters begin anew for `stats`, prefixes and hot keys for everybody.
    func resetStatistics() {
        baseline.take(figures())
        prefixes.reset()
        hotKeys.reset()
    }
}
