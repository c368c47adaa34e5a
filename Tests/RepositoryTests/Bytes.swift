// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Searching in bytes: the C library does it as fast in a debug build as in any other, and Swift's characters do not.
enum Bytes {
    /// Whether `part` is in `text`.
    static func contain(_ part: String, in text: String) -> Bool { !offsets(of: part, in: text, limit: 1).isEmpty }

    /// Where `part`, which is not empty, begins in the text's UTF-8, at most `limit` times; occurrences may overlap.
    static func offsets(of part: String, in text: String, limit: Int = .max) -> [Int] {
        var (text, part) = (text, part)
        // SAFETY: both strings lie where they are until the closures end, and what is searched ends with the first.
        return text.withUTF8 { text in
            part.withUTF8 { part in
                var found: [Int] = []
                guard let base = text.baseAddress, let wanted = part.baseAddress else { return [] }
                var start = 0
                while found.count < limit, start + part.count <= text.count {
                    let room = text.count - part.count - start + 1
                    guard let place = unsafe memchr(base + start, Int32(wanted[0]), room) else { break }
                    start = unsafe UnsafeRawPointer(place) - UnsafeRawPointer(base)
                    if unsafe memcmp(place, wanted, part.count) == 0 { found.append(start) }
                    start += 1
                }
                return found
            }
        }
    }
}
