// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import Invalidation
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Storage
internal import StreamDirect
internal import Synchronization
internal import Telemetry
internal import Tracing

/// What a followed stream does to a node's cached copies: drops or replaces what is older, and keeps what may be stale
/// from being shown. Safe to use from any thread.
final class NodeStream: StreamConsumer {
    private let engine: CacheEngine
    private let clock: NodeClock
    private let copies: CopiesInEngine
    /// The store behind the cache, and which keys are in it; without one, all keys are the stream's.
    private let storage: NodeStorage?
    private let pools: StoragePools
    private let trust: Guarded<StreamTrust>
    /// What ``trust`` says, for the way of a request.
    private let gate = TrustGate()
    private let proven = Atomic<UInt64>(0)
    private let parking = Parking()
    private let isStopping = Atomic<Bool>(false)
    private let sweeper = Guarded<Thread?>(nil)
    /// What became of records and copies.
    let counts = SharedCounterSet<StreamCounter>()
    /// Between the last records' commits and their application, by the two machines' clocks.
    let delays = LatencyHistogram()
    /// The last traced change of each of their buckets.
    let exemplars: ExemplarCells
    /// What is traced of changes.
    private let tracer: SharedTracer?
    /// What is remembered of copies, to explain those that are older than a change; nil where nobody asks.
    private let trace: ChangeTrace?
    /// When copies of each slot were cached; nil where nobody keeps that.
    private let fills: SlotTimes?
    /// How far the stream was followed, for reads at home.
    private let places: StreamPlaces
    /// What is not to be taken from other nodes as they have it, which may not have been told yet.
    private let warming: WarmingKeys?
    /// What emptied the cache last, and what was cached since.
    private let flushed = Guarded(FlushedSlots())

    init(
        _ settings: RegionSettings, engine: CacheEngine, clock: NodeClock, storage: NodeStorage?, pools: StoragePools,
        places: StreamPlaces, warming: WarmingKeys? = nil, tracer: SharedTracer? = nil, fills: SlotTimes? = nil,
        trace: ChangeTrace? = nil
    ) {
        self.places = places
        self.warming = warming
        self.tracer = tracer
        exemplars = ExemplarCells(isOn: tracer?.isOn ?? false)
        self.fills = fills
        self.trace = trace
        self.engine = engine
        self.clock = clock
        self.storage = storage
        self.pools = storage?.pools ?? pools
        copies = CopiesInEngine(engine, clock, self.pools, fills)
        trust = Guarded(StreamTrust(settings.invalidation))
    }

    // MARK: The way of a request

    /// Whether some copies may not be shown now. Costs two loads and a reading of the clock.
    @inline(__always)
    var isDoubtful: Bool { gate.isDoubtful(at: Clock.bootNanoseconds()) }

    /// What the stream says of the copy of a key, and forgets it where it may not be shown; where the key's pool shows
    /// copies when the store fails, it is left as one that is behind its time. The pool's policy is for its reads, and
    /// not for those of replica regions (`isMarked`).
    @inline(never)
    func judge(_ key: Span<UInt8>, _ hash: UInt64, isRead: Bool, isMarked: Bool, now: UInt32) -> CopyStanding {
        var lingers = false
        if let storage {
            guard let pool = storage.pools.pool(of: key) else { return .vouched }
            lingers = storage.pools.staleIfErrorSeconds(of: pool) > 0
        }
        let policy = isMarked ? .revalidate : pools.lagPolicy(of: key)
        // Writes are the store's to decide, and leave what may be shown later.
        if !isRead, storage != nil, policy != .revalidate { return .vouched }
        let slots = StreamSlots.mask(StreamSlots.slot(keyHash: stableHash(key)))
        switch gate.standing(of: slots, at: Clock.bootNanoseconds(), isRead ? policy : .revalidate) {
        case .vouched: return .vouched
        case .stale:
            guard hasValue(key, hash, now: now) else { break }
            counts.add(.stale)
            return .stale
        case .refused:
            counts.add(.failed)
            return .refused
        case .hidden: break
        }
        forget(key, hash, lingers: lingers, now: now)
        return .hidden
    }

    /// Whether a copy of the key may be shown as stale now.
    func showsStale(_ key: Span<UInt8>) -> Bool {
        guard pools.lagPolicy(of: key) == .serveStale else { return false }
        let slots = StreamSlots.mask(StreamSlots.slot(keyHash: stableHash(key)))
        return gate.standing(of: slots, at: Clock.bootNanoseconds(), .serveStale) == .stale
    }

    /// Whether there is a copy with a value: that there was none cannot be marked.
    private func hasValue(_ key: Span<UInt8>, _ hash: UInt64, now: UInt32) -> Bool {
        engine.withShard(hash) { shard in shard.findToRead(hash, key, now: now).map { !$0.isAbsent } ?? false }
    }

    private func forget(_ key: Span<UInt8>, _ hash: UInt64, lingers: Bool, now: UInt32) {
        let found = engine.withShard(hash) { shard in
            guard let item = shard.findToRead(hash, key, now: now) else { return false }
            if lingers, !item.isAbsent, var late = shard.setExpiry(max(now, 1), of: item, hash, key: key, now: now) {
                // Another end takes the mark away.
                late.linger()
                return true
            }
            if let rest = shard.find(hash, key, now: now) { shard.remove(rest, hash) }
            return true
        }
        if found { counts.add(.distrusted) }
    }

    /// Whether a replica region's read that names a place may be answered from a copy of the key: all that the region
    /// was told of it has acted here.
    func hasDone(_ place: RegionPlace, of key: Span<UInt8>) -> Bool {
        let sequence = Int64(clamping: place.sequence)
        return places.hasDone(StreamPlace(numbering: place.numbering, sequence: sequence), of: key)
    }

    // MARK: The stream

    func reaching(_ position: StreamPosition, ahead: UInt64) { places.tell(position, ahead: ahead) }

    func reaching(_ place: StreamPlace?, slot: Int) { places.tell(place, slot: slot) }

    func reached(_ position: StreamPosition) { places.did(position) }

    func apply(_ record: OutboxRecord) {
        let now = Clock.realtimeNanoseconds()
        let delay = Self.delayNanoseconds(record, unixNanoseconds: now)
        delays.record(nanoseconds: delay)
        switch record.operation {
        case .flush: flush(record)
        case .heartbeat, .epoch: break
        case .set, .delete, .touch:
            guard let tracer, tracer.isOn, let context = record.trace.flatMap(SpanContext.init(traceparent:)) else {
                return change(record)
            }
            let start = Clock.monotonicNanoseconds()
            change(record)
            let key = record.key
            let span = tracer.record(below: context, .streamApply, .consumer, start: start, key: key.span)
            guard let span else { return }
            exemplars.note(
                Exemplar(
                    traceHigh: span.traceHigh, traceLow: span.traceLow, span: span.span, nanoseconds: delay,
                    unixNanoseconds: now))
        }
    }

    /// How long ago a record was committed, by the two machines' clocks: an hour at most, whatever the record says.
    static func delayNanoseconds(_ record: OutboxRecord, unixNanoseconds: UInt64) -> UInt64 {
        let (delay, isOverflow) = Int64(unixNanoseconds / 1_000_000)
            .subtractingReportingOverflow(record.timeMilliseconds)
        return UInt64(min(max(0, isOverflow ? .max : delay), 3_600_000)) * 1_000_000
    }

    private func change(_ record: OutboxRecord) {
        let key = record.key
        guard !key.isEmpty, key.count <= 250 else { return }
        let hash = stableHash(key.span, seed: engine.hashSeed)
        warming?.noteDelete(hash)
        let row = record.value.map { value in
            StoredRow(
                version: record.version, expiryMilliseconds: record.expiryMilliseconds,
                clientFlags: record.clientFlags ?? 0, value: value)
        }
        let isUnconditional = record.reason == "cdc"
        var isNew = true
        if row != nil {
            let slot = StreamSlots.slot(keyHash: stableHash(key.span))
            flushed.withLock { $0.willCache(key, slot: slot) }
        }
        if let storage {
            guard let pool = storage.pools.pool(of: key.span) else { return }
            isNew = storage.tier.noteChange(
                key: key, hash: hash, version: record.version, isUnconditional: isUnconditional,
                isDeletion: record.operation == .delete, row: row, pool: pool)
        } else {
            switch CopyChange.of(
                recordVersion: record.version, hasValue: row != nil, isUnconditional: isUnconditional,
                copyVersion: copies.version(key: key, hash: hash))
            {
            case .keep: isNew = false
            case .drop: copies.drop(key: key, hash: hash)
            case .install: if let row { copies.install(row, key: key, hash: hash, pool: copies.lastPool) }
            }
        }
        counts.add(!isNew ? .kept : row == nil ? .dropped : .installed)
        trace?.note(record, !isNew ? .kept : row == nil ? .dropped : .installed, hash: stableHash(key.span))
    }

    private func flush(_ record: OutboxRecord) {
        let slot = Int(record.slot) & (StreamSlots.count - 1)
        let removal = flushed.withLock { flushed in
            let removal = flushed.flushed(slot, version: record.version)
            // Of these slots a place does not show yet that their copies were given up.
            places.hold(flushed.waiting)
            return removal
        }
        switch removal {
        case .everything:
            warming?.noteFlush()
            noteEmptied(record)
            engine.removeAll()
            noteEmptied(record)
            trace?.note(StreamSlots.all, .flushed)
        case .keys(let keys):
            for key in keys {
                let hash = stableHash(key.span, seed: engine.hashSeed)
                if let storage {
                    storage.tier.noteInvalidation(key: key, hash: hash)
                } else {
                    copies.drop(key: key, hash: hash)
                }
            }
        }
    }

    /// Where its version is one of rows, those that are older are gone. With another one copies alone are given up.
    private func noteEmptied(_ record: OutboxRecord) {
        guard let tier = storage?.tier else { return }
        if record.version < CopySight.leastVersion { return tier.noteFlush() }
        tier.noteEmptied(version: record.version)
    }

    func quarantine(_ mask: UInt64) {
        // What was asked for before may be as old as what is cached. First, so that it is not cached behind a sweep.
        storage?.tier.noteFlush()
        warming?.noteFlush()
        publish { $0.quarantine(mask) }
        flushed.withLock { flushed in
            flushed.passedOver(mask)
            places.hold(flushed.waiting)
        }
        parking.announce()
        trace?.note(mask, .quarantined)
    }

    func doubt(since nanoseconds: UInt64?) {
        // In a plain cache, clients put what they read, whenever that was.
        let mask = nanoseconds.flatMap { fills?.slots(since: $0) } ?? StreamSlots.all
        // Also with none: what is asked for now may come from the home before.
        quarantine(mask)
    }

    func proved(_ nanoseconds: UInt64) {
        publish { $0.proved(nanoseconds) }
        proven.store(nanoseconds, ordering: .relaxed)
    }

    private func publish(_ change: (inout StreamTrust) -> Void) {
        trust.withLock { trust in
            change(&trust)
            gate.publish(quarantined: trust.quarantined, trustedUntil: trust.trustedUntil)
        }
    }

    func look(_ keys: [[UInt8]], explains: Bool) -> [CopyReport] {
        let now = Clock.bootNanoseconds()
        return keys.map { key in
            let stable = stableHash(key.span)
            trace?.watch(stable)
            // The copies of other pools are their clients' own.
            let isOurs = storage.map { $0.pools.pool(of: key.span) != nil } ?? true
            let hash = stableHash(key.span, seed: engine.hashSeed)
            var report = CopyReport(.nothing)
            if isOurs, let version = copies.version(key: key, hash: hash) {
                let isShown = gate.shows(StreamSlots.mask(StreamSlots.slot(keyHash: stable)), at: now)
                report.sight = isShown ? .copy(version) : .hidden
            }
            if explains { report.trace = trace?.trace(stable) }
            return report
        }
    }

    /// How long ago the stream was last known to be complete, in nanoseconds; nil before the first time.
    var lagNanoseconds: UInt64? {
        let last = proven.load(ordering: .relaxed)
        let now = Clock.bootNanoseconds()
        return last == 0 ? nil : now > last ? now - last : 0
    }

    /// Slots in quarantine.
    var quarantinedSlots: Int { gate.quarantined.nonzeroBitCount }

    /// Whether copies are shown at all: those of slots that are not in quarantine.
    var isTrusted: Bool { gate.shows(0, at: Clock.bootNanoseconds()) }

    // MARK: Sweeps

    /// Starts the thread that removes what is in quarantine.
    func start() throws(SystemError) {
        let thread = try Thread(name: "martlet-sweep") { [self] in sweep() }
        sweeper.withLock { $0 = thread }
    }

    /// Ends it. Blocks.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
        sweeper.exchange(nil)?.join()
    }

    private func sweep() {
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            guard let sweep = trust.withLock({ $0.sweep }) else {
                parking.wait(ticket, timeoutNanoseconds: 1_000_000_000)
                continue
            }
            for shard in 0..<engine.shardCount {
                if isStopping.load(ordering: .acquiring) { return }
                remove(sweep.mask, shard: shard)
            }
            publish { $0.swept(sweep) }
        }
    }

    /// Removes what a shard has of some slots, a bucket under each hold of the lock. Items that move while it is at it
    /// move to buckets that are still to come.
    private func remove(_ mask: UInt64, shard: Int) {
        var bucket = 0
        var keys: [[UInt8]] = []
        let now = clock.now()
        while true {
            keys.removeAll(keepingCapacity: true)
            let isThere = engine.forEachItem(shard: shard, bucket: bucket) { item in
                let key = item.bytes.slice(item.keyOffset, item.keyLength).withSpan { [UInt8](copying: $0) }
                guard mask & StreamSlots.mask(StreamSlots.slot(keyHash: stableHash(key.span))) != 0 else { return }
                if let storage, storage.pools.pool(of: key.span) == nil { return }
                keys.append(key)
            }
            guard isThere else { return }
            for key in keys {
                let hash = stableHash(key.span, seed: engine.hashSeed)
                let span = key.span
                engine.withShard(hash) { shard in
                    if let item = shard.find(hash, span, now: now) { shard.remove(item, hash) }
                }
            }
            counts.add(.swept, UInt64(keys.count))
            bucket += 1
        }
    }
}

extension RegionSettings {
    /// The bounds of the stream.
    var invalidation: InvalidationConfiguration {
        var configuration = InvalidationConfiguration()
        configuration.lagBoundNanoseconds = lagBoundNanoseconds
        // Several proofs within the bound, or one that is late would stop everything.
        configuration.probeNanoseconds = min(configuration.probeNanoseconds, lagBoundNanoseconds / 5)
        return configuration
    }

    /// A region as whom the direct transport follows; nil where it is not listed.
    func directHome(_ name: String) -> StreamDirectConfiguration.Home? {
        regions.first { $0.name == name }.map { region in
            StreamDirectConfiguration.Home(
                region: region.name,
                endpoints: region.streams.map {
                    StreamDirectConfiguration.Endpoint(host: $0.host, port: $0.port)
                })
        }
    }

    /// What the direct transport is told.
    func direct(cluster: String, defaultName: String, hasStore: Bool) -> StreamDirectConfiguration {
        typealias Endpoint = StreamDirectConfiguration.Endpoint
        var direct = StreamDirectConfiguration()
        (direct.cluster, direct.region, direct.name) = (cluster, own, name ?? defaultName)
        direct.regions = Set(regions.map(\.name))
        direct.listen = listen.map { Endpoint(host: $0.host, port: $0.port) }
        if !isHome, !hasStore, let home, kafka == nil || !home.streams.isEmpty { direct.home = directHome(home.name) }
        direct.candidates = candidates.compactMap { directHome($0.name) }
        // Who asks for what the brokers do not have any more gets it for as long as it is kept.
        direct.releasesEarly = kafka == nil
        direct.repairsOnly = kafka != nil
        direct.wantsValues = wantsValues
        direct.takesPacked = takesPacked
        direct.answersLooks = monitorRate > 0
        direct.stream = invalidation
        direct.consumerMemoryNanoseconds = UInt64(keepMilliseconds) * 1_000_000
        if let certificatePath, let authorityPath {
            direct.security = StreamDirectConfiguration.Security(
                certificatePath: certificatePath, keyPath: keyPath, authorityPath: authorityPath,
                revocationPath: revocationPath)
        }
        return direct
    }
}
