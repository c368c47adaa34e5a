// Martlet
// SPDX-License-Identifier: Apache-2.0

/// SHA-256, and the message authentication code that is made with it. Sources: FIPS 180-4, RFC 2104.
package struct SHA256 {
    /// Bytes of a digest.
    package static let digestBytes = 32
    private static let blockBytes = 64

    private static let constants: [UInt32] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ]

    private var state: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    private var words = [UInt32](repeating: 0, count: 64)
    /// What is left of a block.
    private var rest: [UInt8] = []
    private var length: UInt64 = 0

    package init() {}

    /// Takes more bytes.
    package mutating func update(_ bytes: [UInt8]) {
        length &+= UInt64(bytes.count)
        var offset = 0
        if !rest.isEmpty {
            offset = min(bytes.count, Self.blockBytes - rest.count)
            rest += bytes[..<offset]
            guard rest.count == Self.blockBytes else { return }
            let block = rest
            rest = []
            Self.compress(&state, &words, block.span, 0)
        }
        while bytes.count - offset >= Self.blockBytes {
            Self.compress(&state, &words, bytes.span, offset)
            offset += Self.blockBytes
        }
        rest += bytes[offset...]
    }

    /// The digest of all that was taken. It takes no more.
    package mutating func finish() -> [UInt8] {
        let bits = length &* 8
        var padding: [UInt8] = [0x80]
        while (rest.count + padding.count) % Self.blockBytes != Self.blockBytes - 8 { padding.append(0) }
        for shift in stride(from: UInt64(56), through: 0, by: -8) {
            padding.append(UInt8(truncatingIfNeeded: bits >> shift))
        }
        update(padding)
        return state.flatMap { word in
            [24, 16, 8, 0].map { shift in UInt8(truncatingIfNeeded: word >> UInt32(shift)) }
        }
    }

    private static func compress(
        _ state: inout [UInt32], _ words: inout [UInt32], _ block: Span<UInt8>, _ offset: Int
    ) {
        func turned(_ word: UInt32, _ count: UInt32) -> UInt32 { word >> count | word << (32 - count) }
        for index in 0..<16 {
            let at = offset + index * 4
            let high = UInt32(block[at]) << 24 | UInt32(block[at + 1]) << 16
            words[index] = high | UInt32(block[at + 2]) << 8 | UInt32(block[at + 3])
        }
        for index in 16..<64 {
            let (near, far) = (words[index - 2], words[index - 15])
            let one = turned(near, 17) ^ turned(near, 19) ^ near >> 10
            let two = turned(far, 7) ^ turned(far, 18) ^ far >> 3
            words[index] = words[index - 16] &+ two &+ words[index - 7] &+ one
        }
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        for index in 0..<64 {
            let choice = e & f ^ ~e & g
            let sum = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)
            let one = h &+ sum &+ choice &+ constants[index] &+ words[index]
            let two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) &+ (a & b ^ a & c ^ b & c)
            (h, g, f, e) = (g, f, e, d &+ one)
            (d, c, b, a) = (c, b, a, one &+ two)
        }
        for (index, word) in [a, b, c, d, e, f, g, h].enumerated() { state[index] &+= word }
    }

    /// The digest of `bytes`.
    package static func digest(_ bytes: [UInt8]) -> [UInt8] {
        var hash = SHA256()
        hash.update(bytes)
        return hash.finish()
    }

    /// The authentication code of the parts, one behind the other, under `key`.
    package static func code(key: [UInt8], _ parts: [[UInt8]]) -> [UInt8] {
        var whole = key.count > blockBytes ? digest(key) : key
        whole += Array(repeating: 0, count: blockBytes - whole.count)
        var (inner, outer) = (SHA256(), SHA256())
        inner.update(whole.map { $0 ^ 0x36 })
        for part in parts { inner.update(part) }
        outer.update(whole.map { $0 ^ 0x5c })
        outer.update(inner.finish())
        return outer.finish()
    }

    /// Whether two codes are the same; takes as long whatever differs.
    package static func isSame(_ one: [UInt8], _ other: [UInt8]) -> Bool {
        guard one.count == other.count else { return false }
        return zip(one, other).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
