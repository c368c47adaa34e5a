// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// How far a node of a replica region was told of changes in the slot of a key that it reads at home: the field
/// `martlet-at=NUMBERING.SEQUENCE` of a meta command's `L` token, which servers ignore and proxies pass on, and whose
/// other fields are others'.
package struct RegionPlace: Sendable, Equatable, BitwiseCopyable {
    /// What tells numberings of a stream from each other.
    package var numbering: UInt64
    /// The last sequence number; not negative.
    package var sequence: UInt64

    fileprivate static var start: StaticString { "martlet-at=" }

    /// A place by these numbers.
    package init(numbering: UInt64, sequence: UInt64) {
        self.numbering = numbering
        self.sequence = sequence
    }

    /// The place that a request names, of the input that it was parsed from; nil where it names none. Allocates
    /// nothing.
    package init?(of request: Request, in input: Span<UInt8>) {
        let carriesToken = request.options.contains(MetaOptions(letter: UInt8(ascii: "L")))
        guard request.form == .meta, carriesToken,
            let flag = request.flag(in: input, where: { start, _ in input[start] == UInt8(ascii: "L") })
        else { return nil }
        self.init(field: input, from: flag.lowerBound + 1, to: flag.upperBound)
    }

    /// The first field of a token's content that is a place.
    private init?(field input: Span<UInt8>, from start: Int, to end: Int) {
        var index = start
        while index < end {
            var last = index
            while last < end, input[last] != UInt8(ascii: ";") { last += 1 }
            let digits = index + Self.start.utf8CodeUnitCount
            if digits < last, input.holds(Self.start, at: index) {
                var dot = digits
                while dot < last, input[dot] != UInt8(ascii: ".") { dot += 1 }
                guard dot > digits, dot + 1 < last, let numbering = input.uint64(digits, dot),
                    let sequence = input.uint64(dot + 1, last)
                else { return nil }
                self.init(numbering: numbering, sequence: sequence)
                return
            }
            index = last + 1
        }
        return nil
    }
}

extension OutputBuffer {
    /// Appends ` L` and a place, for a meta command that has no `L` token yet.
    package mutating func append(_ place: RegionPlace) {
        append(" L")
        append(RegionPlace.start)
        append(decimal: place.numbering)
        append(UInt8(ascii: "."))
        append(decimal: place.sequence)
    }
}
