// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRocksDB

/// Measures how long RocksDB takes to write and sync its log, for the thread that made it.
@safe
struct LogTimer: ~Copyable {
    // SAFETY (type): the context refers to the measurements of the thread that made it, and is used there only.
    private let context: OpaquePointer

    /// Begins to measure on the calling thread.
    init() {
        rocksdb_set_perf_level(Int32(rocksdb_enable_time_except_for_mutex))
        unsafe context = rocksdb_perfcontext_create()
        unsafe rocksdb_perfcontext_reset(context)
    }

    deinit { unsafe rocksdb_perfcontext_destroy(context) }

    /// Nanoseconds since the thread began to measure.
    var nanoseconds: UInt64 { unsafe rocksdb_perfcontext_metric(context, Int32(rocksdb_write_wal_time)) }
}
