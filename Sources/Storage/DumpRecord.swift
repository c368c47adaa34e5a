// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A row as it stands in a dump: on the admin port's pages, and in files behind a `header`.
///
/// Little-endian, without padding: check 4 (the low half of the XXH3 hash of what follows), key length 2, value length
/// 4, client flags 4, expiry 8 (milliseconds of Unix time, 0 is never), version 8, key, value. A file that
/// is whole ends with a record without a key, whose version is the number of rows. A page, and no file, may have a
/// record of a damaged place: its key length has the highest bit, its value is the reason, its client flags are 1 where
/// it is one row, whose key it has, and 0 where it has a key behind rows whose keys nobody knows.
package enum DumpRecord {
    private static let name = Array("MARTLET-DUMP".utf8)
    /// Bytes of a header without a prefix.
    package static let headerBytes = 16

    /// What a file begins with: a name and the number of the form; a dump of the keys with a prefix says so, so that
    /// nobody goes on with it as if it were one of all. The prefix has 250 bytes at most.
    package static func header(prefix: [UInt8] = []) -> [UInt8] {
        prefix.isEmpty ? name + [0, 0, 0, 1] : name + [0, 0, 0, 2, UInt8(prefix.count)] + prefix
    }

    /// The prefix in the header that `bytes` begin with, and where the first record is; nil when it is none, or of a
    /// form that is not known.
    package static func readHeader(_ bytes: [UInt8]) -> (prefix: [UInt8], end: Int)? {
        guard bytes.starts(with: name), bytes.count >= headerBytes else { return nil }
        switch Array(bytes[name.count..<headerBytes]) {
        case [0, 0, 0, 1]: return ([], headerBytes)
        case [0, 0, 0, 2]:
            guard bytes.count > headerBytes else { return nil }
            let end = headerBytes + 1 + Int(bytes[headerBytes])
            guard bytes.count >= end else { return nil }
            return (Array(bytes[(headerBytes + 1)..<end]), end)
        default: return nil
        }
    }

    /// Bytes before the key.
    package static let headBytes = 30

    /// Appends a row.
    package static func append(key: [UInt8], row: StoredRow, to bytes: inout [UInt8]) {
        append(key: key, row: row, lengthBits: 0, to: &bytes)
    }

    private static func append(key: [UInt8], row: StoredRow, lengthBits: UInt16, to bytes: inout [UInt8]) {
        let start = bytes.count
        append(UInt32(0), to: &bytes)
        append(UInt16(key.count) | lengthBits, to: &bytes)
        append(UInt32(row.value.count), to: &bytes)
        append(row.clientFlags, to: &bytes)
        append(UInt64(bitPattern: row.expiryMilliseconds), to: &bytes)
        append(row.version, to: &bytes)
        bytes += key
        bytes += row.value
        let check = UInt32(truncatingIfNeeded: stableHash(bytes.span.extracting((start + 4)...)))
        for index in 0..<4 { bytes[start + index] = UInt8(truncatingIfNeeded: check >> UInt32(index * 8)) }
    }

    /// Appends a damaged place.
    package static func append(damage: ScanDamage, to bytes: inout [UInt8]) {
        let row = StoredRow(
            version: 0, expiryMilliseconds: 0, clientFlags: damage.isOneRow ? 1 : 0, value: Array(damage.reason.utf8))
        append(key: damage.key, row: row, lengthBits: damageBit, to: &bytes)
    }

    private static let damageBit: UInt16 = 0x8000

    /// Appends what ends a dump that is whole: a record without a key that tells how many rows came before it.
    package static func appendEnd(rows: Int, to bytes: inout [UInt8]) {
        let count = StoredRow(version: UInt64(rows), expiryMilliseconds: 0, clientFlags: 0, value: [])
        append(key: [], row: count, to: &bytes)
    }

    /// What stands at an offset.
    package enum Step {
        /// The end of a whole dump of so many rows.
        case end(rows: Int)
        /// A row, and where the next record begins.
        case row(key: [UInt8], StoredRow, next: Int)
        /// A damaged place, and where the next record begins.
        case damage(ScanDamage, next: Int)
        /// The bytes end before the record does.
        case incomplete
        /// Not what was written: the check does not hold.
        case damaged
    }

    /// Reads the record at `offset`.
    package static func read(_ bytes: Span<UInt8>, at offset: Int) -> Step {
        guard bytes.count - offset >= headBytes else { return .incomplete }
        let bits = UInt16(number(bytes, offset + 4, 2))
        let (keyLength, isDamage) = (Int(bits & ~damageBit), bits & damageBit != 0)
        let valueLength = Int(number(bytes, offset + 6, 4))
        let next = offset + headBytes + keyLength + valueLength
        guard keyLength <= 250, keyLength > 0 || valueLength == 0, valueLength <= StoragePoolPolicy.valueLimitMax
        else { return .damaged }
        guard bytes.count >= next else { return .incomplete }
        let check = UInt32(truncatingIfNeeded: stableHash(bytes.extracting(offset + 4..<next)))
        guard UInt64(check) == number(bytes, offset, 4) else { return .damaged }
        if keyLength == 0 { return .end(rows: Int(truncatingIfNeeded: number(bytes, offset + 22, 8))) }
        let key = [UInt8](copying: bytes.extracting(offset + headBytes..<offset + headBytes + keyLength))
        let row = StoredRow(
            version: number(bytes, offset + 22, 8),
            expiryMilliseconds: Int64(bitPattern: number(bytes, offset + 14, 8)),
            clientFlags: UInt32(number(bytes, offset + 10, 4)),
            value: [UInt8](copying: bytes.extracting(offset + headBytes + keyLength..<next)))
        guard isDamage else { return .row(key: key, row, next: next) }
        let reason = String(decoding: row.value, as: UTF8.self)
        return .damage(
            ScanDamage(position: 0, key: key, isOneRow: row.clientFlags == 1, reason: reason), next: next)
    }

    private static func append<T: FixedWidthInteger>(_ value: T, to bytes: inout [UInt8]) {
        for index in 0..<T.bitWidth / 8 { bytes.append(UInt8(truncatingIfNeeded: value >> T(index * 8))) }
    }

    private static func number(_ bytes: Span<UInt8>, _ offset: Int, _ length: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<length { value |= UInt64(bytes[offset + index]) << UInt64(index * 8) }
        return value
    }
}
