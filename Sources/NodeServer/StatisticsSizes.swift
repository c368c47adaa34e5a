// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting

/// `stats sizes`.
extension Node {
    /// Bytes from one size to the next.
    private static var sizeStepBytes: Int { 32 }
    /// Items that are looked at, about: with more, a part of the segments stands for all.
    private static var sizedItemLimit: Int { 1_000_000 }

    /// Items by size, rounded up to 32 bytes; only where `-o track_sizes` asked for it. Nothing is tracked here, the
    /// items are looked at: a segment under each hold of a lock, and of large caches a sample of the segments.
    func sizeStatistics() -> StatisticsList {
        var list = StatisticsList()
        guard configuration.tuning.tracksSizes else {
            list.add("sizes_status", "disabled")
            return list
        }
        let stride = max(1, engine.statistics().items / Self.sizedItemLimit)
        var counts: [Int: Int] = [:]
        var turn = 0
        for shard in 0..<engine.shardCount {
            for queue in 1...2 {
                for segment in engine.segments(shard: shard, queue: queue) {
                    turn += 1
                    guard turn % stride == 0 else { continue }
                    engine.forEachItem(shard: shard, queue: queue, segment: segment) { item in
                        counts[(item.size + Self.sizeStepBytes - 1) / Self.sizeStepBytes, default: 0] += stride
                        return true
                    }
                }
            }
        }
        for (step, count) in counts.sorted(by: { $0.key < $1.key }) {
            list.add(String(step * Self.sizeStepBytes), count)
        }
        return list
    }
}
