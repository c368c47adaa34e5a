// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A committed value as storage holds it: what a read returns, and what a write leaves behind.
package struct StoredRow: Sendable, Equatable {
    /// The version that its commit got: a hybrid logical clock reading, strictly increasing per key, and the CAS value
    /// that clients see.
    package var version: UInt64
    /// When it expires, in milliseconds of Unix time; 0 is never.
    package var expiryMilliseconds: Int64
    /// The client's opaque flags.
    package var clientFlags: UInt32
    /// The value.
    package var value: [UInt8]
    /// In the outcome of a write with ``StorageWrite/tellsEarlierExpiry``: when the row expired before it; nil where
    /// the write made the row, or nobody said. Nil everywhere else.
    package var earlierExpiryMilliseconds: Int64?
    /// By how much earlier than `expiryMilliseconds` it may expire, in milliseconds: where another machine said how
    /// many seconds are left. No copy is kept for longer than is certain.
    package var expiryUncertaintyMilliseconds: Int64 = 0
    /// In the outcome of a write that another region decided, and among the rows of a ``ChangeSource``: how long the
    /// value is, where `value` is not all of it. Such a row is not cached. Nil everywhere else.
    package var partialLength: Int?

    /// A row of its four parts.
    package init(version: UInt64, expiryMilliseconds: Int64, clientFlags: UInt32, value: [UInt8]) {
        self.version = version
        self.expiryMilliseconds = expiryMilliseconds
        self.clientFlags = clientFlags
        self.value = value
    }

    /// The same without its value.
    package var withoutValue: StoredRow {
        StoredRow(version: version, expiryMilliseconds: expiryMilliseconds, clientFlags: clientFlags, value: [])
    }

    /// The same, where its value has more than so many bytes.
    package func limited(toValueOf bytes: Int) -> StoredRow {
        guard value.count > bytes else { return self }
        var row = withoutValue
        row.partialLength = value.count
        return row
    }

    /// How long the value is, whether or not `value` is all of it.
    package var valueLength: Int { partialLength ?? value.count }

    /// Whether the row is still there at `now`, in milliseconds of Unix time: an expired row is absent in every layer.
    package func isLive(at now: Int64) -> Bool { expiryMilliseconds == 0 || expiryMilliseconds > now }
}
