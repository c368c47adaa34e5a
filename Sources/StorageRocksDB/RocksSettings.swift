// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRocksDB

/// The options of a database and of its column families, and what they refer to.
@safe
final class RocksSettings: @unchecked Sendable {
    // SAFETY (type): the handles are made in `init` and destroyed in `deinit`; the database keeps this object while it
    // is open. RocksDB shares the cache, the filter policies and the tables' options by reference counts of its own.
    let database: OpaquePointer
    private let rows: OpaquePointer
    private let outbox: OpaquePointer
    private let meta: OpaquePointer
    private let cache: OpaquePointer
    private let filters: CompactionFilters

    /// The options that `configuration` asks for; without compression when the library has none.
    init(_ configuration: RocksDBConfiguration, filters: CompactionFilters, compresses: Bool) {
        self.filters = filters
        unsafe cache = rocksdb_cache_create_lru(configuration.blockCacheBytes)
        unsafe database = rocksdb_options_create()
        unsafe RocksSettings.configure(database, configuration)
        unsafe rows = rocksdb_options_create()
        unsafe outbox = RocksSettings.options(saying: "memtable_insert_with_hint_prefix_extractor=fixed:1")
        unsafe meta = rocksdb_options_create()
        unsafe rocksdb_options_set_write_buffer_size(rows, configuration.writeBufferBytes)
        unsafe rocksdb_options_set_max_write_buffer_number(rows, 3)
        unsafe rocksdb_options_set_compaction_filter(rows, filters.rows)
        unsafe rocksdb_options_set_write_buffer_size(outbox, configuration.outboxBufferBytes)
        unsafe rocksdb_options_set_max_write_buffer_number(outbox, 3)
        // What nobody consumes is to go soon, not after four flushes.
        unsafe rocksdb_options_set_level0_file_num_compaction_trigger(outbox, 2)
        unsafe rocksdb_options_set_compaction_filter(outbox, filters.outbox)
        unsafe rocksdb_options_set_write_buffer_size(meta, 1 << 20)
        unsafe setTables(rows, compresses: compresses, isLookedUp: true)
        unsafe setTables(outbox, compresses: compresses, isLookedUp: false)
        unsafe setTables(meta, compresses: compresses, isLookedUp: false)
    }

    deinit {
        unsafe rocksdb_options_destroy(rows)
        unsafe rocksdb_options_destroy(outbox)
        unsafe rocksdb_options_destroy(meta)
        unsafe rocksdb_options_destroy(database)
        unsafe rocksdb_cache_destroy(cache)
    }

    /// The options of a column family.
    func options(of family: RocksDatabase.Family) -> OpaquePointer {
        switch family {
        case .unused: unsafe database
        case .rows: unsafe rows
        case .outbox: unsafe outbox
        case .meta: unsafe meta
        }
    }

    /// Options that the C interface has no call for, by their text; the default ones where the library refuses it.
    ///
    /// What is so set for the outbox: the keys of a slot, whose number is their first byte, come in order, so each is
    /// put behind the last one of its slot, without looking for its place.
    private static func options(saying text: String) -> OpaquePointer {
        let base = unsafe rocksdb_options_create()
        defer { unsafe rocksdb_options_destroy(base) }
        let options: OpaquePointer = unsafe rocksdb_options_create()
        var error: UnsafeMutablePointer<CChar>?
        unsafe rocksdb_get_options_from_string(base, text, options, &error)
        if let error = unsafe error { unsafe rocksdb_free(error) }
        return unsafe options
    }

    /// What holds for the whole database.
    private static func configure(_ options: OpaquePointer, _ configuration: RocksDBConfiguration) {
        unsafe rocksdb_options_set_create_if_missing(options, 1)
        unsafe rocksdb_options_set_create_missing_column_families(options, 1)
        unsafe rocksdb_options_set_paranoid_checks(options, 1)
        // docs/decisions/0008-write-ahead-log.md: the log ends at the first record that is not whole.
        unsafe rocksdb_options_set_wal_recovery_mode(options, Int32(rocksdb_point_in_time_recovery))
        let buffers = UInt64(configuration.writeBufferBytes + configuration.outboxBufferBytes)
        unsafe rocksdb_options_set_max_total_wal_size(options, 3 * buffers)
        unsafe rocksdb_options_set_max_background_jobs(options, 2)
        // Written files reach the disk piece by piece, so that a commit's fdatasync does not wait behind a whole file.
        unsafe rocksdb_options_set_bytes_per_sync(options, 1 << 20)
        unsafe rocksdb_options_set_max_open_files(options, 1_024)
        unsafe rocksdb_options_set_keep_log_file_num(options, 4)
        unsafe rocksdb_options_set_max_log_file_size(options, 4 << 20)
        unsafe rocksdb_options_set_stats_dump_period_sec(options, 0)
        unsafe rocksdb_options_set_stats_persist_period_sec(options, 0)
        unsafe rocksdb_options_set_skip_stats_update_on_db_open(options, 1)
        unsafe rocksdb_options_set_info_log_level(options, 2)
    }

    /// How the files of a column family are made.
    private func setTables(_ options: OpaquePointer, compresses: Bool, isLookedUp: Bool) {
        let compression = compresses ? rocksdb_lz4_compression : rocksdb_no_compression
        unsafe rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1)
        unsafe rocksdb_options_set_compression(options, Int32(compression))
        // The database's options take the table's options over; only the handle is freed.
        guard let table = unsafe rocksdb_block_based_options_create() else { return }
        defer { unsafe rocksdb_block_based_options_destroy(table) }
        unsafe rocksdb_block_based_options_set_block_cache(table, cache)
        unsafe rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1)
        unsafe rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1)
        unsafe rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1)
        unsafe rocksdb_block_based_options_set_format_version(table, 5)
        if isLookedUp {
            // The table's options own the policy from here on.
            unsafe rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10))
            unsafe rocksdb_block_based_options_set_data_block_index_type(
                table, Int32(rocksdb_block_based_table_data_block_index_type_binary_search_and_hash))
            unsafe rocksdb_block_based_options_set_data_block_hash_ratio(table, 0.75)
        }
        unsafe rocksdb_options_set_block_based_table_factory(options, table)
    }
}
