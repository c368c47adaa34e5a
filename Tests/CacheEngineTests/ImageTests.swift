// Martlet
// SPDX-License-Identifier: Apache-2.0

import CacheEngine
import Foundation
import Memory
import Platform
import Testing

/// A cache that is written to a file and read by another.
struct ImageTests {
    /// What a key's item is, as far as clients and the engine can tell.
    private struct Found: Equatable {
        var value: [UInt8]
        var flags: UInt32
        var expiry: UInt32
        var version: UInt64
        var queue: Int
        var word: Bool
    }

    private static let keys = 6_000
    private let path =
        FileManager.default.temporaryDirectory.path + "/martlet-image-\(UInt64.random(in: 0...UInt64.max))"

    private func configuration(seed: UInt64) -> EngineConfiguration {
        var configuration = EngineConfiguration(limitBytes: 4 << 20, hashSeed: seed)
        configuration.itemSizeMax = 1 << 20
        return configuration
    }

    private func key(_ number: Int) -> [UInt8] { Array("key:\(number)".utf8) }

    /// Stores, reads, overwrites and deletes at random; more than the cache holds.
    private func fill(_ engine: CacheEngine, _ random: inout some RandomNumberGenerator, steps: Int) {
        for step in 0..<steps {
            let key = key(Int.random(in: 0..<Self.keys, using: &random))
            let hash = stableHash(key.span, seed: engine.hashSeed)
            let now = UInt32(100 + step / 1000)
            switch Int.random(in: 0..<20, using: &random) {
            case 0:
                engine.withShard(hash) { shard in
                    if let item = shard.find(hash, key.span, now: now) { shard.remove(item, hash) }
                }
            case 1..<10:
                engine.withShard(hash) { shard in
                    if var item = shard.find(hash, key.span, now: now) { item.noteRead(now: now) }
                }
            default:
                let isLarge = Int.random(in: 0..<300, using: &random) == 0
                let length = Int.random(in: 0...(isLarge ? 200_000 : 900), using: &random)
                let byte = UInt8.random(in: 0...255, using: &random)
                let request = StoreRequest(
                    mode: .set, clientFlags: Bool.random(using: &random) ? 7 : 0,
                    expiry: Bool.random(using: &random) ? now + 10_000 : 0, compare: 0, version: engine.newVersion())
                let value = [UInt8](repeating: byte, count: length)
                _ = engine.withShard(hash) { $0.store(hash, key: key.span, value: value.span, request, now: now) }
            }
        }
    }

    private func content(_ engine: CacheEngine) -> [Int: Found] {
        var all: [Int: Found] = [:]
        for number in 0..<Self.keys {
            let key = key(number)
            let hash = stableHash(key.span, seed: engine.hashSeed)
            engine.withShard(hash) { shard in
                guard let item = shard.find(hash, key.span, now: 200) else { return }
                all[number] = Found(
                    value: item.bytes.slice(item.valueOffset, item.valueLength).withSpan { [UInt8](copying: $0) },
                    flags: item.clientFlags, expiry: item.expiry, version: item.version,
                    queue: shard.queueNumber(of: item), word: item.isFetched)
            }
        }
        return all
    }

    private func header(_ file: SharedFile) throws -> ImageHeader? {
        var page = [UInt8](repeating: 0, count: min(try file.length(), ImageHeader.byteCount))
        var span = page.mutableSpan
        _ = try file.read(into: &span, at: 0)
        return try ImageHeader(page)
    }

    @Test(arguments: [1, 3])
    func bringsEveryItemBack(threads: Int) throws {
        var random = SplitMix(state: Seed.current)
        defer { removeFile(path) }
        let engine = CacheEngine(configuration(seed: 5))
        fill(engine, &random, steps: 40_000)
        let before = content(engine)
        let statistics = engine.statistics()
        #expect(before.count > 1_000 && statistics.evictions > 100)
        let file = try SharedFile(path)
        #expect(try engine.save(to: file, ImageHeader(), threads: threads) == before.count)
        #expect(engine.statistics().items == 0)
        let found = try #require(try header(file))
        #expect(found.state == .whole)
        #expect(found.mismatch(engine.imageConditions) == nil)
        #expect(found.hashSeed == 5)

        let next = CacheEngine(configuration(seed: 5))
        #expect(try next.load(from: file, found, threads: threads) == before.count)
        #expect(content(next) == before)
        #expect(next.statistics().items == statistics.items)
        #expect(next.statistics().itemBytes == statistics.itemBytes)
        #expect(next.statistics().segments <= statistics.segments)
        #expect(next.usedBytes <= statistics.usedBytes)
        #expect(next.newVersion() > (before.values.map(\.version).max() ?? 0))
        // It goes on as a cache does, and can be written again.
        fill(next, &random, steps: 40_000)
        let later = content(next)
        _ = try next.save(to: file, ImageHeader(), threads: threads)
        let last = CacheEngine(configuration(seed: 5))
        _ = try last.load(from: file, try #require(try header(file)), threads: threads)
        #expect(content(last) == later)
    }

    @Test func noDamagedByteIsServed() throws {
        var random = SplitMix(state: Seed.current)
        defer { removeFile(path) }
        let engine = CacheEngine(configuration(seed: 9))
        fill(engine, &random, steps: 3_000)
        let before = content(engine)
        _ = try engine.save(to: try SharedFile(path), ImageHeader(), threads: 1)
        let whole = try readFile(path, limitBytes: 64 << 20)
        var refused = 0
        for _ in 0..<60 {
            var bytes = whole
            let place = Int.random(in: 0..<bytes.count, using: &random)
            bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            // Now and then the end is missing instead.
            if Int.random(in: 0..<10, using: &random) == 0 {
                bytes = Array(whole.prefix(Int.random(in: 1..<whole.count, using: &random)))
            }
            try writeFile(path, bytes)
            let file = try SharedFile(path)
            let next = CacheEngine(configuration(seed: 9))
            do {
                let found = try #require(try header(file))
                _ = try next.load(from: file, found, threads: 2)
                #expect(content(next) == before)
            } catch {
                refused += 1
                #expect(next.statistics().items == 0)
                #expect(content(next).isEmpty)
            }
        }
        #expect(refused > 50)
    }

    @Test func whatDoesNotFitIsToldByName() throws {
        var found = ImageHeader()
        found.conditions = CacheEngine(configuration(seed: 1)).imageConditions
        #expect(found.mismatch(CacheEngine(configuration(seed: 2)).imageConditions) == nil)
        var other = configuration(seed: 1)
        other.limitBytes = 8 << 20
        #expect(found.mismatch(CacheEngine(other).imageConditions) == "memory was 4194304, and is 8388608")
        var wanted = found.conditions
        wanted["store"] = "one 2 3"
        #expect(found.mismatch(wanted) == "store was not there, and is one 2 3")
    }

    @Test func aHeaderSurvivesItsPage() throws {
        var header = ImageHeader()
        header.state = .whole
        header.conditions = ["store": "a name with spaces", "memory": "1"]
        header.numbers = ["seed": -3, "items": 4]
        #expect(header.page.count == ImageHeader.byteCount)
        #expect(try ImageHeader(header.page) == header)
        #expect(try ImageHeader([]) == nil)
        #expect(throws: ImageHeader.Problem.strange) { try ImageHeader(Array("something else".utf8)) }
        var page = header.page
        page[100] ^= 1
        #expect(throws: ImageHeader.Problem.damaged) { try ImageHeader(page) }
    }

    @Test func oneProcessHasTheFile() throws {
        defer { removeFile(path) }
        let first = try SharedFile(path)
        #expect(throws: SystemError.self) { try SharedFile(path) }
        withExtendedLifetime(first) {}
    }
}
