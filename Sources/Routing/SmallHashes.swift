// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A byte as C's `char` on x86-64 widens it: from 128 on it is negative.
///
/// libmemcached and twemproxy add characters, not bytes, so keys that are not ASCII hash by this there.
@inline(__always)
private func widened(_ byte: UInt8) -> UInt32 { UInt32(bitPattern: Int32(Int8(bitPattern: byte))) }

/// FNV-1 of 32 bits. Source: RFC 9923; characters as libmemcached widens them.
func fnv1(_ bytes: Span<UInt8>) -> UInt32 {
    var value: UInt32 = 0x811c_9dc5
    for index in 0..<bytes.count { value = value &* 0x0100_0193 ^ widened(bytes[index]) }
    return value
}

/// FNV-1a of 32 bits. Source: RFC 9923; characters as libmemcached widens them.
func fnv1a(_ bytes: Span<UInt8>) -> UInt32 {
    var value: UInt32 = 0x811c_9dc5
    for index in 0..<bytes.count { value = (value ^ widened(bytes[index])) &* 0x0100_0193 }
    return value
}

/// The lower half of FNV-1 of 64 bits: libmemcached's and twemproxy's fnv1_64.
///
/// No step of FNV-1 carries anything down from the upper half, so the lower half is computed alone.
func fnv1Lower64(_ bytes: Span<UInt8>) -> UInt32 {
    var value: UInt32 = 0x8422_2325
    for index in 0..<bytes.count { value = value &* 0x0000_01b3 ^ widened(bytes[index]) }
    return value
}

/// The lower half of FNV-1a of 64 bits: libmemcached's and twemproxy's fnv1a_64.
func fnv1aLower64(_ bytes: Span<UInt8>) -> UInt32 {
    var value: UInt32 = 0x8422_2325
    for index in 0..<bytes.count { value = (value ^ widened(bytes[index])) &* 0x0000_01b3 }
    return value
}

/// Jenkins' one-at-a-time hash. Source: B. Jenkins, "A hash function for hash table lookup".
func oneAtATime(_ bytes: Span<UInt8>) -> UInt32 {
    var value: UInt32 = 0
    for index in 0..<bytes.count {
        value &+= widened(bytes[index])
        value &+= value &<< 10
        value ^= value &>> 6
    }
    value &+= value &<< 3
    value ^= value &>> 11
    return value &+ value &<< 15
}

/// Hsieh's hash. Source: P. Hsieh, "Hash functions"; empty keys give 0.
func superFast(_ bytes: Span<UInt8>) -> UInt32 {
    guard bytes.count > 0 else { return 0 }
    func pair(_ offset: Int) -> UInt32 { UInt32(bytes[offset]) | UInt32(bytes[offset &+ 1]) &<< 8 }
    var value: UInt32 = 0
    var offset = 0
    while bytes.count &- offset >= 4 {
        value &+= pair(offset)
        value = value &<< 16 ^ (pair(offset &+ 2) &<< 11 ^ value)
        value &+= value &>> 11
        offset &+= 4
    }
    switch bytes.count &- offset {
    case 3:
        value &+= pair(offset)
        value ^= value &<< 16
        value ^= widened(bytes[offset &+ 2]) &<< 18
        value &+= value &>> 11
    case 2:
        value &+= pair(offset)
        value ^= value &<< 11
        value &+= value &>> 17
    case 1:
        value &+= UInt32(bytes[offset])
        value ^= value &<< 10
        value &+= value &>> 1
    default: break
    }
    value ^= value &<< 3
    value &+= value &>> 5
    value ^= value &<< 4
    value &+= value &>> 17
    value ^= value &<< 25
    return value &+ value &>> 6
}

/// Jenkins' lookup3 with 13 for its initial value: libmemcached's and twemproxy's jenkins. Source: B. Jenkins, lookup3.
func lookup3(_ bytes: Span<UInt8>) -> UInt32 {
    var state = Lookup3State(length: bytes.count)
    var offset = 0
    while bytes.count &- offset > 12 {
        state.add(bytes, from: offset, length: 12)
        state.mix()
        offset &+= 12
    }
    guard bytes.count > offset else { return state.c }
    state.add(bytes, from: offset, length: bytes.count &- offset)
    state.finish()
    return state.c
}

private struct Lookup3State {
    var a: UInt32
    var b: UInt32
    var c: UInt32

    init(length: Int) {
        a = 0xdead_beef &+ UInt32(truncatingIfNeeded: length) &+ 13
        b = a
        c = a
    }

    mutating func add(_ bytes: Span<UInt8>, from offset: Int, length: Int) {
        for index in 0..<length {
            let part = UInt32(bytes[offset &+ index]) &<< UInt32(truncatingIfNeeded: (index & 3) &* 8)
            switch index &>> 2 {
            case 0: a &+= part
            case 1: b &+= part
            default: c &+= part
            }
        }
    }

    mutating func mix() {
        (a, c) = (a &- c ^ turned(c, 4), c &+ b)
        (b, a) = (b &- a ^ turned(a, 6), a &+ c)
        (c, b) = (c &- b ^ turned(b, 8), b &+ a)
        (a, c) = (a &- c ^ turned(c, 16), c &+ b)
        (b, a) = (b &- a ^ turned(a, 19), a &+ c)
        (c, b) = (c &- b ^ turned(b, 4), b &+ a)
    }

    mutating func finish() {
        c = (c ^ b) &- turned(b, 14)
        a = (a ^ c) &- turned(c, 11)
        b = (b ^ a) &- turned(a, 25)
        c = (c ^ b) &- turned(b, 16)
        a = (a ^ c) &- turned(c, 4)
        b = (b ^ a) &- turned(a, 14)
        c = (c ^ b) &- turned(b, 24)
    }

    private func turned(_ value: UInt32, _ bits: UInt32) -> UInt32 { value &<< bits | value &>> (32 &- bits) }
}
