// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A position as people pass it on: a cursor. The source in hexadecimal digits, the epoch, and the numbers of the
/// slots: `73746f7265.1.0-17-4-…`. It has nothing that a URL would have to escape.
extension StreamPosition {
    /// The position as a cursor.
    package var cursor: String {
        let numbers = sequences.map { String($0) }.joined(separator: "-")
        return "\(Hexadecimal.digits(Array(source.utf8))).\(epoch).\(numbers)"
    }

    /// Reads a cursor; nil where it is none.
    package init?(cursor: String) {
        let parts = cursor.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 3, let source = Hexadecimal.bytes(String(parts[0])), let epoch = Int64(parts[1]),
            epoch >= 0
        else { return nil }
        var sequences: [Int64] = []
        for part in parts[2].split(separator: "-", omittingEmptySubsequences: false) {
            guard let number = Int64(part), (0...OutboxRecord.sequenceMax).contains(number) else { return nil }
            sequences.append(number)
        }
        guard sequences.count == StreamSlots.count else { return nil }
        self.init(source: String(decoding: source, as: UTF8.self), epoch: epoch, sequences: sequences)
    }
}
