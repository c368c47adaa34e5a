// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Memory
internal import Platform
internal import Storage

/// Notices that the system's clock was set, or went on while the machine slept. Rows expire by that clock, copies by
/// one that does neither: their times are wrong then, and so may be that there is no row.
struct ClockWatch {
    /// By how much the clock may be set unnoticed, in milliseconds. The kernel slews both clocks alike.
    static let toleranceMilliseconds: Int64 = 1000

    /// When second 0 of the node's clock began, by the system's clock as it was.
    private var beginning: Int64

    init(beginning: Int64) { self.beginning = beginning }

    /// By how many milliseconds it was set since the last time that it was; nil where it was not.
    mutating func look(_ beginning: Int64) -> Int64? {
        let step = beginning - self.beginning
        guard abs(step) > Self.toleranceMilliseconds else { return nil }
        self.beginning = beginning
        return step
    }
}

extension NodeStorage {
    /// Forgets every copy that has a time, and every word that there is no row: by the clock as it is now, they may be
    /// wrong. `goesOn` is called between shards, and ends it where it is false.
    func forgetTimedCopies(_ engine: CacheEngine, _ goesOn: () -> Bool) {
        tier.noteFlush()
        copies.forget(goesOn) {
            $0.expiry != 0 || $0.isAbsent
        } how: {
            copies.forgetRow(key: $0, hash: $1)
        }
        tier.noteFlush()
    }
}

extension CopiesInEngine {
    /// Walks over the copies in pools with storage, and forgets those that are wanted, as `how` does it. `goesOn` is
    /// called between shards, and ends it where it is false.
    func forget(
        _ goesOn: () -> Bool = { true }, where isWanted: (Item) -> Bool, how: (_ key: [UInt8], _ hash: UInt64) -> Void
    ) {
        for shard in 0..<engine.shardCount {
            var bucket = 0
            var keys: [[UInt8]] = []
            while true {
                keys.removeAll(keepingCapacity: true)
                let isThere = engine.forEachItem(shard: shard, bucket: bucket) { item in
                    guard isWanted(item) else { return }
                    keys.append(item.bytes.slice(item.keyOffset, item.keyLength).withSpan { [UInt8](copying: $0) })
                }
                guard isThere else { break }
                for key in keys where pools.pool(of: key.span) != nil {
                    how(key, stableHash(key.span, seed: engine.hashSeed))
                }
                bucket += 1
            }
            if !goesOn() { return }
        }
    }
}
