// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A tree of route handles, as configurations describe it: a value without state.
///
/// Handles are added before those that use them, so there are no cycles; one that several use is one handle, with one
/// state. Limits are named in ``Limits``.
package struct RouteTree: Sendable, Equatable {
    /// What a tree may have.
    package enum Limits {
        /// Handles.
        package static var handles: Int { 65_536 }
        /// Pools.
        package static var pools: Int { 16_384 }
        /// Handles from the root to a destination.
        package static var depth: Int { 64 }
        /// Handles that one asks after each other.
        package static var tries: Int { 1_024 }
        /// Clusters.
        package static var clusters: Int { 4_096 }
    }

    /// A handle of a tree.
    package struct ID: Sendable, Hashable {
        /// Its place in ``RouteTree/handles``.
        package let index: Int

        /// The identifier of that place.
        package init(index: Int) { self.index = index }
    }

    /// What an operator calls a handle: explanations and conversions show it.
    package var names: [ID: String] = [:]
    /// The pools.
    package internal(set) var pools: [RoutePool] = []
    /// The handles.
    package internal(set) var handles: [RouteHandle] = []
    /// What each routing prefix, as `/region/cluster/`, leads to; in the order of the configuration.
    package internal(set) var clusters: [(prefix: RoutingPrefix, selector: PrefixChoice)] = []
    private var depths: [Int] = []
    /// For each handle, a strict pool below it.
    private var strictPools: [Int?] = []

    /// A tree without handles.
    package init() {}

    /// A tree of one pool, which takes every key whose routing prefix is the default's.
    package init(
        pool name: String, servers: [Server], hash: HashChoice = HashChoice(), defaults: RouteDefaults = RouteDefaults()
    ) throws(RouteError) {
        var pool = RoutePool(name, servers: servers.map { PoolServer($0) })
        pool.hash = hash
        let index = try add(pool)
        let root = try add(.pool(index))
        try setCluster(try RoutingPrefix(defaults.routingPrefix), PrefixChoice(otherwise: root))
    }

    /// Adds a pool. Two pools may be called the same when their servers are.
    package mutating func add(_ pool: RoutePool) throws(RouteError) -> Int {
        if let known = pools.firstIndex(of: pool) { return known }
        guard pools.count < Limits.pools else { throw RouteError("more than \(Limits.pools) pools") }
        try pool.check()
        pools.append(pool)
        return pools.count - 1
    }

    /// Adds a handle whose children are there already.
    package mutating func add(_ handle: RouteHandle, named name: String? = nil) throws(RouteError) -> ID {
        guard handles.count < Limits.handles else { throw RouteError("more than \(Limits.handles) route handles") }
        var depth = 0
        for child in handle.children {
            precondition(handles.indices.contains(child.index), "a handle whose child is not there")
            depth = max(depth, depths[child.index])
        }
        guard depth < Limits.depth else { throw RouteError("route handles nested deeper than \(Limits.depth)") }
        if let tries = handle.tries, tries > Limits.tries {
            throw RouteError("\(tries) routes that are asked one after the other; at most \(Limits.tries) are allowed")
        }
        let strict = strictPool(below: handle)
        if let strict, let weakening = handle.weakening {
            throw RouteError(
                """
                \(weakening) over the pool \(pools[strict].name), which has storage: a read may be old; \
                let the pool say consistency: bounded, and staleness, or route otherwise
                """)
        }
        handles.append(handle)
        depths.append(depth + 1)
        strictPools.append(strict)
        let id = ID(index: handles.count - 1)
        if let name { names[id] = name }
        return id
    }

    private func strictPool(below handle: RouteHandle) -> Int? {
        switch handle {
        case .pool(let index), .server(let index, _), .copy(let index, _):
            pools[index].consistency == .strict ? index : nil
        default: handle.children.lazy.compactMap { strictPools[$0.index] }.first
        }
    }

    /// Why what is read from pools may not be kept in the router for that long; nil where it may.
    package func refusal(ofCaching milliseconds: Int) -> String? {
        guard milliseconds > 0 else { return nil }
        for pool in pools {
            switch pool.consistency {
            case .lookAside: continue
            case .strict: return "the pool \(pool.name) has storage, and a copy in the router may be old"
            case .bounded(let staleness) where staleness < milliseconds:
                return "the pool \(pool.name) allows copies to be old by \(staleness) ms"
            case .bounded: continue
            }
        }
        return nil
    }

    /// Says what requests with a routing prefix take; without one, the default prefix counts.
    package mutating func setCluster(_ prefix: RoutingPrefix, _ selector: PrefixChoice) throws(RouteError) {
        guard clusters.count < Limits.clusters else {
            throw RouteError("more than \(Limits.clusters) routing prefixes")
        }
        guard !clusters.contains(where: { $0.prefix == prefix }) else {
            throw RouteError("the routing prefix \(prefix.text) twice")
        }
        clusters.append((prefix, selector))
    }

    /// The handle of an identifier.
    package subscript(id: ID) -> RouteHandle { handles[id.index] }

    /// The same tree with servers in the pools whose servers are looked up: those that `found` knows where. Hash and
    /// timeouts stay as the pool says.
    package func replacingMembers(_ found: (String) -> [PoolServer]) -> RouteTree {
        var tree = self
        for index in tree.pools.indices {
            if let source = tree.pools[index].members {
                tree.pools[index].servers = found(source)
            }
        }
        return tree
    }

    /// Where pools' servers are looked up.
    package var memberSources: Set<String> { Set(pools.compactMap(\.members)) }

    /// Whether both route alike, and call their handles the same.
    package static func == (left: RouteTree, right: RouteTree) -> Bool {
        left.pools == right.pools && left.handles == right.handles && left.names == right.names
            && left.clusters.map(\.prefix) == right.clusters.map(\.prefix)
            && left.clusters.map(\.selector) == right.clusters.map(\.selector)
    }
}

/// Why routes cannot be used.
package struct RouteError: Error, Equatable, CustomStringConvertible {
    /// What is wrong and what is allowed, in one line.
    package let description: String

    /// An error of that text.
    package init(_ description: String) { self.description = description }
}

/// `/region/cluster/`, in front of a key.
package struct RoutingPrefix: Sendable, Hashable {
    /// The whole prefix.
    package let text: String
    /// Its first part.
    package let region: String
    /// Its second part.
    package let cluster: String

    /// The prefix that a text spells; slashes at its ends may be missing. Throws when there are not just two parts.
    package init(_ spelled: some StringProtocol) throws(RouteError) {
        let parts = spelled.split(separator: "/", omittingEmptySubsequences: false)
        let inner = parts.dropFirst(parts.first == "" ? 1 : 0)
        let named = inner.last == "" ? inner.dropLast() : inner
        guard named.count == 2, named.allSatisfy({ !$0.isEmpty }) else {
            throw RouteError("\(spelled): a routing prefix has the form /region/cluster/")
        }
        region = String(named[named.startIndex])
        cluster = String(named[named.startIndex + 1])
        text = "/\(region)/\(cluster)/"
    }

    /// Where the key begins behind a routing prefix; 0 when there is none.
    package static func length(in key: Span<UInt8>) -> Int {
        let slash = UInt8(ascii: "/")
        guard key.count > 2, key[0] == slash else { return 0 }
        var seen = 0
        for index in 1..<key.count where key[index] == slash {
            seen &+= 1
            if seen == 2 { return index &+ 1 }
        }
        return 0
    }
}
