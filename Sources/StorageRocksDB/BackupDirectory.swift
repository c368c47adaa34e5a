// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRocksDB
internal import Platform
internal import Storage

/// The backups in a directory, by RocksDB's engine for them. One at a time on a directory.
@safe
struct BackupDirectory: ~Copyable {
    // SAFETY (type): the engine's handle is this value's alone from init to deinit; strings are terminated copies for
    // the calls; what lists backups is destroyed in the function that got it.
    private let engine: OpaquePointer

    /// Opens the directory; it is made where there is none.
    init(_ path: String) throws(RocksDatabase.Failure) {
        let options = unsafe rocksdb_options_create()
        defer { unsafe rocksdb_options_destroy(options) }
        var error: UnsafeMutablePointer<CChar>?
        let opened = unsafe rocksdb_backup_engine_open(options, path, &error)
        if let error = unsafe error { throw unsafe RocksDatabase.Failure(reason: RocksDatabase.take(error)) }
        guard let opened = unsafe opened else { throw RocksDatabase.Failure(reason: "no backups, and no reason") }
        unsafe engine = opened
    }

    deinit { unsafe rocksdb_backup_engine_close(engine) }

    /// Adds a backup of the database, as it is now. Blocks.
    func add(_ database: RocksDatabase) throws(RocksDatabase.Failure) {
        try unsafe database.check { error in
            unsafe rocksdb_backup_engine_create_new_backup_flush(engine, database.database, 1, error)
        }
    }

    /// Removes the oldest, so that `count` are left, and files that no other needs. Blocks.
    func removeOldest(keeping count: Int) throws(RocksDatabase.Failure) {
        var error: UnsafeMutablePointer<CChar>?
        unsafe rocksdb_backup_engine_purge_old_backups(engine, UInt32(clamping: count), &error)
        if let error = unsafe error { throw unsafe RocksDatabase.Failure(reason: RocksDatabase.take(error)) }
    }

    /// All of them, the oldest first.
    func list() -> [StoredBackup] {
        guard let information = unsafe rocksdb_backup_engine_get_backup_info(engine) else { return [] }
        defer { unsafe rocksdb_backup_engine_info_destroy(information) }
        return unsafe (0..<rocksdb_backup_engine_info_count(information)).map { index in
            unsafe StoredBackup(
                number: rocksdb_backup_engine_info_backup_id(information, index),
                unixSeconds: rocksdb_backup_engine_info_timestamp(information, index),
                bytes: rocksdb_backup_engine_info_size(information, index),
                files: rocksdb_backup_engine_info_number_files(information, index))
        }.sorted { $0.number < $1.number }
    }

    /// Whether the files of a backup are there, each as long as it was. Reads none of them.
    func compareLengths(_ number: UInt32) throws(RocksDatabase.Failure) {
        var error: UnsafeMutablePointer<CChar>?
        unsafe rocksdb_backup_engine_verify_backup(engine, number, &error)
        if let error = unsafe error { throw unsafe RocksDatabase.Failure(reason: RocksDatabase.take(error)) }
    }

    /// Puts a backup, the newest where `number` is nil, in the directory `path`. Blocks.
    func restore(_ number: UInt32?, to path: String) throws(RocksDatabase.Failure) {
        let options = unsafe rocksdb_restore_options_create()
        defer { unsafe rocksdb_restore_options_destroy(options) }
        var error: UnsafeMutablePointer<CChar>?
        if let number {
            unsafe rocksdb_backup_engine_restore_db_from_backup(engine, path, path, options, number, &error)
        } else {
            unsafe rocksdb_backup_engine_restore_db_from_latest_backup(engine, path, path, options, &error)
        }
        if let error = unsafe error { throw unsafe RocksDatabase.Failure(reason: RocksDatabase.take(error)) }
    }
}
