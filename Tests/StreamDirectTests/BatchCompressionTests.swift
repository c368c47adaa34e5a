// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Memory
import Testing

@testable import StreamDirect

@Suite struct BatchCompressionTests {
    private func record(_ number: Int) -> [UInt8] { Array("a record that is much like others, number \(number)".utf8) }

    /// The frames of some output.
    private func frames(_ output: borrowing OutputBuffer) -> [StreamFrame] {
        output.withSpan { span in
            var (found, offset): ([StreamFrame], Int) = ([], 0)
            while offset < span.count,
                case .frame(let frame, let bytes) = StreamFrame.read(span.extracting(offset...))
            {
                found.append(frame)
                offset += bytes
            }
            #expect(offset == span.count)
            return found
        }
    }

    @Test func packedBatchesHoldTheRecords() throws {
        let records = (0..<200).map(record)
        var output = OutputBuffer(capacity: 64)
        output.append("before")
        var batch = BatchWriter(limitBytes: 4096, packs: true)
        for record in records { batch.append(record, to: &output) }
        batch.end(&output)
        output.discardFirst(6, externalCount: 0)
        let plainBytes = records.reduce(0) { $0 + $1.count + 4 }
        #expect(output.count < plainBytes / 2)
        var found: [[UInt8]] = []
        for frame in frames(output) {
            guard case .packed(let count, let block) = frame else {
                // The last may be too short.
                if case .batch(let rest) = frame { found += rest }
                continue
            }
            let body = try #require(BatchCompression.unpack(block, count: count))
            found += StreamFrame.records(ofBatch: body.span) ?? []
        }
        #expect(found == records)
    }

    @Test func whatPackingDoesNotMakeSmallerGoesAsItIs() {
        var generator = SystemRandomNumberGenerator()
        let noise = (0..<20_000).map { _ in UInt8.random(in: 0...255, using: &generator) }
        var output = OutputBuffer(capacity: 64)
        var batch = BatchWriter(limitBytes: 64 << 10, packs: true)
        batch.append(noise, to: &output)
        batch.end(&output)
        #expect(frames(output) == [.batch([noise])])
        output.removeAll()
        batch.append(record(1), to: &output)
        batch.end(&output)
        #expect(frames(output) == [.batch([record(1)])], "too short")
        output.removeAll()
        var plain = BatchWriter(limitBytes: 64 << 10)
        for number in 0..<100 { plain.append(record(number), to: &output) }
        plain.end(&output)
        #expect(frames(output) == [.batch((0..<100).map(record))], "for those who do not take it")
    }

    @Test func whatCannotBeUnpackedIsNothing() throws {
        let body = [UInt8](repeating: 7, count: 10_000)
        let block = try #require(BatchCompression.pack(body))
        #expect(BatchCompression.unpack(block, count: body.count) == body)
        for count in [0, 1, 9_999, 10_001, StreamFrame.bytesMax, StreamFrame.bytesMax + 1, -1] {
            #expect(BatchCompression.unpack(block, count: count) == nil)
        }
        var generator = SystemRandomNumberGenerator()
        for length in 0..<300 {
            let noise = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
            _ = BatchCompression.unpack(noise, count: 1_000)
        }
        #expect(BatchCompression.unpack(Array(block.dropLast()), count: body.count) == nil)
        #expect(BatchCompression.unpack([], count: 10) == nil)
    }

    @Test func helloSaysWhetherPackedBatchesAreTaken() {
        for (values, packed) in [(false, false), (true, false), (false, true), (true, true)] {
            var hello = StreamHello()
            (hello.wantsValues, hello.takesPacked) = (values, packed)
            var bytes: [UInt8] = []
            StreamFrame.hello(hello).encode(into: &bytes)
            #expect(StreamFrame.read(bytes.span) == .frame(.hello(hello), bytes: bytes.count))
        }
        var bytes: [UInt8] = []
        StreamFrame.packed(bytes: 77, [1, 2, 3]).encode(into: &bytes)
        #expect(StreamFrame.read(bytes.span) == .frame(.packed(bytes: 77, [1, 2, 3]), bytes: bytes.count))
    }
}
