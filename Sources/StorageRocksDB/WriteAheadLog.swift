// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage

/// Looks at RocksDB's write-ahead logs before RocksDB does.
///
/// RocksDB is told to end a log at the first record that is not whole, because that is how an interrupted write looks.
/// A record that a bit flipped in looks the same, and everything behind it would be dropped without a word, though it
/// was acknowledged. The two can be told apart where each commit is synced before the next is written: behind an
/// interrupted write there is nothing. So a whole record that begins behind a broken one in the same log means damage,
/// and the start is refused. See docs/decisions/0008-write-ahead-log.md.
///
/// Source: RocksDB's wiki, Write Ahead Log File Format: blocks of 32 KiB; fragments of a masked CRC-32C, a length, a
/// type and the payload.
enum WriteAheadLog {
    private static let blockBytes = 32_768
    private static let headBytes = 7
    /// Logs that are larger are not looked at: they do not fit the settings that we open stores with.
    private static let limitBytes = 4 << 30

    /// Where something is wrong.
    struct Damage: Equatable {
        /// Of the first fragment that is not whole.
        var offset: Int
        /// Of the first record behind it that is.
        var nextRecord: Int
    }

    /// Refuses the store in the directory `path` if one of its logs is damaged in the middle.
    static func check(_ path: String) throws(StorageStartError) {
        let names = try starting(path) { () throws(SystemError) in try directoryEntries(path) }
        for name in names.sorted() where name.hasSuffix(".log") {
            if let length = fileLength(path + "/" + name), length > limitBytes { continue }
            let bytes = try starting(path) { () throws(SystemError) in
                try readFile(path + "/" + name, limitBytes: limitBytes)
            }
            guard let damage = examine(bytes) else { continue }
            throw StorageStartError(
                "storage path \(path): the log \(name) is damaged at byte \(damage.offset), and acknowledged writes "
                    + "lie behind it (from byte \(damage.nextRecord)): restore a backup, or start once with "
                    + "storage.acceptDamagedLog, to open the store as it was before the damage and give up what came "
                    + "later")
        }
    }

    /// The first damage that has a whole record behind it; nil when there is none.
    static func examine(_ bytes: [UInt8]) -> Damage? {
        let span = bytes.span
        var broken: Int?
        var sequence: UInt64?
        var block = 0
        while block < span.count {
            let end = min(block + blockBytes, span.count)
            var offset = block
            var isSearching = false
            while offset + headBytes <= end {
                let type = span[offset + 6]
                // What was reserved and not written is zero to the end of the file: nothing is behind it but what a
                // disk that lost a page leaves.
                if !isSearching, type == 0, span[offset + 4] == 0, span[offset + 5] == 0 {
                    broken = broken ?? offset
                    break
                }
                if let length = wholeFragment(span, offset, end) {
                    if isFirst(type), length >= 8 {
                        let number = span.word(at: offset + headBytes)
                        if let broken, follows(number, sequence) { return Damage(offset: broken, nextRecord: offset) }
                        if broken == nil { sequence = number }
                    }
                    offset += headBytes + length
                    isSearching = false
                } else {
                    // The length cannot be trusted: what follows may begin anywhere.
                    broken = broken ?? offset
                    offset += 1
                    isSearching = true
                }
            }
            block += blockBytes
        }
        return nil
    }

    /// The length of the fragment at `offset`, if it is whole and ends before `end`.
    private static func wholeFragment(_ span: Span<UInt8>, _ offset: Int, _ end: Int) -> Int? {
        let length = Int(span[offset + 4]) | Int(span[offset + 5]) << 8
        guard (1...4).contains(span[offset + 6]), offset + headBytes + length <= end else { return nil }
        return checksum(span, offset, length) == stored(span, offset) ? length : nil
    }

    /// Whether a fragment begins a record: 1 is one in one piece, 2 the first piece of one.
    private static func isFirst(_ type: UInt8) -> Bool { type == 1 || type == 2 }

    /// Whether a record with this sequence number can stand behind the last whole one: bytes of a value that look like
    /// a record do not.
    private static func follows(_ number: UInt64, _ last: UInt64?) -> Bool {
        guard let last else { return true }
        return number > last && number - last < 1 << 24
    }

    private static func stored(_ span: Span<UInt8>, _ offset: Int) -> UInt32 {
        UInt32(span[offset]) | UInt32(span[offset + 1]) << 8 | UInt32(span[offset + 2]) << 16
            | UInt32(span[offset + 3]) << 24
    }

    /// The masked checksum of the type and the payload.
    private static func checksum(_ span: Span<UInt8>, _ offset: Int, _ length: Int) -> UInt32 {
        let sum = CRC32C.checksum(span, from: offset + 6, length: length + 1)
        return (sum >> 15 | sum << 17) &+ 0xa282_ead8
    }
}

/// CRC-32C, eight bytes a step. Source: RFC 3720, B.4; slicing-by-8 of Kounavis and Berry (2005).
enum CRC32C {
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for index in 0..<256 {
            var entry = UInt32(index)
            for _ in 0..<8 { entry = entry >> 1 ^ (0x82f6_3b78 & (0 &- (entry & 1))) }
            tables[index] = entry
        }
        for index in 256..<8 * 256 {
            let before = tables[index - 256]
            tables[index] = before >> 8 ^ tables[Int(before & 0xff)]
        }
        return tables
    }()

    /// The checksum of `length` bytes from `offset` on.
    static func checksum(_ bytes: Span<UInt8>, from offset: Int, length: Int) -> UInt32 {
        let tables = tables.span
        var sum = UInt32.max
        var position = offset
        let end = offset + length
        while position + 8 <= end {
            let word = bytes.word(at: position) ^ UInt64(sum)
            sum = 0
            for byte in 0..<8 {
                sum ^= tables[(7 - byte) * 256 + Int(truncatingIfNeeded: word >> UInt64(8 * byte) & 0xff)]
            }
            position += 8
        }
        while position < end {
            sum = sum >> 8 ^ tables[Int((sum ^ UInt32(bytes[position])) & 0xff)]
            position += 1
        }
        return ~sum
    }
}
