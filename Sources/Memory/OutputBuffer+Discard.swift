// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

extension OutputBuffer {
    /// Room for own bytes, used or not.
    package var capacityBytes: Int { capacity }

    /// Removes the first `length` own bytes and the first `externalCount` external pieces, which all lie before them,
    /// and moves the rest to the front. Costs a copy of the rest; keeps the room.
    package mutating func discardFirst(_ length: Int, externalCount: Int) {
        precondition(length >= 0 && length <= count && externalCount <= externals.count)
        // SAFETY: [length, count) are valid bytes, and memmove allows overlap.
        unsafe _ = memmove(base, base + length, count - length)
        count -= length
        externals.removeFirst(externalCount)
        for index in externals.indices {
            let piece = externals[index]
            precondition(piece.position >= length, "an external piece stays before bytes that are removed")
            externals[index] = ExternalBytes(position: piece.position - length, block: piece.block, token: piece.token)
        }
    }

    /// Appends what follows own byte `start` and external piece `externalStart` of `other`, which stays as it is: its
    /// own bytes are copied, its external pieces and their tokens taken over.
    package mutating func append(_ other: borrowing OutputBuffer, from start: Int, externalStart: Int) {
        append(other, own: start..<other.count, externals: externalStart..<other.externals.count)
    }

    /// Appends a part of `other`, which stays as it is: the bytes of `own` are copied, the external pieces of
    /// `externals`, which lie in that part, and their tokens taken over.
    package mutating func append(_ other: borrowing OutputBuffer, own: Range<Int>, externals pieces: Range<Int>) {
        precondition(own.lowerBound >= 0 && own.upperBound <= other.count && pieces.upperBound <= other.externals.count)
        let shift = count - own.lowerBound
        for piece in other.externals[pieces] {
            precondition(piece.position >= own.lowerBound && piece.position <= own.upperBound)
            externals.append(ExternalBytes(position: piece.position + shift, block: piece.block, token: piece.token))
        }
        reserve(own.count)
        // SAFETY: the source range is valid, and reserve made room for it.
        unsafe _ = memcpy(base + count, other.base + own.lowerBound, own.count)
        count += own.count
    }
}
