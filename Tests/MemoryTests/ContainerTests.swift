// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

struct ContainerTests {
    @Test func tableKeepsItsElementsWhileItGrows() {
        var table = Table<Int>(capacity: 0)
        for value in 0..<1000 { table.append(value * 3) }
        let (count, byteCount) = (table.count, table.byteCount)
        #expect(count == 1000 && byteCount >= 8000)
        var values = (0..<1000).map { table[$0] }
        #expect(values == (0..<1000).map { $0 * 3 })
        table[500] = -1
        values = [table[500], table[501], table.popLast() ?? 0, table.count]
        #expect(values == [-1, 1503, 2997, 999])
        table.removeAll()
        let last = table.popLast()
        #expect(last == nil)
    }

    @Test func fixedArrayMakesEachElementOnceAndEndsIt() {
        final class Counter { var alive = 0 }
        struct Element: ~Copyable {
            let counter: Counter
            var value: Int
            init(_ counter: Counter, _ value: Int) {
                self.counter = counter
                self.value = value
                counter.alive += 1
            }
            deinit { counter.alive -= 1 }
        }
        let counter = Counter()
        do {
            let array = FixedArray<Element>(count: 5) { Element(counter, $0 * 10) }
            array[3].value += 1
            let values = (0..<array.count).map { array[$0].value }
            #expect(counter.alive == 5 && values == [0, 10, 20, 31, 40])
        }
        #expect(counter.alive == 0)
    }

    @Test func addressTableAnswersHintsForWhatItHas() throws {
        let arena = Arena(decayMilliseconds: 0)
        var table = AddressTable(capacity: 0, blockBytes: 64)
        let blocks = try (0..<100).map { _ in try #require(arena.allocate(64)) }
        for block in blocks { table.append(block) }
        for (index, block) in blocks.enumerated() {
            block.store(UInt64(index) + 7, at: 0)
            block.store(UInt32(index), at: 8)
            let hint = table.hint(index)
            #expect(loadHint64(hint) == UInt64(index) + 7)
            #expect(loadHint32(hint + 8) == UInt32(index))
        }
        table.set(4, blocks[5])
        let hints = [table.hint(4), table.hint(5), table.hint(-1), table.hint(1 << 20)]
        #expect(hints[0] == hints[1] && hints[2...] == [0, 0])
        for block in blocks { arena.free(block) }
    }

    @Test func addressTableGivesBackBlocksOfTheUsualSizeOnly() throws {
        let arena = Arena(decayMilliseconds: 0)
        var table = AddressTable(capacity: 8, blockBytes: 64)
        let usual = try #require(arena.allocate(64))
        let odd = try #require(arena.allocate(128))
        for index in 0..<20 { table.append(index % 3 == 0 ? odd : usual) }
        for index in 0..<20 {
            let block = table.usualBlock(index)
            #expect((block == nil) == (index % 3 == 0))
            if let block { #expect(unsafe block.count == 64 && block.unsafeBase == usual.unsafeBase) }
        }
        table.set(0, usual)
        #expect(table.usualBlock(0) != nil)
        arena.free(usual)
        arena.free(odd)
    }

    @Test func indicesOutsideEndTheProcess() async {
        await #expect(processExitsWith: .failure) {
            var table = Table<Int>(capacity: 8)
            table.append(1)
            _ = table[1]
        }
        await #expect(processExitsWith: .failure) {
            let array = FixedArray<Int>(count: 2) { $0 }
            _ = array[2]
        }
    }
}

struct WordTests {
    @Test(arguments: [
        (UInt64(0), "0"), (9, "9"), (10, "10"), (99, "99"), (100, "100"), (9999, "9999"), (10_000, "10000"),
        (1_234_567_890_123, "1234567890123"), (.max, "18446744073709551615"),
    ])
    func decimalsAreWrittenWhole(_ value: UInt64, _ text: String) {
        var output = OutputBuffer(capacity: 64)
        output.append(decimal: value)
        let written = output.withSpan { span in span.indices.map { span[$0] } }
        #expect(written == Array(text.utf8))
        #expect(decimalLength(value) == text.count)
    }

    @Test func decimalsAgreeWithSwiftsOwn() {
        for shift in 0..<64 {
            for value in [UInt64(1) << UInt64(shift), (UInt64(1) << UInt64(shift)) - 1] {
                #expect(decimalLength(value) == String(value).count)
            }
        }
    }

    @Test func hashesAreXXH3s() {
        func hash(_ text: String, seed: UInt64 = 0) -> UInt64 {
            let bytes = Array(text.utf8)
            return stableHash(bytes.span, seed: seed)
        }
        // From the specification's reference implementation (xxhsum -H3).
        #expect(hash("") == 0x2D06_8005_38D3_94C2)
        #expect(hash("a") != hash("b") && hash("a") != hash("a", seed: 1))
    }

    @Test func tokensEndAtSpacesAndLineEnds() {
        func end(_ text: String, _ start: Int = 0) -> Int {
            let bytes = Array(text.utf8)
            return bytes.span.tokenEnd(from: start)
        }
        #expect(end("get") == 3 && end("") == 0)
        #expect(end("abcdefgh ij") == 8 && end("abcdefgh ij", 9) == 11)
        #expect(end("key\n") == 3 && end("k!\u{1}\u{1F}y\rz ") == 7)
        for length in 0..<40 { #expect(end(String(repeating: "!", count: length) + " x") == length) }
    }
}

struct OutputBufferTests {
    private func text(_ output: borrowing OutputBuffer) -> String {
        output.withSpan { span in String(decoding: span.indices.map { span[$0] }, as: UTF8.self) }
    }

    @Test func growsAndKeepsWhatWasWritten() {
        var output = OutputBuffer(capacity: 1)
        var model: [UInt8] = []
        for index in 0..<2000 {
            let piece = Array("\(index),".utf8)
            output.append(piece.span)
            model += piece
        }
        let (written, count) = (text(output), output.totalCount)
        #expect(written == String(decoding: model, as: UTF8.self) && count == model.count)
        output.removeAll()
        let isEmpty = output.isEmpty
        #expect(isEmpty)
    }

    @Test func discardsFromTheFrontAndTruncatesAtTheEnd() {
        var output = OutputBuffer(capacity: 64)
        output.append("hello world")
        output.discardFirst(6, externalCount: 0)
        var seen = [text(output)]
        output.truncate(to: 2, externalCount: 0)
        seen.append(text(output))
        var other = OutputBuffer(capacity: 64)
        other.append("> ")
        other.append(output, from: 1, externalStart: 0)
        seen += [text(other), text(output)]
        #expect(seen == ["world", "wo", "> o", "wo"])
    }
}
