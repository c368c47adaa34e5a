// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRocksDB

/// Changes that RocksDB commits together.
@safe
struct RocksBatch: ~Copyable {
    // SAFETY (type): the handle is this value's alone until it goes out of scope; buffers live during the calls, which
    // copy them.
    let handle: OpaquePointer

    /// An empty batch.
    init() { unsafe handle = rocksdb_writebatch_create() }

    deinit { unsafe rocksdb_writebatch_destroy(handle) }

    /// Forgets what was put.
    func clear() { unsafe rocksdb_writebatch_clear(handle) }

    /// How many changes there are.
    var count: Int { Int(unsafe rocksdb_writebatch_count(handle)) }

    /// Stores `value` under `key`.
    func put(_ family: RocksDatabase.Family, in database: RocksDatabase, key: [UInt8], value: [UInt8]) {
        unsafe key.withUnsafeBytes { key in
            unsafe value.withUnsafeBytes { value in
                unsafe rocksdb_writebatch_put_cf(
                    handle, database.handle(family), RocksDatabase.characters(key), key.count,
                    RocksDatabase.characters(value), value.count)
            }
        }
    }

    /// Stores `head` and `value` as one value under `key`, without putting them together first.
    func put(_ family: RocksDatabase.Family, in database: RocksDatabase, key: [UInt8], head: [UInt8], value: [UInt8]) {
        unsafe key.withUnsafeBytes { key in
            unsafe head.withUnsafeBytes { head in
                unsafe value.withUnsafeBytes { value in
                    var keyStart = unsafe RocksDatabase.characters(key)
                    var keyLength = key.count
                    let starts = unsafe [RocksDatabase.characters(head), RocksDatabase.characters(value)]
                    unsafe rocksdb_writebatch_putv_cf(
                        handle, database.handle(family), 1, &keyStart, &keyLength, 2, starts,
                        [head.count, value.count])
                }
            }
        }
    }

    /// Removes `key`.
    func remove(_ family: RocksDatabase.Family, in database: RocksDatabase, key: [UInt8]) {
        unsafe key.withUnsafeBytes { key in
            unsafe rocksdb_writebatch_delete_cf(
                handle, database.handle(family), RocksDatabase.characters(key), key.count)
        }
    }
}
