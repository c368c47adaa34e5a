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
/// and the start is refused. So does a later log whose first record does not take up the count where the broken log
/// ends: an interrupted write never counted, and RocksDB itself goes on in the next log only where the count does. See
/// docs/decisions/0008-write-ahead-log.md.
///
/// Source: RocksDB's wiki, Write Ahead Log File Format: blocks of 32 KiB; fragments of a masked CRC-32C, a length, a
/// type and the payload, which begins with the number of the first change and the number of changes.
struct WriteAheadLog {
    private static let blockBytes = 32_768
    private static let headBytes = 7
    /// What a record begins with: the number of its first change, and how many there are.
    private static let recordHeadBytes = 12
    /// What is read at once: whole blocks.
    private static let chunkBytes = 256 * blockBytes

    /// A byte of one of the logs.
    struct Place: Equatable {
        var log: String
        var offset: Int
    }

    /// Where something is wrong.
    struct Damage: Equatable {
        /// The first fragment that is not whole.
        var broken: Place
        /// The first record behind it that is.
        var nextRecord: Place
    }

    /// The log that is looked at.
    private let log: String
    /// The first fragment that is not whole, in this log or in one before it.
    private var broken: Place?
    /// Whether one of this log is not.
    private var isBroken = false
    /// The number of the last record that began whole.
    private var sequence: UInt64?
    /// The number that the next record has, behind the whole ones.
    private var expected: UInt64?
    /// A record whose end has not been seen: where it begins, and the number behind it, which a record does not tell
    /// that begins with a few bytes in the last ones of a block.
    private var open: (offset: Int, end: UInt64?)?

    /// Goes on with a log behind those that `earlier` has looked at.
    private init(_ log: String, behind earlier: WriteAheadLog?) {
        self.log = log
        (broken, sequence, expected) = (earlier?.broken, earlier?.sequence, earlier?.expected)
    }

    /// Refuses the store in the directory `path` if one of its logs is damaged and acknowledged writes lie behind that.
    static func check(_ path: String) throws(StorageStartError) {
        let names = try starting(path) { () throws(SystemError) in try directoryEntries(path) }
        let logs = names.filter { $0.hasSuffix(".log") }.compactMap { name in
            Int(name.dropLast(4)).map { (number: $0, name: name) }
        }
        var earlier: WriteAheadLog?
        for (_, name) in logs.sorted(by: { $0.number < $1.number }) {
            var log = WriteAheadLog(name, behind: earlier)
            if let damage = try starting(path, { () throws(SystemError) in try log.read(path + "/" + name) }) {
                let (broken, next) = (damage.broken, damage.nextRecord)
                let later = next.log == broken.log ? "" : " of \(next.log)"
                throw StorageStartError(
                    "storage path \(path): the log \(broken.log) is damaged at byte \(broken.offset), and "
                        + "acknowledged writes lie behind it (from byte \(next.offset)\(later)): restore a backup, or "
                        + "start once with storage.acceptDamagedLog, to open the store as it was before the damage and "
                        + "give up what came later")
            }
            earlier = log
        }
    }

    /// The first damage of one log that has a whole record behind it; nil when there is none.
    static func examine(_ bytes: [UInt8]) -> Damage? {
        var log = WriteAheadLog("", behind: nil)
        return log.look(bytes, at: 0)
    }

    private mutating func read(_ path: String) throws(SystemError) -> Damage? {
        let file = try OpenFile(reading: path)
        var offset = 0
        while true {
            let bytes = try file.read(at: offset, count: Self.chunkBytes)
            if let damage = look(bytes, at: offset) { return damage }
            offset += bytes.count
            if bytes.count < Self.chunkBytes { break }
        }
        // A record that the log ends in the middle of.
        if let open { noteBroken(open.offset) }
        return nil
    }

    /// Looks at the blocks that begin at `start`, which is where a block does.
    private mutating func look(_ bytes: [UInt8], at start: Int) -> Damage? {
        let span = bytes.span
        var block = 0
        while block < span.count {
            let end = min(block + Self.blockBytes, span.count)
            var offset = block
            var isSearching = false
            while offset + Self.headBytes <= end {
                let type = span[offset + 6]
                // What was reserved and not written is zero to the end of the file: nothing is behind it but what a
                // disk that lost a page leaves.
                if !isSearching, type == 0, span[offset + 4] == 0, span[offset + 5] == 0 {
                    noteBroken(start + offset)
                    break
                }
                if let length = Self.wholeFragment(span, offset, end) {
                    if let damage = note(span, offset, length, type, at: start) { return damage }
                    offset += Self.headBytes + length
                    isSearching = false
                } else {
                    // The length cannot be trusted: what follows may begin anywhere.
                    noteBroken(start + offset)
                    offset += 1
                    isSearching = true
                }
            }
            // A head that was cut; at the end of a whole block there is none.
            if offset < end, end - block < Self.blockBytes { noteBroken(start + offset) }
            block += Self.blockBytes
        }
        return nil
    }

    private mutating func noteBroken(_ offset: Int) {
        broken = broken ?? Place(log: log, offset: offset)
        isBroken = true
        open = nil
    }

    /// Notes a whole fragment; gives the damage that it proves.
    private mutating func note(
        _ span: Span<UInt8>, _ offset: Int, _ length: Int, _ type: UInt8, at start: Int
    ) -> Damage? {
        guard Self.isFirst(type), length >= Self.recordHeadBytes else {
            if type == Self.first { open = (start + offset, nil) }
            if type == Self.last, let record = open { (expected, open) = (record.end, nil) }
            return nil
        }
        let number = span.word(at: offset + Self.headBytes)
        let end = number &+ UInt64(Self.number(span, offset + Self.headBytes + 8))
        if let broken {
            if isBroken ? Self.follows(number, sequence) : isBehind(number) {
                return Damage(broken: broken, nextRecord: Place(log: log, offset: start + offset))
            }
            if isBroken { return nil }
            // The store was opened since, and nothing was behind the broken record.
            self.broken = nil
        }
        sequence = number
        if type == Self.first { open = (start + offset, end) } else { expected = end }
        return nil
    }

    /// Whether the first record of a log leaves numbers out behind a broken log. Where nothing of that one could be
    /// read, nobody knows.
    private func isBehind(_ number: UInt64) -> Bool { expected.map { number > $0 } ?? false }

    /// The length of the fragment at `offset`, if it is whole and ends before `end`.
    private static func wholeFragment(_ span: Span<UInt8>, _ offset: Int, _ end: Int) -> Int? {
        let length = Int(span[offset + 4]) | Int(span[offset + 5]) << 8
        guard (1...4).contains(span[offset + 6]), offset + headBytes + length <= end else { return nil }
        return checksum(span, offset, length) == number(span, offset) ? length : nil
    }

    /// The types of fragments: a whole record, and the first and the last piece of one.
    private static let whole: UInt8 = 1
    private static let first: UInt8 = 2
    private static let last: UInt8 = 4

    /// Whether a fragment begins a record.
    private static func isFirst(_ type: UInt8) -> Bool { type == whole || type == first }

    /// Whether a record with this sequence number can stand behind the last whole one: bytes of a value that look like
    /// a record do not.
    private static func follows(_ number: UInt64, _ last: UInt64?) -> Bool {
        guard let last else { return true }
        return number > last && number - last < 1 << 24
    }

    private static func number(_ span: Span<UInt8>, _ offset: Int) -> UInt32 {
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
