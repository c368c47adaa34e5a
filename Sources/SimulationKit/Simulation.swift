// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Storage

/// What one seed showed.
package struct SimulationReport: Sendable, Equatable {
    /// What the run can be repeated by.
    package var seed: UInt64
    /// Commands that clients sent.
    package var operations = 0
    /// What was injected, by name.
    package var faults: [String: Int] = [:]
    /// Keys whose histories are impossible, each with what was found.
    package var violations: [String] = []
    /// Keys whose histories the checker gave up on: nobody knows whether they are possible.
    package var undecided: [String] = []
    /// Operations on these keys: what was not checked.
    package var uncheckedOperations = 0
    /// Keys whose reads nobody answered once all faults were over.
    package var unanswered: [String] = []
    /// Of everything that clients saw: the same seed gives the same.
    package var digest: UInt64 = 0

    /// Faults in all.
    package var faultCount: Int { faults.values.reduce(0, +) }
}

/// A node with its tier, a cache, a store and clients, in virtual time and with seeded faults: the real `StorageTier`
/// on simulated surroundings. At the end every key's history is checked.
package final class Simulation {
    private enum Owner {
        case thisNode, another
        /// The other node finishes what it was asked, and is asked nothing more.
        case handingOver
    }

    private let world: VirtualWorld
    private let store: SimulatedStore
    private let guards: WriteThroughGuards
    private let checker: LinearizabilityChecker
    private let keys: [[UInt8]]
    private let counters: Int
    private var configuration = StorageTierConfiguration()
    private var policy = StoragePoolPolicy()
    private let cacheCapacity: Int
    private let noMemory: Int
    private var node: SimulatedNode?
    /// Who serves each key.
    private var owners: [Owner]
    /// Commands that another node has under way, by key.
    private var directOperations: [Int]
    private var isRunning = false
    private var clients: [SimulatedClient] = []
    /// Whether copies are forgotten when the clock that rows expire by is set.
    private let noticesSteps: Bool
    private let seed: UInt64
    private let history: HistoryRecorder
    private var budget: Int

    /// A run of a seed with so many commands, judged by `checker`. Which faults there are, and how many, is the seed's
    /// choice. `noticesSteps` is false for a node that does not notice that the clock was set.
    package init(
        seed: UInt64, operations: Int = 1000, guards: WriteThroughGuards = .all, noticesSteps: Bool = true,
        checker: LinearizabilityChecker = LinearizabilityChecker()
    ) {
        self.checker = checker
        self.noticesSteps = noticesSteps
        world = VirtualWorld(seed: seed)
        history = HistoryRecorder(world)
        self.seed = seed
        self.guards = guards
        budget = operations
        var pick = world.random
        var faults = SimulatedStore.Faults()
        // A random part of the faults: rare ones show better where others do not drown them.
        if pick.chance(500) { faults.notSent = pick.within(5...30) }
        if pick.chance(600) { faults.refused = pick.within(5...40) }
        if pick.chance(700) { faults.unknown = pick.within(3...20) }
        if pick.chance(600) { faults.slowWrite = pick.within(3...15) }
        if pick.chance(600) { faults.readError = pick.within(5...50) }
        if pick.chance(600) { faults.slowRead = pick.within(5...50) }
        faults.delayMax = pick.within(200...4000)
        store = SimulatedStore(world, faults)
        keys = (0..<pick.within(3...7)).map { Array("key-\($0)".utf8) }
        owners = keys.map { _ in .thisNode }
        directOperations = keys.map { _ in 0 }
        counters = pick.within(0...2)
        cacheCapacity = pick.within(1...keys.count + 1)
        noMemory = pick.chance(300) ? 30 : 0
        configuration.stripes = 1 << pick.below(3)
        configuration.bucketsPerStripe = 1 << pick.below(4)
        configuration.waitMilliseconds = UInt64(pick.within(60...200))
        if pick.chance(150) { configuration.writesInFlightMax = configuration.stripes * 3 }
        policy.negativeTTLMilliseconds = pick.chance(800) ? 5000 : 0
        clients = (0..<pick.within(4...16)).map { SimulatedClient(number: $0, depth: pick.within(1...3)) }
        world.random = pick
        store.noteSealed = { [history] write, outcome in history.noteSealed(write.clientFlags, outcome) }
    }

    /// Runs to the end and checks.
    package func run() -> SimulationReport {
        defer { world.end() }
        start()
        scheduleNemesis()
        for client in clients { think(client) }
        while budget > 0 || clients.contains(where: { $0.count > 0 }) || !isRunning
            || owners.contains(where: { $0 != .thisNode })
        {
            guard world.step() else { break }
        }
        heal()
        return check()
    }

    // MARK: The node

    private func start() {
        let cache = SimulatedCache(
            world, capacity: cacheCapacity, noMemory: noMemory,
            negativeMilliseconds: Int64(policy.negativeTTLMilliseconds))
        let node = SimulatedNode(
            world, store: store, cache: cache, configuration: configuration, policy: policy, guards: guards)
        self.node = node
        do throws(StorageStartError) { try node.tier.start() } catch {
            preconditionFailure("the simulated store fails")
        }
        isRunning = true
    }

    /// Crashes, evictions, flushes and changes of ownership, at times of the seed's choice.
    private func scheduleNemesis() {
        let end = max(20_000, budget * 400)
        for _ in 0..<world.random.below(4) {
            world.after(world.random.below(end)) { [self] in crash() }
        }
        for _ in 0..<world.random.within(5...40) {
            world.after(world.random.below(end)) { [self] in
                world.noteFault("eviction")
                node?.cache.evictOne()
            }
        }
        for _ in 0..<world.random.below(4) {
            world.after(world.random.below(end)) { [self] in loseOwnership(Array(keys.indices)) }
        }
        for _ in 0..<world.random.below(6) {
            world.after(world.random.below(end)) { [self] in loseOwnership([world.random.below(keys.count)]) }
        }
        for _ in 0..<world.random.below(3) {
            world.after(world.random.below(end)) { [self] in
                world.noteFault("flush")
                node?.flush()
            }
        }
        scheduleSteps(end)
    }

    /// Of a quarter of the seeds: the clock that rows expire by is set forward. Numbers of their own, so that the other
    /// faults of a seed do not depend on it.
    private func scheduleSteps(_ end: Int) {
        var random = SimulationRandom(seed: seed ^ 0x5D588B656C078965)
        guard random.chance(250) else { return }
        for _ in 0..<random.within(3...8) {
            let milliseconds = random.within(1...1500)
            world.after(random.below(end)) { [self] in
                world.noteFault("clock step")
                world.step(milliseconds: milliseconds)
                history.noteStep()
                if noticesSteps { node?.forgetTimedCopies() }
            }
        }
    }

    private func crash() {
        guard isRunning else { return }
        world.noteFault("crash")
        isRunning = false
        node?.kill()
        node = nil
        store.crash()
        for client in clients { client.forget() }
        world.after(world.random.below(20_000)) { [self] in start() }
    }

    /// Another node serves these keys for a while: all of them, which is a change of the ring, or one that is written
    /// around this node. Either way it is told before and after.
    private func loseOwnership(_ places: [Int]) {
        guard isRunning, places.allSatisfy({ owners[$0] == .thisNode }) else { return }
        world.noteFault(places.count == 1 ? "key written elsewhere" : "ring change")
        for place in places { owners[place] = .another }
        forget(places)
        world.after(world.random.within(500...15_000)) { [self] in
            for place in places { owners[place] = .handingOver }
            regainOwnership(places)
        }
    }

    private func regainOwnership(_ places: [Int]) {
        guard places.allSatisfy({ directOperations[$0] == 0 }) else {
            return world.after(200) { [self] in regainOwnership(places) }
        }
        forget(places)
        for place in places { owners[place] = .thisNode }
    }

    private func forget(_ places: [Int]) {
        if places.count == keys.count { return node?.flush() ?? () }
        for place in places { node?.invalidate(keys[place]) }
    }

    // MARK: Clients

    private func think(_ client: SimulatedClient) {
        world.after(world.random.within(50...4000)) { [self] in
            guard budget > 0 else { return }
            if isRunning, client.count < client.depth { issue(client) }
            think(client)
        }
    }

    private func issue(_ client: SimulatedClient) {
        let place = world.random.below(keys.count)
        let key = keys[place]
        let owner = owners[place]
        guard (client.reading[key] ?? 0) == 0, owner != .handingOver else { return }
        guard owner == .thisNode || (client.underWay[key] ?? 0) == 0 else { return }
        let action = client.choose(key, isCounter: place < counters, tag: history.nextTag, world)
        budget -= 1
        let record = history.begin(client.number, place, action)
        let hasUnanswered = (client.underWay[key] ?? 0) > 0
        client.begin(action, key)
        guard owner == .thisNode else { return direct(client, action, place, record) }
        let life = node
        node?.execute(action, key, hasUnanswered: hasUnanswered) { [self] result in
            guard life === node else { return }
            client.end(action, key, result)
            history.end(record, result)
        }
    }

    /// While another node owns the keys, it serves them from the store.
    private func direct(
        _ client: SimulatedClient, _ action: RecordedOperation.Action, _ place: Int, _ record: Int
    ) {
        directOperations[place] += 1
        let key = keys[place]
        let life = node
        world.after(world.random.below(1000)) { [self] in
            let result = store.directly(action, key)
            world.after(world.random.below(1000)) { [self] in
                directOperations[place] -= 1
                if life === node { client.end(action, key, result) }
                history.end(record, result)
            }
        }
    }

    // MARK: The end

    /// Ends all faults, waits for what is loose, and reads every key twice: from the cache, where it has a copy.
    private func heal() {
        store.faults = SimulatedStore.Faults()
        let quiet = world.microseconds + 1_000_000
        while world.microseconds < quiet, world.step() {}
        for place in Array(keys.indices) + keys.indices {
            let record = history.begin(-1, place, .read)
            var isDone = false
            node?.execute(.read, keys[place], hasUnanswered: false) { [self] result in
                isDone = true
                history.end(record, result)
            }
            while !isDone, world.step() {}
        }
    }

    private func check() -> SimulationReport {
        var report = SimulationReport(seed: seed)
        report.faults = world.faults
        history.check(keys, by: checker, into: &report)
        return report
    }

    /// What happened to one key, for whoever looks into a violation.
    package func log(of key: Int) -> [String] { history.log(of: key) }
}
