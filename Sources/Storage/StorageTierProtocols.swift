// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The cache in front of the store, as the contract needs it. Every call comes under the lock of the key's stripe, so
/// calls for one key never overlap; they must be short and must not block.
package protocol CachedCopies: AnyObject, Sendable {
    /// Puts a committed row in the cache, value, flags, version and expiry at once. Where there is no memory the key is
    /// dropped instead: never left older than storage.
    func install(_ row: StoredRow, key: [UInt8], hash: UInt64, pool: Int)
    /// Notes that storage definitely has no live row, for the pool's negative TTL; drops the key where that is 0.
    func installAbsent(key: [UInt8], hash: UInt64, pool: Int)
    /// Forgets the key.
    func drop(key: [UInt8], hash: UInt64)
    /// Forgets the copy of the key's row, and that it has none; whoever was told to bring one is still to.
    func forgetRow(key: [UInt8], hash: UInt64)
    /// Forgets all keys.
    func removeAll()
    /// What the cache says about the key now: its row, that there is none, or nil where it does not know.
    func current(key: [UInt8], hash: UInt64) -> ReadOutcome?
    /// The version of the copy that the cache has of the key; nil where it has none, or notes that there is no row.
    func version(key: [UInt8], hash: UInt64) -> UInt64?
}

extension CachedCopies {
    /// A cache that tells nobody to bring rows.
    package func forgetRow(key: [UInt8], hash: UInt64) { drop(key: key, hash: hash) }

    /// A cache that is not asked.
    package func current(key: [UInt8], hash: UInt64) -> ReadOutcome? { nil }

    /// A cache that knows no versions.
    package func version(key: [UInt8], hash: UInt64) -> UInt64? { nil }
}

/// Who waits for an answer of the tier. What the numbers mean is the receiver's.
package struct StorageWaiter: Sendable, BitwiseCopyable, Equatable {
    /// Which receiver: an index into ``StorageTier``'s receivers, such as a reactor's number.
    package var receiver: UInt32
    /// What the receiver knows it by.
    package var token: UInt64

    /// A waiter of a receiver.
    package init(receiver: UInt32, token: UInt64) {
        self.receiver = receiver
        self.token = token
    }
}

/// An answer for one waiter.
package enum StorageAnswer: Sendable {
    case read(token: UInt64, ReadOutcome)
    case write(token: UInt64, WriteOutcome)
}

/// Gets the answers, from any thread, outside of all locks; must not block.
package protocol StorageReceiver: AnyObject, Sendable {
    func deliver(_ answers: [StorageAnswer])
    /// The same for answers that came of one batch of the backend's; without times where they came of none.
    func deliver(_ answers: [StorageAnswer], timing: StorageTiming?)
    /// Bytes of rows that were delivered and that it has not taken yet.
    var untakenBytes: Int { get }
}

extension StorageReceiver {
    /// It does not want to know the times.
    package func deliver(_ answers: [StorageAnswer], timing: StorageTiming?) { deliver(answers) }

    /// It takes everything at once.
    package var untakenBytes: Int { 0 }
}
