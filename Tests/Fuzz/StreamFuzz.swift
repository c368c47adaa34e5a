// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Invalidation
import Storage
@testable import StreamDirect

/// What libFuzzer calls with each input. `Scripts/fuzz` builds and runs it; Tests/Fuzz/README.md says what it checks.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    // SAFETY: libFuzzer gives `count` readable bytes for the time of the call; they are copied at once.
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    guard bytes.count >= 2 else { return 0 }
    let input = Array(bytes[2...])
    let cut = input.count * Int(bytes[1]) / 255
    switch bytes[0] & 3 {
    case 0: checkFrames(input, cut: cut)
    case 1: checkFrames(framed(input), cut: cut)
    case 2:
        checkRecord(body: input)
        checkObject(objectHeader + input)
    default:
        checkObject(input)
        checkBatch(input)
        checkCursor(input)
        checkPacked(input, count: cut * 16)
        checkPacking((0..<8).flatMap { _ in input })
    }
    return 0
}

private func fail(_ what: String) -> Never {
    print("finding: \(what)")
    // What was printed would be lost in the abort.
    fflush(nil)
    abort()
}

/// A frame around a kind and a body.
private func framed(_ content: [UInt8]) -> [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: content.count >> $0) } + content
}

/// What the single object of a record begins with.
private let objectHeader: [UInt8] = {
    var bytes: [UInt8] = []
    OutboxRecord().encodeObject(into: &bytes)
    return Array(bytes.prefix(OutboxRecord.objectHeaderBytes))
}()

// MARK: Frames

/// Frames lie in the input, whatever is missing is asked for, and what was read is what is written and read again.
private func checkFrames(_ input: [UInt8], cut: Int) {
    var offset = 0
    while offset < input.count {
        let span = input.span.extracting(offset..<input.count)
        let reading = StreamFrame.read(span)
        if cut >= offset { checkBeginning(of: span, cut - offset, reading) }
        switch reading {
        case .incomplete(let needed):
            guard needed > span.count else { fail("\(needed) bytes needed and \(span.count) there") }
            guard needed <= StreamFrame.bytesMax + 4 else { fail("\(needed) bytes needed, more than a frame has") }
            return
        case .invalid: return
        case .frame(let frame, let bytes):
            guard bytes >= StreamFrame.headerBytes, bytes <= span.count else { fail("\(bytes) of \(span.count) bytes") }
            checkWritten(frame)
            if case .packed(let count, let block) = frame { checkPacked(block, count: count) }
            if case .batch(let records) = frame { for record in records { checkObject(record) } }
            offset += bytes
        }
    }
}

/// The beginning of a frame is incomplete, and asks for no more than the frame has.
private func checkBeginning(of span: Span<UInt8>, _ count: Int, _ whole: StreamFrame.Reading) {
    let reading = StreamFrame.read(span.extracting(0..<count))
    switch (whole, reading) {
    case (.frame(_, let bytes), .incomplete(let needed)):
        guard count < bytes, needed > count, needed <= bytes else {
            fail("\(needed) needed of \(bytes), with \(count)")
        }
    case (.frame(_, let bytes), _):
        guard count >= bytes, reading == whole else { fail("cut at \(count) of \(bytes): \(reading)") }
    case (.invalid, .frame), (.incomplete, .frame), (.incomplete, .invalid):
        fail("cut at \(count): \(reading), and whole \(whole)")
    case (.invalid, _), (.incomplete, .incomplete): break
    }
}

private func checkWritten(_ frame: StreamFrame) {
    var bytes: [UInt8] = []
    frame.encode(into: &bytes)
    // A text that was no UTF-8 grows when it is mended, and may get too long for its length.
    guard bytes.count < Int(UInt16.max) else { return }
    let again = StreamFrame.read(bytes.span)
    guard again == .frame(frame, bytes: bytes.count) else { fail("\(frame)\nwritten and read: \(again)") }
}

private func checkPacked(_ block: [UInt8], count: Int) {
    guard let body = BatchCompression.unpack(block, count: count) else { return }
    guard body.count == count else { fail("\(body.count) bytes unpacked of \(count)") }
    checkBatch(body)
    checkPacking(body)
}

private func checkPacking(_ body: [UInt8]) {
    guard let packed = BatchCompression.pack(body) else { return }
    guard BatchCompression.unpack(packed, count: body.count) == body else { fail("\(body) is another one, unpacked") }
    guard BatchCompression.unpack(packed, count: body.count + 1) == nil else { fail("a byte more than was packed") }
    guard BatchCompression.unpack(packed, count: body.count - 1) == nil else { fail("a byte less than was packed") }
}

/// The records of a batch are those that are written as its body.
private func checkBatch(_ body: [UInt8]) {
    guard let records = StreamFrame.records(ofBatch: body.span) else { return }
    var bytes: [UInt8] = []
    StreamFrame.batch(records).encode(into: &bytes)
    guard Array(bytes.dropFirst(StreamFrame.headerBytes)) == body else { fail("batch \(records)") }
}

// MARK: Records

/// A record is the same when it is written and read again, and its key is what is read without the rest.
private func checkObject(_ bytes: [UInt8]) {
    let key = OutboxRecord.key(ofObject: bytes)
    guard let record = OutboxRecord(object: bytes) else { return }
    guard key == record.key else { fail("key \(String(describing: key)) of \(record)") }
    checkWritten(record)
}

private func checkRecord(body: [UInt8]) {
    let record = OutboxRecord(body: body, from: 0)
    guard record == OutboxRecord(object: objectHeader + body) else { fail("a body and its object differ") }
    // Behind the bytes of a registry's frame it is the same, and nothing is read beyond the end.
    guard record == OutboxRecord(body: [0, 0, 0, 0, 1] + body, from: 5) else { fail("a body in a frame differs") }
    guard OutboxRecord(body: body, from: body.count + 1) == nil else { fail("a record beyond the end") }
    if let record { checkWritten(record) }
}

private func checkWritten(_ record: OutboxRecord) {
    guard (0..<StreamSlots.count).contains(Int(record.slot)), record.firstSequence >= 0,
        record.firstSequence <= record.sequence, record.sequence <= OutboxRecord.sequenceMax, record.epoch >= 0,
        record.expiryMilliseconds >= 0, record.timeMilliseconds >= 0
    else { fail("out of bounds: \(record)") }
    var bytes: [UInt8] = []
    record.encodeObject(into: &bytes)
    guard OutboxRecord(object: bytes) == record else { fail("\(record)\nis another one when it is read again") }
}

/// A cursor says where it was taken.
private func checkCursor(_ bytes: [UInt8]) {
    guard let position = StreamPosition(cursor: String(decoding: bytes, as: UTF8.self)) else { return }
    guard StreamPosition(cursor: position.cursor) == position else { fail("cursor \(position)") }
}
