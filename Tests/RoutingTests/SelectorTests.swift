// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Routing

/// What a selector makes of keys, salts and servers.
struct SelectorTests {
    static let five = (1...5).map { Server(host: "10.0.0.\($0)", port: 11211) }

    static let everyScheme: [HashScheme] =
        BalanceTests.anywhere + [
            .ch3, .weightedCh3, .jump, .modulo(.crc32), .twemproxyModula(.fnv1aLower64), .ketama(.libmemcached, .crc32),
        ]

    static func part(_ part: HashedPart, of key: String) -> String {
        let key = bytes(key)
        return String(decoding: key[part.range(in: key.span)], as: UTF8.self)
    }

    @Test(arguments: [
        ("user|#|1", "user"), ("user", "user"), ("a|b|#|c|#|d", "a|b"), ("|#|x", ""), ("a||#|", "a|"), ("a|#", "a|#"),
        ("", ""),
    ])
    func aHashStopEndsWhatIsHashed(_ key: String, _ hashed: String) {
        #expect(Self.part(.beforeHashStop, of: key) == hashed)
    }

    @Test(arguments: [
        ("{user}:1", "user"), ("a{b}c{d}", "b"), ("{}x", "{}x"), ("{user", "{user"), ("}a{", "}a{"), ("a}{b}", "b"),
        ("{{a}}", "{a"), ("", ""),
    ])
    func aTagIsWhatIsHashed(_ key: String, _ hashed: String) {
        #expect(Self.part(.tag(open: UInt8(ascii: "{"), close: UInt8(ascii: "}")), of: key) == hashed)
    }

    @Test func aTagMayHaveTheSameByteAtBothEnds() {
        let bar = UInt8(ascii: "$")
        #expect(Self.part(.tag(open: bar, close: bar), of: "a$b$c") == "b")
    }

    @Test(arguments: [
        (":", "user:1:name", "user"), (":", "user", "user"), (":", ":user", ":user"), (":", "a::", "a"),
        ("::", "a:b::c", "a:b"), ("::", "a:", "a:"), ("ab", "aab", "a"), ("", "x", "x"),
    ])
    func aDelimiterEndsWhatIsHashed(_ delimiter: String, _ key: String, _ hashed: String) {
        #expect(Self.part(.before(delimiter: bytes(delimiter)), of: key) == hashed)
    }

    @Test(arguments: everyScheme)
    func keysOfOnePartLiveTogether(_ scheme: HashScheme) throws {
        let selector = try ServerSelector(Self.five, scheme: scheme, part: .beforeHashStop)
        for number in 0..<50 {
            let owner = selector.owner(of: bytes("user\(number)").span)
            #expect(selector.owner(of: bytes("user\(number)|#|a").span) == owner)
            #expect(selector.owner(of: bytes("user\(number)|#|bb").span) == owner)
        }
    }

    @Test(arguments: everyScheme)
    func aSaltIsHashedBehindTheKey(_ scheme: HashScheme) throws {
        let salted = try ServerSelector(Self.five, scheme: scheme, part: .beforeHashStop, salt: bytes("pepper"))
        let plain = try ServerSelector(Self.five, scheme: scheme)
        for number in 0..<50 {
            let owner = plain.owner(of: bytes("user\(number)pepper").span)
            #expect(salted.owner(of: bytes("user\(number)|#|x").span) == owner)
        }
    }

    @Test(arguments: everyScheme)
    func everyKeyHasAnOwner(_ scheme: HashScheme) throws {
        var generator = SystemRandomNumberGenerator()
        for count in [1, 2, 3, 7] {
            let selector = try ServerSelector(Array(BalanceTests.servers(count)), scheme: scheme)
            for length in 0...250 {
                let key = (0..<length).map { _ in UInt8.random(in: 0...255, using: &generator) }
                #expect((0..<count).contains(selector.owner(of: key.span)))
            }
        }
    }

    /// Where nobody takes a key, all numbers are tried behind it.
    @Test func theLongestKeysTakeTheLongestSalts() throws {
        let nobody = Self.five.map { Server(host: $0.host, port: $0.port, weight: 0) }
        let salt = [UInt8](repeating: 1, count: ServerSelector.maximumSaltBytes)
        let selector = try ServerSelector(nobody, scheme: .weightedCh3, salt: salt)
        #expect((0..<5).contains(selector.owner(of: [UInt8](repeating: 2, count: 250).span)))
    }

    @Test func anAliasStandsForTheAddress() throws {
        let moved = (0..<5).map { index in
            Server(host: "192.168.0.\(index)", port: 4000 + index, alias: "10.0.0.\(index + 1)")
        }
        for dialect in [KetamaDialect.twemproxy, .libmemcached, .libmemcachedWeighted] {
            let before = try ServerSelector(Self.five, scheme: .ketama(dialect, .md5))
            let after = try ServerSelector(moved, scheme: .ketama(dialect, .md5))
            for key in BalanceTests.keys.prefix(500) {
                #expect(before.owner(of: key.span) == after.owner(of: key.span))
            }
        }
    }

    @Test func pointsInOnePlaceAreFoundToo() {
        let ring = PointRing<UInt32>((0..<100).map { .init(position: UInt32($0 / 10 * 3), owner: $0) })
        for position in 0..<UInt32(40) {
            // Ten points stand at each multiple of three up to 27.
            let (at, past) = (Int(position + 2) / 3, Int(position) / 3 + 1)
            #expect(ring.owner(of: position, step: 0) == (at < 10 ? at * 10 : 0))
            #expect(ring.owner(of: position, step: 1) == (past < 10 ? past * 10 : 0))
        }
        #expect(ring.owner(of: .max, step: 1) == 0)
    }

    @Test func lookupsInRandomRingsAreThoseOfASearchFromTheStart() {
        var generator = SystemRandomNumberGenerator()
        for count in [1, 2, 3, 5, 17, 64, 200] {
            let points = (0..<count).map { PointRing<UInt64>.Point(position: generator.next(), owner: $0) }
            let sorted = points.sorted { $0.position < $1.position }
            let ring = PointRing(points)
            for _ in 0..<200 {
                let place: UInt64 = generator.next()
                let expected = (sorted.first { $0.position >= place } ?? sorted[0]).owner
                #expect(ring.owner(of: place, step: 0) == expected)
            }
            for point in points { #expect(ring.owner(of: point.position, step: 0) == point.owner) }
        }
    }

    @Test func saysWhatItCannotHash() {
        func error(_ servers: [Server], _ scheme: HashScheme = .standard, salt: [UInt8] = []) -> SelectorError? {
            do throws(SelectorError) {
                _ = try ServerSelector(servers, scheme: scheme, salt: salt)
                return nil
            } catch {
                return error
            }
        }
        func one(_ weight: Double) -> [Server] { [Server(host: "a", port: 1, weight: weight)] }
        #expect(error([]) == .serverCount(0, allowed: 1...65536))
        #expect(error(Self.five + Self.five) == .sameName("10.0.0.1:11211"))
        #expect(error(Self.five + Self.five, .ch3) == nil)
        #expect(error(one(0)) == .weight(0, server: "a:1", allowed: "a number from 0.1 to 100.0"))
        #expect(error(one(.nan))?.description.contains("weight nan of 'a:1'") == true)
        #expect(error(one(1.5), .ketama(.libmemcachedWeighted, .md5)) != nil)
        #expect(error(one(1.5), .ketama(.libmemcached, .md5)) == nil)
        #expect(error(one(1.5), .weightedCh3) != nil && error(one(0.5), .weightedCh3) == nil)
        #expect(error(one(900_000), .ketama(.uhashring, .md5)) == .points(900_000, allowed: 1 << 24))
        #expect(error(Self.five, salt: [UInt8](repeating: 0, count: 257)) == .salt(257, allowed: 256))
    }
}
