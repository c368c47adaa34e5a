// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Platform
internal import Storage
internal import StreamDirect
internal import StreamKafka
internal import Synchronization
internal import Telemetry

/// Knows which region is home, and turns the node when another one is: its store, and whom it follows. A thread of its
/// own looks at the region's database, and hears what other regions say; the newest promotion counts.
///
/// The order of a turn: the store first, so that nothing is read from the old home any more; then the stream, which
/// gives up what may be lost.
final class NodeHome: HomeKeeper {
    let settings: RegionSettings
    let own: String
    /// The store that is switched; nil for a plain cache, and where nodes own keys by a ring.
    let backend: SwitchedBackend?
    /// The region's own database; nil where it has none.
    let database: (any HomeDatabase)?
    let log: Log?
    let state: Guarded<State>
    let parking = Parking()
    private let node: Node
    /// Whether the node's database is the one that all regions share, in which case it stays whoever is home.
    let isOfDatabase: Bool
    private let watched = Guarded<HomeWatch?>(nil)
    private let streams = Guarded<StreamService?>(nil)
    private let kafka = Guarded<KafkaService?>(nil)
    /// How the streams were pointed last; nil while the store is not that of the term.
    private let pointed = Guarded<Pointing?>(nil)
    private let thread = Guarded<Thread?>(nil)
    private let isStopping = Atomic<Bool>(false)

    struct State {
        var known: HomeKnowledge
        /// Whether the store and the streams are those of the term.
        var isTurned = true
        /// What the newest home that others told of has of the numbering before.
        var succession: StreamSuccession?
        var databaseReason = "it was not asked yet"
        /// The last promotion for which it was counted what the region's database has, and the home does not.
        var counted: Int64 = 0
        /// What that was, as long as the database is the one that has it.
        var left: (count: Int64, first: Int64, last: Int64)?
        /// Since when the database is fenced while no other region is known to be home; nil while it is not.
        var standstill: HomeStandstill?
        var promotion = PromotionStatus()
        /// The last promotion for which the old home may have been fenced, by what was told here. The next has a higher
        /// number, and may take its place.
        var fenced: Int64 = 0

        var term: HomeTerm {
            get { known.term }
            set { known.term = newValue }
        }
        var heard: HomeTerm? { known.heard }
        var database: HomeState? { known.database }
    }

    private struct Pointing {
        let way: StreamWay
        /// Why they have not turned; nil where they have.
        var direct: String?
        var kafka: String?
    }

    /// Where regions may become home. `backend` is not started yet.
    init?(_ node: Node, _ backend: (any StorageBackend)?, log: Log?) {
        let settings = node.configuration.regions
        guard !settings.candidates.isEmpty, let home = settings.home else { return nil }
        self.node = node
        self.settings = settings
        self.log = log
        own = settings.own
        self.backend = backend as? SwitchedBackend
        database = (backend as? any HomedStore)?.homeDatabase
        isOfDatabase = node.configuration.storage.backend == .postgres
        state = Guarded(State(known: HomeKnowledge(HomeTerm(epoch: 0, region: home.name))))
    }

    // MARK: What is known

    var term: HomeTerm { state.withLock { $0.term } }

    /// What is known of the regions that are asked.
    var peers: [(region: String, answers: Bool, term: HomeTerm?, reason: String)] {
        watched.withLock { $0 }?.peers ?? []
    }

    var watch: HomeWatch? { watched.withLock { $0 } }

    /// What the stream is called that is followed; nil before the start, and empty before it is known.
    var followedSource: String? { streams.withLock { $0 }?.figures.followed }

    /// Why the process ends; nil where it does so for other reasons.
    var refusal: String? { refused.withLock { $0 } }
    private let refused = Guarded<String?>(nil)

    private func hear(_ term: HomeTerm, _ succession: StreamSuccession?) {
        guard settings.regions.contains(where: { $0.name == term.region }) else { return }
        let isNews = state.withLock { state in
            let known = max(state.heard?.epoch ?? 0, state.term.epoch)
            guard term.epoch > known || (term == state.heard && succession != nil && state.succession == nil) else {
                return false
            }
            state.known.heard = term
            state.succession = succession
            return true
        }
        if isNews { parking.announce() }
    }

    private func look() {
        guard let database else { return }
        do throws(StorageFailure) {
            let found = try database.look()
            state.withLock { ($0.known.database, $0.databaseReason) = (found, "") }
        } catch {
            state.withLock { ($0.known.database, $0.databaseReason) = (nil, error.reason) }
        }
    }

    /// The newest promotion, by the database, where that takes writes, and by other regions.
    private var newest: HomeTerm { state.withLock { $0.known.newest(in: own) } }

    /// Whether the database is to be written to under a term: it is the home's, or that of all regions.
    private func usesOwn(_ term: HomeTerm) -> Bool {
        // An embedded store stays where it is.
        guard database != nil else { return term.region == own }
        if term.epoch == 0 { return isOfDatabase }
        // One that is fenced is the home's yet: the fence may come to nothing.
        guard let found = state.withLock({ $0.database }), !found.isStandby, found.held == term else { return false }
        return term.region == own || isOfDatabase
    }

    // MARK: The start and the end

    /// Asks around before anything is opened, and says which store is to be opened first. Blocks for two seconds at
    /// most.
    func settle(_ direct: StreamDirectConfiguration) throws(NodeStartError) {
        do throws(StreamStartError) {
            let watch = try HomeWatch(direct, log: log) { [weak self] term, succession, _ in
                self?.hear(term, succession)
            }
            watched.withLock { $0 = watch }
            try watch.start()
            look()
            watch.awaitAnswers(timeoutNanoseconds: 2_000_000_000)
        } catch { throw NodeStartError(error.description) }
        var term = newest
        if let found = state.withLock({ $0.database }), found.isFenced, found.term.epoch > term.epoch {
            // Nobody says that the other region is home. Until somebody does, or the fence is taken back, neither is.
            log?.error(
                "the database is fenced: another region was to be home",
                ["region": .text(found.term.region), "promotion": .count(Int(found.term.number))])
        }
        if term.epoch > 0 { note(term) }
        if term.region != own { fenceOwn(term) }
        term = self.term
        if let backend { try? backend.choose(usesOwn(term) ? .own : .home(term.region)) }
        if backend == nil, isOfDatabase, !usesOwn(term), term.epoch > 0 {
            throw NodeStartError(departed(term))
        }
    }

    private func departed(_ term: HomeTerm) -> String {
        "the region \(term.region) is home since promotion \(term.number), and this node's settings are those of a "
            + "node of the home region: make its database a standby of the home's, and its storage.backend region"
    }

    private func note(_ term: HomeTerm) {
        state.withLock { $0.term = term }
        node.setHome(term.region == own)
    }

    /// Points the stream, once the store is open, and before it is started.
    func point(_ streams: StreamService, _ kafka: KafkaService?) {
        self.streams.withLock { $0 = streams }
        self.kafka.withLock { $0 = kafka }
        streams.attach(self)
        turnStreams(to: term)
    }

    /// Points what carries the stream; `again` what of it failed before, which is not said anew. No two follow it at
    /// once.
    private func turnStreams(to term: HomeTerm, again: Bool = false) {
        let (streams, kafka) = (streams.withLock { $0 }, kafka.withLock { $0 })
        let before = again ? pointed.withLock { $0 } : nil
        var pointing = before ?? Pointing(way: way(term))
        if before == nil || before?.direct != nil {
            if pointing.way.source != nil { kafka?.endFollowing() }
            pointing.direct = streams?.turn(to: pointing.way)
        }
        if before == nil || before?.kafka != nil {
            pointing.kafka = kafka?.turn(to: term, source: pointing.way.source)
        }
        for (reason, known) in [(pointing.direct, before?.direct), (pointing.kafka, before?.kafka)] {
            if let reason, reason != known { log?.error("the stream", ["reason": .text(reason)]) }
        }
        let isTurned = pointing.direct == nil && pointing.kafka == nil
        pointed.withLock { $0 = pointing }
        state.withLock { $0.isTurned = isTurned }
    }

    private func way(_ term: HomeTerm) -> StreamWay {
        if usesOwn(term) {
            let source = (node.storage?.backend as? any FollowedStore)?.changes
            return StreamWay(home: nil, source: source, followsOwnStore: source != nil && node.stream != nil)
        }
        let home = settings.directHome(term.region)
        return StreamWay(home: home, source: nil, followsOwnStore: false)
    }

    /// Starts the thread.
    func start() throws(SystemError) {
        let thread = try Thread(name: "martlet-role") { [self] in run() }
        self.thread.withLock { $0 = thread }
    }

    /// Ends it. Blocks.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        parking.announce()
        thread.exchange(nil)?.join()
        watched.exchange(nil)?.stop()
    }

    /// Reads certificates again.
    func reload() -> String? { watch?.reload() }

    // MARK: Turning

    private static var lookNanoseconds: UInt64 { 500_000_000 }

    private func run() {
        while !isStopping.load(ordering: .acquiring) {
            let ticket = parking.ticket
            look()
            let term = newest
            if term != self.term || !state.withLock({ $0.isTurned }) { turn(to: term) }
            // Also one that was promoted when another region was home already.
            if term.region != own { fenceOwn(term) }
            countLeft()
            tellOfStandstill()
            if isStopping.load(ordering: .acquiring) { return }
            parking.wait(ticket, timeoutNanoseconds: Self.lookNanoseconds)
        }
    }

    private func turn(to term: HomeTerm) {
        let isStoreTurned = term == self.term && pointed.withLock { $0 != nil }
        if !isStoreTurned {
            pointed.withLock { $0 = nil }
            guard turnStore(to: term) else { return }
        }
        turnStreams(to: term, again: isStoreTurned)
        guard state.withLock({ $0.isTurned }) else { return }
        log?.info("turned", ["home": .text(term.region), "promotion": .count(Int(term.number))])
    }

    /// Whether the node has the store of a term's home.
    private func turnStore(to term: HomeTerm) -> Bool {
        let isFirst = term != self.term
        let ownIs = usesOwn(term)
        if isFirst {
            log?.warning(
                "another region is home", ["home": .text(term.region), "promotion": .count(Int(term.number))])
            if !ownIs { fenceOwn(term) }
        }
        // What comes through a broker proves nothing of what another store says.
        kafka.withLock { $0 }?.pause()
        // Nobody is to be answered as by the home region behind this, nor before it is one.
        if term.region != own { note(term) }
        if let backend {
            do throws(StorageStartError) {
                try backend.choose(ownIs ? .own : .home(term.region))
            } catch {
                state.withLock { ($0.term, $0.isTurned) = (term, false) }
                log?.error("the store of the home region cannot be opened", ["reason": .text(error.description)])
                return false
            }
        } else if isOfDatabase, !ownIs {
            refused.withLock { $0 = departed(term) }
            log?.error("the node ends", ["reason": .text(departed(term))])
            node.requestShutdown(isGraceful: false)
            return false
        }
        note(term)
        return true
    }

    /// Where this region was home, and has a database of its own that does not know better: it takes no writes any
    /// more, whoever comes.
    private func fenceOwn(_ term: HomeTerm) {
        let found = state.withLock { $0.database }
        guard let database, let found, found.isToYield(to: term) else { return }
        do throws(StorageFailure) { try database.yield(to: term) } catch {
            log?.warning("this region's own database cannot be fenced", ["reason": .text(error.reason)])
        }
    }

    /// Counts what this region's own database has that the new home does not, once the new home said what it has: for
    /// each promotion anew. Where a later one adds nothing, what was counted before is there as it was.
    private func countLeft() {
        let (term, found, succession) = state.withLock { state in
            // Home again, or made a standby: what was left behind is shown, or gone.
            if state.term.region == own || state.database?.isStandby ?? false { (state.left, state.counted) = (nil, 0) }
            let isDue = state.heard == state.term && state.counted != state.term.epoch
            return (state.term, state.database, isDue ? state.succession : nil)
        }
        guard let database, let found, let succession, term.region != own, found.isFenced, !found.isStandby else {
            return
        }
        do throws(StorageFailure) {
            // One that was home itself behind the same numbering has what nobody took over.
            let left = try database.leftBehind(succession)
            state.withLock { $0.counted = term.epoch }
            guard let left else { return }
            state.withLock { $0.left = left }
            log?.error(
                "changes of this region are not at the new home",
                [
                    "at_most": .count(Int(left.count)), "first_ms": .count(Int(left.first)),
                    "last_ms": .count(Int(left.last)),
                ])
        } catch {
            log?.warning("what the new home lacks cannot be counted", ["reason": .text(error.reason)])
        }
    }

    // MARK: What other regions ask for

    func fence(for term: HomeTerm) throws(StorageFailure) -> HomeTerm? {
        if let other = state.withLock({ $0.known.objection(to: term, in: own) }) { return other }
        let database = try asked()
        log?.warning("another region is to be home: writes are refused", ["region": .text(term.region)])
        let other = try database.fence(for: term)
        if let other { log?.warning("the promotion is contested", ["by": .text(other.words)]) }
        return other
    }

    func claim(_ term: HomeTerm) throws(StorageFailure) -> HomeTerm? {
        if let other = state.withLock({ $0.known.objection(to: term, in: own) }) { return other }
        return try asked().claim(term)
    }

    /// The database, where this region is home.
    private func asked() throws(StorageFailure) -> any HomeDatabase {
        guard self.term.region == own else {
            throw StorageFailure(.refused, "\(own) is not home: \(self.term.region) is")
        }
        guard let database else {
            throw StorageFailure(.refused, "\(own) has an embedded store, which no other region can take over")
        }
        return database
    }

    func release(_ term: HomeTerm) throws(StorageFailure) {
        guard self.term.region == own, let database else {
            throw StorageFailure(.refused, "\(own) is not home: \(self.term.region) is")
        }
        try database.release(term)
        log?.warning("the promotion came to nothing: writes go on", ["region": .text(term.region)])
    }
}
