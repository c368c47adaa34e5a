// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The MD5 digest of some bytes, as four words whose first byte is the lowest: what the rings of memcached's clients
/// are made of. Not for security.
///
/// Does not allocate. Source: RFC 1321.
package struct MD5: Sendable, Equatable {
    /// Words A, B, C and D of the digest.
    package var words: (UInt32, UInt32, UInt32, UInt32) { (state.a, state.b, state.c, state.d) }

    private var state = MD5State()

    /// The digest of `bytes`.
    package init(_ bytes: Span<UInt8>) {
        var block = InlineArray<16, UInt32>(repeating: 0)
        var offset = 0
        while bytes.count &- offset >= 64 {
            for index in 0..<8 {
                let two = bytes.word(at: offset &+ index &* 8)
                block[index &* 2] = UInt32(truncatingIfNeeded: two)
                block[index &* 2 &+ 1] = UInt32(truncatingIfNeeded: two &>> 32)
            }
            state.mix(block)
            offset &+= 64
        }
        finish(bytes, from: offset)
    }

    /// The last block, or the last two: what is left, a bit of 1, zeros and the length in bits.
    private mutating func finish(_ bytes: Span<UInt8>, from offset: Int) {
        var block = InlineArray<16, UInt32>(repeating: 0)
        let rest = bytes.count &- offset
        for index in 0..<rest {
            block[index &>> 2] |= UInt32(bytes[offset &+ index]) &<< UInt32(truncatingIfNeeded: (index & 3) &* 8)
        }
        block[rest &>> 2] |= 0x80 &<< UInt32(truncatingIfNeeded: (rest & 3) &* 8)
        if rest >= 56 {
            state.mix(block)
            block = InlineArray(repeating: 0)
        }
        let bits = UInt64(truncatingIfNeeded: bytes.count) &<< 3
        block[14] = UInt32(truncatingIfNeeded: bits)
        block[15] = UInt32(truncatingIfNeeded: bits &>> 32)
        state.mix(block)
    }

    /// The digest's bytes 0 to 7 as a number in network byte order: what sorts as the hexadecimal digest does.
    package var leadingBigEndian: UInt64 {
        UInt64(state.a.byteSwapped) &<< 32 | UInt64(state.b.byteSwapped)
    }
}

/// The four words and the rounds that mix a block into them, each step written out: as a loop it takes five times as
/// long.
private struct MD5State: Sendable, Equatable {
    var a: UInt32 = 0x6745_2301
    var b: UInt32 = 0xefcd_ab89
    var c: UInt32 = 0x98ba_dcfe
    var d: UInt32 = 0x1032_5476

    mutating func mix(_ block: borrowing InlineArray<16, UInt32>) {
        let before = self
        firstRound(block)
        secondRound(block)
        thirdRound(block)
        fourthRound(block)
        a &+= before.a
        b &+= before.b
        c &+= before.c
        d &+= before.d
    }

    @inline(__always)
    private static func step(_ word: inout UInt32, _ next: UInt32, _ mixed: UInt32, _ added: UInt32, _ bits: UInt32) {
        let sum = word &+ mixed &+ added
        word = next &+ (sum &<< bits | sum &>> (32 &- bits))
    }

    @inline(__always)
    private static func choice(_ x: UInt32, _ y: UInt32, _ z: UInt32) -> UInt32 { z ^ x & (y ^ z) }

    @inline(__always)
    private static func reverseChoice(_ x: UInt32, _ y: UInt32, _ z: UInt32) -> UInt32 { y ^ z & (x ^ y) }

    @inline(__always)
    private static func parity(_ x: UInt32, _ y: UInt32, _ z: UInt32) -> UInt32 { x ^ y ^ z }

    @inline(__always)
    private static func fold(_ x: UInt32, _ y: UInt32, _ z: UInt32) -> UInt32 { y ^ (x | ~z) }

    @inline(__always)
    private mutating func firstRound(_ block: borrowing InlineArray<16, UInt32>) {
        Self.step(&a, b, Self.choice(b, c, d), block[0] &+ 0xd76a_a478, 7)
        Self.step(&d, a, Self.choice(a, b, c), block[1] &+ 0xe8c7_b756, 12)
        Self.step(&c, d, Self.choice(d, a, b), block[2] &+ 0x2420_70db, 17)
        Self.step(&b, c, Self.choice(c, d, a), block[3] &+ 0xc1bd_ceee, 22)
        Self.step(&a, b, Self.choice(b, c, d), block[4] &+ 0xf57c_0faf, 7)
        Self.step(&d, a, Self.choice(a, b, c), block[5] &+ 0x4787_c62a, 12)
        Self.step(&c, d, Self.choice(d, a, b), block[6] &+ 0xa830_4613, 17)
        Self.step(&b, c, Self.choice(c, d, a), block[7] &+ 0xfd46_9501, 22)
        Self.step(&a, b, Self.choice(b, c, d), block[8] &+ 0x6980_98d8, 7)
        Self.step(&d, a, Self.choice(a, b, c), block[9] &+ 0x8b44_f7af, 12)
        Self.step(&c, d, Self.choice(d, a, b), block[10] &+ 0xffff_5bb1, 17)
        Self.step(&b, c, Self.choice(c, d, a), block[11] &+ 0x895c_d7be, 22)
        Self.step(&a, b, Self.choice(b, c, d), block[12] &+ 0x6b90_1122, 7)
        Self.step(&d, a, Self.choice(a, b, c), block[13] &+ 0xfd98_7193, 12)
        Self.step(&c, d, Self.choice(d, a, b), block[14] &+ 0xa679_438e, 17)
        Self.step(&b, c, Self.choice(c, d, a), block[15] &+ 0x49b4_0821, 22)
    }

    @inline(__always)
    private mutating func secondRound(_ block: borrowing InlineArray<16, UInt32>) {
        Self.step(&a, b, Self.reverseChoice(b, c, d), block[1] &+ 0xf61e_2562, 5)
        Self.step(&d, a, Self.reverseChoice(a, b, c), block[6] &+ 0xc040_b340, 9)
        Self.step(&c, d, Self.reverseChoice(d, a, b), block[11] &+ 0x265e_5a51, 14)
        Self.step(&b, c, Self.reverseChoice(c, d, a), block[0] &+ 0xe9b6_c7aa, 20)
        Self.step(&a, b, Self.reverseChoice(b, c, d), block[5] &+ 0xd62f_105d, 5)
        Self.step(&d, a, Self.reverseChoice(a, b, c), block[10] &+ 0x0244_1453, 9)
        Self.step(&c, d, Self.reverseChoice(d, a, b), block[15] &+ 0xd8a1_e681, 14)
        Self.step(&b, c, Self.reverseChoice(c, d, a), block[4] &+ 0xe7d3_fbc8, 20)
        Self.step(&a, b, Self.reverseChoice(b, c, d), block[9] &+ 0x21e1_cde6, 5)
        Self.step(&d, a, Self.reverseChoice(a, b, c), block[14] &+ 0xc337_07d6, 9)
        Self.step(&c, d, Self.reverseChoice(d, a, b), block[3] &+ 0xf4d5_0d87, 14)
        Self.step(&b, c, Self.reverseChoice(c, d, a), block[8] &+ 0x455a_14ed, 20)
        Self.step(&a, b, Self.reverseChoice(b, c, d), block[13] &+ 0xa9e3_e905, 5)
        Self.step(&d, a, Self.reverseChoice(a, b, c), block[2] &+ 0xfcef_a3f8, 9)
        Self.step(&c, d, Self.reverseChoice(d, a, b), block[7] &+ 0x676f_02d9, 14)
        Self.step(&b, c, Self.reverseChoice(c, d, a), block[12] &+ 0x8d2a_4c8a, 20)
    }

    @inline(__always)
    private mutating func thirdRound(_ block: borrowing InlineArray<16, UInt32>) {
        Self.step(&a, b, Self.parity(b, c, d), block[5] &+ 0xfffa_3942, 4)
        Self.step(&d, a, Self.parity(a, b, c), block[8] &+ 0x8771_f681, 11)
        Self.step(&c, d, Self.parity(d, a, b), block[11] &+ 0x6d9d_6122, 16)
        Self.step(&b, c, Self.parity(c, d, a), block[14] &+ 0xfde5_380c, 23)
        Self.step(&a, b, Self.parity(b, c, d), block[1] &+ 0xa4be_ea44, 4)
        Self.step(&d, a, Self.parity(a, b, c), block[4] &+ 0x4bde_cfa9, 11)
        Self.step(&c, d, Self.parity(d, a, b), block[7] &+ 0xf6bb_4b60, 16)
        Self.step(&b, c, Self.parity(c, d, a), block[10] &+ 0xbebf_bc70, 23)
        Self.step(&a, b, Self.parity(b, c, d), block[13] &+ 0x289b_7ec6, 4)
        Self.step(&d, a, Self.parity(a, b, c), block[0] &+ 0xeaa1_27fa, 11)
        Self.step(&c, d, Self.parity(d, a, b), block[3] &+ 0xd4ef_3085, 16)
        Self.step(&b, c, Self.parity(c, d, a), block[6] &+ 0x0488_1d05, 23)
        Self.step(&a, b, Self.parity(b, c, d), block[9] &+ 0xd9d4_d039, 4)
        Self.step(&d, a, Self.parity(a, b, c), block[12] &+ 0xe6db_99e5, 11)
        Self.step(&c, d, Self.parity(d, a, b), block[15] &+ 0x1fa2_7cf8, 16)
        Self.step(&b, c, Self.parity(c, d, a), block[2] &+ 0xc4ac_5665, 23)
    }

    @inline(__always)
    private mutating func fourthRound(_ block: borrowing InlineArray<16, UInt32>) {
        Self.step(&a, b, Self.fold(b, c, d), block[0] &+ 0xf429_2244, 6)
        Self.step(&d, a, Self.fold(a, b, c), block[7] &+ 0x432a_ff97, 10)
        Self.step(&c, d, Self.fold(d, a, b), block[14] &+ 0xab94_23a7, 15)
        Self.step(&b, c, Self.fold(c, d, a), block[5] &+ 0xfc93_a039, 21)
        Self.step(&a, b, Self.fold(b, c, d), block[12] &+ 0x655b_59c3, 6)
        Self.step(&d, a, Self.fold(a, b, c), block[3] &+ 0x8f0c_cc92, 10)
        Self.step(&c, d, Self.fold(d, a, b), block[10] &+ 0xffef_f47d, 15)
        Self.step(&b, c, Self.fold(c, d, a), block[1] &+ 0x8584_5dd1, 21)
        Self.step(&a, b, Self.fold(b, c, d), block[8] &+ 0x6fa8_7e4f, 6)
        Self.step(&d, a, Self.fold(a, b, c), block[15] &+ 0xfe2c_e6e0, 10)
        Self.step(&c, d, Self.fold(d, a, b), block[6] &+ 0xa301_4314, 15)
        Self.step(&b, c, Self.fold(c, d, a), block[13] &+ 0x4e08_11a1, 21)
        Self.step(&a, b, Self.fold(b, c, d), block[4] &+ 0xf753_7e82, 6)
        Self.step(&d, a, Self.fold(a, b, c), block[11] &+ 0xbd3a_f235, 10)
        Self.step(&c, d, Self.fold(d, a, b), block[2] &+ 0x2ad7_d2bb, 15)
        Self.step(&b, c, Self.fold(c, d, a), block[9] &+ 0xeb86_d391, 21)
    }
}
