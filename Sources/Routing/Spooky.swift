// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// SpookyHash V2, the lower 32 bits: what mcrouter's weighted Ch3 asks whether a server takes a key.
///
/// Does not allocate. Source: B. Jenkins, SpookyHash V2, public domain.
func spooky32(_ bytes: Span<UInt8>, seed: UInt32) -> UInt32 {
    UInt32(truncatingIfNeeded: spooky64(bytes, seed: UInt64(seed)))
}

/// SpookyHash V2, the first 64 bits. Does not allocate.
func spooky64(_ bytes: Span<UInt8>, seed: UInt64) -> UInt64 {
    if bytes.count < SpookyLong.minimumBytes {
        var state = SpookyShort(seed: seed)
        return state.hash(bytes)
    }
    var state = SpookyLong(seed: seed)
    return state.hash(bytes)
}

/// What SpookyHash starts its free words from.
private let spookyConstant: UInt64 = 0xdead_beef_dead_beef

@inline(__always)
private func turned(_ value: UInt64, _ bits: UInt64) -> UInt64 { value &<< bits | value &>> (64 &- bits) }

/// The little-endian number of `length` bytes, at most 8, from `offset` on.
private func partialWord(_ bytes: Span<UInt8>, _ offset: Int, _ length: Int) -> UInt64 {
    if length == 8 { return bytes.word(at: offset) }
    var word: UInt64 = 0
    for index in 0..<length { word |= UInt64(bytes[offset &+ index]) &<< UInt64(truncatingIfNeeded: index &* 8) }
    return word
}

/// SpookyHash of fewer than 192 bytes.
private struct SpookyShort {
    private var a: UInt64
    private var b: UInt64
    private var c = spookyConstant
    private var d = spookyConstant

    /// Bits that the four words are turned by, step by step: while there is input, and at the end.
    private static let turns: InlineArray<12, UInt64> = [50, 52, 30, 41, 54, 48, 38, 37, 62, 34, 5, 36]
    private static let lastTurns: InlineArray<11, UInt64> = [15, 52, 26, 51, 28, 9, 47, 54, 32, 25, 63]

    init(seed: UInt64) {
        a = seed
        b = seed
    }

    mutating func hash(_ bytes: Span<UInt8>) -> UInt64 {
        var offset = 0
        while bytes.count &- offset >= 32 {
            take(bytes, offset)
            a &+= bytes.word(at: offset &+ 16)
            b &+= bytes.word(at: offset &+ 24)
            offset &+= 32
        }
        if bytes.count &- offset >= 16 {
            take(bytes, offset)
            offset &+= 16
        }
        let rest = bytes.count &- offset
        d &+= UInt64(truncatingIfNeeded: bytes.count) &<< 56
        if rest == 0 {
            c &+= spookyConstant
            d &+= spookyConstant
        } else {
            c &+= partialWord(bytes, offset, min(rest, 8))
            if rest > 8 { d &+= partialWord(bytes, offset &+ 8, rest &- 8) }
        }
        finish()
        // After eleven steps the first word stands in the second place.
        return b
    }

    private mutating func take(_ bytes: Span<UInt8>, _ offset: Int) {
        c &+= bytes.word(at: offset)
        d &+= bytes.word(at: offset &+ 8)
        for step in 0..<12 {
            // One step turns a word, adds the next and folds it into the one after; then the words change places.
            let word = turned(c, Self.turns[step]) &+ d
            (a, b, c, d) = (b, word, d, a ^ word)
        }
    }

    private mutating func finish() {
        for step in 0..<11 {
            let folded = d ^ c
            let word = turned(c, Self.lastTurns[step])
            (a, b, c, d) = (b, word, folded &+ word, a)
        }
    }
}

/// SpookyHash of 192 bytes and more.
private struct SpookyLong {
    static var minimumBytes: Int { 192 }
    private static var blockBytes: Int { 96 }

    private var state: InlineArray<12, UInt64>

    private static let turns: InlineArray<12, UInt64> = [11, 32, 43, 31, 17, 28, 39, 57, 55, 54, 22, 46]
    private static let lastTurns: InlineArray<12, UInt64> = [44, 15, 34, 21, 38, 33, 10, 13, 38, 53, 42, 54]

    init(seed: UInt64) {
        state = InlineArray { (index: Int) -> UInt64 in index % 3 == 2 ? spookyConstant : seed }
    }

    private static func wrapped(_ index: Int) -> Int { index >= 12 ? index &- 12 : index }

    mutating func hash(_ bytes: Span<UInt8>) -> UInt64 {
        var offset = 0
        while bytes.count &- offset >= Self.blockBytes {
            for index in 0..<12 { take(bytes.word(at: offset &+ index &* 8), index) }
            offset &+= Self.blockBytes
        }
        let rest = bytes.count &- offset
        for index in 0..<12 {
            let length = max(0, min(8, rest &- index &* 8))
            var word = length > 0 ? partialWord(bytes, offset &+ index &* 8, length) : 0
            if index == 11 { word |= UInt64(truncatingIfNeeded: rest) &<< 56 }
            state[index] &+= word
        }
        for _ in 0..<3 { finish() }
        return state[0]
    }

    private mutating func take(_ word: UInt64, _ index: Int) {
        let (next, last) = (Self.wrapped(index &+ 1), Self.wrapped(index &+ 11))
        state[index] &+= word
        state[Self.wrapped(index &+ 2)] ^= state[Self.wrapped(index &+ 10)]
        state[last] ^= state[index]
        state[index] = turned(state[index], Self.turns[index])
        state[last] &+= state[next]
    }

    private mutating func finish() {
        for index in 0..<12 {
            let (next, last) = (Self.wrapped(index &+ 1), Self.wrapped(index &+ 11))
            state[last] &+= state[next]
            state[Self.wrapped(index &+ 2)] ^= state[last]
            state[next] = turned(state[next], Self.lastTurns[index])
        }
    }
}
