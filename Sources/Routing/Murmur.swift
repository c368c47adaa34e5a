// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// MurmurHash64A: MurmurHash2 in its form of 64 bits. Source: A. Appleby, MurmurHash2, public domain.
func murmur64A(_ bytes: Span<UInt8>, seed: UInt64) -> UInt64 {
    var value = seed ^ UInt64(truncatingIfNeeded: bytes.count) &* Murmur64.multiplier
    var offset = 0
    while bytes.count &- offset >= 8 {
        value = Murmur64.added(bytes.word(at: offset), to: value)
        offset &+= 8
    }
    if bytes.count > offset {
        var rest: UInt64 = 0
        for index in 0..<(bytes.count &- offset) {
            rest |= UInt64(bytes[offset &+ index]) &<< UInt64(truncatingIfNeeded: index &* 8)
        }
        value = (value ^ rest) &* Murmur64.multiplier
    }
    return Murmur64.finished(value)
}

/// MurmurHash64A's steps.
enum Murmur64 {
    static var multiplier: UInt64 { 0xc6a4_a793_5bd1_e995 }

    @inline(__always)
    static func added(_ word: UInt64, to value: UInt64) -> UInt64 {
        var mixed = word &* multiplier
        mixed ^= mixed &>> 47
        return (value ^ mixed &* multiplier) &* multiplier
    }

    @inline(__always)
    static func finished(_ value: UInt64) -> UInt64 {
        let mixed = (value ^ value &>> 47) &* multiplier
        return mixed ^ mixed &>> 47
    }
}

/// MurmurHash2 of 32 bits, seeded by the length: libmemcached's and twemproxy's murmur. Source: A. Appleby,
/// MurmurHash2.
func murmur2(_ bytes: Span<UInt8>) -> UInt32 {
    let multiplier: UInt32 = 0x5bd1_e995
    let length = UInt32(truncatingIfNeeded: bytes.count)
    var value = 0xdead_beef &* length ^ length
    var offset = 0
    while bytes.count &- offset >= 4 {
        var word = littleEndian(bytes, from: offset, length: 4) &* multiplier
        word ^= word &>> 24
        value = value &* multiplier ^ word &* multiplier
        offset &+= 4
    }
    if bytes.count > offset {
        value = (value ^ littleEndian(bytes, from: offset, length: bytes.count &- offset)) &* multiplier
    }
    value = (value ^ value &>> 13) &* multiplier
    return value ^ value &>> 15
}

/// MurmurHash3 for x86 of 32 bits. Source: A. Appleby, MurmurHash3, public domain.
func murmur3(_ bytes: Span<UInt8>, seed: UInt32) -> UInt32 {
    var state = Murmur3State(seed: seed)
    for index in 0..<bytes.count { state.add(bytes[index]) }
    return state.value
}

/// MurmurHash3 of bytes that come one after the other, so that what follows a common beginning need not hash it again.
struct Murmur3State: Sendable {
    private var hash: UInt32
    private var pending: UInt32 = 0
    private var count: UInt32 = 0

    init(seed: UInt32) { hash = seed }

    private static func scrambled(_ word: UInt32) -> UInt32 {
        let first = word &* 0xcc9e_2d51
        return (first &<< 15 | first &>> 17) &* 0x1b87_3593
    }

    @inline(__always)
    mutating func add(_ byte: UInt8) {
        pending |= UInt32(byte) &<< ((count & 3) &* 8)
        count &+= 1
        guard count & 3 == 0 else { return }
        hash ^= Self.scrambled(pending)
        hash = (hash &<< 13 | hash &>> 19) &* 5 &+ 0xe654_6b64
        pending = 0
    }

    /// The hash of what was added.
    var value: UInt32 {
        var result = hash
        if count & 3 != 0 { result ^= Self.scrambled(pending) }
        result ^= count
        result = (result ^ result &>> 16) &* 0x85eb_ca6b
        result = (result ^ result &>> 13) &* 0xc2b2_ae35
        return result ^ result &>> 16
    }
}

private func littleEndian(_ bytes: Span<UInt8>, from offset: Int, length: Int) -> UInt32 {
    var word: UInt32 = 0
    for index in 0..<length { word |= UInt32(bytes[offset &+ index]) &<< UInt32(truncatingIfNeeded: index &* 8) }
    return word
}
