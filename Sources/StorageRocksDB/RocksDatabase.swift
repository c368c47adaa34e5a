// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CRocksDB
internal import Memory
internal import Platform
internal import Storage

/// An open RocksDB: the C library's handles, behind calls that are safe. Any thread may call; RocksDB guards itself.
///
/// Source: rocksdb/c.h of RocksDB 7.8.
@safe
final class RocksDatabase: @unchecked Sendable {
    // SAFETY (type): the handles are made in `init`, nobody else has them, and they live until `close`, which the owner
    // calls once, after the last other call returned. Buffers that are handed to C live during the call, which copies
    // them; what C hands out is copied before it is freed, and freed once.

    /// The column families. RocksDB demands the default one; it stays empty.
    enum Family: Int, CaseIterable, Sendable {
        case unused, rows, outbox, meta

        var name: String {
            switch self {
            case .unused: "default"
            case .rows: "kv"
            case .outbox: "outbox"
            case .meta: "meta"
            }
        }
    }

    /// Why RocksDB did not do something: its own words.
    struct Failure: Error, Equatable {
        var reason: String

        /// Whether what was read is damaged, and not the reading failed.
        var isDamage: Bool { reason.hasPrefix("Corruption") }
    }

    let database: OpaquePointer
    private var families: [OpaquePointer]
    let readOptions: OpaquePointer
    private let syncedWrite: OpaquePointer
    private let unsyncedWrite: OpaquePointer
    /// What must live as long as the database: options, caches and filters.
    private let settings: RocksSettings

    /// Opens or makes the database in the directory `path`.
    init(path: String, settings: RocksSettings) throws(Failure) {
        self.settings = settings
        var error: UnsafeMutablePointer<CChar>?
        var handles = unsafe [OpaquePointer?](repeating: nil, count: Family.allCases.count)
        let names = Family.allCases.map(\.name)
        let options = unsafe Family.allCases.map { unsafe Optional(settings.options(of: $0)) }
        let opened = unsafe withCStrings(names) { names in
            unsafe rocksdb_open_column_families(
                settings.database, path, Int32(handles.count), names, options, &handles, &error)
        }
        if let error = unsafe error { throw unsafe Failure(reason: RocksDatabase.take(error)) }
        guard let opened = unsafe opened else { throw Failure(reason: "no database, and no reason") }
        unsafe database = opened
        unsafe families = handles.compactMap { unsafe $0 }
        precondition(unsafe families.count == Family.allCases.count, "a column family is missing")
        unsafe readOptions = rocksdb_readoptions_create()
        unsafe rocksdb_readoptions_set_verify_checksums(readOptions, 1)
        unsafe syncedWrite = rocksdb_writeoptions_create()
        unsafe rocksdb_writeoptions_set_sync(syncedWrite, 1)
        unsafe unsyncedWrite = rocksdb_writeoptions_create()
    }

    /// Closes the database. Once, after every other call returned.
    func close() {
        unsafe rocksdb_cancel_all_background_work(database, 1)
        for index in unsafe families.indices { unsafe rocksdb_column_family_handle_destroy(families[index]) }
        unsafe families = []
        unsafe rocksdb_close(database)
        unsafe rocksdb_readoptions_destroy(readOptions)
        unsafe rocksdb_writeoptions_destroy(syncedWrite)
        unsafe rocksdb_writeoptions_destroy(unsyncedWrite)
    }

    /// Begins nothing in the background any more: no flush, no rewriting, and no attempt to go on after an error. Reads
    /// go on. May be called more than once.
    ///
    /// RocksDB looks every five seconds whether a full disk has room again, and then writes one column family after the
    /// other to files. A process that ends between two of them leaves a torn log that one family still needs and that
    /// another is past; RocksDB calls such a store corrupt.
    func endBackgroundWork() { unsafe rocksdb_cancel_all_background_work(database, 0) }

    /// The C library's handle of a column family.
    func handle(_ family: Family) -> OpaquePointer { unsafe families[family.rawValue] }

    /// The number of the last write; every write has a higher one.
    var lastSequence: UInt64 { unsafe rocksdb_get_latest_sequence_number(database) }

    /// Commits a batch; synced, it returns after fdatasync.
    func commit(_ batch: borrowing RocksBatch, synced: Bool) throws(Failure) {
        try unsafe check { error in
            unsafe rocksdb_write(database, synced ? syncedWrite : unsyncedWrite, batch.handle, error)
        }
    }

    /// Writes the log out to the disk: everything that was committed before survives a power loss.
    func syncLog() throws(Failure) {
        try unsafe check { error in unsafe rocksdb_flush_wal(database, 1, error) }
    }

    /// The value of one key; nil when there is none.
    func value(_ family: Family, _ key: [UInt8]) throws(Failure) -> [UInt8]? {
        var length = 0
        var error: UnsafeMutablePointer<CChar>?
        let found = unsafe key.withUnsafeBytes { key in
            unsafe rocksdb_get_cf(
                database, readOptions, handle(family), RocksDatabase.characters(key), key.count, &length, &error)
        }
        if let error = unsafe error { throw unsafe Failure(reason: RocksDatabase.take(error)) }
        guard let found = unsafe found else { return nil }
        defer { unsafe rocksdb_free(found) }
        return unsafe Array(UnsafeRawBufferPointer(start: found, count: length))
    }

    /// Looks up keys that are sorted and differ, together. `found` gets the index and the value of each that is there,
    /// `failed` the index and the reason of each that could not be read; of those that are not there, nothing is heard.
    func values(
        _ family: Family, sortedKeys keys: [[UInt8]], scratch: inout LookupScratch,
        found: (Int, Span<UInt8>) -> Void, failed: (Int, String) -> Void
    ) {
        scratch.prepare(keys)
        let count = keys.count
        unsafe scratch.bytes.withUnsafeBytes { bytes in
            for index in 0..<count {
                let start = unsafe bytes.baseAddress.map { unsafe $0 + scratch.offsets[index] }
                unsafe scratch.pointers[index] = unsafe start?.assumingMemoryBound(to: CChar.self)
            }
            unsafe rocksdb_batched_multi_get_cf(
                database, readOptions, handle(family), count, scratch.pointers, scratch.lengths, &scratch.values,
                &scratch.errors, true)
        }
        for index in 0..<count {
            if let slice = unsafe scratch.values[index] {
                defer { unsafe rocksdb_pinnableslice_destroy(slice) }
                var length = 0
                let start = unsafe rocksdb_pinnableslice_value(slice, &length)
                let bytes = unsafe UnsafeRawBufferPointer(start: start, count: start == nil ? 0 : length)
                unsafe found(index, Span<UInt8>(_bytes: RawSpan(_unsafeBytes: bytes)))
            } else if let error = unsafe scratch.errors[index] {
                failed(index, unsafe RocksDatabase.take(error))
            }
        }
    }

    // MARK: Between Swift and C

    /// Runs `body` with a place for an error, and throws the error if there is one.
    func check(_ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Void) throws(Failure) {
        var error: UnsafeMutablePointer<CChar>?
        unsafe withUnsafeMutablePointer(to: &error) { unsafe body($0) }
        if let error = unsafe error { throw unsafe Failure(reason: RocksDatabase.take(error)) }
    }

    /// An error's words, which are freed.
    static func take(_ error: UnsafeMutablePointer<CChar>) -> String {
        defer { unsafe rocksdb_free(error) }
        return unsafe String(cString: error)
    }

    /// Bytes as the C interface calls them.
    static func characters(_ bytes: UnsafeRawBufferPointer) -> UnsafePointer<CChar>? {
        unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
    }
}

/// What looking up several keys needs, kept from one time to the next.
@safe
struct LookupScratch {
    // SAFETY (type): pointers are set right before the call that uses them, into `bytes`, which does not change
    // between.
    fileprivate(set) var bytes: [UInt8] = []
    fileprivate(set) var offsets: [Int] = []
    fileprivate(set) var lengths: [Int] = []
    fileprivate var pointers: [UnsafePointer<CChar>?] = unsafe []
    fileprivate var values: [OpaquePointer?] = unsafe []
    fileprivate var errors: [UnsafeMutablePointer<CChar>?] = unsafe []

    fileprivate mutating func prepare(_ keys: [[UInt8]]) {
        bytes.removeAll(keepingCapacity: true)
        offsets.removeAll(keepingCapacity: true)
        lengths.removeAll(keepingCapacity: true)
        for key in keys {
            offsets.append(bytes.count)
            lengths.append(key.count)
            bytes.append(contentsOf: key)
        }
        let more = unsafe keys.count - pointers.count
        if more > 0 {
            unsafe pointers.append(contentsOf: repeatElement(nil, count: more))
            unsafe values.append(contentsOf: repeatElement(nil, count: more))
            unsafe errors.append(contentsOf: repeatElement(nil, count: more))
        }
        for index in keys.indices {
            unsafe values[index] = nil
            unsafe errors[index] = nil
        }
    }
}

/// Runs `body` with the strings as a C array of terminated strings.
func withCStrings<R>(_ strings: [String], _ body: ([UnsafePointer<CChar>?]) -> R) -> R {
    // SAFETY: all strings lie in one array that lives during the call, each terminated; the pointers do not escape.
    var bytes: [CChar] = []
    var offsets: [Int] = []
    for string in strings {
        offsets.append(bytes.count)
        bytes.append(contentsOf: string.utf8.map { CChar(bitPattern: $0) })
        bytes.append(0)
    }
    return unsafe bytes.withUnsafeBufferPointer { buffer in
        unsafe body(offsets.map { offset in unsafe buffer.baseAddress.map { unsafe $0 + offset } })
    }
}
