// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Bytes of a text.
func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Hashes against values that others published or answered.
struct HashVectorTests {
    static let longDigits = String(repeating: "1234567890", count: 8)

    /// RFC 1321, appendix A.5.
    @Test(arguments: [
        ("", "d41d8cd98f00b204e9800998ecf8427e"), ("a", "0cc175b9c0f1b6a831c399e269772661"),
        ("abc", "900150983cd24fb0d6963f7d28e17f72"), ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
        ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "d174ab98d277d9f5a5611c2c9f419d9f"),
        (longDigits, "57edf4a22be3c955ac49da2e2107b67a"),
    ])
    func md5IsThatOfItsRFC(_ text: String, _ digest: String) {
        let input = bytes(text)
        let words = MD5(input.span).words
        let hexadecimal = [words.0, words.1, words.2, words.3].map { word in
            let digits = String(word.byteSwapped, radix: 16)
            return String(repeating: "0", count: 8 - digits.count) + digits
        }
        #expect(hexadecimal.joined() == digest)
        #expect(String(MD5(input.span).leadingBigEndian, radix: 16) == String(digest.prefix(16).drop { $0 == "0" }))
    }

    /// The check values of the CRC catalogue (CRC-32/ISO-HDLC, CRC-16/XMODEM).
    @Test func crcsHaveTheirCheckValues() {
        let check = bytes("123456789")
        #expect(KeyHash.crc32a.value(of: check.span) == 0xcbf4_3926)
        #expect(KeyHash.crc32Positive.value(of: check.span) == 0x4bf4_3926)
        #expect(KeyHash.crc32.value(of: check.span) == 0xcbf4_3926 >> 16 & 0x7fff)
        #expect(KeyHash.crc16.value(of: check.span) & 0xffff == 0x31c3)
    }

    /// RFC 9923, test vectors: "foobar".
    @Test func fnvIsThatOfItsRFC() {
        let input = bytes("foobar")
        #expect(KeyHash.fnv1.value(of: input.span) == 0x31f0_b262)
        #expect(KeyHash.fnv1a.value(of: input.span) == 0xbf9c_f968)
        #expect(KeyHash.fnv1Lower64.value(of: input.span) == 0xa4dd_a9c2)
        #expect(KeyHash.fnv1aLower64.value(of: input.span) == 0xf739_67e8)
    }

    static let keys = [
        bytes("a"), bytes("ab"), bytes("abc"), bytes("user:1"), bytes("session:42"),
        bytes("a key of some thirty-two bytes!!"), [99, 97, 102, 0xc3, 0xa9], [0xff, 0xfe, 0x80],
        [UInt8](repeating: 120, count: 250),
    ]

    /// What libhashkit 1.1.4 of Debian answers for `keys`.
    static let answers: [KeyHash: [UInt32]] = [
        .oneAtATime: [
            3392050242, 1172708952, 3977453403, 2773942091, 2954775325, 326426144, 3650908318, 1422681282, 51816958,
        ],
        .md5: [
            3111502092, 1140096536, 2555380112, 282964413, 3425615685, 1013367082, 3833532679, 3673073221,
            1263649145,
        ],
        .crc32: [
            26807, 7811, 13604, 31653, 8766, 19775, 6317, 9822, 2408,
        ],
        .fnv1Lower64: [
            2248259518, 3035314104, 1806675403, 3376212627, 3783625205, 3384672472, 2315714289, 2481844474,
            3586808541,
        ],
        .fnv1aLower64: [
            2248273036, 3041237098, 88168267, 1963465963, 4165524369, 678549118, 3472276361, 2400084368, 369318829,
        ],
        .fnv1: [
            84696446, 1886858552, 1134309195, 13403571, 3936587125, 1059676408, 3598905713, 2437714298, 3808180605,
        ],
        .fnv1a: [
            3826002220, 1294271946, 440920331, 1830439627, 2672537937, 1704331966, 1970454601, 1651290800,
            2640193613,
        ],
        .murmur: [
            1262581116, 3820310011, 2064434216, 3587224931, 1360044695, 966970204, 3658586143, 2749433693,
            2501272622,
        ],
        .jenkins: [
            3768813200, 3249891675, 2403423744, 936206289, 1453779849, 3974467847, 3412207021, 538694325, 972189224,
        ],
        .murmur3: [
            2289228744, 2181799184, 634628250, 3313101634, 773271379, 3548792674, 592794272, 211629650, 86446839,
        ],
    ]

    @Test(arguments: answers.keys)
    func hashesAreThoseOfLibhashkit(_ hash: KeyHash) {
        #expect(Self.keys.map { hash.value(of: $0.span) } == Self.answers[hash])
    }

    /// The reference implementation's values for the bytes from 128 on, as folly's tests list them.
    @Test(
        arguments: [
            (0, 0x6bf5_0919), (1, 0x70de_1d26), (16, 0xf274_736c), (32, 0xe5cf_c8b6), (63, 0x09c1_afb4),
            (64, 0x069c_8bb7),
            (128, 0x94e9_48ec), (191, 0xe13d_9e19), (192, 0x77e0_12bd), (193, 0x2d05_114c), (255, 0x2f40_ee0b),
            (256, 0x38ce_bf03), (320, 0xf154_5450), (384, 0x44eb_5634), (448, 0xad7b_aa23), (511, 0xcc1c_8250),
        ] as [(Int, UInt32)])
    func spookyIsTheReferences(_ length: Int, _ value: UInt32) {
        let input = (0..<length).map { UInt8(truncatingIfNeeded: $0 + 128) }
        #expect(spooky32(input.span, seed: 0) == value)
    }

    /// Values in the tests of public implementations of the paper's code.
    @Test(arguments: [(0, 60, 0), (1, 60, 55), (2, 60, 46)] as [(UInt64, Int, Int)])
    func jumpIsThePapers(_ key: UInt64, _ count: Int, _ owner: Int) { #expect(jumpOwner(key, count: count) == owner) }

    @Test func jumpAnswersForKeysOf64Bits() {
        #expect(jumpOwner(10_863_919_174_838_991, count: 11) == 6)
        #expect(jumpOwner(2_016_238_256_797_177_309, count: 11) == 3)
        #expect(jumpOwner(.max, count: 1) == 0)
    }

    @Test func murmur3OfPiecesIsThatOfTheWhole() {
        for length in 0..<40 {
            let input = (0..<length).map { UInt8($0 * 7 & 0xff) }
            for cut in 0...length {
                var state = Murmur3State(seed: 9)
                for byte in input[..<cut] { state.add(byte) }
                var copy = state
                for byte in input[cut...] { copy.add(byte) }
                #expect(copy.value == murmur3(input.span, seed: 9))
            }
        }
    }

    /// Values to seventeen digits, of tables of logarithms.
    @Test(arguments: [
        (1.0, 0.0), (2.0, 0.69314718055994531), (10.0, 2.3025850929940457), (0.5, -0.69314718055994531),
        (0.999, -0.0010005003335835344), (1e-15, -34.538776394910684), (3.0, 1.0986122886681098),
        (0.7, -0.35667494393873245), (0.9999999999999999, -1.1102230246251565e-16),
    ])
    func logarithmsAreExactToTheirLastPlaces(_ value: Double, _ logarithm: Double) {
        #expect(abs(naturalLogarithm(value) - logarithm) <= 2 * logarithm.ulp)
    }

    @Test func logarithmOfNothingIsInfinite() { #expect(naturalLogarithm(0) == -.infinity) }
}
