// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage

/// Files of `martletctl dump`.
enum DumpFile {
    /// How far a dump is read or written.
    struct Place {
        /// Bytes, all of whole records.
        var offset = 0
        /// The last key before it.
        var key: [UInt8] = []
        /// Rows before it.
        var rows = 0
        /// What all of its keys begin with.
        var prefix: [UInt8] = []
        /// Whether the record that ends a whole dump stands there.
        var isWhole = false
    }

    /// What is read at once.
    private static let chunkBytes = 8 << 20

    /// Where the whole records of a dump end: what an interrupted run wrote of another one does not count.
    static func end(of path: String) throws(ControlError) -> Place {
        let header = try header(of: path)
        var place = Place(offset: header.end, prefix: header.prefix)
        place.isWhole = try each(path, from: 0) { (key, _, next) throws(ControlError) in
            place.offset = next
            place.key = key
            place.rows += 1
        }
        return place
    }

    private static func header(of path: String) throws(ControlError) -> (prefix: [UInt8], end: Int) {
        let file = try system { () throws(SystemError) in try OpenFile(reading: path) }
        guard let header = DumpRecord.readHeader(try read(file, at: 0, count: DumpRecord.headerBytes + 251)) else {
            throw ControlError(.data, "\(path) is no dump of martletctl, or of another version")
        }
        return header
    }

    /// Calls `body` with each row of the file from `offset` on (0 is the header's start), and the offset behind it.
    /// Returns whether the dump is whole: what an interrupted run left is not, and its last record may be cut. A
    /// damaged record is an error.
    static func each(
        _ path: String, from offset: Int,
        _ body: (_ key: [UInt8], _ row: StoredRow, _ next: Int) throws(ControlError) -> Void
    ) throws(ControlError) -> Bool {
        let file = try system { () throws(SystemError) in try OpenFile(reading: path) }
        var start = offset
        if start == 0 { start = try header(of: path).end }
        var wanted = chunkBytes
        var rows = 0
        while true {
            let bytes = try read(file, at: start, count: wanted)
            var position = 0
            reading: while true {
                switch DumpRecord.read(bytes.span, at: position) {
                case .row(let key, let row, let next):
                    try body(key, row, start + next)
                    position = next
                    rows += 1
                case .end(let count):
                    // Of a run that began in the middle, nobody knows.
                    guard offset > 0 || count == rows else {
                        throw ControlError(.data, "\(path): \(rows) rows, and \(count) by its end: it is damaged")
                    }
                    return true
                case .incomplete: break reading
                // Only pages have records of damaged places.
                case .damaged, .damage: throw ControlError(.data, "\(path): damaged at byte \(start + position)")
                }
            }
            start += position
            if bytes.count < wanted { return false }
            // A record longer than the chunk: read more of it.
            wanted = position == 0 ? wanted * 2 : chunkBytes
        }
    }

    private static func read(_ file: borrowing OpenFile, at offset: Int, count: Int) throws(ControlError) -> [UInt8] {
        do throws(SystemError) { return try file.read(at: offset, count: count) } catch {
            throw ControlError(.system, error.description)
        }
    }
}
