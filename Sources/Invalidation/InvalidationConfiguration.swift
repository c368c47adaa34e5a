// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What the pure cores of streams are told.
package struct InvalidationConfiguration: Sendable, Equatable {
    /// For how long behind the last proof that a stream is complete its copies are shown, in nanoseconds: the bound of
    /// staleness.
    package var lagBoundNanoseconds: UInt64 = 5_000_000_000
    /// How long a gap may take to be repaired; then its slot is quarantined, in nanoseconds. Two seconds with the tick
    /// that finds it over, ten of which there are in a second.
    package var repairNanoseconds: UInt64 = 1_850_000_000
    /// Between questions whether the stream is complete, in nanoseconds. A second with the tick and the answer.
    package var probeNanoseconds: UInt64 = 850_000_000
    /// Bytes of records that a source may send beyond what was worked off.
    package var windowBytes = 4 << 20
    /// Bytes of records after which a batch is closed.
    package var batchBytes = 64 << 10
    /// How long a record waits for company, in nanoseconds.
    package var batchNanoseconds: UInt64 = 5_000_000
    /// Questions that wait for an answer at most; older ones are forgotten.
    package var probesMax = 64

    /// The defaults of docs/streams.md.
    package init() {}
}
