// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A ``RouteHandle/shardSplit(_:_:)``: into how many each shard is split. A key's shard stands between its first two
/// colons and ends in a digit: `a:1:b` is of shard 1, its second part is `a:1aa:b`, the next `a:1ba:b`. Source:
/// mcrouter's ShardSplitter and ShardSplitRoute.
package struct ShardSplits: Sendable, Equatable {
    /// How many parts a shard has, perhaps soon.
    package struct Size: Sendable, Equatable {
        /// Parts before the change, and behind it: from 1 to ``ShardSplits/most``.
        package var old = 1
        /// See `old`.
        package var new = 1
        /// When the change begins, in seconds since 1970, and how long it takes: one router after the other, by their
        /// numbers.
        package var startSeconds: UInt64 = 0
        /// See `startSeconds`.
        package var periodSeconds: UInt64 = 0
        /// Whether deletes go to all parts, rather than to the router's own.
        package var deletesAll = true

        /// So many parts from now on.
        package init(_ count: Int) { (old, new) = (count, count) }

        func count(hostID: UInt64, unixSeconds now: UInt64) -> Int {
            if old == new || now > startSeconds &+ periodSeconds { return new }
            guard now >= startSeconds, periodSeconds > 0 else { return old }
            let point = Double(now - startSeconds) / Double(periodSeconds)
            return Double(hostID % Self.hostIDs) / Double(Self.hostIDs) < point ? new : old
        }

        private static var hostIDs: UInt64 { 16_384 }
    }

    /// Parts by shard; others have one.
    package var shards: [String: Size] = [:]

    /// Parts of a shard at most: two letters tell them apart.
    package static var most: Int { 26 * 26 + 1 }

    /// No shard is split.
    package init() {}

    /// Where a key's shard is in the part of it that is routed by; nil where it has none.
    static func shard(in key: Span<UInt8>) -> Range<Int>? {
        guard let colon = key.firstOffset(of: UInt8(ascii: ":"), from: 0, to: key.count),
            let end = key.firstOffset(of: UInt8(ascii: ":"), from: colon &+ 1, to: key.count), end > colon &+ 1,
            UInt8(ascii: "0")...UInt8(ascii: "9") ~= key[end &- 1]
        else { return nil }
        return (colon &+ 1)..<end
    }

    /// How many parts a key's shard has; nil where it is whole.
    func split(_ key: Span<UInt8>, hostID: UInt64, unixSeconds: UInt64) -> (end: Int, count: Int, deletesAll: Bool)? {
        guard let shard = Self.shard(in: key),
            let size = shards[String(decoding: [UInt8](copying: key.extracting(shard)), as: UTF8.self)]
        else { return nil }
        let count = size.count(hostID: hostID, unixSeconds: unixSeconds)
        return count > 1 ? (shard.upperBound, count, size.deletesAll) : nil
    }

    /// What is put behind the shard for one of its parts but the first.
    static func suffix(_ number: Int) -> [UInt8] {
        let letter = UInt8(ascii: "a")
        return [letter + UInt8((number - 1) % 26), letter + UInt8((number - 1) / 26)]
    }

    /// The keys that a request goes to, the one that is answered first; nil where it is the key itself.
    func keys(
        of key: [UInt8], isDelete: Bool, hostID: UInt64, unixSeconds: UInt64, longest: Int
    ) -> [[UInt8]]? {
        let start = RoutingPrefix.length(in: key.span)
        let routed = RoutePlan.routingKey(key.span.extracting(start..<key.count))
        guard let split = split(routed, hostID: hostID, unixSeconds: unixSeconds), key.count - start + 2 <= longest
        else { return nil }
        func part(_ number: Int) -> [UInt8] {
            if number == 0 { return key }
            return Array(key[..<(start + split.end)]) + Self.suffix(number) + Array(key[(start + split.end)...])
        }
        if isDelete, split.deletesAll { return (0..<split.count).map(part) }
        let own = Int(hostID % UInt64(split.count))
        return own == 0 ? nil : [part(own)]
    }
}
