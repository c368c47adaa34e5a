// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
package import Storage

extension RocksDBBackend: BackedUpStore {
    /// Makes a copy of the store, as it is now, that can be opened as a store of its own, in the directory `path`,
    /// which must not exist. Files are linked where the file system can, so it costs little space. Blocks; others go
    /// on.
    package func checkpoint(to path: String) throws(StorageFailure) {
        try guests.use { database throws(StorageFailure) in
            try Self.copying("checkpoint to \(path)") { () throws(RocksDatabase.Failure) in
                try database.checkpoint(path)
            }
            try Self.mark(path)
        }
    }

    /// Adds a backup of the store, as it is now, to those in the directory `path`; files that an earlier one has are
    /// shared. With `keep`, the oldest are removed then, so that so many are left. Blocks; others go on.
    package func backup(to path: String, keep: Int?) throws(StorageFailure) {
        try guests.use { database throws(StorageFailure) in
            do throws(SystemError) { try makeDirectory(path, mode: 0o700) } catch {
                throw StorageFailure(.refused, "backup to \(path): \(error)")
            }
            try Self.copying("backup to \(path)") { () throws(RocksDatabase.Failure) in
                try BackupDirectory(path).add(database)
            }
            guard let keep else { return }
            try Self.copying("the backup is in \(path), and older ones cannot be removed") {
                () throws(RocksDatabase.Failure) in try BackupDirectory(path).removeOldest(keeping: keep)
            }
        }
    }

    /// Puts a backup of those in the directory `backups`, the newest where `number` is nil, in the directory `path`,
    /// which must be empty or not exist. The checksums of its files are looked at. The stream's epoch advances when the
    /// store is opened: what came after the backup is gone. Blocks.
    package static func restore(
        from backups: String, number: UInt32? = nil, to path: String
    ) throws(StorageFailure) {
        try requireBackup(number, in: backups)
        do throws(SystemError) {
            try makeDirectory(path, mode: 0o700)
            let entries = try directoryEntries(path)
            guard entries.allSatisfy({ $0 == "lost+found" }) else {
                throw SystemError("restore", code: SystemError.notEmptyCode, subject: path)
            }
        } catch {
            throw StorageFailure(.refused, "restore from \(backups): \(error)")
        }
        try copying("restore from \(backups)") { () throws(RocksDatabase.Failure) in
            try BackupDirectory(backups).restore(number, to: path)
        }
        do throws(SystemError) {
            for name in try directoryEntries(path) where !isDirectory(path + "/" + name) {
                try syncFile(path + "/" + name)
            }
        } catch {
            throw StorageFailure(.refused, "restore from \(backups): \(error)")
        }
        try mark(path)
    }

    /// The backups in a directory, the oldest first. Blocks.
    package static func backups(in path: String) throws(StorageFailure) -> [StoredBackup] {
        do throws(SystemError) {
            // RocksDB would make the directory.
            guard try directoryEntries(path).contains("meta") else { return [] }
        } catch {
            throw StorageFailure(.refused, "backups in \(path): \(error)")
        }
        var found: [StoredBackup] = []
        try copying("backups in \(path)") { () throws(RocksDatabase.Failure) in
            found = try BackupDirectory(path).list()
        }
        return found
    }

    /// Reads all files of a backup, the newest where `number` is nil, and compares them with the lengths and checksums
    /// that were written down when it was made. Returns which one it was, and how many bytes were read. Blocks.
    package static func verifyBackup(
        in path: String, number: UInt32? = nil
    ) throws(StorageFailure) -> (backup: StoredBackup, bytes: Int) {
        let backup = try requireBackup(number, in: path)
        try copying("backup \(backup.number) in \(path)") { () throws(RocksDatabase.Failure) in
            try BackupDirectory(path).compareLengths(backup.number)
        }
        return (backup, try BackupFiles(path, backup.number).verify())
    }

    /// The backup with a number, or the newest.
    @discardableResult
    private static func requireBackup(_ number: UInt32?, in path: String) throws(StorageFailure) -> StoredBackup {
        let all = try backups(in: path)
        guard let newest = all.last else { throw StorageFailure(.refused, "there are no backups in \(path)") }
        guard let number else { return newest }
        guard let backup = all.first(where: { $0.number == number }) else {
            let known = all.map { "\($0.number)" }.joined(separator: ", ")
            throw StorageFailure(.refused, "there is no backup \(number) in \(path); there are: \(known)")
        }
        return backup
    }

    /// Says in a copy that it is one.
    private static func mark(_ path: String) throws(StorageFailure) {
        do throws(StorageStartError) { try StoreMarker(state: .restored).write(path) } catch {
            throw StorageFailure(.refused, error.description)
        }
    }

    private static func copying(
        _ what: String, _ body: () throws(RocksDatabase.Failure) -> Void
    ) throws(StorageFailure) {
        do throws(RocksDatabase.Failure) { try body() } catch {
            throw StorageFailure(.refused, "\(what): \(error.reason)")
        }
    }
}

extension RocksDBBackend {
    /// Writes what is in memory to files, and rewrites all files, so that what expired, was deleted long ago or was
    /// trimmed leaves the disk. Blocks, for as long as the disk takes; others go on.
    package func compact() throws(StorageFailure) {
        try guests.use { database throws(StorageFailure) in
            for family in [RocksDatabase.Family.rows, .outbox, .meta] {
                try Self.copying("compaction") { () throws(RocksDatabase.Failure) in try database.flush(family) }
                database.compact(family)
            }
        }
    }
}
