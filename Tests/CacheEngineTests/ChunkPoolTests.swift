// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Memory
import Testing

@testable import CacheEngine

@Suite struct ChunkPoolTests {
    static let chunkBytes = 64 << 10
    static let perExtent = ChunkPool.extentBytes / chunkBytes

    private func pool(_ chunkBytes: Int = chunkBytes) -> (ChunkPool, Arena) {
        let arena = Arena(decayMilliseconds: 0)
        return (ChunkPool(arena: arena, chunkBytes: chunkBytes), arena)
    }

    private func passes(_ pool: ChunkPool, _ count: Int = 8) {
        for _ in 0..<count { pool.collapse(limit: 64) }
    }

    @Test(arguments: [4096, 64 << 10, 1 << 20, 2 << 20])
    func chunksDoNotOverlap(_ chunkBytes: Int) throws {
        let (pool, _) = pool(chunkBytes)
        let count = 3 * ChunkPool.extentBytes / chunkBytes
        var addresses = Set<UInt>()
        for number in 0..<count {
            let chunk = try #require(pool.take())
            #expect(chunk.count == chunkBytes && chunk.address % UInt(chunkBytes) == 0)
            chunk.store(number, at: 0)
            chunk.store(number, at: chunkBytes - 8)
            addresses.insert(chunk.address)
        }
        #expect(addresses.count == count)
        #expect(pool.extentsByteCount == 3 * ChunkPool.extentBytes)
    }

    @Test func whatCameBackIsTakenAgainAndReadsAsZeros() throws {
        let (pool, _) = pool()
        let chunks = try (0..<Self.perExtent).map { _ in try #require(pool.take()) }
        chunks[5].fill(7, from: 0, length: Self.chunkBytes)
        pool.give(chunks[5])
        let again = try #require(pool.take())
        #expect(again.address == chunks[5].address)
        #expect(again.load(0, as: UInt64.self) == 0 && again.load(Self.chunkBytes - 8, as: UInt64.self) == 0)
    }

    @Test func oneEmptyExtentIsKeptAndNoMore() throws {
        let (pool, _) = pool()
        for _ in 0..<3 {
            let chunks = try (0..<5 * Self.perExtent).map { _ in try #require(pool.take()) }
            #expect(pool.extentsByteCount == 5 * ChunkPool.extentBytes)
            for chunk in chunks.shuffled() { pool.give(chunk) }
            #expect(pool.extentsByteCount == ChunkPool.extentBytes)
        }
    }

    /// Kernels before 6.1 and machines without huge pages have none; everything else holds there too.
    @Test func hugePagesMapWhatStaysWhole() throws {
        let (pool, _) = pool()
        var chunks = try (0..<2 * Self.perExtent + 1).map { _ in try #require(pool.take()) }
        for (number, chunk) in chunks.enumerated() { chunk.fill(UInt8(number + 1), from: 0, length: chunk.count) }
        passes(pool, 4)
        #expect(pool.hugeBytes == 0, "an extent is collapsed before it stayed whole for a while")
        passes(pool)
        let mapped = pool.hugeBytes
        #expect(mapped == 0 || mapped == 2 * ChunkPool.extentBytes, "the third extent is not whole")
        for (number, chunk) in chunks.enumerated() {
            #expect(chunk.load(0, as: UInt8.self) == UInt8(number + 1))
            #expect(chunk.load(chunk.count - 1, as: UInt8.self) == UInt8(number + 1))
        }
        pool.give(chunks.removeFirst())
        #expect(pool.hugeBytes == mapped / 2)
        // Whole again, and mapped again, after as long a time.
        #expect(pool.take() != nil)
        passes(pool)
        #expect(pool.hugeBytes == mapped)
    }

    @Test func whatIsFreeTakesNoMemory() throws {
        let (pool, _) = pool()
        let chunks = try (0..<32 * Self.perExtent).map { _ in try #require(pool.take()) }
        for chunk in chunks { chunk.fill(1, from: 0, length: chunk.count) }
        passes(pool)
        #expect(chunks.allSatisfy { residentPages($0) == Self.chunkBytes / 4096 })
        // One chunk of each extent stays: nothing but it is resident.
        for (number, chunk) in chunks.enumerated() where number % Self.perExtent != 3 { pool.give(chunk) }
        passes(pool)
        for (number, chunk) in chunks.enumerated() {
            #expect(residentPages(chunk) == (number % Self.perExtent == 3 ? Self.chunkBytes / 4096 : 0))
        }
    }

    /// Pages of a block that are there.
    private func residentPages(_ block: MemoryBlock) -> Int {
        var pages = [UInt8](repeating: 0, count: block.count / 4096)
        // SAFETY: the kernel writes a byte for each page of the range, which the pool still has.
        unsafe #expect(mincore(block.unsafeBase, block.count, &pages) == 0)
        return pages.count { $0 & 1 == 1 }
    }

    @Test func takingGivingAndCollapsingGoOnAtOnce() async {
        let (pool, _) = pool(256 << 10)
        await withTaskGroup(of: Void.self) { group in
            for worker in 0..<3 {
                group.addTask {
                    var held: [MemoryBlock] = []
                    var source = SystemRandomNumberGenerator()
                    for step in 0..<4_000 {
                        if held.isEmpty || (held.count < 60 && UInt8.random(in: 0...9, using: &source) < 5) {
                            guard let chunk = pool.take() else { continue }
                            chunk.store(UInt64(worker) << 32 | UInt64(step), at: 64)
                            chunk.store(chunk.address, at: 72)
                            held.append(chunk)
                        } else {
                            let chunk = held.remove(at: Int.random(in: 0..<held.count, using: &source))
                            #expect(chunk.load(64, as: UInt64.self) >> 32 == UInt64(worker))
                            #expect(chunk.load(72, as: UInt.self) == chunk.address)
                            pool.give(chunk)
                        }
                    }
                    for chunk in held { pool.give(chunk) }
                }
            }
            group.addTask {
                for _ in 0..<2_000 { pool.collapse(limit: 4) }
            }
        }
        #expect(pool.extentsByteCount == ChunkPool.extentBytes)
        #expect(pool.hugeBytes == 0)
    }
}
