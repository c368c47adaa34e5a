// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The first 23 tokens of a command line, cut at spaces as memcached cuts them.
///
/// For commands off the hot path; 96 bytes, no allocation. It keeps offsets only: every member wants the same line
/// again.
package struct Tokenizer: BitwiseCopyable, Sendable {
    /// How many tokens were found: 0 to 23.
    package private(set) var count = 0
    private var starts: InlineArray<23, UInt16> = InlineArray(repeating: 0)
    private var ends: InlineArray<23, UInt16> = InlineArray(repeating: 0)

    /// Cuts `line`, which ends with its line feed. Only its first 65,534 bytes are looked at.
    package init(_ line: Span<UInt8>) {
        let length = min(line.count, ProtocolLimits.tokenizedBytes)
        guard length >= 2 else { return }
        let end = line[length - 2] == UInt8(ascii: "\r") ? length - 2 : length - 1
        var index = 0
        while count < ProtocolLimits.tokens {
            while index < end, line[index] == UInt8(ascii: " ") { index += 1 }
            guard index < end else { return }
            let start = index
            while index < end, line[index] != UInt8(ascii: " ") { index += 1 }
            starts[count] = UInt16(truncatingIfNeeded: start)
            ends[count] = UInt16(truncatingIfNeeded: index)
            count += 1
        }
    }

    /// Where token `index` lies in the line; empty when there is no such token.
    package func range(_ index: Int) -> Range<Int> {
        guard index >= 0, index < count else { return 0..<0 }
        return Int(starts[index])..<Int(ends[index])
    }

    /// Whether token `index` is exactly `word`.
    package func equals(_ index: Int, _ word: StaticString, in line: Span<UInt8>) -> Bool {
        let range = range(index)
        return range.count == word.utf8CodeUnitCount && !range.isEmpty && line.holds(word, at: range.lowerBound)
    }

    /// Whether token `index` begins `word`: `stats r` means `stats reset`, since memcached compares sub-commands only
    /// as far as the client's token goes (or to a NUL in it). False when there is no such token.
    package func abbreviates(_ index: Int, _ word: StaticString, in line: Span<UInt8>) -> Bool {
        guard index >= 0, index < count else { return false }
        let wordLength = word.utf8CodeUnitCount
        var offset = Int(starts[index])
        let start = offset
        while offset < Int(ends[index]) {
            let length = offset - start
            if line[offset] == 0 { return length == wordLength && line.holds(word, at: start) }
            offset += 1
        }
        let length = offset - start
        return length <= wordLength && line.holds(word, length: length, at: start)
    }

    /// Token `index` as a number of 32 bits without sign; nil when it is none.
    package func uint32(_ index: Int, in line: Span<UInt8>) -> UInt32? {
        let range = range(index)
        return range.isEmpty ? nil : line.uint32(range.lowerBound, range.upperBound)
    }

    /// Token `index` as a number of 64 bits without sign; nil when it is none.
    package func uint64(_ index: Int, in line: Span<UInt8>) -> UInt64? {
        let range = range(index)
        return range.isEmpty ? nil : line.uint64(range.lowerBound, range.upperBound)
    }

    /// Token `index` as a signed number of 32 bits; nil when it is none.
    package func int32(_ index: Int, in line: Span<UInt8>) -> Int32? {
        let range = range(index)
        return range.isEmpty ? nil : line.int32(range.lowerBound, range.upperBound)
    }

    /// Token `index` as a signed number of 64 bits; nil when it is none.
    package func int64(_ index: Int, in line: Span<UInt8>) -> Int64? {
        let range = range(index)
        return range.isEmpty ? nil : line.int64(range.lowerBound, range.upperBound)
    }

    /// Token `index` as a decimal fraction (`0.5`, `.5`, `1e-3`, with a sign); nil when it is none or longer than 31
    /// bytes.
    package func double(_ index: Int, in line: Span<UInt8>) -> Double? {
        let range = range(index)
        guard !range.isEmpty, range.count < 32 else { return nil }
        var text = ""
        for offset in range {
            guard line[offset] < 0x80 else { return nil }
            // strtod stops at white space, and what follows is not looked at.
            if (9...13).contains(line[offset]), !text.isEmpty { break }
            text.unicodeScalars.append(Unicode.Scalar(line[offset]))
        }
        return Double(text)
    }

    /// Whether the last token is `noreply`.
    func endsWithNoreply(in line: Span<UInt8>) -> Bool {
        equals(count - 1, "noreply", in: line)
    }
}
