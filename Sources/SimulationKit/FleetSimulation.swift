// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Storage

/// Nodes of a fleet that share a store, in virtual time and with seeded faults, while the ring changes every 100 ms and
/// clients ask whomever they take for a key's owner. At the end every key's history is checked.
package final class FleetSimulation {
    private let world: VirtualWorld
    private let store: FleetStore
    private let seed: UInt64
    private let keys: [[UInt8]]
    private let counters: Int
    private let names: [String]
    private var faults = FleetSession.Faults()
    private var tierConfiguration = StorageTierConfiguration()
    private var ownership = OwnershipConfiguration()
    /// The processes; those whose name another one took over are asked now and then, too.
    private var nodes: [FleetNode] = []
    private var zombies: [FleetNode] = []
    private var lives = 0
    private var wanted: [RingMember] = []
    private var clients: [SimulatedClient] = []
    private let history: HistoryRecorder
    private var budget: Int
    private var isHealed = false
    /// Keys whose last reads were not answered.
    private var unanswered: [String] = []
    /// What the nodes went through, in order.
    private var events: [String] = []

    /// A run of a seed with so many commands. Without a fence, as in a replica region, whose store knows nothing of the
    /// ring, nobody may read what is older than a write that was answered before.
    package init(seed: UInt64, operations: Int = 800, guards: OwnershipGuards = .all, isFenced: Bool = true) {
        world = VirtualWorld(seed: seed)
        history = HistoryRecorder(world)
        self.seed = seed
        budget = operations
        store = FleetStore(world, guards, isFenced: isFenced)
        ownership.isFenced = isFenced
        var pick = world.random
        if pick.chance(500) { faults.unknown = pick.within(3...15) }
        if pick.chance(600) { faults.slow = pick.within(10...60) }
        if pick.chance(400) { faults.readError = pick.within(5...30) }
        keys = (0..<pick.within(3...6)).map { Array("key-\($0)".utf8) }
        counters = pick.within(0...1)
        names = ["a", "b", "c"]
        ownership.leaseNanoseconds = UInt64(pick.within(60...400)) * 1_000_000
        tierConfiguration.sharesKeys = guards.contains(.writes)
        tierConfiguration.stripes = 1 << pick.below(3)
        tierConfiguration.bucketsPerStripe = 1 << pick.below(4)
        tierConfiguration.waitMilliseconds = UInt64(pick.within(300...900))
        clients = (0..<pick.within(4...12)).map { SimulatedClient(number: $0, depth: 2) }
        world.random = pick
    }

    /// Runs to the end and checks.
    package func run() -> SimulationReport {
        defer { world.end() }
        wanted = names.map { Self.member($0) }
        for name in names { nodes.append(begin(name)) }
        flap()
        trouble()
        for client in clients { think(client) }
        while budget > 0 || clients.contains(where: { $0.count > 0 }) { guard world.step() else { break } }
        heal()
        return check()
    }

    private static func member(_ name: String) -> RingMember { RingMember(name: name, host: name, port: 1) }

    private func begin(_ name: String) -> FleetNode {
        let session = FleetSession(world, store, faults, waitMilliseconds: tierConfiguration.waitMilliseconds)
        session.noteSealed = { [history] write, outcome in history.noteSealed(write.clientFlags, outcome) }
        lives += 1
        let life = lives
        let cache = SimulatedCache(world, capacity: keys.count, noMemory: 0, negativeMilliseconds: 5000)
        let node = FleetNode(
            name, world, store, session, cache, tier: tierConfiguration, ownership: ownership)
        node.note = { [weak self, world] text in
            self?.events.append("\(world.unixMilliseconds) \(name)\(life): \(text)")
        }
        node.want(wanted)
        return node
    }

    // MARK: Trouble

    /// Another set of members, every 100 ms; nodes hear of it one after the other.
    private func flap() {
        world.after(100_000) { [self] in
            guard !isHealed else { return }
            var members = names.filter { _ in world.random.chance(700) }
            if members.isEmpty { members = [names[world.random.below(names.count)]] }
            world.noteFault("ring change wanted")
            spread(members.map { Self.member($0) })
            flap()
        }
    }

    private func spread(_ members: [RingMember]) {
        wanted = members
        for node in nodes + zombies {
            world.after(world.random.below(40_000)) { [weak self] in
                guard let self, wanted == members else { return }
                node.want(members)
            }
        }
    }

    private func trouble() {
        world.after(world.random.within(50_000...400_000)) { [self] in
            guard !isHealed else { return }
            let index = world.random.below(nodes.count)
            let long = Int(ownership.leaseNanoseconds / 1000) * 3
            switch world.random.below(10) {
            case 0...2:
                world.noteFault("node cut off")
                nodes[index].cut(world.random.below(long))
            case 3...5:
                world.noteFault("node stood still")
                nodes[index].stand(world.random.below(long))
            case 6...7:
                world.noteFault("node killed")
                nodes[index].kill()
                nodes[index] = begin(nodes[index].name)
            case 8:
                // Its supervisor takes it for dead, and starts another one.
                world.noteFault("name taken over")
                zombies.append(nodes[index])
                nodes[index] = begin(nodes[index].name)
            default:
                world.noteFault("eviction")
                nodes[index].cache.evictOne()
            }
            trouble()
        }
    }

    // MARK: Clients

    private func think(_ client: SimulatedClient) {
        world.after(world.random.within(2_000...60_000)) { [self] in
            guard budget > 0 else { return }
            if client.count < client.depth { issue(client) }
            think(client)
        }
    }

    private func issue(_ client: SimulatedClient) {
        let place = world.random.below(keys.count)
        let key = keys[place]
        // On the way over several nodes, commands of one client on one key would lose their order.
        guard (client.underWay[key] ?? 0) == 0 else { return }
        let action = client.choose(key, isCounter: place < counters, tag: history.nextTag, world)
        budget -= 1
        let record = history.begin(client.number, place, action)
        client.begin(action, key)
        send(action, key, to: guess(key), hops: 0) { [self] result in
            client.end(action, key, result)
            history.end(record, result)
        }
    }

    /// Whom a client takes for the owner.
    private func guess(_ key: [UInt8]) -> FleetNode {
        let pool = world.random.chance(150) ? nodes + zombies.filter { !$0.isDead } : nodes
        let members = store.members
        if world.random.chance(650), !members.isEmpty {
            let owner = members[SimulatedPlacement(names: members.map(\.name)).owner(of: key.span)].name
            if let node = pool.last(where: { $0.name == owner }) { return node }
        }
        return pool[world.random.below(pool.count)]
    }

    private func send(
        _ action: RecordedOperation.Action, _ key: [UInt8], to node: FleetNode, hops: Int,
        _ done: @escaping (RecordedOperation.Result) -> Void
    ) {
        world.after(world.random.below(800)) { [self] in
            if node.isDead { return done(.read(.failed(StorageFailure(.notSent, "the node is gone")))) }
            node.execute(action, key) { [self] answer in
                world.after(world.random.below(800)) { [self] in
                    switch answer {
                    case .done(let result): done(result)
                    case .elsewhere(let owner):
                        guard hops < 12 else {
                            return done(.read(.failed(StorageFailure(.notSent, "nobody has the key"))))
                        }
                        world.noteFault("moved")
                        let next = owner.flatMap { name in nodes.first { $0.name == name } } ?? node
                        world.after(hops * 3_000) { [self] in
                            send(action, key, to: next, hops: hops + 1, done)
                        }
                    }
                }
            }
        }
    }

    // MARK: The end

    /// Ends all faults, and processes that others were started for; waits until the ring has settled, and reads every
    /// key at its owner, twice.
    private func heal() {
        isHealed = true
        for node in nodes { node.heal() }
        for zombie in zombies { zombie.kill() }
        spread(names.map { Self.member($0) })
        let quiet = world.microseconds + 4_000_000
        while world.microseconds < quiet, world.step() {}
        for place in Array(keys.indices) + keys.indices {
            let record = history.begin(-1, place, .read)
            var isDone = false
            send(.read, keys[place], to: nodes[0], hops: 0) { [self] result in
                isDone = true
                if case .read(.failed) = result { noteUnanswered(place) }
                history.end(record, result)
            }
            while !isDone, world.step() {}
            if !isDone { noteUnanswered(place) }
        }
    }

    private func noteUnanswered(_ place: Int) {
        let name = String(decoding: keys[place], as: UTF8.self)
        if !unanswered.contains(name) { unanswered.append(name) }
    }

    private func check() -> SimulationReport {
        var report = SimulationReport(seed: seed)
        report.faults = world.faults
        report.faults["ring change"] = store.changes
        if store.isFenced {
            history.check(keys, by: LinearizabilityChecker(), into: &report)
        } else {
            history.checkAnswered(keys, store.commits, into: &report)
        }
        report.unanswered = unanswered
        return report
    }

    /// What happened to a key that a report names: commands, and what the nodes went through.
    package func log(of finding: String) -> [String] {
        let name = finding.prefix { $0 != ":" }
        guard let place = keys.firstIndex(where: { String(decoding: $0, as: UTF8.self) == name }) else { return events }
        return events + history.log(of: place)
    }
}
