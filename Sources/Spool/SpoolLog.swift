// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform

/// The deletes that one server missed, in their order: segments in a directory of its own. For one thread; blocks.
///
/// Records are written behind the last segment and read from the first. A segment that was replayed to its end is
/// removed. What a process finds when it starts is only read: it writes segments of its own, so that a record that a
/// crash cut off is the last of its segment.
final class SpoolLog {
    let server: String
    private let directory: String
    private let configuration: SpoolConfiguration
    /// The segments, the oldest first; the last may be one that is written.
    private var segments: [Segment] = []
    /// Where the next record of the first segment begins.
    private var readOffset = Segment.header.count
    /// Records read by ``next(limit:)`` and not done with: how many, and where the one behind them begins.
    private var reading: (count: Int, offset: Int) = (0, 0)
    private var isWriting = false
    private var nextNumber: UInt64 = 1

    private struct Segment {
        /// What every version's segment begins with, and what this one's does.
        static let name = Array("martlet spool ".utf8)
        static let header = name + Array("1\n".utf8)
        let number: UInt64
        var bytes: Int
        var records: Int
    }

    /// Records that are still to be replayed.
    var count: Int { segments.reduce(0) { $0 + $1.records } }
    /// Bytes of the segments.
    var bytes: Int { segments.reduce(0) { $0 + $1.bytes } }

    /// Opens what is there of a server, or makes room for it.
    init(_ server: String, _ configuration: SpoolConfiguration) throws(SystemError) {
        self.server = server
        self.configuration = configuration
        directory = configuration.directory + "/" + Self.name(of: server)
        try makeDirectory(directory, mode: 0o700)
        let numbers = try directoryEntries(directory).compactMap(Self.number(of:)).sorted()
        for number in numbers {
            let length = fileLength(path(number)) ?? 0
            let segment = try scan(number, length)
            if segment.records > 0 { segments.append(segment) } else { removeFile(path(number)) }
        }
        nextNumber = (numbers.last ?? 0) + 1
    }

    // MARK: Names

    /// A server's name as that of a directory.
    static func name(of server: String) -> String {
        var name = ""
        for byte in server.utf8 {
            let isPlain =
                48...57 ~= byte || 65...90 ~= byte || 97...122 ~= byte || byte == UInt8(ascii: "-")
                || (byte == UInt8(ascii: ".") && !name.isEmpty)
            if isPlain {
                name.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                name += "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }
        return name
    }

    /// The server whose directory has that name; nil for other names.
    static func server(of name: String) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(name.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard rest.count >= 2, let value = Hexadecimal.bytes(String(decoding: rest.prefix(2), as: UTF8.self))
            else {
                return nil
            }
            bytes += value
            rest = rest.dropFirst(2)
        }
        let server = String(decoding: bytes, as: UTF8.self)
        return !server.isEmpty && self.name(of: server) == name ? server : nil
    }

    private func path(_ number: UInt64) -> String {
        directory + "/" + Hexadecimal.digits(number) + ".spool"
    }

    private static func number(of name: String) -> UInt64? {
        guard name.hasSuffix(".spool"), name.utf8.count == 22 else { return nil }
        return UInt64(name.prefix(16), radix: 16)
    }

    // MARK: Reading

    private static var chunkBytes: Int { 256 << 10 }

    /// Counts the records of a segment, up to the first that is none. One of a later version is left alone, and stops
    /// the start: what it tells to delete must not be forgotten.
    private func scan(_ number: UInt64, _ length: Int) throws(SystemError) -> Segment {
        var segment = Segment(number: number, bytes: length, records: 0)
        let file = try OpenFile(reading: path(number))
        let head = try file.read(at: 0, count: Segment.header.count)
        guard head == Segment.header else {
            if head.count == Segment.header.count, head.starts(with: Segment.name) {
                throw SystemError("read", code: SystemError.notSupportedCode, subject: path(number))
            }
            return segment
        }
        var offset = Segment.header.count
        while true {
            let chunk = try file.read(at: offset, count: Self.chunkBytes)
            var place = 0
            while let record = SpoolRecord.read(chunk, at: place, base: offset) {
                place += record.byteCount
                segment.records += 1
            }
            guard place > 0 else { return segment }
            offset += place
        }
    }

    /// The keys of the next records, `limit` at most; the same again until ``advance()`` is called.
    func next(limit: Int) throws(SystemError) -> [[UInt8]] {
        guard let first = segments.first else { return [] }
        let file = try OpenFile(reading: path(first.number))
        let chunk = try file.read(at: readOffset, count: min(Self.chunkBytes, first.bytes - readOffset))
        var (keys, place): ([[UInt8]], Int) = ([], 0)
        while keys.count < min(limit, first.records),
            let record = SpoolRecord.read(chunk, at: place, base: readOffset)
        {
            keys.append(record.key)
            place += record.byteCount
        }
        reading = (keys.count, readOffset + place)
        // What the disk no longer gives cannot be replayed.
        if keys.isEmpty { dropFirst() }
        return keys
    }

    /// What ``next(limit:)`` gave was replayed.
    func advance() {
        guard reading.count > 0, !segments.isEmpty else { return }
        readOffset = reading.offset
        segments[0].records -= reading.count
        reading = (0, 0)
        if segments[0].records == 0 { dropFirst() }
    }

    private func dropFirst() {
        if segments.count == 1 { isWriting = false }
        removeFile(path(segments.removeFirst().number))
        readOffset = Segment.header.count
        reading = (0, 0)
    }

    // MARK: Writing

    /// Writes records behind the others, and makes them durable where that is wanted. Nothing of it counts when it
    /// throws.
    func append(_ keys: [[UInt8]], seconds: UInt32) throws(SystemError) {
        if let last = segments.last, isWriting, last.bytes >= configuration.segmentBytes { isWriting = false }
        if !isWriting {
            segments.append(Segment(number: nextNumber, bytes: 0, records: 0))
            nextNumber += 1
            isWriting = true
        }
        let last = segments.count - 1
        let isNew = segments[last].bytes == 0
        var bytes = isNew ? Segment.header : []
        for key in keys {
            SpoolRecord(key: key, seconds: seconds).append(to: &bytes, at: segments[last].bytes + bytes.count)
        }
        do {
            // Cuts off what an attempt that failed left behind.
            let file = try OpenFile(appending: path(segments[last].number), keeping: segments[last].bytes)
            try file.append(bytes)
            if configuration.isSynced {
                try file.sync()
                if isNew { try syncDirectory(directory) }
            }
        } catch {
            if isNew {
                removeFile(path(segments.removeLast().number))
                isWriting = false
            }
            throw error
        }
        segments[last].bytes += bytes.count
        segments[last].records += keys.count
    }

    /// Bytes that ``append(_:seconds:)`` would write for these keys, a segment's head left out.
    static func bytes(for keys: [[UInt8]]) -> Int { keys.reduce(0) { $0 + SpoolRecord.headerBytes + $1.count } }
}
