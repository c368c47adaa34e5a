// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Decides what happens between commands, the cache and storage, for the keys of one stripe: docs/contract.md, 1, 2, 4
/// to 8, 10 and 11. Pure: events and time come in, actions go out; whoever runs it does the cache steps and keeps the
/// order of what is sent, all under one lock.
///
/// The copy of a key in the cache is never older than what anybody was shown:
/// - a committed write installs its row before it is answered, unless newer rows may have been shown already;
/// - a fill installs only if nothing arrived for the key's bucket since its read was sent;
/// - while a write's outcome is unknown, nothing is installed and every read goes to storage.
package struct WriteThroughStateMachine: ~Copyable {
    /// Its stripe's number, in the low bits of every token.
    let stripe: Int
    let configuration: StorageTierConfiguration
    let pools: [StoragePoolPolicy]
    let guards: WriteThroughGuards
    let waitNanoseconds: UInt64

    var keys = KeyTable()
    /// Arrivals by bucket, beside the cache so that no eviction reaches them: writes sent and answered, invalidations.
    /// Counts, not versions: a version would block the other keys of the bucket.
    var arrivals: [UInt64]
    /// Arrivals for all buckets at once.
    var flushes: UInt64 = 0
    /// The slot of each key with a read under way; -1 for reads that were given up.
    var readSlots: [UInt64: Int] = [:]
    var writeSlots: [UInt64: Int] = [:]
    var tokens: UInt64 = 0
    var uncertainKeys = 0
    /// Every key of the stripe counts as uncertain: after a restart, or past the limit of uncertain keys.
    var isUnsettled: Bool
    var isAccepting = true
    /// No time limit passes before this.
    var earliestDeadline = UInt64.max
    /// What a stream told of lately.
    var told: ToldVersions
    var statistics = WriteThroughStatistics()

    /// The machine of a stripe. `isUnsettled` holds back every cached copy until ``settle(_:)``.
    package init(
        stripe: Int, configuration: StorageTierConfiguration, pools: [StoragePoolPolicy], isUnsettled: Bool,
        guards: WriteThroughGuards
    ) {
        self.stripe = stripe
        self.configuration = configuration
        self.pools = pools
        self.guards = guards
        self.isUnsettled = isUnsettled && guards.contains(.restarts)
        waitNanoseconds = configuration.waitMilliseconds * 1_000_000
        arrivals = [UInt64](repeating: 0, count: configuration.bucketsPerStripe)
        told = ToldVersions(
            limit: configuration.share(configuration.toldVersionsMax),
            keptMilliseconds: configuration.toldMilliseconds)
    }

    // MARK: Guards

    func bucket(_ hash: UInt64) -> Int {
        // The low bits choose the stripe.
        Int(truncatingIfNeeded: (hash >> 20) & UInt64(arrivals.count - 1))
    }

    /// What has arrived for the bucket of a hash; equal readings mean that nothing did between them.
    func arrivals(_ hash: UInt64) -> UInt64 { arrivals[bucket(hash)] &+ flushes }

    mutating func noteArrival(_ hash: UInt64) { arrivals[bucket(hash)] &+= 1 }

    /// Whether the stored value of a key may change by a write that was answered already.
    func isUncertain(_ slot: Int) -> Bool {
        isUnsettled || keys[slot].isUnsettled || keys[slot].lateWrites > 0
    }

    // MARK: Events from outside

    /// Whether writes to the key are in flight that somebody waits for. Allocates nothing.
    package func isBusy(_ hash: UInt64, _ key: Span<UInt8>) -> Bool {
        guard let slot = keys.find(hash, key) else { return false }
        return keys[slot].lastWrite != nil
    }

    /// The cache was, or is about to be, flushed: what is under way must not bring back what was there.
    package mutating func flush() {
        if guards.contains(.flushes) { flushes &+= 1 }
        for slot in keys.used { supersedeWrites(slot) }
    }

    /// The same, and a stream told that rows of earlier versions are gone: what is read of them for a while comes from
    /// a store that lags.
    package mutating func flush(toldOf version: UInt64, at now: StorageTime) {
        flush()
        told.noteEmptied(version: version, atNanoseconds: now.monotonicNanoseconds)
    }

    /// A key changed in storage without this tier's doing, or may have.
    package mutating func invalidate(_ key: [UInt8], hash: UInt64, into actions: inout StorageActions) {
        if guards.contains(.invalidations) {
            noteArrival(hash)
            if let slot = keys.find(hash, key.span) { supersedeWrites(slot) }
        }
        statistics.invalidations += 1
        actions.cacheSteps.append(.drop(key: key, hash: hash))
    }

    /// A stream told of a version: what is read for a while and is older is not cached.
    package mutating func noteTold(_ hash: UInt64, version: UInt64, isDeletion: Bool, at now: StorageTime) {
        guard version < .max else { return }
        told.note(hash, version: version, isDeletion: isDeletion, atNanoseconds: now.monotonicNanoseconds)
    }

    /// A key has `version` in storage without this tier's doing, which no cached copy is as new as; `.max` is one that
    /// nobody knows. Where `row` is its row, and nothing under way could know better, that is cached. Reads that find
    /// what is older are not, for a while.
    package mutating func change(
        _ key: [UInt8], hash: UInt64, version: UInt64, isDeletion: Bool, row: StoredRow?, pool: Int,
        at now: StorageTime, into actions: inout StorageActions
    ) {
        statistics.invalidations += 1
        noteTold(hash, version: version, isDeletion: isDeletion, at: now)
        var mayInstall = row.map { $0.isLive(at: now.unixMilliseconds) } ?? false
        if guards.contains(.invalidations) {
            noteArrival(hash)
            if let slot = keys.find(hash, key.span) {
                mayInstall = mayInstall && keys[slot].writes.isEmpty && !isUncertain(slot)
                supersedeWrites(slot, by: version)
            }
        }
        if mayInstall, !isUnsettled, let row {
            actions.cacheSteps.append(.install(row, key: key, hash: hash, pool: pool))
        } else {
            actions.cacheSteps.append(.drop(key: key, hash: hash))
        }
    }

    private mutating func supersedeWrites(_ slot: Int, by version: UInt64 = .max) {
        for index in 0..<keys[slot].writes.count {
            keys[slot].writes[index].supersededBy = max(keys[slot].writes[index].supersededBy, version)
        }
    }

    /// The cache evicted the key. Says nothing, as the counters are not the cache's; a test takes that guard out.
    package mutating func noteEviction(_ hash: UInt64) {
        if !guards.contains(.countersBesideCache) { arrivals[bucket(hash)] = 0 }
    }

    /// Every unknown outcome so far is settled: reads that are sent from now on show what became of them.
    package mutating func settle(_ actions: inout StorageActions) {
        for slot in keys.used where keys[slot].isUnsettled || isUnsettled {
            // A write in flight may have been decided before a late one took effect: its outcome answers no read.
            supersedeWrites(slot)
            if keys[slot].isUnsettled { uncertainKeys -= 1 }
            keys[slot].isUnsettled = false
            keys.removeIfIdle(slot)
        }
        isUnsettled = false
        flushes &+= 1
        statistics.settlements += 1
    }

    // MARK: Bookkeeping

    mutating func nextToken() -> UInt64 {
        tokens &+= 1
        return tokens &* UInt64(configuration.stripes) &+ UInt64(stripe)
    }

    mutating func noteDeadline(_ deadline: UInt64) { earliestDeadline = min(earliestDeadline, deadline) }

    mutating func install(_ row: StoredRow, _ slot: Int, into actions: inout StorageActions) {
        var row = row
        if !guards.contains(.storedVersions) { row.version = nextToken() }
        let state = keys[slot]
        actions.cacheSteps.append(.install(row, key: state.key, hash: state.hash, pool: state.pool))
    }

    /// Caches that there is no live row; without a negative TTL, just forgets the copy.
    mutating func installAbsent(_ slot: Int, into actions: inout StorageActions) {
        guard pools[keys[slot].pool].negativeTTLMilliseconds > 0 else { return forgetRow(slot, into: &actions) }
        statistics.negativeFills += 1
        let state = keys[slot]
        actions.cacheSteps.append(.installAbsent(key: state.key, hash: state.hash, pool: state.pool))
    }

    /// Forgets what the cache says of the row, and no lease.
    func forgetRow(_ slot: Int, into actions: inout StorageActions) {
        actions.cacheSteps.append(.forgetRow(key: keys[slot].key, hash: keys[slot].hash))
    }

    func drop(_ slot: Int, into actions: inout StorageActions) {
        actions.cacheSteps.append(.drop(key: keys[slot].key, hash: keys[slot].hash))
    }

    func isLive(_ row: StoredRow, _ unixMilliseconds: Int64) -> Bool {
        row.isLive(at: unixMilliseconds) || !guards.contains(.expiry)
    }
}
