// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// Owners that mcrouter's own tests expect (mcrouter/lib/test and mcrouter/lib/fbi/test): mcrouter itself is not in
/// Debian.
struct MCRouterVectorTests {
    /// Every byte, from 128 up to 255 and from 0 to 127.
    static let everyByte = (0..<256).map { UInt8(truncatingIfNeeded: $0 + 128) }

    static func servers(_ count: Int, weights: [Double]? = nil) -> [Server] {
        (0..<count).map { Server(host: "xxx.\($0).yy", port: 0, weight: weights?[$0] ?? 1) }
    }

    static func counts(_ selector: ServerSelector, prefix: String, keys: Int) -> [Int] {
        var counts = [Int](repeating: 0, count: selector.servers.count)
        for number in 0..<keys { counts[selector.owner(of: bytes("\(prefix)\(number)").span)] += 1 }
        return counts
    }

    /// The owners of keys with numbers behind them, folded into one number.
    static func checksum(keys: Int, prefix: [UInt8], owner: (Span<UInt8>) -> Int) -> UInt32 {
        var sum: UInt32 = 0
        for number in 0..<keys {
            let key = prefix + "\(number)".utf8
            sum = sum &* 31 &+ UInt32(truncatingIfNeeded: owner(key.span))
        }
        return sum
    }

    @Test(arguments: [
        ("sample", 100, 97), ("sample", 1, 0), ("", 100, 72), ("", 1, 0), ("", 8_388_608, 6_173_600),
        ("sample", 8_388_608, 5_167_780), ("key0", 5, 4), ("key0", 5000, 3375), ("key1", 1_000_000, 768_680),
        ("user:12345:profile", 10000, 5119), ("mcrouter:pool:regional:0001", 8_388_608, 6_119_431),
    ])
    func ch3OfSingleKeys(_ key: String, _ count: Int, _ owner: Int) {
        #expect(Ch3(count: count).owner(of: bytes(key).span) == owner)
    }

    @Test func ch3OfKeysOfAnyByte() {
        #expect(Ch3(count: 99999).owner(of: Self.everyByte.span) == 31015)
        #expect(Ch3(count: 99999).owner(of: [UInt8](Self.everyByte.reversed()).span) == 67101)
    }

    @Test(
        arguments: [
            (2, 1_346_413_954), (10, 2_894_016_351), (1000, 2_251_851_331), (100_000, 1_053_928_120),
            (8_388_608, 2_328_588_562),
        ] as [(Int, UInt32)])
    func ch3OfAHundredThousandKeys(_ count: Int, _ sum: UInt32) {
        let tree = Ch3(count: count)
        #expect(Self.checksum(keys: 100_000, prefix: bytes("k")) { tree.owner(of: $0) } == sum)
    }

    @Test(
        arguments: [
            (0.5, 2, 2_395_690_262), (0.5, 10, 547_444_706), (0.5, 1000, 1_336_857_622), (0.5, 10000, 3_378_951_161),
            (0, 2, 3_431_444_300), (0, 100, 2_604_325_093), (0, 1000, 337_394_182),
        ] as [(Double, Int, UInt32)])
    func weightedCh3OfTenThousandKeys(_ weight: Double, _ count: Int, _ sum: UInt32) {
        let tree = WeightedCh3(weights: [Double](repeating: weight, count: count))
        #expect(Self.checksum(keys: 10_000, prefix: bytes("k")) { tree.owner(of: $0) } == sum)
    }

    @Test(
        arguments: [(0.5, 10, 707_485_837), (0.5, 1000, 954_106_693), (0, 100, 532_711_027)] as [(Double, Int, UInt32)])
    func weightedCh3OfLongKeys(_ weight: Double, _ count: Int, _ sum: UInt32) {
        let tree = WeightedCh3(weights: [Double](repeating: weight, count: count))
        let prefix = (0..<128).map { UInt8(65 + $0 % 26) }
        #expect(Self.checksum(keys: 10_000, prefix: prefix) { tree.owner(of: $0) } == sum)
    }

    @Test func weightedCh3OfMixedWeights() throws {
        let tree = WeightedCh3(weights: [1, 0.5, 0, 0.75, 1])
        #expect(Self.checksum(keys: 10_000, prefix: bytes("d")) { tree.owner(of: $0) } == 2_309_057_571)
        let uneven = [0.429, 0.541, 0.117, 0.998, 0.283, 0.065, 0.109, 0.042, 0.676, 0.943]
        let selector = try ServerSelector(Self.servers(10, weights: uneven), scheme: .weightedCh3)
        let counts = Self.counts(selector, prefix: "", keys: 10_000)
        #expect(counts == [1016, 1252, 288, 2354, 661, 195, 247, 122, 1668, 2197])
        let reduced = try ServerSelector(Self.servers(3, weights: [1, 1, 0.7]), scheme: .weightedCh3)
        #expect(Self.counts(reduced, prefix: "", keys: 1000) == [341, 371, 288])
    }

    @Test func weightedCh3GivesUpWhereNobodyTakesAnything() {
        let nobody = WeightedCh3(weights: [Double](repeating: 0, count: 100))
        #expect(nobody.owner(of: bytes("sample").span) == 59 && nobody.owner(of: [UInt8]().span) == 45)
    }

    @Test func crc32Modulo() throws {
        func owner(_ key: [UInt8], _ count: Int) -> Int { Int(KeyHash.crc32Positive.value(of: key.span)) % count }
        #expect(owner(bytes("sample"), 100) == 7 && owner([], 100) == 0)
        #expect(owner(bytes("sample"), 1 << 30 - 1) == 822_834_884)
        #expect(owner(Self.everyByte, 99999) == 11697 && owner(Self.everyByte.reversed(), 99999) == 97630)
        let selector = try ServerSelector(Self.servers(100), scheme: .modulo(.crc32Positive))
        #expect(selector.owner(of: bytes("sample").span) == 7)
    }

    @Test(arguments: [(3, [1, 1, 1, 1]), (343, [183, 45, 291, 132])])
    func rendezvousOfSingleKeys(_ count: Int, _ owners: [Int]) throws {
        let selector = try ServerSelector(Self.servers(count), scheme: .rendezvous)
        let keys = [Self.everyByte, bytes("sample"), [], bytes("mykey")]
        #expect(keys.map { selector.owner(of: $0.span) } == owners)
    }

    @Test func rendezvousOfManyKeys() throws {
        let three = try ServerSelector(Self.servers(3), scheme: .rendezvous)
        #expect(Self.counts(three, prefix: "mykey:", keys: 1000) == [337, 353, 310])
        let ten = try ServerSelector(Self.servers(10), scheme: .rendezvous)
        let counts = Self.counts(ten, prefix: "mykey:", keys: 10_000)
        #expect(counts == [947, 1026, 1028, 981, 1016, 970, 1013, 939, 1023, 1057])
    }

    @Test(arguments: [(3, [1, 0, 2, 1]), (343, [142, 115, 279, 302])])
    func weightedRendezvousOfSingleKeys(_ count: Int, _ owners: [Int]) throws {
        let selector = try ServerSelector(Self.servers(count), scheme: .weightedRendezvous)
        let keys = [Self.everyByte, bytes("sample"), [], bytes("mykey")]
        #expect(keys.map { selector.owner(of: $0.span) } == owners)
    }

    @Test(
        arguments: [
            ([1, 1, 1], [3409, 3360, 3231]), ([1, 0.5, 0.1], [6292, 3118, 590]), ([1, 0, 0.5], [6737, 0, 3263]),
            (
                [1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5], [1381, 1299, 1283, 1359, 1296, 667, 669, 665, 672, 709]
            ),
        ] as [([Double], [Int])])
    func weightedRendezvousOfManyKeys(_ weights: [Double], _ expected: [Int]) throws {
        let selector = try ServerSelector(Self.servers(weights.count, weights: weights), scheme: .weightedRendezvous)
        #expect(Self.counts(selector, prefix: "mykey:", keys: 10_000) == expected)
    }
}
