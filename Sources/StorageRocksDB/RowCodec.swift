// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// How a row lies in the column family `kv`: a head of 25 bytes, then the value. Numbers are little endian.
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | 4 | checksum: XXH3 of the rest and of the key, its low half |
/// | 4 | 1 | form (1) in the high half, state in the low half: 0 live, 1 tombstone |
/// | 5 | 4 | the client's flags |
/// | 9 | 8 | version |
/// | 17 | 8 | expiry in milliseconds of Unix time, 0 for never |
///
/// RocksDB has checksums of its own for blocks of files and records of the log; this one also covers the row's way
/// through memory, and ties it to its key.
enum RowCodec {
    /// Bytes before the value.
    static let headBytes = 25
    private static let form: UInt8 = 0x10

    /// What a row is, besides its value.
    struct Head: Equatable {
        var isTombstone: Bool
        var clientFlags: UInt32
        var version: UInt64
        var expiryMilliseconds: Int64

        /// Whether there is a row for clients at `now`.
        func isLive(at now: Int64) -> Bool { !isTombstone && (expiryMilliseconds == 0 || expiryMilliseconds > now) }
    }

    /// What lies under a key.
    enum Content: Equatable {
        case row(StoredRow)
        case tombstone(version: UInt64)
        /// The checksum or the form is wrong.
        case damaged
    }

    /// The head for `value` under a key whose stable hash is `keyHash`, in place of what is in `bytes`.
    static func encode(_ head: Head, value: [UInt8], keyHash: UInt64, into bytes: inout [UInt8]) {
        bytes.removeAll(keepingCapacity: true)
        append(UInt32(0), to: &bytes)
        bytes.append(form | (head.isTombstone ? 1 : 0))
        append(head.clientFlags, to: &bytes)
        append(head.version, to: &bytes)
        append(UInt64(bitPattern: head.expiryMilliseconds), to: &bytes)
        let sum = checksum(head: bytes.span, value: value.span, keyHash: keyHash)
        for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * index)) }
    }

    /// What `bytes` hold under a key whose stable hash is `keyHash`. Copies the value, unless it is not wanted: the row
    /// has none then.
    static func decode(_ bytes: Span<UInt8>, keyHash: UInt64, hasValue: Bool = true) -> Content {
        guard let head = head(bytes), isWhole(bytes, keyHash: keyHash) else { return .damaged }
        if head.isTombstone { return .tombstone(version: head.version) }
        return .row(
            StoredRow(
                version: head.version, expiryMilliseconds: head.expiryMilliseconds, clientFlags: head.clientFlags,
                value: hasValue ? copy(bytes, from: headBytes) : []))
    }

    /// The head alone, unchecked; nil when there are too few bytes, or the form is unknown.
    static func head(_ bytes: Span<UInt8>) -> Head? {
        guard bytes.count >= headBytes, bytes[4] & 0xf0 == form, bytes[4] & 0x0f <= 1 else { return nil }
        return Head(
            isTombstone: bytes[4] & 0x0f == 1, clientFlags: UInt32(truncatingIfNeeded: bytes.word(at: 5)),
            version: bytes.word(at: 9), expiryMilliseconds: Int64(bitPattern: bytes.word(at: 17)))
    }

    /// Whether the checksum is right.
    static func isWhole(_ bytes: Span<UInt8>, keyHash: UInt64) -> Bool {
        guard bytes.count >= headBytes else { return false }
        let stored = UInt32(truncatingIfNeeded: bytes.word(at: 0))
        let sum = checksum(
            head: bytes.extracting(0..<headBytes), value: bytes.extracting(headBytes..<bytes.count), keyHash: keyHash)
        return stored == sum
    }

    private static func checksum(head: Span<UInt8>, value: Span<UInt8>, keyHash: UInt64) -> UInt32 {
        let headSum = stableHash(head.extracting(4..<head.count), seed: keyHash)
        return UInt32(truncatingIfNeeded: stableHash(value, seed: headSum))
    }
}

/// Appends a number, its lowest byte first.
func append(_ number: some FixedWidthInteger & UnsignedInteger, to bytes: inout [UInt8]) {
    for shift in stride(from: 0, to: number.bitWidth, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: number >> shift))
    }
}

/// The bytes of `span` from `start` on, as an array.
func copy(_ span: Span<UInt8>, from start: Int = 0) -> [UInt8] {
    [UInt8](capacity: span.count - start) { output in
        for index in start..<span.count { output.append(span[index]) }
    }
}
