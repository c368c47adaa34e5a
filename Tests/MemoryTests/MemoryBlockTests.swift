// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

/// Raw memory behind bounds: what fits is done, what does not ends the process.
struct MemoryBlockTests {
    /// Runs `body` with a block of zeros that is freed afterwards.
    private func withBlock<R>(_ count: Int, _ body: (MemoryBlock) throws -> R) throws -> R {
        let arena = Arena(decayMilliseconds: 0)
        let block = try #require(arena.allocate(count))
        defer { arena.free(block) }
        block.fill(0, from: 0, length: count)
        return try body(block)
    }

    private func bytes(_ block: MemoryBlock) -> [UInt8] {
        block.withSpan { span in span.indices.map { span[$0] } }
    }

    @Test func storesAndLoadsAtAnyAlignment() throws {
        try withBlock(32) { block in
            for offset in 0...24 {
                block.store(UInt64(0x0102_0304_0506_0708) &+ UInt64(offset), at: offset)
                #expect(block.load(offset, as: UInt64.self) == 0x0102_0304_0506_0708 + UInt64(offset))
            }
            block.store(UInt16(0xFFFF), at: 30)
            #expect(block.load(30, as: UInt16.self) == 0xFFFF)
            #expect(block.load(31, as: UInt8.self) == 0xFF)
        }
    }

    @Test func slicesShareTheBytes() throws {
        try withBlock(16) { block in
            let slice = block.slice(4, 8)
            slice.fill(7, from: 0, length: slice.count)
            #expect(bytes(block) == [0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 0, 0, 0, 0])
            #expect(block.slice(16, 0).count == 0)
        }
    }

    @Test func copiesMovesAndCompares() throws {
        try withBlock(12) { block in
            let text = Array("abcdef".utf8)
            block.copy(text.span, at: 0)
            let (isSame, isShifted) = (block.equals(text.span, at: 0), block.equals(text.span, at: 1))
            #expect(isSame && !isShifted)
            block.move(from: 0, length: 6, to: 2)
            #expect(bytes(block) == Array("ababcdef\0\0\0\0".utf8))
            block.copy(block, from: 2, length: 3, at: 9)
            #expect(bytes(block) == Array("ababcdef\0abc".utf8))
            let isEmptyEqual = block.equals([UInt8]().span, at: 12)
            #expect(isEmptyEqual)
        }
    }

    @Test func relaxedStoresAreSeenByPlainLoads() throws {
        try withBlock(32) { block in
            block.storeRelaxed(UInt32(0xAABB_CCDD), at: 4)
            block.storeRelaxed(UInt16(0x1122), at: 10)
            #expect(block.load(4, as: UInt32.self) == 0xAABB_CCDD && block.load(10, as: UInt16.self) == 0x1122)
            block.clearRelaxed(from: 0, length: 16)
            #expect(bytes(block) == [UInt8](repeating: 0, count: 32))
        }
    }

    @Test func anAccessPastTheEndEndsTheProcess() async {
        await #expect(processExitsWith: .failure) {
            let arena = Arena(decayMilliseconds: 0)
            if let block = arena.allocate(16) { _ = block.load(9, as: UInt64.self) }
        }
        await #expect(processExitsWith: .failure) {
            let arena = Arena(decayMilliseconds: 0)
            if let block = arena.allocate(16) { _ = block.slice(8, 9) }
        }
        await #expect(processExitsWith: .failure) {
            let arena = Arena(decayMilliseconds: 0)
            if let block = arena.allocate(16) { block.copy([1, 2, 3].span, at: 14) }
        }
        await #expect(processExitsWith: .failure) {
            let arena = Arena(decayMilliseconds: 0)
            if let block = arena.allocate(16) { block.storeRelaxed(UInt32(1), at: 2) }
        }
    }

    @Test func anAccessInsideDoesNot() async {
        await #expect(processExitsWith: .success) {
            let arena = Arena(decayMilliseconds: 0)
            guard let block = arena.allocate(16) else { return }
            block.store(UInt64(1), at: 8)
            arena.free(block)
        }
    }
}

struct ArenaTests {
    @Test func countsWhatItHolds() throws {
        let arena = Arena(decayMilliseconds: 0)
        let blocks = try (0..<8).map { _ in try #require(arena.allocate(64 << 10)) }
        refreshStatistics()
        #expect(arena.statistics.allocatedBytes == 8 * arena.usableSize(64 << 10))
        for block in blocks { arena.free(block) }
        refreshStatistics()
        #expect(arena.statistics.allocatedBytes == 0)
    }

    @Test func blocksAreAlignedAndApart() throws {
        let arena = Arena(decayMilliseconds: 0)
        let blocks = try [1, 64, 100, 4096, 16 << 10, 100_000].map { try #require(arena.allocate($0)) }
        for (index, block) in blocks.enumerated() {
            #expect(unsafe UInt(bitPattern: block.unsafeBase) % 64 == 0)
            block.fill(UInt8(index), from: 0, length: block.count)
        }
        for (index, block) in blocks.enumerated() {
            #expect(block.withSpan { span in span.indices.allSatisfy { span[$0] == UInt8(index) } })
            arena.free(block)
        }
    }

    @Test(.enabled(if: countsThreadAllocations)) func aThreadsAllocationsAreCounted() {
        let before = threadAllocatedBytes()
        let array = [UInt8](repeating: 1, count: 10_000)
        #expect(threadAllocatedBytes() >= before + 10_000)
        #expect(array.count == 10_000)
    }
}
