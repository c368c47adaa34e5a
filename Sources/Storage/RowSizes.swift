// Martlet
// SPDX-License-Identifier: Apache-2.0

/// How large rows are lately, to ask for fewer at once where they are large. A large one counts at once, small ones by
/// and by, so that nobody talks large ones down.
package struct RowSizes: Sendable {
    private var typicalBytes = 0

    /// Nothing is known yet.
    package init() {}

    /// Notes a row's value.
    package mutating func note(_ bytes: Int) {
        let more = bytes - typicalBytes
        typicalBytes += more > 0 ? more / 2 : more / 64
    }

    /// How many rows have about so many bytes together, within a range.
    package func count(fitting bytes: Int, in range: ClosedRange<Int>) -> Int {
        min(range.upperBound, max(range.lowerBound, bytes / max(typicalBytes, 1)))
    }
}
