// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The rows of the column family `meta`. Numbers are little endian.
enum MetaRows {
    /// The store's random name, in hexadecimal digits: the stream's `source`.
    static let identity = Array("identity".utf8)
    /// The stream's epoch, eight bytes.
    static let epoch = Array("epoch".utf8)
    /// The clock's mark: no version above it was committed.
    static let versionMark = Array("hlc".utf8)
    /// The first kept sequence number of each slot, eight bytes each.
    static let trim = Array("trim".utf8)
    /// The format, eight bytes; the file MARTLET says it too.
    static let format = Array("format".utf8)

    /// A row that is one number.
    static func encode(_ number: UInt64) -> [UInt8] {
        var bytes: [UInt8] = []
        append(number, to: &bytes)
        return bytes
    }

    /// The number that a row is; nil when it is none.
    static func number(_ row: [UInt8]?) -> UInt64? {
        guard let row, row.count == 8 else { return nil }
        return row.span.word(at: 0)
    }

    /// A row of one number for each slot.
    static func encode(_ numbers: [UInt64]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(8 * numbers.count)
        for number in numbers { append(number, to: &bytes) }
        return bytes
    }

    /// The numbers that a row has; nil when they are not one for each slot.
    static func numbers(_ row: [UInt8]?) -> [UInt64]? {
        guard let row, row.count == 8 * OutboxKey.slots else { return nil }
        let span = row.span
        return (0..<OutboxKey.slots).map { span.word(at: 8 * $0) }
    }
}
