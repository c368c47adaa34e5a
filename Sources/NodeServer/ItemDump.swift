// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Reactor

/// Which items a crawl or a dump is about, as clients say it.
struct CrawlScope: Sendable, Equatable {
    /// Bit n for class n: 1 is the queue of new items, 2 the main queue. Other classes have no items.
    private var classes: UInt64
    /// Whether the walk is to follow the hash table, which it always does here. A crawl cannot be asked for that way.
    let isHash: Bool

    /// Every item.
    static let all = CrawlScope(classes: .max, isHash: false)
    /// Every item, in the order of the hash table.
    static let hash = CrawlScope(classes: .max, isHash: true)

    /// Whether no class is named at all.
    var isEmpty: Bool { classes == 0 }

    /// Whether the items of a queue are meant.
    func contains(queue: Int) -> Bool { classes >> UInt64(queue) & 1 == 1 }

    private init(classes: UInt64, isHash: Bool) {
        self.classes = classes
        self.isHash = isHash
    }

    /// Reads `all`, `hash` or numbers of classes with commas between; nil when one is no class.
    init?(_ text: String) {
        switch text {
        case "all": self = .all
        case "hash": self = .hash
        default:
            self.init(classes: 0, isHash: false)
            for part in text.split(separator: ",") {
                guard let number = strictUnsigned(String(part)), number >= 1, number < Node.classLimit else {
                    return nil
                }
                classes |= 1 << UInt64(number)
            }
        }
    }
}

/// A dump of keys to one connection: `lru_crawler metadump` and `mgdump`. It runs on a thread of its own and waits
/// there when the client reads slowly; a shard's lock is held for one bucket at a time.
///
/// An item that is there during the whole dump is shown once; one that comes or goes meanwhile may be shown or not.
struct ItemDump: Sendable {
    enum Form: Sendable {
        /// A line of properties for each item.
        case properties
        /// A command for each item that would get it.
        case commands
    }

    /// Bytes that are collected before they are sent.
    private static var pieceBytes: Int { 64 << 10 }
    /// Bytes that may wait for the client.
    static var waitingLimitBytes: Int { 256 << 10 }
    /// How long a client may read nothing before it is closed.
    private static var patienceNanoseconds: UInt64 { 300_000_000_000 }

    let node: Node
    let form: Form
    let scope: CrawlScope
    let stream: ConnectionStream

    /// Dumps. Returns when all was sent or the client is gone. The caller has begun it with the node's crawler
    /// activity.
    func run() {
        var lines: [UInt8] = []
        lines.reserveCapacity(Self.pieceBytes * 2)
        var checked = 0
        for shard in 0..<node.engine.shardCount {
            let now = node.clock.now()
            let buckets = node.engine.bucketCount(shard: shard)
            for bucket in 0..<buckets {
                node.engine.forEachItem(shard: shard, bucket: bucket, of: buckets) { item, queue in
                    checked += 1
                    guard scope.contains(queue: queue), !item.isExpired(now: now) else { return }
                    append(item, queue: queue, now: now, to: &lines)
                }
                guard lines.count >= Self.pieceBytes else { continue }
                guard stream.send(lines, waitingNanoseconds: Self.patienceNanoseconds) else {
                    node.baseline.crawler.end(checked: checked)
                    return stream.finish(closing: true)
                }
                lines.removeAll(keepingCapacity: true)
            }
        }
        lines += Array((form == .properties ? "END\r\n" : "EN\r\n").utf8)
        // Ended first: a client that has the last line may ask for the next dump.
        node.baseline.crawler.end(checked: checked)
        let isSent = stream.send(lines, waitingNanoseconds: Self.patienceNanoseconds)
        stream.finish(closing: !isSent)
    }

    private func append(_ item: Item, queue: Int, now: UInt32, to lines: inout [UInt8]) {
        switch form {
        case .properties: Self.appendProperties(of: item, queue: queue, now: now, epoch: node.clock.epoch, to: &lines)
        case .commands: Self.appendCommand(for: item, to: &lines)
        }
    }

    /// A line of `metadump`. `epoch` is the Unix time of second 0. Source: memcached protocol.txt, "lru_crawler
    /// metadump".
    static func appendProperties(of item: Item, queue: Int, now: UInt32, epoch: Int64, to lines: inout [UInt8]) {
        append("key=", to: &lines)
        item.withKey { PercentEncoding.append($0, to: &lines) }
        append(" exp=", to: &lines)
        append(item.expiry == 0 ? -1 : Int64(item.expiry) + epoch, to: &lines)
        append(" la=", to: &lines)
        append(Int64(now) - Int64(item.secondsSinceAccess(now: now)) + epoch, to: &lines)
        append(" cas=", to: &lines)
        append(String(item.version), to: &lines)
        append(item.isFetched ? " fetch=yes cls=" : " fetch=no cls=", to: &lines)
        append(Int64(queue), to: &lines)
        append(" size=", to: &lines)
        append(Int64(item.size), to: &lines)
        append(" flags=", to: &lines)
        append(Int64(item.clientFlags), to: &lines)
        append(" \n", to: &lines)
    }

    /// A line of `mgdump`.
    static func appendCommand(for item: Item, to lines: inout [UInt8]) {
        append("mg ", to: &lines)
        item.withKey { key in
            if item.isKeyBinary {
                var encoded = OutputBuffer(capacity: 512)
                encoded.appendBase64(key)
                encoded.withSpan { text in
                    for index in text.indices { lines.append(text[index]) }
                }
                append(" b", to: &lines)
            } else {
                for index in key.indices { lines.append(key[index]) }
            }
        }
        append("\r\n", to: &lines)
    }

    private static func append(_ text: String, to lines: inout [UInt8]) { lines.append(contentsOf: text.utf8) }

    private static func append(_ number: Int64, to lines: inout [UInt8]) { append(String(number), to: &lines) }
}
