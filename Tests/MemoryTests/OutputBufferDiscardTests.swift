// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@Suite struct OutputBufferDiscardTests {
    private func text(_ buffer: borrowing OutputBuffer) -> String {
        buffer.withSpan { span in
            var bytes: [UInt8] = []
            for index in span.indices { bytes.append(span[index]) }
            return String(decoding: bytes, as: UTF8.self)
        }
    }

    private func withBlock(_ body: (MemoryBlock) -> Void) {
        unsafe withUnsafeTemporaryAllocation(byteCount: 8, alignment: 8) { bytes in
            guard let base = bytes.baseAddress else { return }
            unsafe body(MemoryBlock(unsafeBase: base, count: 8))
        }
    }

    @Test func keepsWhatFollows() {
        withBlock { block in
            var buffer = OutputBuffer(capacity: 64)
            buffer.append("abc")
            buffer.append(external: block, token: 1)
            buffer.append("defg")
            buffer.append(external: block.slice(0, 2), token: 2)
            buffer.discardFirst(5, externalCount: 1)
            #expect(text(buffer) == "fg")
            #expect(buffer.externals.map(\.position) == [2])
            #expect(buffer.externals.map(\.token) == [2])
            #expect(buffer.totalCount == 4)
        }
    }

    @Test func appendsTheRestOfAnother() {
        withBlock { block in
            var source = OutputBuffer(capacity: 64)
            source.append("abc")
            source.append(external: block, token: 1)
            source.append(string: String(repeating: "d", count: 200))
            source.append(external: block, token: 2)
            var target = OutputBuffer(capacity: 64)
            target.append("xy")
            target.append(source, from: 2, externalStart: 0)
            #expect(text(target) == "xyc" + String(repeating: "d", count: 200))
            #expect(target.externals.map(\.position) == [3, 203])
            target.append(source, from: 203, externalStart: 1)
            #expect(target.externals.map(\.position) == [3, 203, 203])
            #expect(target.externals.map(\.token) == [1, 2, 2])
            #expect(source.count == 203)
        }
    }
}
