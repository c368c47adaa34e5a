// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Storage

/// A region that follows the home region's stream: a cache whose clients read, and what keeps it fresh.
final class StreamReplica {
    private struct Copy {
        var version: UInt64
        /// Since when it is there, in nanoseconds.
        var since: UInt64
    }

    private let world: VirtualWorld
    private let home: StreamHome
    private let configuration: InvalidationConfiguration
    private let guards: StreamGuards
    let link: StreamNetwork
    private var follower: StreamFollower
    private var trust: StreamTrust
    private let wantsValues: Bool
    /// Nobody reads at home: what is cached comes with the stream.
    private let isPlain: Bool
    private var flushed = FlushedSlots(keysMax: 3)
    /// Where the home region's stream is followed: its side of the connection, and the node.
    private var pump: FeedPump?
    private var node: StreamNode
    /// Which connection the frames under way belong to.
    private var connection = 0
    /// Frames that were sent to the follower, and the last of them that arrived.
    private var sent = 0
    private var arrived = 0
    private var copies: [Int: Copy] = [:]
    /// By key, what arrived for it: a fill that was begun before must not install.
    private var arrivals: [Int]
    private var flushes = 0
    /// By key, the newest version that a finished read has shown.
    private var shown: [UInt64]
    /// Keys with a fill under way: one at a time, as in the tier.
    private var filling: Set<Int> = []
    private var isSweeping = false
    /// Bytes that the source may send beyond what it knows of.
    private var granted = 0
    private var incarnation = 0
    private var earlier = FollowerStatistics()

    private(set) var hits = 0
    private(set) var fills = 0
    private(set) var violations: [String] = []
    private(set) var digest: UInt64 = 0

    init(
        _ world: VirtualWorld, _ home: StreamHome, _ configuration: InvalidationConfiguration, _ guards: StreamGuards,
        mayBePlain: Bool
    ) {
        self.world = world
        self.home = home
        self.configuration = configuration
        self.guards = guards
        link = StreamNetwork(world)
        wantsValues = world.random.chance(500)
        isPlain = wantsValues && mayBePlain && world.random.chance(700)
        node = home.nodes[0]
        follower = StreamFollower(configuration, guards: guards)
        trust = StreamTrust(configuration, guards: guards)
        arrivals = home.keys.map { _ in 0 }
        shown = home.keys.map { _ in 0 }
    }

    /// What all its followers counted.
    var total: FollowerStatistics {
        var sum = follower.statistics
        sum.quarantines += earlier.quarantines
        sum.repairs += earlier.repairs
        return sum
    }

    /// Begins to read, to tick and to pump.
    func schedule() {
        readSoon()
        tickSoon()
        pumpSoon()
    }

    // MARK: The connection

    func connectSoon() {
        connection += 1
        let number = connection
        world.after(world.random.within(1000...200_000)) { [self] in
            guard number == connection else { return }
            connect(number)
        }
    }

    private func connect(_ number: Int) {
        node = home.nodes[world.random.below(home.nodes.count)]
        welcome(number, ticket: node.beginProof())
    }

    /// A node that knows less than the follower looks again before it says so.
    private func welcome(_ number: Int, ticket: UInt64) {
        let place = node.tail.end
        guard let last = node.position, !node.isPaused else { return disconnect(for: world.random.below(100_000)) }
        var hello = StreamHello()
        hello.position = follower.position
        if let wanted = hello.position, wanted.isAhead(of: last), node.proof(ticket) == nil {
            return world.after(5_000) { [self] in if number == connection { welcome(number, ticket: ticket) } }
        }
        hello.takesSuccession = true
        let succession = node.succession
        let feed = StreamFeed(
            configuration, hello: hello, kept: node.keptSequences, last: last, succession: succession)
        pump = FeedPump(feed, place: place, tail: node.tail, valueMax: wantsValues ? 1 << 20 : nil)
        // The handshake is reliable: a connection that loses it is none.
        world.after(world.random.within(500...30_000)) { [self] in
            guard number == connection else { return }
            handle { follower.welcomed(feed.sent, after: succession, at: world.nanoseconds, into: &$0) }
        }
    }

    func disconnect(for time: Int) {
        connection += 1
        (pump, granted) = (nil, 0)
        follower.disconnected()
        world.after(time) { [self] in connectSoon() }
    }

    /// The process begins anew, with an empty cache and nothing known of the stream.
    func restart() {
        let counted = total
        disconnect(for: world.random.below(100_000))
        incarnation += 1
        copies = [:]
        flushes += 1
        filling = []
        earlier = counted
        follower = StreamFollower(configuration, guards: guards)
        trust = StreamTrust(configuration, guards: guards)
        flushed = FlushedSlots(keysMax: 3)
    }

    private func pumpSoon() {
        world.after(world.random.within(1000...8000)) { [self] in
            pumpOnce()
            pumpSoon()
        }
    }

    /// The source sends what it has.
    private func pumpOnce() {
        guard var pump, !node.isPaused else { return }
        guard node.position?.isNumbered(as: pump.feed.sent) ?? false else {
            return disconnect(for: world.random.below(100_000))
        }
        self.pump = nil
        _ = try? pump.run(node, limitBytes: world.random.within(200...20_000)) { item in
            switch item {
            case .lost(let slot, let through): send { self.follower.lost(slot, through: through, into: &$0) }
            case .record(let entry):
                send {
                    guard let record = OutboxRecord(object: entry.bytes) else { return }
                    self.follower.received(record, at: self.world.nanoseconds, into: &$0)
                }
                // Its loss would stop the stream, which is no matter of order.
                handle { follower.consumed(entry.bytes.count + 4, into: &$0) }
            }
        }
        while let (number, sequences) = pump.feed.answerable() {
            let epoch = pump.feed.sent.epoch
            send {
                self.follower.completed(
                    number, epoch: epoch, sequences: sequences, at: self.world.nanoseconds, into: &$0)
            }
        }
        pump.feed.grant(granted)
        granted = 0
        self.pump = pump
    }

    /// Sends a frame to the follower, if the connection lasts.
    private func send(_ body: @escaping (inout [FollowerAction]) -> Void) {
        let number = connection
        sent += 1
        let place = sent
        var isFirst = true
        link.send { [self] in
            guard number == connection else { return }
            if isFirst, place < arrived { world.noteFault("reorder") }
            isFirst = false
            arrived = max(arrived, place)
            handle(body)
        }
    }

    /// Sends a frame to the source.
    private func ask(_ body: @escaping () -> Void) {
        let number = connection
        link.send { [self] in if number == connection { body() } }
    }

    private func tickSoon() {
        world.after(50_000) { [self] in
            handle { follower.tick(at: world.nanoseconds, into: &$0) }
            tickSoon()
        }
    }

    // MARK: Actions

    private func handle(_ event: (inout [FollowerAction]) -> Void) {
        var actions: [FollowerAction] = []
        event(&actions)
        for action in actions { perform(action) }
    }

    private func perform(_ action: FollowerAction) {
        switch action {
        case .apply(let record): apply(record)
        case .quarantine(let mask):
            trust.quarantine(mask)
            if guards.contains(.fills) { flushes += 1 }
            sweepSoon()
        case .seek(let slot, let sequence): ask { self.pump?.feed.seek(slot: slot, after: sequence) }
        case .grant(let bytes): granted += bytes
        case .probe(let number, _): ask { self.pump?.probe(number, of: self.node) }
        case .proved(let time): trust.proved(time)
        case .doubt(let since): doubt(since)
        case .disconnect: disconnect(for: world.random.below(100_000))
        }
    }

    private func apply(_ record: OutboxRecord) {
        if record.operation == .flush { return flush(record) }
        guard let number = home.keys.firstIndex(where: { $0.key == record.key }) else { return }
        let change = CopyChange.of(
            recordVersion: record.version, hasValue: record.value != nil, copyVersion: copies[number]?.version,
            hasFills: !isPlain, guards: guards)
        guard change != .keep else { return }
        arrivals[number] += 1
        if change == .install { flushed.willCache(record.key, slot: home.keys[number].slot) }
        copies[number] = change == .install ? Copy(version: record.version, since: world.nanoseconds) : nil
    }

    private func flush(_ record: OutboxRecord) {
        switch flushed.flushed(Int(record.slot), version: record.version) {
        case .everything:
            flushes += 1
            copies = [:]
        case .keys(let keys):
            for key in home.keys.indices where keys.contains(home.keys[key].key) {
                arrivals[key] += 1
                copies[key] = nil
            }
        }
    }

    /// A promotion has lost what was acknowledged last: what was cached since may be of it, and what is asked for, too.
    private func doubt(_ since: UInt64?) {
        flushes += 1
        copies = copies.filter { $0.value.since < since ?? 0 }
    }

    /// Another region is home: what is lost was shown in vain.
    func noteLoss() {
        for key in shown.indices where home.lost[key][shown[key]] != nil { shown[key] = home.version(key) }
    }

    private func sweepSoon() {
        guard !isSweeping, let sweep = trust.sweep else { return }
        isSweeping = true
        let number = incarnation
        world.after(world.random.within(1000...400_000)) { [self] in
            isSweeping = false
            guard number == incarnation else { return sweepSoon() }
            for (key, _) in copies where sweep.mask & StreamSlots.mask(home.keys[key].slot) != 0 { copies[key] = nil }
            trust.swept(sweep)
            sweepSoon()
        }
    }

    // MARK: Clients

    private func readSoon() {
        world.after(world.random.below(12_000)) { [self] in
            read(world.random.below(home.keys.count))
            readSoon()
        }
    }

    private func read(_ key: Int) {
        if let copy = copies[key], trust.trusts(home.keys[key].slot, at: world.nanoseconds) {
            hits += 1
            check(copy.version, key)
            return note(copy.version, key)
        }
        guard !isPlain, filling.insert(key).inserted else { return }
        fills += 1
        let (before, number) = (arrivals[key] &+ flushes, incarnation)
        // Now and then the store takes its time.
        let slowest = world.random.chance(30) ? 1_500_000 : 40_000
        world.after(world.random.within(200...40_000)) { [self] in
            let version = home.version(key)
            world.after(world.random.within(200...slowest)) { [self] in
                // Whoever asked a process that is gone gets no answer.
                guard number == incarnation else { return }
                filling.remove(key)
                note(version, key)
                // Nothing older may be shown after it, whether or not it may be cached.
                if let copy = copies[key], copy.version < version { copies[key] = nil }
                guard arrivals[key] &+ flushes == before, copies[key] == nil else { return }
                if home.isThere(key, version) { copies[key] = Copy(version: version, since: world.nanoseconds) }
            }
        }
    }

    private func note(_ version: UInt64, _ key: Int) {
        if home.lost[key][version] != nil { return }
        shown[key] = max(shown[key], version)
        digest = digest &* 1_099_511_628_211 ^ (UInt64(key) << 32 | version)
    }

    /// A hit may be as old as the bound allows, and not older than what was shown.
    private func check(_ version: UInt64, _ key: Int) {
        let bound = configuration.lagBoundNanoseconds / 1000
        if let end = home.end(of: version, key), end &+ bound < world.microseconds {
            let age = world.microseconds - end
            violations.append("key \(key): version \(version) was shown \(age) µs behind its successor")
        }
        // Where nobody reads at home, a record that comes late is shown for a moment, until those behind it come again.
        if version < shown[key], !isPlain {
            violations.append("key \(key): version \(version) was shown after \(shown[key])")
        }
    }
}
