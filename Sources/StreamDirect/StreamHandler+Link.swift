// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Reactor
internal import Storage
internal import Telemetry

/// The connection to whom we follow.
struct StreamLink {
    /// How it stands.
    enum State: Equatable {
        case waiting(until: UInt64)
        case resolving
        case connecting(ConnectionID, since: UInt64)
        /// It stands; the source has answered the hello or has yet to.
        case open(ConnectionID, isWelcomed: Bool)
    }

    var state = State.waiting(until: 0)
    var follower: StreamFollower
    /// Which endpoint is next.
    var endpoint = 0
    /// Addresses of the endpoint at hand that were not tried yet.
    var addresses: ArraySlice<SocketAddress> = []
    var failures = 0
    var lastInput: UInt64 = 0
    /// When the last probes were sent.
    var asked: [(number: UInt64, nanoseconds: UInt64)] = []
    /// How many answers in a row said that the clocks differ by too much.
    var skews = 0
    var connections: UInt64 = 0
    var losses: UInt64 = 0
    var reason = "not connected yet"
    var peer = ""
    /// Which order of a broker's consumer the connection serves.
    var repairNumber: UInt64 = 0
    /// Whether it serves none, and stands for the monitor's questions.
    var onlyLooks = false
    /// When the source is to say again that it is there, where it sends nothing by itself.
    var nextSign: UInt64 = 0
    /// Whether the connection ends because something else is asked for.
    var isReordered = false

    init(_ configuration: StreamDirectConfiguration, _ follower: StreamFollower? = nil) {
        self.follower = follower ?? StreamFollower(configuration.stream)
    }

    var id: ConnectionID? {
        switch state {
        case .waiting, .resolving: nil
        case .connecting(let id, _), .open(let id, _): id
        }
    }
}

/// Whom we follow.
extension StreamHandler {
    func linkTick(_ loop: inout ReactorLoop, now: UInt64) {
        guard let link else { return }
        switch link.state {
        case .waiting(let until): if now >= until, isLinkWanted { beginLink(&loop) }
        case .resolving: break
        case .connecting(let id, let since):
            if now > since &+ configuration.silenceNanoseconds { loop.close(id) }
        case .open(let id, _):
            if now > link.lastInput &+ configuration.silenceNanoseconds {
                self.link?.reason = "the source says nothing"
                return loop.close(id)
            }
            loop.withConnection(id) { connection, output in
                if configuration.repairsOnly { return repairTick(&output) }
                handle(&connection, &output) { $0.tick(at: streamNanoseconds, into: &$1) }
            }
        }
    }

    func beginLink(_ loop: inout ReactorLoop) {
        guard let home = shared.home, let link, !home.endpoints.isEmpty else { return }
        if !link.addresses.isEmpty { return connectLink(&loop) }
        self.link?.state = .resolving
        do throws(SystemError) {
            try shared.resolve(home.endpoints[link.endpoint % home.endpoints.count])
        } catch { linkFailed("\(error)") }
    }

    func linkResolved(_ loop: inout ReactorLoop) {
        guard let found = shared.resolved.withLock({ $0 }), link?.state == .resolving else { return }
        switch found {
        case .failure(let error): linkFailed(error.description)
        case .success(let addresses):
            link?.addresses = addresses[...]
            connectLink(&loop)
        }
    }

    /// Tries the next address of the endpoint at hand.
    private func connectLink(_ loop: inout ReactorLoop) {
        guard let address = link?.addresses.popFirst(),
            let id = loop.connect(to: address, tag: Self.linkTag, tls: shared.clientTLS.withLock { $0 })
        else { return linkFailed("the kernel refuses to connect") }
        link?.peer = address.description(isDatagram: false)
        link?.state = .connecting(id, since: reactor.nowNanoseconds)
    }

    func linkOpened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        link?.state = .open(connection.id, isWelcomed: false)
        link?.addresses = []
        guard isLinkWanted else {
            // Nothing is missing any more.
            link?.isReordered = true
            return connection.closeNow()
        }
        link?.lastInput = reactor.nowNanoseconds
        var hello = StreamHello()
        (hello.cluster, hello.region, hello.name) = (configuration.cluster, configuration.region, configuration.name)
        hello.wantsValues = configuration.wantsValues
        hello.takesPacked = configuration.takesPacked
        hello.answersLooks = answersLooks
        hello.takesSuccession = true
        hello.position = link?.follower.position
        if configuration.repairsOnly { orderRepair(&hello) }
        send(.hello(hello), &output)
    }

    func linkClosed(_ id: ConnectionID, _ reason: CloseReason) {
        guard link?.id == id else { return }
        if configuration.repairsOnly, repairEnded() { return }
        link?.follower.disconnected()
        linkFailed(link?.reason.isEmpty == false ? link?.reason ?? "" : "the connection ended: \(reason)")
    }

    func linkFailed(_ reason: String) {
        guard let link else { return }
        let steps = UInt64(min(link.failures, 10))
        var wait = min(configuration.firstRetryNanoseconds << steps, configuration.lastRetryNanoseconds)
        if link.addresses.isEmpty {
            self.link?.failures += 1
            self.link?.endpoint += 1
        } else {
            // The endpoint has another address: at the next tick.
            wait = 0
        }
        self.link?.state = .waiting(until: reactor.nowNanoseconds &+ wait)
        self.link?.losses += 1
        self.link?.peer = ""
        self.link?.reason = reason
        if link.failures == 0 { shared.log?.warning("stream: there is no connection home", ["reason": .text(reason)]) }
    }

    func linkReceived(
        _ frame: StreamFrame, _ bytes: Int, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        let now = streamNanoseconds
        link?.lastInput = reactor.nowNanoseconds
        guard case .open(let id, let isWelcomed) = link?.state, id == connection.id else { return }
        if configuration.repairsOnly { return repairReceived(frame, bytes, &connection, &output) }
        switch frame {
        case .refused(let reason):
            link?.reason = "refused: \(reason)"
            connection.closeNow()
        case .welcome(let region, let position, let succession) where !isWelcomed:
            guard region == shared.home?.region else {
                link?.reason = "the source is of region \(region)"
                return connection.closeNow()
            }
            link?.state = .open(id, isWelcomed: true)
            link?.failures = 0
            link?.connections += 1
            link?.reason = ""
            shared.figures.withLock { $0.followed = position.source }
            shared.log?.info("stream: following", ["region": .text(region), "source": .text(position.source)])
            handle(&connection, &output) { $0.welcomed(position, after: succession, at: now, into: &$1) }
        case .batch(let records) where isWelcomed: take(records, bytes, &connection, &output)
        case .packed(let count, let block) where isWelcomed && configuration.takesPacked:
            guard let records = Self.unpacked(block, count) else {
                link?.reason = "the source sent a batch that cannot be unpacked"
                return connection.closeNow()
            }
            // What was granted counts records as they are.
            take(records, count + StreamFrame.headerBytes, &connection, &output)
        case .complete(let number, let epoch, let sequences, let milliseconds) where isWelcomed:
            if let milliseconds, let skew = skew(number, milliseconds) { return refuse(skew, &connection) }
            handle(&connection, &output) {
                $0.completed(number, epoch: epoch, sequences: sequences, at: now, into: &$1)
            }
        case .look(let number, let explains, let keys) where isWelcomed && shared.consumer != nil:
            let position = link?.follower.position
            let reports = reports(keys, explains) { slot in position.map { ($0.epoch, $0.sequences[slot]) } }
            send(.sights(number, reports), &output)
        case .lost(let slot, let through) where isWelcomed:
            handle(&connection, &output) { $0.lost(slot, through: through, into: &$1) }
        default:
            link?.reason = "the source does not keep to the protocol"
            connection.closeNow()
        }
    }

    /// By how many milliseconds the source's clock is ahead of ours, at least, where that is too much; nil where it may
    /// be well. It was read between a probe and its answer.
    private func skew(_ number: UInt64, _ milliseconds: Int64) -> Int64? {
        let (now, wall) = (streamNanoseconds, Int64(Clock.realtimeNanoseconds() / 1_000_000))
        guard let place = link?.asked.firstIndex(where: { $0.number == number }),
            let sent = link?.asked[place].nanoseconds
        else { return nil }
        link?.asked.removeFirst(place + 1)
        let (ahead, isOverflow) = milliseconds.subtractingReportingOverflow(wall)
        if isOverflow { return milliseconds > 0 ? .max : .min }
        let way = Int64(clamping: (now - min(sent, now)) / 1_000_000)
        if ahead > configuration.skewMaxMilliseconds { return ahead }
        let behind = ahead &+ way
        if behind < -configuration.skewMaxMilliseconds { return behind }
        link?.skews = 0
        return nil
    }

    /// There is no proof by a source whose clock is another one; when it says so again, it is not followed.
    private func refuse(_ skew: Int64, _ connection: inout Connection) {
        link?.skews += 1
        guard let skews = link?.skews, skews > 1 else { return }
        let way = skew > 0 ? "ahead of" : "behind"
        let reason =
            "the source's clock is \(skew.magnitude) ms \(way) this node's; "
            + "\(configuration.skewMaxMilliseconds) ms are allowed"
        if link?.reason != reason, skews == 2 {
            shared.log?.error("stream: the clocks differ by too much", ["reason": .text(reason)])
        }
        link?.reason = reason
        connection.closeNow()
    }

    /// The records of a packed batch; nil where it cannot be unpacked.
    static func unpacked(_ block: [UInt8], _ count: Int) -> [[UInt8]]? {
        BatchCompression.unpack(block, count: count).flatMap { StreamFrame.records(ofBatch: $0.span) }
    }

    private func take(
        _ records: [[UInt8]], _ bytes: Int, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        let now = streamNanoseconds
        // The place of one that makes no sense is not known: the next of its slot, or a probe, shows the gap.
        let readable = self.readable(records)
        handle(&connection, &output) { follower, actions in
            for record in readable { follower.received(record, at: now, into: &actions) }
            follower.consumed(bytes, into: &actions)
        }
    }

    /// Those that are records.
    func readable(_ records: [[UInt8]]) -> [OutboxRecord] {
        records.compactMap { bytes in
            let record = OutboxRecord(object: bytes)
            if record == nil { noteDamaged(bytes) }
            return record
        }
    }

    /// Lets the follower see something, and does what it asks for.
    private func handle(
        _ connection: inout Connection, _ output: inout OutputBuffer,
        _ event: (inout StreamFollower, inout [FollowerAction]) -> Void
    ) {
        guard var follower = link?.follower else { return }
        var actions: [FollowerAction] = []
        let before = (follower.reached, follower.ahead, follower.position)
        event(&follower, &actions)
        link?.follower = follower
        announce(follower, before.0, before.1)
        for action in actions {
            switch action {
            case .grant(let bytes): send(.grant(bytes), &output)
            case .seek(let slot, let sequence): send(.seek(slot: slot, after: sequence), &output)
            case .probe(let number, let answered):
                link?.asked.append((number, streamNanoseconds))
                if let count = link?.asked.count, count > configuration.stream.probesMax { link?.asked.removeFirst() }
                send(.probe(number, answered: answered), &output)
            case .disconnect(let reason):
                link?.reason = reason
                connection.closeNow()
            case .apply, .quarantine, .proved, .doubt: perform(action)
            }
        }
        conclude(follower, before.2)
    }

    /// Says how far records are about to act, where that is not as it was.
    private func announce(_ follower: StreamFollower, _ before: StreamPosition?, _ ahead: UInt64) {
        guard let reached = follower.reached, reached != before || follower.ahead != ahead else { return }
        shared.consumer?.reaching(reached, ahead: follower.ahead)
    }

    /// Says how far they have acted.
    private func conclude(_ follower: StreamFollower, _ before: StreamPosition?) {
        if let position = follower.position, position != before { shared.consumer?.reached(position) }
    }

    private func perform(_ action: FollowerAction) {
        switch action {
        case .apply(let record): shared.consumer?.apply(record)
        case .quarantine(let mask):
            shared.log?.warning("stream: slots are quarantined", ["count": .of(mask.nonzeroBitCount)])
            shared.consumer?.quarantine(mask)
        case .proved(let time): shared.consumer?.proved(time)
        case .doubt(let since): shared.consumer?.doubt(since: since)
        case .grant, .seek, .probe, .disconnect: break
        }
    }

    // MARK: Operators

    /// Does what operators asked for; what needs the source waits until there is a connection.
    func obey(_ loop: inout ReactorLoop) {
        guard link != nil || local != nil else { return }
        let now = streamNanoseconds
        var id: ConnectionID?
        if case .open(let open, true) = link?.state { id = open }
        for order in shared.orders.withLock({ $0.take(all: id != nil || local != nil) }) {
            let event = { (follower: inout StreamFollower, actions: inout [FollowerAction]) in
                switch order {
                case .repair: follower.repair(at: now, into: &actions)
                case .replay(let mask): follower.replay(mask, into: &actions)
                case .skip(let mask): follower.skip(mask, into: &actions)
                }
            }
            if let id {
                loop.withConnection(id) { connection, output in handle(&connection, &output, event) }
            } else if local != nil, let source = shared.source {
                handleLocal(source, event)
                nextPump = 1
            } else if link != nil {
                handleUnconnected(event)
            }
        }
    }

    /// As ``handle(_:_:_:)``, where nothing can be sent.
    private func handleUnconnected(_ event: (inout StreamFollower, inout [FollowerAction]) -> Void) {
        guard var follower = link?.follower else { return }
        var actions: [FollowerAction] = []
        let before = (follower.reached, follower.ahead, follower.position)
        event(&follower, &actions)
        link?.follower = follower
        announce(follower, before.0, before.1)
        for action in actions { perform(action) }
        conclude(follower, before.2)
    }

    // MARK: Another home

    /// Follows whoever is to be followed now, from where we are.
    func turn(_ loop: inout ReactorLoop) {
        // What came through a broker meanwhile, it would not know.
        var follower = configuration.repairsOnly ? nil : link?.follower ?? local?.follower ?? inherited
        follower?.disconnected()
        let id = link?.id
        (link, local, inherited) = (nil, nil, follower)
        if let id { loop.close(id) }
        for session in Array(sessions.values) { loop.close(session.id) }
        if shared.home != nil {
            link = StreamLink(configuration, follower)
            inherited = nil
        }
        retention = OutboxRetention(
            memoryNanoseconds: configuration.consumerMemoryNanoseconds, now: Clock.monotonicNanoseconds())
    }

    // MARK: Our own outbox

    /// Follows our own store, as others do, but without a connection between.
    func localTick() {
        guard shared.way.withLock({ $0.followsOwnStore }), let source = shared.source else { return }
        let now = streamNanoseconds
        if local == nil {
            let place = source.tail.end
            guard let last = source.position else { return }
            var hello = StreamHello()
            (hello.position, hello.takesSuccession) = (inherited?.position, true)
            let succession = source.succession
            let feed = StreamFeed(
                configuration.stream, hello: hello, kept: source.keptSequences, last: last, succession: succession)
            local = (FeedPump(feed, place: place, tail: source.tail), inherited ?? StreamFollower(configuration.stream))
            inherited = nil
            handleLocal(source) { $0.welcomed(feed.sent, after: succession, at: now, into: &$1) }
        }
        handleLocal(source) { $0.tick(at: now, into: &$1) }
        nextPump = 1
    }

    func pumpLocal() {
        guard let source = shared.source, var pump = local?.pump else { return }
        let now = streamNanoseconds
        let end = Clock.monotonicNanoseconds() &+ configuration.turnNanoseconds
        let isOver = { Clock.monotonicNanoseconds() >= end }
        var items: [FeedItem] = []
        let hasMore: Bool
        do throws(StorageFailure) {
            hasMore = try pump.run(source, limitBytes: configuration.turnBytes, isOver: isOver) { items.append($0) }
        } catch {
            // The store is away: there is no proof until it is back, and the copies are not shown past the bound.
            return
        }
        var answers: [(number: UInt64, sequences: [Int64])] = []
        while let answer = pump.feed.answerable() { answers.append(answer) }
        let epoch = pump.feed.sent.epoch
        local?.pump = pump
        handleLocal(source) { follower, actions in
            var bytes = 0
            for item in items {
                switch item {
                case .lost(let slot, let through): follower.lost(slot, through: through, into: &actions)
                case .record(let entry):
                    bytes += entry.bytes.count + 4
                    guard let record = OutboxRecord(object: entry.bytes) else {
                        noteDamaged(entry.bytes, slot: entry.slot)
                        continue
                    }
                    follower.received(record, at: now, into: &actions)
                }
            }
            follower.consumed(bytes, into: &actions)
            for (number, sequences) in answers {
                follower.completed(number, epoch: epoch, sequences: sequences, at: now, into: &actions)
            }
        }
        if let current = source.position, !current.isNumbered(as: pump.feed.sent) {
            // Another numbering: begin anew, but for what a promotion has kept.
            if source.succession?.previous == pump.feed.sent.epoch { inherited = local?.follower }
            inherited?.disconnected()
            local = nil
        }
        if hasMore { nextPump = 1 }
    }

    private func handleLocal(
        _ source: any ChangeSource, _ event: (inout StreamFollower, inout [FollowerAction]) -> Void
    ) {
        guard var follower = local?.follower else { return }
        var actions: [FollowerAction] = []
        let before = (follower.reached, follower.ahead, follower.position)
        event(&follower, &actions)
        local?.follower = follower
        announce(follower, before.0, before.1)
        for action in actions {
            switch action {
            case .grant(let bytes): local?.pump.feed.grant(bytes)
            case .seek(let slot, let sequence): local?.pump.feed.seek(slot: slot, after: sequence)
            case .probe(let number, _): local?.pump.probe(number, of: source)
            case .disconnect: local = nil
            case .apply, .quarantine, .proved, .doubt: perform(action)
            }
        }
        conclude(follower, before.2)
    }
}
