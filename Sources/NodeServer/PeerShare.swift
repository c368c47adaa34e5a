// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Storage
internal import Synchronization

/// The keys of one node that belong to another one: listed by `lru_crawler metadump`, read by `get`, and stored by
/// `add` over a connection to the own node, as any client would. Blocks. Of one thread.
struct PeerShare: ~Copyable {
    private let keys: WarmingKeys
    private let hashSeed: UInt64
    private var list: LineSocket
    private var values: LineSocket
    private var store: LineSocket
    private var hasEnded = false

    /// Keys and bytes of one batch, at most.
    private static var batchKeys: Int { 128 }
    private static var batchBytes: Int { 4 << 20 }
    private static var batchLines: Int { 10_000 }
    private static var timeoutSeconds: Int { 10 }
    /// The largest item that a memcached may be told to take, in bytes.
    static var valueLimit: Int { 1 << 30 }

    /// A key as the list has it.
    struct Entry {
        let key: [UInt8]
        /// As Unix time; 0 for never.
        let expiry: Int64
    }

    /// Connects to both, and asks for the list.
    init(_ peer: RingMember, own: RingMember, keys: WarmingKeys, hashSeed: UInt64) throws(PeerProblem) {
        let list = try LineSocket(peer, timeoutSeconds: Self.timeoutSeconds)
        let values = try LineSocket(peer, timeoutSeconds: Self.timeoutSeconds)
        let store = try LineSocket(own, timeoutSeconds: Self.timeoutSeconds)
        try list.write(Array("lru_crawler metadump all\r\n".utf8))
        self.keys = keys
        self.hashSeed = hashSeed
        self.list = list
        self.values = values
        self.store = store
    }

    /// Some more of the keys that `isWanted` wants; nil at the end.
    mutating func nextBatch(where isWanted: (Span<UInt8>) -> Bool) throws(PeerProblem) -> [Entry]? {
        var batch: [Entry] = []
        var (bytes, lines) = (0, 0)
        while !hasEnded, batch.count < Self.batchKeys, bytes < Self.batchBytes, lines < Self.batchLines {
            lines += 1
            let line = try list.line()
            // Newer memcacheds say first that they begin.
            if line == Array("OK".utf8) { continue }
            if line == Array("END".utf8) {
                hasEnded = true
                break
            }
            guard let (entry, size) = Self.entry(line) else {
                // BUSY, or ERROR of one that has no such command.
                throw PeerProblem("lru_crawler metadump: \(String(decoding: line.prefix(80), as: UTF8.self))")
            }
            guard Self.isPlain(entry.key), isWanted(entry.key.span) else { continue }
            batch.append(entry)
            bytes += size
        }
        return batch.isEmpty && hasEnded ? nil : batch
    }

    /// Reads the values of these keys, and stores those that nobody wrote meanwhile.
    mutating func fetch(
        _ batch: [Entry], graceNanoseconds grace: UInt64, _ counters: WarmUpCounters
    ) throws(PeerProblem) {
        let began = Clock.monotonicNanoseconds()
        let since = began > grace ? began - grace : 0
        var request = Array("get".utf8)
        for entry in batch { request += [0x20] + entry.key }
        try values.write(request + Array("\r\n".utf8))
        let expiries = Dictionary(batch.map { ($0.key, $0.expiry) }) { first, _ in first }
        var (commands, sent) = ([UInt8](), [[UInt8]]())
        var found = 0
        while let item = try values.value() {
            found += 1
            guard let expiry = expiries[item.key], !keys.isDeleted(hash(item.key), since: since) else { continue }
            commands += Array("add ".utf8) + item.key + Array(" \(item.flags) \(expiry) \(item.bytes.count)\r\n".utf8)
            commands += item.bytes + Array("\r\n".utf8)
            sent.append(item.key)
        }
        guard !sent.isEmpty else {
            counters.leftOut.add(UInt64(batch.count), ordering: .relaxed)
            return
        }
        try store.write(commands)
        var stored = 0
        var stale: [UInt8] = []
        for key in sent {
            let isStored = try store.line() == Array("STORED".utf8)
            if isStored { stored += 1 }
            // Deleted between the look and the `add`: what was added goes as well. Nobody has read it.
            if isStored, keys.isDeleted(hash(key), since: since) {
                stored -= 1
                stale += Array("delete ".utf8) + key + Array("\r\n".utf8)
            }
        }
        if !stale.isEmpty {
            try store.write(stale)
            for _ in 0..<stale.count(where: { $0 == 10 }) { _ = try store.line() }
        }
        counters.stored.add(UInt64(stored), ordering: .relaxed)
        counters.leftOut.add(UInt64(batch.count - stored), ordering: .relaxed)
    }

    private func hash(_ key: [UInt8]) -> UInt64 { stableHash(key.span, seed: hashSeed) }

    /// Whether a key can stand in a line; others came in base64, and begin as misses.
    private static func isPlain(_ key: [UInt8]) -> Bool {
        1...250 ~= key.count && key.allSatisfy { $0 > 32 && $0 != 127 }
    }

    /// What a line of the list says: `key=… exp=… … size=…`, the key with percent signs.
    static func entry(_ line: [UInt8]) -> (Entry, size: Int)? {
        var (key, expiry, size): ([UInt8]?, Int64?, Int) = (nil, nil, 0)
        for word in line.split(separator: UInt8(ascii: " ")) {
            guard let equals = word.firstIndex(of: UInt8(ascii: "=")) else { continue }
            let text = String(decoding: word[word.index(after: equals)...], as: UTF8.self)
            switch String(decoding: word[..<equals], as: UTF8.self) {
            case "key": key = PercentEncoding.decoded(Array(text.utf8))
            case "exp": expiry = Int64(text)
            case "size": size = min(max(Int(text) ?? 0, 0), valueLimit)
            default: break
            }
        }
        guard let key, let expiry else { return nil }
        return (Entry(key: key, expiry: max(expiry, 0)), size)
    }
}

/// Why a node's keys could not be fetched.
struct PeerProblem: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// A connection whose other end speaks in lines.
struct LineSocket: ~Copyable {
    private let socket: ClientSocket
    private let name: String
    private var bytes: [UInt8] = []
    private var start = 0

    private static var pieceBytes: Int { 64 << 10 }
    private static var lineLimit: Int { 64 << 10 }

    init(_ member: RingMember, timeoutSeconds: Int) throws(PeerProblem) {
        let socket = try Self.connect(member, timeoutSeconds)
        self.socket = socket
        name = member.address
    }

    private static func connect(_ member: RingMember, _ seconds: Int) throws(PeerProblem) -> ClientSocket {
        do throws(SystemError) {
            return try ClientSocket.connect(
                host: member.host, port: UInt16(clamping: member.port), timeoutSeconds: seconds)
        } catch {
            throw PeerProblem(error.description)
        }
    }

    func write(_ bytes: [UInt8]) throws(PeerProblem) {
        do throws(SystemError) { try socket.write(bytes) } catch { throw PeerProblem(error.description) }
    }

    /// The next line, without its end.
    mutating func line() throws(PeerProblem) -> [UInt8] {
        while true {
            if let end = bytes[start...].firstIndex(of: 10) {
                let line = bytes[start..<(end > start && bytes[end - 1] == 13 ? end - 1 : end)]
                start = end + 1
                return Array(line)
            }
            guard bytes.count - start <= Self.lineLimit else { throw PeerProblem("\(name): a line without end") }
            try readMore()
        }
    }

    /// The next value of a reply to `get`; nil at its end.
    mutating func value() throws(PeerProblem) -> (key: [UInt8], flags: UInt32, bytes: [UInt8])? {
        let line = try line()
        if line == Array("END".utf8) { return nil }
        let words = line.split(separator: UInt8(ascii: " "))
        guard words.count == 4, let flags = UInt32(String(decoding: words[2], as: UTF8.self)),
            let length = Int(String(decoding: words[3], as: UTF8.self)), 0...PeerShare.valueLimit ~= length
        else { throw PeerProblem("\(name): get: \(String(decoding: line.prefix(80), as: UTF8.self))") }
        while bytes.count - start < length + 2 { try readMore() }
        let value = Array(bytes[start..<start + length])
        start += length + 2
        return (Array(words[1]), flags, value)
    }

    private mutating func readMore() throws(PeerProblem) {
        if start > Self.pieceBytes || start == bytes.count {
            bytes.removeFirst(start)
            start = 0
        }
        do throws(SystemError) {
            let more = try socket.read(limit: Self.pieceBytes)
            guard more.isEmpty else { return bytes += more }
        } catch {
            throw PeerProblem(error.description)
        }
        throw PeerProblem("\(name): the connection was closed")
    }
}
