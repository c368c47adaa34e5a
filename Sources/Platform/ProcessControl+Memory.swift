// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

extension ProcessControl {
    /// Takes the pages of program and libraries that the start has touched out of resident memory; those that are
    /// needed again come back with a touch. For the end of the start. Blocks for some milliseconds.
    ///
    /// Only read-only mappings of files that have no page of their own are dropped: what comes back is the same.
    package static func releaseStartPages() {
        guard let text = try? readFile("/proc/self/smaps", limitBytes: 8 << 20) else { return }
        var mapping: Range<UInt>?
        for line in text.split(separator: UInt8(ascii: "\n")) {
            let words = line.split(separator: UInt8(ascii: " "))
            guard let first = words.first else { continue }
            if first.last != UInt8(ascii: ":") {
                mapping = readOnlyFile(words)
            } else if first.elementsEqual("Anonymous:".utf8), words.count > 1, words[1].elementsEqual("0".utf8),
                let range = mapping
            {
                // SAFETY: the kernel named the range a moment ago; nobody writes to it, and unmapping code would be a
                // defect of its own. Dropped pages are read from the file again.
                unsafe _ = madvise(UnsafeMutableRawPointer(bitPattern: range.lowerBound), range.count, MADV_DONTNEED)
            }
        }
    }

    /// The addresses of a mapping, from its line in smaps, if it is of a file and nobody may write to it.
    private static func readOnlyFile(_ words: [ArraySlice<UInt8>]) -> Range<UInt>? {
        guard words.count >= 6, words[5].first == UInt8(ascii: "/"),
            words[1].elementsEqual("r--p".utf8) || words[1].elementsEqual("r-xp".utf8)
        else { return nil }
        let ends = words[0].split(separator: UInt8(ascii: "-")).map {
            UInt(String(decoding: $0, as: UTF8.self), radix: 16)
        }
        guard ends.count == 2, let start = ends[0], let end = ends[1], start < end else { return nil }
        return start..<end
    }

    /// Whether the machine's administrator lets processes have huge pages that ask for them.
    package static var allowsHugePages: Bool {
        guard let text = try? readFile("/sys/kernel/mm/transparent_hugepage/enabled", limitBytes: 4096) else {
            return false
        }
        return !text.contains("[never]".utf8)
    }
}
