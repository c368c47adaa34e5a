// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The part of a key that decides its owner, so that keys which share it live together.
package enum HashedPart: Sendable, Equatable {
    /// All of the key.
    case whole
    /// What stands before the first `|#|`; all of the key when it has none. Source: mcrouter, "Features", hash stop.
    case beforeHashStop
    /// What stands between the first `open` and the first `close` after it; all of the key when either is missing or
    /// nothing is between. Source: twemproxy, "hash_tag".
    case tag(open: UInt8, close: UInt8)
    /// What stands before the first `delimiter`, of one byte or more; all of the key when it has none or starts with
    /// it. Source: EVCache, "hash.on.partial.key", whose delimiter is a colon unless it is set.
    case before(delimiter: [UInt8])

    /// Where that part is in `key`. Does not allocate.
    package func range(in key: Span<UInt8>) -> Range<Int> {
        switch self {
        case .whole: break
        case .beforeHashStop:
            var from = 0
            while let bar = key.firstOffset(of: UInt8(ascii: "|"), from: from, to: key.count) {
                if key.holds("|#|", at: bar) { return 0..<bar }
                from = bar &+ 1
            }
        case .tag(let open, let close):
            guard let start = key.firstOffset(of: open, from: 0, to: key.count) else { break }
            guard let end = key.firstOffset(of: close, from: start &+ 1, to: key.count), end > start &+ 1 else { break }
            return (start &+ 1)..<end
        case .before(let delimiter):
            guard let end = Self.offset(of: delimiter, in: key), end > 0 else { break }
            return 0..<end
        }
        return 0..<key.count
    }

    /// Where `text` stands first in `key`; nil where it does not, and of an empty text.
    private static func offset(of text: [UInt8], in key: Span<UInt8>) -> Int? {
        guard let first = text.first else { return nil }
        var from = 0
        while let start = key.firstOffset(of: first, from: from, to: key.count) {
            guard text.count <= key.count &- start else { return nil }
            if text.indices.allSatisfy({ key[start &+ $0] == text[$0] }) { return start }
            from = start &+ 1
        }
        return nil
    }
}
