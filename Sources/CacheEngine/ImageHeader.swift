// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// The first page of a cache's image: what the image is, what must be the same for it to be used, and what goes on from
/// where it was.
///
/// A text of lines in a page of its own, behind a magic word and a hash of the page: so it can be read with `head`, and
/// what does not fit can be told by name.
package struct ImageHeader: Sendable, Equatable {
    /// Whether the image can be used.
    package enum State: String, Sendable {
        /// A process has the file, or ended without writing the image.
        case open
        /// The image is whole, and nobody used it yet.
        case whole
    }

    /// Why a page is no header.
    package enum Problem: Error, Equatable {
        /// There is something else in the file.
        case strange
        /// It was a header, and is damaged.
        case damaged
    }

    /// Bytes of the page.
    package static let byteCount = 4096
    private static let magic: [UInt8] = Array("MARTLETC".utf8)

    /// Whether the image can be used.
    package var state = State.open
    /// What must be the same, by its name.
    package var conditions: [String: String] = [:]
    /// What goes on from where it was, by its name.
    package var numbers: [String: Int64] = [:]

    /// A header without conditions and numbers.
    package init() {}

    /// Reads a page. Nil where there is nothing yet: an empty file.
    package init?(_ page: [UInt8]) throws(Problem) {
        if page.isEmpty { return nil }
        guard page.count == Self.byteCount, page.starts(with: Self.magic) else { throw .strange }
        let span = page.span
        guard span.word(at: 8) == stableHash(span.extracting(16..<Self.byteCount)) else { throw .damaged }
        let text = String(decoding: page[16...].prefix { $0 != 0 }, as: UTF8.self)
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
            guard words.count == 3 else { throw .damaged }
            switch words[0] {
            case "state":
                guard let state = State(rawValue: words[2]) else { throw .damaged }
                self.state = state
            case "condition": conditions[words[1]] = words[2]
            case "number":
                guard let number = Int64(words[2]) else { throw .damaged }
                numbers[words[1]] = number
            default: throw .damaged
            }
        }
    }

    /// The seed of the engine that wrote the image; nil where there is none.
    package var hashSeed: UInt64? { numbers["seed"].map { UInt64(bitPattern: $0) } }

    /// The page. Names have no spaces, and values no line ends; what does not fit into a page traps.
    package var page: [UInt8] {
        var text = "state is \(state.rawValue)\n"
        for (name, value) in conditions.sorted(by: { $0.key < $1.key }) { text += "condition \(name) \(value)\n" }
        for (name, value) in numbers.sorted(by: { $0.key < $1.key }) { text += "number \(name) \(value)\n" }
        var content = Array(text.utf8)
        precondition(content.count <= Self.byteCount - 16, "an image's header is longer than its page")
        content += [UInt8](repeating: 0, count: Self.byteCount - 16 - content.count)
        var page = Self.magic
        append(stableHash(content.span), to: &page)
        return page + content
    }

    /// The first condition that is not as `wanted` has it, as a sentence; nil when all are.
    package func mismatch(_ wanted: [String: String]) -> String? {
        for name in Set(conditions.keys).union(wanted.keys).sorted() where conditions[name] != wanted[name] {
            return "\(name) was \(conditions[name] ?? "not there"), and is \(wanted[name] ?? "not there")"
        }
        return nil
    }
}

/// Appends a number of 4 or 8 bytes, the lowest first.
func append<T: FixedWidthInteger>(_ number: T, to bytes: inout [UInt8]) {
    for shift in stride(from: 0, to: T.bitWidth, by: 8) { bytes.append(UInt8(truncatingIfNeeded: number >> shift)) }
}
