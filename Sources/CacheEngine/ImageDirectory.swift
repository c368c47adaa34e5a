// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A segment in a cache's image.
struct ImageSegment: Equatable {
    /// Whose it is.
    var shard: UInt32
    /// Bytes of items, dead ones included.
    var usedBytes: UInt32
    /// Items that live.
    var liveItems: UInt32
    /// Whether it is in the queue of items that were read.
    var isMain: Bool
    /// Whether it holds one item, and has a block of that size.
    var isLarge: Bool
    /// Where its bytes begin in the file.
    var offset: UInt64
    /// XXH3 of its bytes.
    var hash: UInt64
}

/// The list of an image's segments, shard by shard, each queue's oldest first. It lies behind the segments.
enum ImageDirectory {
    /// Bytes of an entry.
    static let entryBytes = 32

    static func encode(_ segments: [ImageSegment]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(segments.count * entryBytes)
        for segment in segments {
            append(segment.shard, to: &bytes)
            append(segment.usedBytes, to: &bytes)
            append(segment.liveItems, to: &bytes)
            append(UInt32(segment.isMain ? 1 : 0) | (segment.isLarge ? 2 : 0), to: &bytes)
            append(segment.offset, to: &bytes)
            append(segment.hash, to: &bytes)
        }
        return bytes
    }

    /// The segments; nil when the bytes are no list.
    static func decode(_ bytes: [UInt8]) -> [ImageSegment]? {
        guard bytes.count % entryBytes == 0 else { return nil }
        let span = bytes.span
        return stride(from: 0, to: bytes.count, by: entryBytes).map { start in
            let first = span.word(at: start)
            let second = span.word(at: start + 8)
            return ImageSegment(
                shard: UInt32(truncatingIfNeeded: first), usedBytes: UInt32(truncatingIfNeeded: first >> 32),
                liveItems: UInt32(truncatingIfNeeded: second), isMain: second >> 32 & 1 != 0,
                isLarge: second >> 33 & 1 != 0, offset: span.word(at: start + 16), hash: span.word(at: start + 24))
        }
    }
}
