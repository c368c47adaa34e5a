// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import MemcacheProtocol
import Memory

/// What libFuzzer calls with each input. `Scripts/fuzz` builds and runs it; Tests/Fuzz/README.md says what it checks.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    // SAFETY: libFuzzer gives `count` readable bytes for the time of the call; they are copied at once.
    let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
    guard bytes.count >= 2 else { return 0 }
    let mode = bytes[0]
    var stream = Array(bytes[2...])
    // One mode in 64: long lines take a hundred times as long to check as others.
    if mode >> 2 == 0x34 >> 2 { stream = stretched(stream) }
    let cut = stream.count * Int(bytes[1]) / 255
    switch mode & 3 {
    case 0: checkRequests(stream, .automatic, cut: cut)
    case 1: checkRequests(stream, .text, cut: cut)
    case 2: checkRequests(stream, .binary, cut: cut)
    default:
        checkLogin(stream, cut: cut)
        checkSmallParsers(stream)
    }
    return 0
}

/// Makes long lines out of short inputs: 0x7f and a count repeat the byte before them 64 times the count.
private func stretched(_ bytes: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    var index = 0
    while index < bytes.count, result.count < 80_000 {
        if bytes[index] == 0x7f, index + 1 < bytes.count, let last = result.last {
            result += [UInt8](repeating: last, count: 64 * Int(bytes[index + 1]))
            index += 2
        } else {
            result.append(bytes[index])
            index += 1
        }
    }
    return result
}

private func fail(_ what: String) -> Never {
    print("finding: \(what)")
    // What was printed would be lost in the abort.
    fflush(nil)
    abort()
}

/// The request parser keeps its word, agrees with the reference, and does not care where the input is split.
private func checkRequests(_ stream: [UInt8], _ restriction: RequestParserConfiguration.Restriction, cut: Int) {
    let whole = Transcript.events(of: stream, restriction: restriction)
    if let violation = whole.violation { fail(violation) }
    let expected = ReferenceParser.events(of: stream, restriction: restriction)
    guard whole.events == expected else { fail("\(whole.events)\nreference: \(expected)") }
    // memcached's limits on lines and headers depend on what has arrived, and so do ours.
    let compacts = cut % 2 == 0
    let split = Transcript.events(of: stream, cuts: [cut], restriction: restriction, compacts: compacts)
    if let violation = split.violation { fail("cut at \(cut): \(violation)") }
    guard stream.count > ProtocolLimits.unterminatedBytes || split.events == whole.events else {
        fail("cut at \(cut): \(split.events)\nwhole: \(whole.events)")
    }
}

/// A login comes to the same however it arrives, and stays in bounds.
private func checkLogin(_ stream: [UInt8], cut: Int) {
    func outcomes(_ ends: [Int]) -> [AuthenticationOutcome] {
        var parser = AuthenticationParser()
        var offset = 0
        var result: [AuthenticationOutcome] = []
        for end in ends {
            while true {
                let before = offset
                let outcome = parser.next(stream.span.extracting(0..<end), at: &offset)
                if case .incomplete(let needed) = outcome {
                    if needed > 0, end - offset >= needed { fail("login: \(needed) bytes needed and there") }
                    break
                }
                result.append(outcome)
                if outcome == .close { return result }
                if case .credentials(let user, let password) = outcome {
                    guard user.lowerBound >= before, user.upperBound < password.lowerBound,
                        password.upperBound <= offset
                    else { fail("login: \(user), \(password) of \(before)..<\(offset)") }
                }
                guard offset > before, offset <= end else { fail("login: offset \(before) became \(offset) of \(end)") }
            }
        }
        return result
    }
    let whole = outcomes([stream.count])
    guard stream.count > ProtocolLimits.unterminatedBytes || outcomes([cut, stream.count]) == whole else {
        fail("login: cut at \(cut) matters")
    }
}

/// Tokens lie in their line in order, base64 agrees with the reference, datagrams are read as they are written.
private func checkSmallParsers(_ stream: [UInt8]) {
    let span = stream.span
    let tokens = Tokenizer(span)
    var end = 0
    for index in 0..<tokens.count {
        let range = tokens.range(index)
        guard range.lowerBound >= end, !range.isEmpty, range.upperBound < span.count else { fail("token \(range)") }
        end = range.upperBound
        let number = tokens.int64(index, in: span)
        if let small = tokens.int32(index, in: span), number != Int64(small) { fail("number \(small)") }
        if let small = tokens.uint32(index, in: span), tokens.uint64(index, in: span) != UInt64(small) {
            fail("number \(small)")
        }
        if tokens.equals(index, "reset", in: span), !tokens.abbreviates(index, "reset", in: span) { fail("no prefix") }
        _ = tokens.double(index, in: span)
    }
    var output = OutputBuffer(capacity: 64)
    let length = Base64.decode(span, into: &output)
    let decoded = output.withSpan { bytes in (0..<bytes.count).map { bytes[$0] } }
    guard decoded.count == length, decoded == (referenceDecode(stream) ?? []) else { fail("base64 \(decoded)") }
    output.removeAll()
    Base64.encode(span, into: &output)
    let encoded = output.withSpan { bytes in (0..<bytes.count).map { bytes[$0] } }
    guard encoded.count == (stream.count + 2) / 3 * 4, stream.isEmpty || referenceDecode(encoded) == stream else {
        fail("base64 of \(stream)")
    }
    output.removeAll()
    if let header = DatagramHeader(span) {
        header.append(to: &output)
        let written = output.withSpan { bytes in (0..<bytes.count).map { bytes[$0] } }
        guard written == Array(stream[..<6]) + [0, 0] else { fail("datagram \(written)") }
    }
}
