// Martlet
// SPDX-License-Identifier: Apache-2.0

/// CRC-32 as zlib and Ethernet have it, reflected polynomial 0xEDB88320.
///
/// Source: ISO 3309. Half a byte a step, because a table of sixteen words is a constant and one of 256 made at start is
/// asked for with each access. Does not allocate.
func crc32(_ bytes: Span<UInt8>) -> UInt32 {
    let table: InlineArray<16, UInt32> = [
        0x0000_0000, 0x1db7_1064, 0x3b6e_20c8, 0x26d9_30ac, 0x76dc_4190, 0x6b6b_51f4, 0x4db2_6158, 0x5005_713c,
        0xedb8_8320, 0xf00f_9344, 0xd6d6_a3e8, 0xcb61_b38c, 0x9b64_c2b0, 0x86d3_d2d4, 0xa00a_e278, 0xbdbd_f21c,
    ]
    var value = UInt32.max
    for index in 0..<bytes.count {
        value ^= UInt32(bytes[index])
        value = value &>> 4 ^ table[Int(value & 15)]
        value = value &>> 4 ^ table[Int(value & 15)]
    }
    return ~value
}

/// CRC-16 of polynomial 0x1021 from 0, kept in 32 bits that are never cut: twemproxy's crc16.
///
/// What grows out of the lower 16 bits changes no later step, but stays in the value.
func crc16Unmasked(_ bytes: Span<UInt8>) -> UInt32 {
    let table: InlineArray<16, UInt32> = [
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
        0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
    ]
    var value: UInt32 = 0
    for index in 0..<bytes.count {
        // The two halves of the byte that leaves, each with what it puts into the lower 16 bits.
        let leaving = value &>> 8 & 0xff ^ UInt32(bytes[index])
        let high = table[Int(leaving &>> 4)]
        let low = table[Int((high &>> 12 ^ leaving) & 15)]
        value = value &<< 8 ^ (high &<< 4 ^ low) & 0xffff
    }
    return value
}
