// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A change that a client asked for, to be decided and committed by storage: conditions are evaluated against the
/// stored row, never against a cached copy (docs/contract.md, 2).
package struct StorageWrite: Sendable, Equatable {
    /// What to do. Source: memcached protocol.txt, whose words these are.
    package enum Operation: UInt8, Sendable, CaseIterable {
        /// Stores; with a `compare` it is `cas`.
        case set
        /// Stores where there is no live row.
        case add
        /// Stores where there is a live row.
        case replace
        case append
        case prepend
        /// Appends, or stores where there is no live row (meta set, mode A with N).
        case appendOrCreate
        case prependOrCreate
        /// Counts up, wrapping at 2^64.
        case increment
        /// Counts down, stopping at 0.
        case decrement
        case delete
        /// Changes the expiry and nothing else; the version advances.
        case touch

        /// Whether it is no attempt to make a row where there is none, nor to forget that: whoever was told to bring
        /// one is still to.
        var leavesLease: Bool {
            switch self {
            case .touch, .increment, .decrement: true
            default: false
            }
        }

        /// Whether it takes data away: such are refused last.
        package var makesDataDisappear: Bool { self == .delete }
    }

    /// The key: 1 to 250 bytes.
    package var key: [UInt8]
    /// What to do.
    package var operation: Operation
    /// What to store, append or prepend.
    package var value: [UInt8] = []
    /// The client's opaque flags, for operations that store a new value.
    package var clientFlags: UInt32 = 0
    /// When the row expires, in milliseconds of Unix time; 0 is never. Ignored by append, prepend, increment,
    /// decrement of a live row, and delete.
    package var expiryMilliseconds: Int64 = 0
    /// The version that the live row must have; 0 compares nothing.
    package var compare: UInt64 = 0
    /// By how much increment and decrement count.
    package var delta: UInt64 = 0
    /// What a counter starts with where there is no live row; nil answers `notFound` there.
    package var initial: UInt64?
    /// When a counter expires that it makes, where that is another time than `expiryMilliseconds`.
    package var initialExpiryMilliseconds: Int64?
    /// For increment, decrement and touch: whether the outcome's row says what the expiry was before. Of a touch, a
    /// home region does not.
    package var tellsEarlierExpiry = false
    /// For increment and decrement of a live row: whether `expiryMilliseconds` replaces the row's expiry.
    package var setsExpiry = false
    /// The largest value that may result, in bytes.
    package var valueLimitBytes = Int.max
    /// The W3C traceparent of whoever asked, for the stream's record; nil where nobody traces.
    package var trace: String?
    /// The pool whose row it is: its number in the configuration, for the stream's record.
    package var pool: UInt16 = 0

    /// A write of an operation to a key, everything else as it is by default.
    package init(_ operation: Operation, key: [UInt8]) {
        self.operation = operation
        self.key = key
    }
}

/// What became of a write.
package enum WriteOutcome: Sendable, Equatable {
    /// Committed; this row is there now. For every operation but delete.
    case stored(StoredRow)
    /// Committed: a live row existed and a tombstone with this version took its place.
    case deleted(version: UInt64)
    /// add on a live row; replace, append, prepend without one.
    case notStored
    /// A compare with another version.
    case exists
    /// cas, increment, decrement, touch, delete without a live row.
    case notFound
    /// increment or decrement of a value that is no number.
    case notNumeric
    /// The value that results would pass `valueLimitBytes`.
    case tooLarge
    /// Nothing is known to have changed, or nobody knows: see the kind.
    case failed(StorageFailure)
}

/// What became of a read.
package enum ReadOutcome: Sendable, Equatable {
    /// A live row.
    case found(StoredRow)
    /// Storage's definite answer that there is no live row.
    case absent
    /// No answer. Never `absent`: an error is not a miss.
    case failed(StorageFailure)
}

/// Why storage did not do what was asked.
package struct StorageFailure: Error, Sendable, Equatable {
    /// How much is known about the change.
    package enum Kind: UInt8, Sendable {
        /// It was never sent: definitely nothing was done. Worth trying again.
        case notSent
        /// Storage said no: definitely nothing was done.
        case refused
        /// It was sent and no answer came: it may have been done, or may be yet.
        case unknownOutcome
        /// Another node owns the key: nothing was done, and the reason says who.
        case notOwner
    }

    /// What is known about the change.
    package var kind: Kind
    /// What went wrong, for logs and for the client; no key, no value, no secret in it.
    package var reason: String

    /// A failure with its reason.
    package init(_ kind: Kind, _ reason: String) {
        self.kind = kind
        self.reason = reason
    }
}
