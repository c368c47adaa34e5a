// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// What a verified value says about itself: which key it belongs to, who wrote it, which of its writes it was. Every
/// other byte of the value follows from that, so that a torn value is seen.
package struct ValueStamp: Sendable, Equatable, BitwiseCopyable {
    /// Bytes of the stamp; a shorter value cannot carry one.
    package static let length = 24

    /// The hash of the key.
    package var keyHash: UInt64
    /// Who wrote it: a number of a run's thread.
    package var writer: UInt32
    /// Which of its writer's writes of the key it was, from 1; 0 when that is not kept.
    package var version: UInt32

    /// A stamp.
    package init(keyHash: UInt64, writer: UInt32, version: UInt32) {
        self.keyHash = keyHash
        self.writer = writer
        self.version = version
    }

    /// What is wrong with a value that was read.
    package enum Fault: String, Sendable, CaseIterable {
        /// It carries no stamp, or its bytes do not follow from it.
        case torn
        /// It was written for another key.
        case wrongKey = "wrong key"
        /// It was overwritten before it was asked for.
        case stale
    }

    private var check: UInt64 {
        RandomSource.mix(keyHash ^ RandomSource.mix(UInt64(writer) << 32 | UInt64(version)))
    }

    /// Appends a value of `count` bytes (at least ``length``).
    package func append(to output: inout OutputBuffer, count: Int) {
        output.append(bigEndian: keyHash)
        output.append(bigEndian: writer)
        output.append(bigEndian: version)
        output.append(bigEndian: check ^ UInt64(count))
        var left = count - Self.length
        var word = check
        while left >= 8 {
            word = word &* 0x5851_f42d_4c95_7f2d &+ 1
            output.append(bigEndian: word)
            left -= 8
        }
        for _ in 0..<left { output.append(UInt8(truncatingIfNeeded: word >> 56)) }
    }

    /// The stamp of a value; nil when it has none or any byte of it is not what was written.
    package static func read(_ value: Span<UInt8>) -> ValueStamp? {
        guard value.count >= length else { return nil }
        let stamp = ValueStamp(
            keyHash: value.bigEndian(at: 0, as: UInt64.self), writer: value.bigEndian(at: 8, as: UInt32.self),
            version: value.bigEndian(at: 12, as: UInt32.self))
        let check = stamp.check
        guard value.bigEndian(at: 16, as: UInt64.self) == check ^ UInt64(value.count) else { return nil }
        var (offset, word) = (length, check)
        while offset + 8 <= value.count {
            word = word &* 0x5851_f42d_4c95_7f2d &+ 1
            guard value.bigEndian(at: offset, as: UInt64.self) == word else { return nil }
            offset += 8
        }
        while offset < value.count {
            guard value[offset] == UInt8(truncatingIfNeeded: word >> 56) else { return nil }
            offset += 1
        }
        return stamp
    }
}
