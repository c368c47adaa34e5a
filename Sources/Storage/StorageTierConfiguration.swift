// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The limits of the tier. Where a limit is reached, new work is answered at once with a definite error; nothing is
/// dropped that was sent to storage.
package struct StorageTierConfiguration: Sendable, Equatable {
    /// Stripes, each with its own lock: a power of two, 1 to 4,096.
    package var stripes = 64
    /// Counters of arrivals in each stripe, a power of two: keys that share one disturb each other's fills.
    package var bucketsPerStripe = 1024
    /// Commands that wait for one key: a herd fits. As many as a stripe's share of ``waitersMax``.
    package var waitersPerKeyMax = 16_384
    /// Reads that storage has not answered. This limit and those below hold for all stripes together; each stripe has
    /// an even share, so a skewed load may meet it early.
    package var readsInFlightMax = 65_536
    /// Writes that storage has not answered. touch may take three quarters of them.
    package var writesInFlightMax = 262_144
    /// Deletes that are let in beyond `writesInFlightMax`: what makes data disappear is shed last.
    package var deletesReservedMax = 8192
    /// Commands that wait for reads and for writes of others.
    package var waitersMax = 1_048_576
    /// Bytes of rows that receivers have not taken, beyond which nothing more is read.
    package var untakenBytesMax = 32 << 20
    /// Keys whose last write has an unknown outcome. Beyond it a stripe caches nothing until all are settled.
    package var uncertainKeysMax = 65_536
    /// How long a command waits for storage, in milliseconds. A read is then given up; a write's outcome is unknown.
    package var waitMilliseconds: UInt64 = 5000

    /// Versions that a stream told of and that are remembered.
    package var toldVersionsMax = 65_536
    /// For how long they are, in milliseconds: as long as a store may lag behind the stream.
    package var toldMilliseconds: UInt64 = 10_000

    /// Whether others write to the store as well, and a stream tells of their changes: what a read shows may then be
    /// newer than a copy that it must not replace.
    package var followsChanges = false
    /// Whether keys move between nodes that share the store. Other nodes may then show what a write did before
    /// the answer of that write is here: no copy is shown while writes of its key are in flight.
    package var sharesKeys = false

    /// The limits that a node has unless it is told otherwise.
    package init() {}

    /// A stripe's share of a limit, at least 1.
    func share(_ limit: Int) -> Int { max(1, (limit + stripes - 1) / stripes) }
}

/// What a pool wants of its cached copies.
package struct StoragePoolPolicy: Sendable, Equatable {
    /// How long storage's "not found" is remembered, in milliseconds; 0 is not at all.
    package var negativeTTLMilliseconds: UInt64 = 5000
    /// How old a cached copy may get, in milliseconds; 0 is without bound. The row's own expiry holds besides.
    package var cacheTTLMilliseconds: UInt64 = 0
    /// How long behind `cacheTTLMilliseconds` a cached copy may answer when storage does not, in milliseconds; 0 is
    /// never.
    package var staleIfErrorMilliseconds: UInt64 = 0
    /// How long behind `cacheTTLMilliseconds` a cached copy answers at once while storage is asked for a newer one, in
    /// milliseconds; 0 is never.
    package var staleWhileRevalidateMilliseconds: UInt64 = 0
    /// The largest value, in bytes: up to ``valueLimitMax``.
    package var valueLimitBytes = Self.valueLimitMax

    /// The largest value that a pool may allow, in bytes.
    package static let valueLimitMax = 1 << 30

    /// The policy that a pool has unless it is told otherwise.
    package init() {}
}
