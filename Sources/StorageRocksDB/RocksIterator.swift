// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRocksDB

/// Walks the keys of a column family in their order, over the state at the moment it was made.
@safe
struct RocksIterator: ~Copyable {
    // SAFETY (type): the handle is this value's alone until it goes out of scope, which is before the database closes.
    // Spans are of memory that RocksDB keeps until the iterator moves; they are used inside of the closure only.
    private let handle: OpaquePointer
    private let options: OpaquePointer

    /// An iterator that is nowhere yet. What it reads does not push other blocks out of the cache.
    init(_ database: RocksDatabase, _ family: RocksDatabase.Family) {
        unsafe options = rocksdb_readoptions_create()
        unsafe rocksdb_readoptions_set_verify_checksums(options, 1)
        unsafe rocksdb_readoptions_set_fill_cache(options, 0)
        unsafe handle = rocksdb_create_iterator_cf(database.database, options, database.handle(family))
    }

    deinit {
        unsafe rocksdb_iter_destroy(handle)
        unsafe rocksdb_readoptions_destroy(options)
    }

    /// Goes to the first key that is not before `key`.
    func seek(_ key: [UInt8]) {
        unsafe key.withUnsafeBytes { unsafe rocksdb_iter_seek(handle, RocksDatabase.characters($0), $0.count) }
    }

    /// Goes to the last key that is not behind `key`.
    func seekBack(_ key: [UInt8]) {
        unsafe key.withUnsafeBytes { unsafe rocksdb_iter_seek_for_prev(handle, RocksDatabase.characters($0), $0.count) }
    }

    /// Goes to the next key.
    func next() { unsafe rocksdb_iter_next(handle) }

    /// Whether the iterator is at a key. When it is not, there are no more, or something failed.
    var isValid: Bool { unsafe rocksdb_iter_valid(handle) != 0 }

    /// Throws if reading failed.
    func checkError() throws(RocksDatabase.Failure) {
        var error: UnsafeMutablePointer<CChar>?
        unsafe rocksdb_iter_get_error(handle, &error)
        if let error = unsafe error { throw unsafe RocksDatabase.Failure(reason: RocksDatabase.take(error)) }
    }

    /// Runs `body` with the key and the value; only where ``isValid``.
    func withEntry<R>(_ body: (_ key: Span<UInt8>, _ value: Span<UInt8>) -> R) -> R {
        var (keyLength, valueLength) = (0, 0)
        let key = unsafe rocksdb_iter_key(handle, &keyLength)
        let value = unsafe rocksdb_iter_value(handle, &valueLength)
        let keyBytes = unsafe UnsafeRawBufferPointer(start: key, count: keyLength)
        let valueBytes = unsafe UnsafeRawBufferPointer(start: value, count: valueLength)
        return unsafe body(
            Span<UInt8>(_bytes: RawSpan(_unsafeBytes: keyBytes)), Span<UInt8>(_bytes: RawSpan(_unsafeBytes: valueBytes))
        )
    }
}
