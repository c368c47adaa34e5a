// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Which handles take a key, by its routing prefix and by the prefixes of each cluster.
///
/// Routing prefixes that stand for several clusters lead to all their handles, the default's first, each once.
struct ClusterTable: Sendable {
    /// What takes keys without a routing prefix.
    let defaultGroup: Int
    private let names: PrefixMap
    private let groups: [PrefixMap]
    /// Handles, where there are several or none. ``handle(in:of:)`` gives -1 for the first of them, and so on.
    private let sets: [[Int32]]
    private let clusters: [RoutingPrefix]
    private let sendsInvalidToDefault: Bool
    private static let broadcast = "/*/*/"

    init(_ tree: RouteTree, _ defaults: RouteDefaults) throws(RouteError) {
        let standard = try RoutingPrefix(defaults.routingPrefix)
        var builder = Builder(tree: tree)
        guard let home = tree.clusters.firstIndex(where: { $0.prefix == standard }) else {
            let known = tree.clusters.isEmpty ? "none" : tree.clusters.map(\.prefix.text).joined(separator: ", ")
            throw RouteError("no route for the default routing prefix \(standard.text); there is one for: \(known)")
        }
        let order = [home] + tree.clusters.indices.filter { $0 != home }
        var named: [(prefix: [UInt8], value: Int32)] = []
        func add(_ name: String, _ members: [Int]) {
            named.append((Array(name.utf8), Int32(builder.group(members))))
        }
        for (index, cluster) in tree.clusters.enumerated() { add(cluster.prefix.text, [index]) }
        for region in Set(tree.clusters.map(\.prefix.region)).sorted() {
            add("/\(region)/*/", order.filter { tree.clusters[$0].prefix.region == region })
        }
        add(Self.broadcast, order)
        defaultGroup = builder.group([home])
        names = PrefixMap(named, otherwise: -1)
        groups = builder.groups
        sets = builder.sets
        clusters = order.map { tree.clusters[$0].prefix }
        sendsInvalidToDefault = defaults.sendsInvalidPrefixToDefault
    }

    /// Collects the handles of groups of clusters.
    private struct Builder {
        let tree: RouteTree
        var groups: [PrefixMap] = []
        var known: [[Int]: Int] = [:]
        var sets: [[Int32]] = []
        var setIndex: [[Int32]: Int32] = [:]

        mutating func group(_ members: [Int]) -> Int {
            if let index = known[members] { return index }
            let selectors = members.map { tree.clusters[$0].selector }
            var entries: [(prefix: [UInt8], value: Int32)] = []
            for prefix in Set(selectors.flatMap { $0.policies.keys }) {
                entries.append((Array(prefix.utf8), value(selectors.map { Self.handle(of: prefix, in: $0) })))
            }
            groups.append(PrefixMap(entries, otherwise: value(selectors.map(\.otherwise))))
            known[members] = groups.count - 1
            return groups.count - 1
        }

        /// The handle of the longest prefix that `prefix` begins with.
        private static func handle(of prefix: String, in selector: PrefixChoice) -> RouteTree.ID? {
            let longest = selector.policies.keys.filter { prefix.utf8.starts(with: $0.utf8) }
                .max { $0.utf8.count < $1.utf8.count }
            return longest.flatMap { selector.policies[$0] } ?? selector.otherwise
        }

        private mutating func value(_ handles: [RouteTree.ID?]) -> Int32 {
            var unique: [Int32] = []
            for case let handle? in handles where !unique.contains(Int32(handle.index)) {
                unique.append(Int32(handle.index))
            }
            if unique.count == 1 { return unique[0] }
            if let index = setIndex[unique] { return index }
            sets.append(unique)
            setIndex[unique] = Int32(-sets.count)
            return Int32(-sets.count)
        }
    }

    /// The group of a routing prefix; -1 when it takes a closer look.
    func group(of prefix: Span<UInt8>) -> Int {
        Int(names.exactValue(of: prefix))
    }

    /// The handle that takes a key without its routing prefix; below 0 when there are several or none.
    func handle(in group: Int, of key: Span<UInt8>) -> Int32 {
        let map = groups[group]
        return map.isEmpty ? map.otherwise : map.value(of: RoutePlan.routingKey(key))
    }

    /// All handles that take a key, the first being the one whose reply counts.
    func handles(of key: Span<UInt8>, prefixLength: Int) -> [Int32] {
        let bare = key.extracting(prefixLength..<key.count)
        guard prefixLength > 0 else { return handles(in: defaultGroup, bare) }
        let prefix = String(decoding: Array(copying: key.extracting(0..<prefixLength)), as: UTF8.self)
        let found = handles(of: prefix, bare)
        return found.isEmpty && sendsInvalidToDefault ? handles(in: defaultGroup, bare) : found
    }

    private func handles(in group: Int, _ key: Span<UInt8>) -> [Int32] {
        let value = handle(in: group, of: key)
        return value >= 0 ? [value] : sets[Int(-value) - 1]
    }

    private func handles(of prefix: String, _ key: Span<UInt8>) -> [Int32] {
        let bytes = Array(prefix.utf8)
        let group = group(of: bytes.span)
        if group >= 0 { return handles(in: group, key) }
        if !prefix.contains("*") {
            // A cluster that is not known: its region may have one for such.
            let parts = prefix.split(separator: "/")
            let fallback = Array("/\(parts.first ?? "")/fallback/".utf8)
            let group = self.group(of: fallback.span)
            return group >= 0 ? handles(in: group, key) : []
        }
        var result: [Int32] = []
        for cluster in clusters where Self.matches(bytes, Array(cluster.text.utf8)) {
            let name = Array(cluster.text.utf8)
            for handle in handles(in: self.group(of: name.span), key) where !result.contains(handle) {
                result.append(handle)
            }
        }
        return result
    }

    /// Whether a pattern fits, in which a star stands for anything but a slash. Of several ways for a star to fit, only
    /// the shortest has to be looked at.
    static func matches(_ pattern: [UInt8], _ text: [UInt8]) -> Bool {
        var (place, position) = (0, 0)
        var star: (place: Int, position: Int)?
        while position < text.count {
            if place < pattern.count, pattern[place] == UInt8(ascii: "*") {
                place += 1
                star = (place, position)
            } else if place < pattern.count, pattern[place] == text[position] {
                place += 1
                position += 1
            } else if let last = star, text[last.position] != UInt8(ascii: "/") {
                star = (last.place, last.position + 1)
                (place, position) = (last.place, last.position + 1)
            } else {
                return false
            }
        }
        return pattern[place...].allSatisfy { $0 == UInt8(ascii: "*") }
    }
}
