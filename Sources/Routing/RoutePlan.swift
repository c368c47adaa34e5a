// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What holds for a whole router, where a configuration says nothing else.
package struct RouteDefaults: Sendable, Equatable {
    /// The routing prefix of keys that have none.
    package var routingPrefix = "/././"
    /// Whether keys of an unknown routing prefix go where those without one go.
    package var sendsInvalidPrefixToDefault = false
    /// What a request may take. Milliseconds.
    package var requestTimeoutMilliseconds = 1000
    /// The router's number: which of several copies of a key it uses.
    package var hostID: UInt64 = 0
    /// The file of mcrouter's runtime variables; nil for none.
    package var variablesPath: String?
    /// Long values of all routes are cut up; nil for none.
    package var bigValues: BigValues?
    /// How many of its requests a failover may send again where it has no limit of its own; nil for all. What was not
    /// sent, because the server could not be reached, does not count.
    package var failoverLimit: FailoverLimit?

    /// The ordinary ones.
    package init() {}
}

/// A server that requests are sent to, with what its connections are made with.
package struct Destination: Sendable, Hashable {
    /// Host name, address, or the path of a unix socket.
    package let host: String
    /// TCP port; 0 with a unix socket.
    package let port: Int
    /// Whether the connection is encrypted.
    package let usesTLS: Bool
    /// What a request may take. Milliseconds.
    package let requestTimeoutMilliseconds: Int
    /// What connecting may take. Milliseconds.
    package let connectTimeoutMilliseconds: Int
    /// What fails together with it; 0 when nothing is known.
    package let failureDomain: UInt32

    /// `host:port`, or the path.
    package var name: String { port == 0 ? host : host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// A pool of a plan.
package struct PoolInfo: Sendable, Equatable {
    /// Its name.
    package let name: String
    /// Numbers of the destinations that keys belong to, in the order of its servers.
    package let destinations: [Int]
    /// Numbers of the destinations of all its servers.
    package let servers: [Int]
    /// Those of the ones among them that are warming up.
    package let warming: [Int]
    /// Whether servers see keys with their routing prefix.
    package let keepsRoutingPrefix: Bool
    /// Whether servers say who owns a key that is not theirs, and are asked again there.
    package let followsOwners: Bool
    /// The name failed deletes are spooled under; nil when they are not.
    package let spool: String?
    /// When destinations are no longer taken out.
    package let health: PoolHealthLimits?
    /// Where the servers are looked up; nil when they are static.
    package let members: String?
}

/// Where a request goes that needs no more than that.
package struct RouteTarget: Sendable, Equatable {
    /// A number of ``RoutePlan/destinations``, or below 0: see ``kind``.
    package let destination: Int32
    /// A number of ``RoutePlan/pools``, where there is a destination.
    package let pool: UInt16
    /// Bytes of the key that the server does not see: its routing prefix.
    package let keyOffset: UInt16

    /// What is to be done.
    package enum Kind: Sendable, Equatable {
        /// The request is sent to the destination as it is, but for the key's offset.
        case destination
        /// A ``RouteMachine`` handles it.
        case composite
        /// It is answered with ``RouteOperation/defaultResult``.
        case null
    }

    /// What is to be done.
    @inlinable @inline(__always)
    package var kind: Kind { destination >= 0 ? .destination : destination == -1 ? .composite : .null }

    static var composite: RouteTarget { RouteTarget(destination: -1, pool: 0, keyOffset: 0) }
    static var null: RouteTarget { RouteTarget(destination: -2, pool: 0, keyOffset: 0) }

    @usableFromInline
    init(destination: Int32, pool: UInt16, keyOffset: UInt16) {
        self.destination = destination
        self.pool = pool
        self.keyOffset = keyOffset
    }
}

/// A route tree made ready to route by: immutable, and shared by all threads.
package final class RoutePlan: Sendable {
    /// Where requests can go, each server once for each way of connecting.
    package let destinations: [Destination]
    /// The pools.
    package let pools: [PoolInfo]
    /// What it was made from.
    package let tree: RouteTree
    /// The defaults it was made with.
    package let defaults: RouteDefaults

    /// For each handle and operation, what is to be done.
    let steps: [Step]
    /// In place, because a copy of one would count references to all of its arrays.
    let choices: FixedArray<Choice>
    /// The destinations or handles that choices choose from.
    let choosable: [Int32]
    let prefixes: [PrefixMap]
    /// For each handle that looks at prefixes, which map; -1 for others.
    let prefixIndex: [Int32]
    /// For each handle and for each pool, which choice; -1 where there is no choice.
    let handleChoice: [Int32]
    let poolChoice: [Int32]
    /// For each pool in which servers are warming up: the choice that holds when all are in; -1 for others.
    let joinedChoice: [Int32]
    let clusters: ClusterTable
    /// Whether values are cut up before anything else.
    let cutsValues: Bool
    /// Whether values are cut up anywhere: pieces have the hash of the value in their keys.
    let hashesValues: Bool
    /// Whether client flags of what is read matter to a handle: they mark what is no client's value, or are copied.
    package let readsFlags: Bool

    /// What a handle does with requests of an operation.
    struct Step: Sendable {
        enum Kind: UInt8 { case server, choice, prefixes, null, composite }
        let kind: Kind
        var pool: UInt16 = 0
        var value: Int32 = 0
    }

    /// One of several, by the key.
    struct Choice: Sendable {
        let selector: ServerSelector
        let isConstShard: Bool
        /// Where its destinations or handles begin.
        let first: Int
        let count: Int
        /// The pool, when it chooses a destination; -1 for handles.
        let pool: Int32

        @inline(__always)
        func index(of key: Span<UInt8>) -> Int {
            if isConstShard, let shard = Self.shard(in: selector.hashedPart(of: key)), shard < count { return shard }
            return selector.owner(of: key)
        }

        /// The number between the first two colons.
        private static func shard(in key: Span<UInt8>) -> Int? {
            guard let start = key.firstOffset(of: UInt8(ascii: ":"), from: 0, to: key.count),
                let end = key.firstOffset(of: UInt8(ascii: ":"), from: start &+ 1, to: key.count), end > start &+ 1,
                end &- start <= 10
            else { return nil }
            var number = 0
            for index in (start &+ 1)..<end {
                guard 48...57 ~= key[index] else { return nil }
                number = number &* 10 &+ Int(key[index] &- 48)
            }
            return number
        }
    }

    /// Makes a plan. Building takes as long as its rings do; allocates. Throws what a hash cannot do with its servers,
    /// and a default routing prefix that leads nowhere.
    package init(_ tree: RouteTree, defaults: RouteDefaults) throws(RouteError) {
        var builder = RoutePlanBuilder(tree: tree, defaults: defaults)
        try builder.build()
        self.tree = tree
        self.defaults = defaults
        destinations = builder.destinations
        pools = builder.pools
        steps = builder.steps
        let made = builder.choices
        choices = FixedArray(count: made.count) { made[$0] }
        choosable = builder.choosable
        prefixes = builder.prefixes
        prefixIndex = builder.prefixIndex
        handleChoice = builder.handleChoice
        poolChoice = builder.poolChoice
        joinedChoice = builder.joinedChoice
        clusters = try ClusterTable(tree, defaults)
        let cutsValues = defaults.bigValues != nil
        self.cutsValues = cutsValues
        hashesValues =
            cutsValues
            || tree.handles.contains { handle in
                if case .bigValue = handle { return true }
                return false
            }
        readsFlags =
            cutsValues
            || tree.handles.contains { handle in
                switch handle {
                case .bigValue, .l1l2, .l1l2SizeSplit, .warmUp: true
                default: false
                }
            }
    }

    /// Where a request of `key` goes. Does not allocate, and counts no references.
    ///
    /// `key` is as the client wrote it, with its routing prefix.
    package func target(of key: Span<UInt8>, for operation: RouteOperation) -> RouteTarget {
        guard key.count > 0 else { return .composite }
        var offset = 0
        var group = clusters.defaultGroup
        if key[0] == UInt8(ascii: "/") {
            offset = RoutingPrefix.length(in: key)
            if offset > 0 { group = clusters.group(of: key.extracting(0..<offset)) }
            guard group >= 0 else { return .composite }
        }
        let bare = key.extracting(offset..<key.count)
        let handle = clusters.handle(in: group, of: bare)
        let isCut = cutsValues && RouteHandle.isCut(operation)
        guard handle >= 0, !isCut else { return .composite }
        return walk(from: handle, bare, operation, offset)
    }

    /// The server that a key will belong to when those are in that are warming up; nil where it stays where it is.
    func joining(_ key: [UInt8], pool: Int) -> Int? {
        let choice = Int(joinedChoice[pool])
        guard choice >= 0 else { return nil }
        let bare = key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count)
        let destination = Int(choosable[choices[choice].first + choices[choice].index(of: bare)])
        return pools[pool].warming.contains(destination) ? destination : nil
    }

    /// The handle that takes a key first, as a number of the tree's; below 0 when there are several or none.
    package func entry(of key: Span<UInt8>) -> Int32 {
        let offset = RoutingPrefix.length(in: key)
        let group = offset > 0 ? clusters.group(of: key.extracting(0..<offset)) : clusters.defaultGroup
        return group < 0 ? -1 : clusters.handle(in: group, of: key.extracting(offset..<key.count))
    }

    private func walk(
        from start: Int32, _ key: Span<UInt8>, _ operation: RouteOperation, _ offset: Int
    ) -> RouteTarget {
        var handle = Int(start)
        while true {
            let step = steps[handle &* RouteOperation.count &+ Int(operation.rawValue)]
            switch step.kind {
            case .server: return found(step.value, step.pool, offset)
            case .choice:
                let choice = Int(step.value)
                let index = choosable[choices[choice].first &+ choices[choice].index(of: key)]
                if choices[choice].pool >= 0 {
                    return found(index, UInt16(truncatingIfNeeded: choices[choice].pool), offset)
                }
                handle = Int(index)
            case .prefixes:
                let next = prefixes[Int(step.value)].value(of: Self.routingKey(key))
                guard next >= 0 else { return .composite }
                handle = Int(next)
            case .null: return .null
            case .composite: return .composite
            }
        }
    }

    @inline(__always)
    private func found(_ destination: Int32, _ pool: UInt16, _ offset: Int) -> RouteTarget {
        let keeps = offset > 0 && pools[Int(pool)].keepsRoutingPrefix
        return RouteTarget(
            destination: destination, pool: pool, keyOffset: keeps ? 0 : UInt16(truncatingIfNeeded: offset))
    }

    /// What of a key routes look at: all of it before a hash stop.
    @_lifetime(copy key)
    static func routingKey(_ key: Span<UInt8>) -> Span<UInt8> {
        key.extracting(HashedPart.beforeHashStop.range(in: key))
    }
}

extension RouteOperation {
    /// How many operations there are.
    static var count: Int { 17 }
}
