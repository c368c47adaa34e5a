// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRocksDB

// SAFETY (file): handles are those of the open database, or are made, used and destroyed in one function; strings are
// terminated copies for the calls.
extension RocksDatabase {
    /// The sequence number of the last change that RocksDB took.
    var latestSequence: UInt64 { unsafe rocksdb_get_latest_sequence_number(database) }

    /// A number that RocksDB knows about a column family, or about the whole database; 0 for a name it does not know.
    func property(_ family: Family, _ name: String) -> UInt64 {
        var value: UInt64 = 0
        unsafe _ = rocksdb_property_int_cf(database, handle(family), name, &value)
        return value
    }

    /// How often writing files failed in the background, for whatever column family: RocksDB counts all of them in the
    /// default one. Source: db_impl_compaction_flush.cc.
    var backgroundErrors: UInt64 { property(.unused, "rocksdb.background-errors") }

    /// About how many bytes of a column family's files lie between two keys: 0 where both lie in the same block of each
    /// file. Reads indexes only.
    func approximateBytes(_ family: Family, from start: [UInt8], to end: [UInt8]) throws(Failure) -> UInt64 {
        var size: UInt64 = 0
        try unsafe check { error in
            unsafe start.withUnsafeBytes { start in
                unsafe end.withUnsafeBytes { end in
                    var (starts, startLength) = unsafe (RocksDatabase.characters(start), start.count)
                    var (ends, endLength) = unsafe (RocksDatabase.characters(end), end.count)
                    unsafe rocksdb_approximate_sizes_cf(
                        database, handle(family), 1, &starts, &startLength, &ends, &endLength, &size, error)
                }
            }
        }
        return size
    }

    /// Writes what is in memory of a column family to files. Blocks.
    func flush(_ family: Family) throws(Failure) {
        let options = unsafe rocksdb_flushoptions_create()
        defer { unsafe rocksdb_flushoptions_destroy(options) }
        try unsafe check { error in unsafe rocksdb_flush_cf(database, options, handle(family), error) }
    }

    /// Rewrites all files of a column family, so that what is over leaves them. Blocks.
    func compact(_ family: Family) {
        let options = unsafe rocksdb_compactoptions_create()
        defer { unsafe rocksdb_compactoptions_destroy(options) }
        // Also the lowest level, which RocksDB would leave alone when nothing lies above it.
        unsafe rocksdb_compactoptions_set_bottommost_level_compaction(options, 2)
        unsafe rocksdb_compact_range_cf_opt(database, handle(family), options, nil, 0, nil, 0)
    }

    /// Gives up the calls of ``compact(_:)`` that run, and all that come. Blocks until they have ended.
    func endCompactions() { unsafe rocksdb_disable_manual_compaction(database) }

    /// Changes an option of a column family while the database is open.
    func setOption(_ family: Family, _ name: String, _ value: String) throws(Failure) {
        try unsafe check { error in
            unsafe withCStrings([name]) { keys in
                unsafe withCStrings([value]) { values in
                    unsafe rocksdb_set_options_cf(database, handle(family), 1, keys, values, error)
                }
            }
        }
    }

    /// Makes a copy of the database, as it is now, in the directory `path`, which must not exist. Files are linked
    /// where the file system can. Blocks.
    func checkpoint(_ path: String) throws(Failure) {
        var error: UnsafeMutablePointer<CChar>?
        let checkpoint = unsafe rocksdb_checkpoint_object_create(database, &error)
        if let error = unsafe error { throw unsafe Failure(reason: RocksDatabase.take(error)) }
        defer { unsafe rocksdb_checkpoint_object_destroy(checkpoint) }
        try unsafe check { error in unsafe rocksdb_checkpoint_create(checkpoint, path, 0, error) }
    }
}
