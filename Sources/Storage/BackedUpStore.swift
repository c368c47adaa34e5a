// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A store that makes backups by itself while it serves.
package protocol BackedUpStore: StorageBackend {
    /// Adds a backup of the store, as it is now, to those in the directory `path`; removes the oldest then, so that
    /// `keep` are left, where that is not nil. Blocks.
    func backup(to path: String, keep: Int?) throws(StorageFailure)
}

/// One of the backups in a directory.
package struct StoredBackup: Sendable, Equatable {
    /// Names it; later ones have higher numbers.
    package var number: UInt32
    /// When it was made, in seconds of Unix time.
    package var unixSeconds: Int64
    /// Bytes of its files, those included that other backups share.
    package var bytes: UInt64
    /// How many files it has.
    package var files: UInt32

    /// A backup.
    package init(number: UInt32, unixSeconds: Int64, bytes: UInt64, files: UInt32) {
        self.number = number
        self.unixSeconds = unixSeconds
        self.bytes = bytes
        self.files = files
    }
}
