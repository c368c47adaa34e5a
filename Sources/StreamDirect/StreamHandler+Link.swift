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
    var connections: UInt64 = 0
    var losses: UInt64 = 0
    var reason = "not connected yet"
    var peer = ""

    init(_ configuration: StreamDirectConfiguration) { follower = StreamFollower(configuration.stream) }

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
        case .waiting(let until): if now >= until { beginLink(&loop) }
        case .resolving: break
        case .connecting(let id, let since):
            if now > since &+ configuration.silenceNanoseconds { loop.close(id) }
        case .open(let id, _):
            if now > link.lastInput &+ configuration.silenceNanoseconds {
                self.link?.reason = "the source says nothing"
                return loop.close(id)
            }
            loop.withConnection(id) { connection, output in
                handle(&connection, &output) { $0.tick(at: streamNanoseconds, into: &$1) }
            }
        }
    }

    private func beginLink(_ loop: inout ReactorLoop) {
        guard let home = configuration.home, let link, !home.endpoints.isEmpty else { return }
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
        link?.lastInput = reactor.nowNanoseconds
        var hello = StreamHello()
        (hello.cluster, hello.region, hello.name) = (configuration.cluster, configuration.region, configuration.name)
        hello.wantsValues = configuration.wantsValues
        hello.takesPacked = configuration.takesPacked
        hello.position = link?.follower.position
        send(.hello(hello), &output)
    }

    func linkClosed(_ id: ConnectionID, _ reason: CloseReason) {
        guard link?.id == id else { return }
        link?.follower.disconnected()
        linkFailed(link?.reason.isEmpty == false ? link?.reason ?? "" : "the connection ended: \(reason)")
    }

    private func linkFailed(_ reason: String) {
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
        switch frame {
        case .refused(let reason):
            link?.reason = "refused: \(reason)"
            connection.closeNow()
        case .welcome(let region, let position) where !isWelcomed:
            guard region == configuration.home?.region else {
                link?.reason = "the source is of region \(region)"
                return connection.closeNow()
            }
            link?.state = .open(id, isWelcomed: true)
            link?.failures = 0
            link?.connections += 1
            link?.reason = ""
            shared.log?.info("stream: following", ["region": .text(region), "source": .text(position.source)])
            handle(&connection, &output) { $0.welcomed(position, at: now, into: &$1) }
        case .batch(let records) where isWelcomed: take(records, bytes, &connection, &output)
        case .packed(let count, let block) where isWelcomed && configuration.takesPacked:
            guard let body = BatchCompression.unpack(block, count: count),
                let records = StreamFrame.records(ofBatch: body.span)
            else {
                link?.reason = "the source sent a batch that cannot be unpacked"
                return connection.closeNow()
            }
            // What was granted counts records as they are.
            take(records, count + StreamFrame.headerBytes, &connection, &output)
        case .complete(let number, let epoch, let sequences) where isWelcomed:
            handle(&connection, &output) {
                $0.completed(number, epoch: epoch, sequences: sequences, at: now, into: &$1)
            }
        case .lost(let slot, let through) where isWelcomed:
            handle(&connection, &output) { $0.lost(slot, through: through, into: &$1) }
        default:
            link?.reason = "the source does not keep to the protocol"
            connection.closeNow()
        }
    }

    private func take(
        _ records: [[UInt8]], _ bytes: Int, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        let now = streamNanoseconds
        // The place of one that makes no sense is not known: the next of its slot, or a probe, shows the gap.
        let readable = records.compactMap { OutboxRecord(object: $0) }
        damaged += UInt64(records.count - readable.count)
        handle(&connection, &output) { follower, actions in
            for record in readable { follower.received(record, at: now, into: &actions) }
            follower.consumed(bytes, into: &actions)
        }
    }

    /// Lets the follower see something, and does what it asks for.
    private func handle(
        _ connection: inout Connection, _ output: inout OutputBuffer,
        _ event: (inout StreamFollower, inout [FollowerAction]) -> Void
    ) {
        guard var follower = link?.follower else { return }
        var actions: [FollowerAction] = []
        event(&follower, &actions)
        link?.follower = follower
        for action in actions {
            switch action {
            case .grant(let bytes): send(.grant(bytes), &output)
            case .seek(let slot, let sequence): send(.seek(slot: slot, after: sequence), &output)
            case .probe(let number, let answered): send(.probe(number, answered: answered), &output)
            case .disconnect(let reason):
                link?.reason = reason
                connection.closeNow()
            case .apply, .quarantine, .proved: perform(action)
            }
        }
    }

    private func perform(_ action: FollowerAction) {
        switch action {
        case .apply(let record): shared.consumer?.apply(record)
        case .quarantine(let mask):
            shared.log?.warning("stream: slots are quarantined", ["count": .of(mask.nonzeroBitCount)])
            shared.consumer?.quarantine(mask)
        case .proved(let time): shared.consumer?.proved(time)
        case .grant, .seek, .probe, .disconnect: break
        }
    }

    // MARK: Our own outbox

    /// Follows our own store, as others do, but without a connection between.
    func localTick() {
        guard configuration.followsOwnStore, let source = shared.source else { return }
        let now = streamNanoseconds
        if local == nil {
            let place = source.tail.end
            guard let last = source.position else { return }
            let feed = StreamFeed(configuration.stream, hello: StreamHello(), kept: source.keptSequences, last: last)
            local = (FeedPump(feed, place: place), StreamFollower(configuration.stream))
            handleLocal(source) { $0.welcomed(feed.sent, at: now, into: &$1) }
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
                        damaged += 1
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
            // Another numbering: begin anew.
            local = nil
        }
        if hasMore { nextPump = 1 }
    }

    private func handleLocal(
        _ source: any ChangeSource, _ event: (inout StreamFollower, inout [FollowerAction]) -> Void
    ) {
        guard var follower = local?.follower else { return }
        var actions: [FollowerAction] = []
        event(&follower, &actions)
        local?.follower = follower
        for action in actions {
            switch action {
            case .grant(let bytes): local?.pump.feed.grant(bytes)
            case .seek(let slot, let sequence): local?.pump.feed.seek(slot: slot, after: sequence)
            case .probe(let number, _): local?.pump.probe(number, of: source)
            case .disconnect: local = nil
            case .apply, .quarantine, .proved: perform(action)
            }
        }
    }
}
