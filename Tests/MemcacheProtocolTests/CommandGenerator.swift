// Martlet
// SPDX-License-Identifier: Apache-2.0

/// SplitMix64: the same numbers for the same seed everywhere.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var word = state
        word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
        word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
        return word ^ word >> 31
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(max(bound, 1))) }
    mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    mutating func pick<T>(_ choices: [T]) -> T { choices[below(choices.count)] }
}

/// Makes streams of commands: mostly valid or nearly so, some of them damaged.
struct CommandGenerator {
    var random: SeededGenerator

    init(seed: UInt64) { random = SeededGenerator(seed: seed) }

    /// A few commands of one protocol.
    mutating func stream() -> [UInt8] {
        var stream: [UInt8] = []
        let isBinary = random.chance(30)
        for _ in 0...random.below(4) { stream += isBinary ? binary() : text() }
        if random.chance(25) { damage(&stream) }
        return stream
    }

    private mutating func damage(_ stream: inout [UInt8]) {
        for _ in 0...random.below(3) where !stream.isEmpty {
            let place = random.below(stream.count)
            switch random.below(4) {
            case 0: stream[place] = UInt8(truncatingIfNeeded: random.next())
            case 1: stream.remove(at: place)
            case 2: stream.insert(random.pick([0, 9, 10, 13, 32, 45, 48, 0x80]), at: place)
            default: stream[place] ^= 1 << UInt8(random.below(8))
            }
        }
    }

    // MARK: Text

    private mutating func key() -> String {
        switch random.below(14) {
        case 0: String(repeating: "k", count: 249 + random.below(4))
        case 1: "noreply"
        case 2: "k\r"
        case 3: random.pick(["Zm9v", "Zm9vYg==", "Zm9=", "A===", "====", "Z*m9v", "abc", "Zg==Zg=="])
        case 4: random.pick(["\t", "\u{0}", "é", "k\u{1}y", "-", "b", "HTTP/1.1"])
        default: "key" + String(random.below(1000))
        }
    }

    private mutating func number() -> String {
        switch random.below(16) {
        case 0...6: String(random.below(100))
        case 7: random.pick(["-1", "-0", "-", "+1", "", "007", "00000000001", "000000000001"])
        case 8: random.pick(["2147483647", "2147483648", "-2147483648", "-2147483649", "2147483645", "2147483646"])
        case 9: random.pick(["4294967295", "4294967296", "99999999999", "-99999999999", "999999999999"])
        case 10: random.pick(["18446744073709551615", "18446744073709551616", "-18446744073709551615"])
        case 11:
            random.pick(["9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"])
        case 12: random.pick(["1x", "x", "\t1", "1\t", "1\u{0}2", "\t", "0x10", "1.5", "12345678901234567890123"])
        case 13: String(random.next())
        default: "0"
        }
    }

    private mutating func gap() -> String { random.chance(92) ? " " : String(repeating: " ", count: random.below(4)) }
    private mutating func lineEnd() -> String {
        random.pick(["\r\n", "\r\n", "\r\n", "\r\n", "\n", " \r\n", "\r\r\n", "\r \n"])
    }
    private mutating func noreply() -> String {
        random.pick(["", "", "", " noreply", " noreply ", " NOREPLY", " noreply x", " x noreply"])
    }

    private mutating func text() -> [UInt8] {
        switch random.below(20) {
        case 0...3: return get()
        case 4...6: return storage()
        case 7...8: return counted()
        case 9...11: return metaSet()
        case 12...17: return metaOther()
        default: return other()
        }
    }

    private mutating func get() -> [UInt8] {
        var line = random.pick(["get", "gets", "get", "gets", "gat", "gats"])
        if line.hasPrefix("ga") { line += gap() + number() }
        for _ in 0..<(random.chance(60) ? 1 : random.below(40)) { line += gap() + key() }
        return Array((line + noreply() + lineEnd()).utf8)
    }

    private mutating func value(_ announced: String, end: String = "\r\n") -> [UInt8] {
        let length = Int(announced) ?? 0
        guard length >= 0, length < 200 else { return [] }
        let off = random.chance(93) ? 0 : random.below(5) - 2
        let value = (0..<max(length + off, 0)).map { _ in
            random.chance(90) ? UInt8(ascii: "v") : UInt8(random.below(256))
        }
        return value + (random.chance(95) ? [13, 10] : [UInt8(random.below(256)), 10])
    }

    private mutating func storage() -> [UInt8] {
        let name = random.pick(["set", "set", "set", "add", "replace", "append", "prepend", "cas"])
        let length = random.chance(80) ? String(random.below(60)) : number()
        var line = name + gap() + key() + gap() + number() + gap() + number() + gap() + length
        if name == "cas" || random.chance(5) { line += gap() + number() }
        return Array((line + noreply() + lineEnd()).utf8) + value(length)
    }

    private mutating func counted() -> [UInt8] {
        let name = random.pick(["delete", "incr", "decr", "touch"])
        var line = name + gap() + key()
        if name != "delete" || random.chance(20) { line += gap() + number() }
        return Array((line + noreply() + lineEnd()).utf8)
    }

    private mutating func flags() -> String {
        var line = ""
        let count = random.chance(95) ? random.below(7) : 14 + random.below(12)
        for _ in 0..<count {
            let letter = random.pick(Array("bcfhklqstuvxIPLOTNRCEFJDMM"))
            line += gap() + String(letter)
            switch letter {
            case "T", "N", "R", "C", "E", "F", "J", "D": line += number()
            case "O": line += random.pick(["", "abc", String(repeating: "o", count: 30 + random.below(4))])
            case "M": line += random.pick(["S", "E", "A", "P", "R", "I", "D", "+", "-", "", "x", "SS", "\u{0}"])
            case "P", "L": line += random.pick(["", "hint"])
            default: if random.chance(4) { line += "x" }
            }
        }
        if random.chance(6) { line += gap() + random.pick(["z", "A", "-", "9", "_", "{", "é", "\u{0}", "@", "["]) }
        return line
    }

    private mutating func metaSet() -> [UInt8] {
        let length = random.chance(85) ? String(random.below(60)) : number()
        return Array(("ms" + gap() + key() + gap() + length + flags() + lineEnd()).utf8) + value(length)
    }

    private mutating func metaOther() -> [UInt8] {
        Array((random.pick(["mg", "mg", "mg", "md", "ma", "me"]) + gap() + key() + flags() + lineEnd()).utf8)
    }

    private mutating func other() -> [UInt8] {
        let lines = [
            "mn", "mn", "mn x", "m", "mm", "", " ", "\r", "quit x", "version", "version noreply", "stats", "stats r",
            "stats noreply", "flush_all", "flush_all 0", "flush_all noreply", "flush_all 5 noreply", "flush_all x",
            "flush_all x noreply", " flush_all", "verbosity", "verbosity 1", "verbosity noreply", "verbosity 1 noreply",
            "watch", "lru tune", "lru", "slabs automove 1", "slabs", "shutdown graceful", "cache_memlimit 64",
            "config get cluster",
            "lru_crawler metadump all", "refresh_certs", "debugtime p", "extstore item_age 1", "nonsense",
            "nonsense noreply",
            "GET / HTTP/1.1", "nonsense / HTTP/1.1", "GET / HTTP", " get k", "  mg k v", "sets k 0 0 1", "gett k",
            "verbosity 1 2 3",
        ]
        return Array((random.pick(lines) + lineEnd()).utf8)
    }

    // MARK: Binary

    private mutating func binary() -> [UInt8] {
        let opcodes: [UInt8] = Array(0x00...0x24) + [0x30, 0xfe]
        let opcode = random.pick(opcodes)
        var extras = 0
        switch opcode {
        case 0x01...0x03, 0x11...0x13: extras = 8
        case 0x05, 0x06, 0x15, 0x16: extras = 20
        case 0x1c...0x1e, 0x23, 0x24: extras = 4
        case 0x08, 0x18: extras = random.pick([0, 4])
        default: extras = 0
        }
        let keyless = [0x07, 0x08, 0x0a, 0x0b, 0x17, 0x18, 0x20].contains(opcode)
        var key = keyless ? 0 : random.chance(92) ? 1 + random.below(20) : 248 + random.below(6)
        var value =
            [0x01...0x03, 0x0e...0x0f, 0x11...0x13, 0x19...0x1a].contains { $0.contains(opcode) } ? random.below(40) : 0
        if random.chance(8) { extras = random.below(24) }
        if random.chance(5) { key = random.below(4) }
        if random.chance(5) { value = random.below(10) }
        var body = extras + key + value
        if random.chance(3) {
            body = random.pick([0, body &- 1 & 0xffff, body + 1, 1 << 30, (1 << 30) + 1, 0xffff_ffff])
        }
        let magic: UInt8 = random.chance(98) ? 0x80 : 0x81
        var packet: [UInt8] = [magic, opcode, UInt8(key >> 8), UInt8(key & 255), UInt8(extras), 0, 0, 0]
        packet += [UInt8(body >> 24 & 255), UInt8(body >> 16 & 255), UInt8(body >> 8 & 255), UInt8(body & 255)]
        packet += (0..<4).map { _ in UInt8(random.below(256)) }
        packet += random.chance(80) ? [UInt8](repeating: 0, count: 8) : (0..<8).map { _ in UInt8(random.below(256)) }
        return packet + (0..<(extras + key + value)).map { _ in UInt8(random.below(256)) }
    }
}
