// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Telemetry

/// get, gets, gat, gats.
extension RequestExecutor {
    /// One key of a classic get, with `END` behind the last.
    @inline(__always)
    mutating func get(_ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        count(.get)
        let hash = hash(request, key)
        let lookup: Lookup
        if request.verb == .get {
            let now = self.now
            if standing == .hidden || (defers && mustFollow(hash)) {
                lookup = .miss
            } else {
                lookup = engine.withShard(hash) { shard in
                    guard var item = shard.findToRead(hash, key, now: now) else { return .miss }
                    if item.isAbsent { return item.saysAbsent(now: now) ? .absent : .miss }
                    item.noteRead(now: now)
                    Self.appendValue(item, key, withCAS: false, &shard, &output)
                    return .hit
                }
            }
            counters.commands.add(.cmdGet)
            counters.commands.add(lookup == .hit ? .getHits : .getMisses)
            if lookup != .hit, key.count == Self.clusterKey.utf8CodeUnitCount, lookup == .absent || storage == nil {
                clusterValue(key, &output)
            }
        } else {
            lookup = getRarely(request, key: key, hash, &output)
        }
        sampler.note(hash, key)
        if countsPrefixes { node.prefixes.noteGet(key, isHit: lookup == .hit) }
        if !watched.isEmpty { watchFetch(hash, key, isHit: lookup == .hit) }
        if lookup == .parked { return }
        if lookup == .miss, readThrough(request, key: key, hash, opaque: Span(), output) { return }
        if lookup == .absent { counters.commands.add(.negativeHits) }
        if request.isLastKeyOfGet {
            output.append("END\r\n")
            if defers { noteEndOfGet(output) }
        }
    }

    /// What the cache says about a key.
    enum Lookup {
        case hit, miss
        /// The store is known not to have it.
        case absent
        /// The store was asked already.
        case parked
    }

    /// The key under which ElastiCache's older clients look for the nodes.
    private static var clusterKey: StaticString { "AmazonElastiCache:cluster" }

    /// Answers that key with the cluster's nodes as long as nobody stored something under it.
    @inline(never)
    func clusterValue(_ key: Span<UInt8>, _ output: inout OutputBuffer) {
        guard key.count == Self.clusterKey.utf8CodeUnitCount else { return }
        var text: [UInt8] = []
        for index in key.indices { text.append(key[index]) }
        guard String(decoding: text, as: UTF8.self) == Self.clusterKey.description else { return }
        guard let nodes = node.clusterText() else { return }
        output.appendValueLine(key: key, clientFlags: 0, length: nodes.count, cas: nil)
        output.append(nodes.span)
        output.append("\r\n")
    }

    /// gets, gat and gats.
    @inline(never)
    private mutating func getRarely(
        _ request: Request, key: Span<UInt8>, _ hash: UInt64, _ output: inout OutputBuffer
    ) -> Lookup {
        let touches = request.verb == .gat || request.verb == .gats
        if touches, touchThrough(request, key: key, hash, opaque: Span(), .get, output) { return .parked }
        if standing == .hidden || (defers && mustFollow(hash)) { return .miss }
        let withCAS = request.verb == .gets || request.verb == .gats
        let expiry = touches ? node.clock.expiry(request.exptime, now: now) : 0
        let now = self.now
        let lookup = engine.withShard(hash) { shard -> Lookup in
            guard var item = shard.findToRead(hash, key, now: now) else { return .miss }
            if item.isAbsent { return item.saysAbsent(now: now) ? .absent : .miss }
            item.noteRead(now: now)
            if touches {
                guard let moved = shard.setExpiry(expiry, of: item, hash, key: key, now: now) else { return .miss }
                item = moved
            }
            Self.appendValue(item, key, withCAS: withCAS, &shard, &output)
            return .hit
        }
        noteRead(lookup == .hit, touches: touches)
        return lookup
    }

    /// Counts a read, which counts as a touch where it sets an expiry.
    func noteRead(_ found: Bool, touches: Bool) {
        if touches {
            counters.commands.add(.cmdTouch)
            counters.commands.add(found ? .touchHits : .touchMisses)
            if found { counters.commands.add(.getHits) }
        } else {
            counters.commands.add(.cmdGet)
            counters.commands.add(found ? .getHits : .getMisses)
        }
    }

    @inline(__always)
    static func appendValue(
        _ item: Item, _ key: Span<UInt8>, withCAS: Bool, _ shard: inout ShardState, _ output: inout OutputBuffer
    ) {
        let length = item.valueLength
        output.appendValueLine(
            key: key, clientFlags: item.clientFlags, length: length, cas: withCAS ? item.version : nil)
        appendData(item, length, &shard, &output)
        output.append("\r\n")
    }

    /// Appends a value: a copy, or for a large one the place where it lies, pinned until it is sent.
    @inline(__always)
    static func appendData(_ item: Item, _ length: Int, _ shard: inout ShardState, _ output: inout OutputBuffer) {
        if length < copyLimit || !shard.isLarge(item) {
            output.append(item.bytes, from: item.valueOffset, length: length)
        } else {
            output.append(external: item.bytes.slice(item.valueOffset, length), token: shard.pin(item))
        }
    }
}
