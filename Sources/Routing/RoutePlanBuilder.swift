// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Turns a tree into the arrays of a plan.
struct RoutePlanBuilder {
    let tree: RouteTree
    let defaults: RouteDefaults
    private(set) var destinations: [Destination] = []
    private(set) var pools: [PoolInfo] = []
    private(set) var steps: [RoutePlan.Step] = []
    private(set) var choices: [RoutePlan.Choice] = []
    private(set) var choosable: [Int32] = []
    private(set) var prefixes: [PrefixMap] = []
    private(set) var prefixIndex: [Int32] = []
    private(set) var handleChoice: [Int32] = []
    private(set) var poolChoice: [Int32] = []
    private(set) var joinedChoice: [Int32] = []
    private var numbers: [Destination: Int] = [:]

    init(tree: RouteTree, defaults: RouteDefaults) {
        self.tree = tree
        self.defaults = defaults
    }

    mutating func build() throws(RouteError) {
        for pool in tree.pools { try add(pool) }
        for handle in tree.handles { try add(handle) }
    }

    private mutating func add(_ pool: RoutePool) throws(RouteError) {
        let timeout = pool.requestTimeoutMilliseconds ?? defaults.requestTimeoutMilliseconds
        var all: [Int] = []
        for server in pool.servers {
            let destination = Destination(
                host: server.server.host, port: server.server.port, usesTLS: server.usesTLS ?? pool.usesTLS,
                requestTimeoutMilliseconds: timeout,
                connectTimeoutMilliseconds: pool.connectTimeoutMilliseconds ?? timeout,
                failureDomain: server.failureDomain)
            let number = numbers[destination] ?? destinations.count
            if number == destinations.count {
                numbers[destination] = number
                destinations.append(destination)
            }
            all.append(number)
        }
        let index = pools.count
        // Where none serves yet, somebody has to.
        let isSplit = pool.servers.contains { $0.isWarming } && pool.servers.contains { !$0.isWarming }
        let places = pool.servers.indices.filter { !isSplit || !pool.servers[$0].isWarming }
        let members = places.map { all[$0] }
        let warming = isSplit ? all.indices.filter { pool.servers[$0].isWarming }.map { all[$0] } : []
        pools.append(
            PoolInfo(
                name: pool.name, destinations: members, servers: all, warming: warming,
                keepsRoutingPrefix: pool.keepsRoutingPrefix, followsOwners: pool.followsOwners, spool: pool.spool,
                health: pool.health, members: pool.members))
        do throws(SelectorError) {
            let servers = places.map { pool.servers[$0].server }
            poolChoice.append(
                members.count > 1
                    ? try choice(servers, pool.hash, members.map { Int32($0) }, pool: Int32(index)) : -1)
            joinedChoice.append(
                isSplit
                    ? try choice(pool.servers.map(\.server), pool.hash, all.map { Int32($0) }, pool: Int32(index))
                    : -1)
        } catch {
            throw RouteError("pool \(pool.name): \(error.description)")
        }
    }

    private mutating func choice(
        _ servers: [Server], _ hash: HashChoice, _ members: [Int32], pool: Int32
    ) throws(SelectorError) -> Int32 {
        let scheme: HashScheme =
            switch hash.method {
            case .scheme(let scheme): scheme
            case .constShard: .ch3
            }
        let selector = try ServerSelector(servers, scheme: scheme, part: hash.part, salt: hash.salt)
        choices.append(
            RoutePlan.Choice(
                selector: selector, isConstShard: hash.method == .constShard, first: choosable.count,
                count: members.count,
                pool: pool))
        choosable += members
        return Int32(choices.count - 1)
    }

    private mutating func add(_ handle: RouteHandle) throws(RouteError) {
        var (ownChoice, ownPrefixes): (Int32, Int32) = (-1, -1)
        switch handle {
        case .hash(let children, let names, let weights, let hash) where children.count > 1:
            let servers = children.indices.map { index in
                Server(
                    host: index < names.count ? names[index] : "\(index)", port: 0,
                    weight: index < weights.count ? weights[index] : 1)
            }
            do throws(SelectorError) {
                ownChoice = try choice(servers, hash, children.map { Int32($0.index) }, pool: -1)
            } catch {
                throw RouteError("a hash of routes: \(error.description)")
            }
        case .prefixes(let choice):
            prefixes.append(
                PrefixMap(
                    choice.policies.map { (Array($0.key.utf8), Int32($0.value.index)) },
                    otherwise: choice.otherwise.map { Int32($0.index) } ?? -1))
            ownPrefixes = Int32(prefixes.count - 1)
        default: break
        }
        handleChoice.append(ownChoice)
        prefixIndex.append(ownPrefixes)
        for operation in RouteOperation.allCases {
            let step = self.step(of: handle, operation, ownChoice, ownPrefixes)
            steps.append(step)
        }
    }

    private static var composite: RoutePlan.Step { RoutePlan.Step(kind: .composite) }
    private static var null: RoutePlan.Step { RoutePlan.Step(kind: .null) }

    private func step(of handle: RouteTree.ID, _ operation: RouteOperation) -> RoutePlan.Step {
        steps[handle.index * RouteOperation.count + Int(operation.rawValue)]
    }

    private func step(
        of handle: RouteHandle, _ operation: RouteOperation, _ choice: Int32, _ prefixes: Int32
    ) -> RoutePlan.Step {
        switch handle {
        case .pool(let pool):
            // What is written is deleted where it is going to be.
            return operation.group != .get && !pools[pool].warming.isEmpty ? Self.composite : step(pool: pool)
        case .server(let pool, let index):
            return RoutePlan.Step(kind: .server, pool: UInt16(pool), value: Int32(pools[pool].servers[index]))
        case .hash(let children, _, _, _):
            if children.isEmpty { return Self.composite }
            return choice >= 0 ? RoutePlan.Step(kind: .choice, value: choice) : step(of: children[0], operation)
        case .prefixes: return RoutePlan.Step(kind: .prefixes, value: prefixes)
        case .operations(let table, let otherwise):
            return (table[operation] ?? otherwise).map { step(of: $0, operation) } ?? Self.composite
        case .null: return Self.null
        case .error: return Self.composite
        default:
            return handle.transparentChild(for: operation, hostID: defaults.hostID).map { step(of: $0, operation) }
                ?? Self.composite
        }
    }

    private func step(pool: Int) -> RoutePlan.Step {
        if poolChoice[pool] >= 0 { return RoutePlan.Step(kind: .choice, value: poolChoice[pool]) }
        guard let only = pools[pool].destinations.first else {
            return tree.pools[pool].isErrorWhenEmpty ? Self.composite : Self.null
        }
        return RoutePlan.Step(kind: .server, pool: UInt16(pool), value: Int32(only))
    }
}

extension RouteHandle {
    /// The child that takes requests of an operation whatever happens; nil when there is more to it.
    func transparentChild(for operation: RouteOperation, hostID: UInt64) -> RouteTree.ID? {
        switch self {
        case .allSync(let children), .allFastest(let children), .allInitial(let children), .allMajority(let children),
            .random(let children):
            return children.count == 1 ? children[0] : nil
        case .failover(let route): return route.children.count == 1 ? route.children[0] : nil
        case .hedge(let route): return operation.isHedged ? nil : route.first
        case .missFailover(let children, _):
            let asksOthers = operation.group == .get || operation.group == .delete
            return children.count == 1 || !asksOthers ? children.first : nil
        case .warmUp(let cold, _, _): return operation.group == .get ? nil : cold
        case .slowWarmUp(let target, _, _):
            return operation.group == .update || operation.group == .arithmetic ? target : nil
        case .shadow(let child, let shadows):
            return shadows.allSatisfy { $0.keyList.isEmpty && $0.keys == 0...0 } ? child : nil
        case .keySplit(let child, let replicas, let allSync, let firstHit):
            let isEverywhere = operation == .delete || (operation == .set && allSync) || firstHit
            return hostID % UInt64(replicas) == 0 && !isEverywhere ? child : nil
        case .rateLimit(let child, let limits, _): return limits.rate(operation) == nil ? child : nil
        case .bigValue(let child, _): return Self.isCut(operation) ? nil : child
        case .modifyExptime(let child, _): return operation.hasExptime ? nil : child
        case .l1l2(let first, _, _): return operation.group == .get ? nil : first
        case .l1l2SizeSplit(let first, _, _):
            let isSplit = [.get, .gets, .leaseGet, .set, .leaseSet].contains(operation)
            let isRefused = operation.isExtending || operation == .gat || operation == .gats
            return isSplit || isRefused ? nil : first
        default: return nil
        }
    }

    /// Whether long values matter to an operation.
    static func isCut(_ operation: RouteOperation) -> Bool {
        operation.group == .update || (operation.group == .get && operation != .metaGet)
    }
}
