// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// What an opened store says about itself.
struct StoreState: Sendable {
    /// The store's name in the stream.
    var identity: String
    /// The stream's epoch.
    var epoch: UInt64
    /// No version above it was committed.
    var versionMark: UInt64
    /// The last sequence number of each slot.
    var lastSequences: [UInt64]
}

extension RocksDBBackend {
    /// Opens the store, or makes it.
    func open() throws(StorageStartError) -> (RocksDatabase, StoreState) {
        if let complaint = configuration.complaint { throw StorageStartError("storage: \(complaint)") }
        let marker = try StoreMarker.examine(configuration.path, durability: configuration.durability)
        // Without syncs, a power loss leaves holes in the log, and they mean nothing.
        if marker.durability != .async, !configuration.acceptsDamagedLog {
            try WriteAheadLog.check(configuration.path)
        }
        let database = try openDatabase()
        do throws(StorageStartError) {
            let state = try readState(database, marker)
            try StoreMarker(durability: configuration.durability, state: .open).write(configuration.path)
            return (database, state)
        } catch {
            database.close()
            throw error
        }
    }

    private func openDatabase() throws(StorageStartError) -> RocksDatabase {
        let filters = CompactionFilters(rules: core.rules, cursors: core.cursors)
        do throws(RocksDatabase.Failure) {
            let settings = RocksSettings(configuration, filters: filters, compresses: true)
            let database: RocksDatabase
            do throws(RocksDatabase.Failure) {
                database = try RocksDatabase(path: configuration.path, settings: settings)
            } catch  where error.reason.contains("Compression type") {
                // A library without LZ4: files that have it could not be read anyway.
                let plain = RocksSettings(configuration, filters: filters, compresses: false)
                database = try RocksDatabase(path: configuration.path, settings: plain)
            }
            try database.setOption(.rows, "periodic_compaction_seconds", "\(configuration.rewriteSeconds)")
            return database
        } catch {
            throw StorageStartError(Self.explain(error.reason, path: configuration.path))
        }
    }

    /// RocksDB's reason in words that say what can be done.
    static func explain(_ reason: String, path: String) -> String {
        let head = "storage path \(path): "
        if !reason.hasPrefix("Corruption"), reason.contains("/LOCK") || reason.contains("lock file") {
            return head + "another process, or another node in this one, has the store open: \(reason)"
        }
        if reason.contains("No space left") { return head + "the disk is full: \(reason)" }
        if reason.contains("Permission denied") || reason.contains("Read-only file system") {
            return head + "it cannot be written: \(reason)"
        }
        if reason.contains("Column families not opened") || reason.contains("Invalid argument") {
            return head + "the database was made by a newer version or by another program: \(reason)"
        }
        if reason.hasPrefix("Corruption") || reason.contains("No such file") {
            return head + "the database is damaged: \(reason); restore a backup, or remove the directory to begin empty"
        }
        return head + reason
    }

    private func readState(_ database: RocksDatabase, _ marker: StoreMarker) throws(StorageStartError) -> StoreState {
        do throws(RocksDatabase.Failure) {
            var sequences = [UInt64](repeating: 0, count: OutboxKey.slots)
            let trim = MetaRows.numbers(try database.value(.meta, MetaRows.trim))
            let iterator = RocksIterator(database, .outbox)
            var key: [UInt8] = []
            for slot in 0..<OutboxKey.slots {
                OutboxKey.encode(slot: slot, sequence: .max, into: &key)
                iterator.seekBack(key)
                let last = iterator.isValid ? iterator.withEntry { found, _ in OutboxKey.decode(found) } : nil
                try iterator.checkError()
                if let last, last.slot == slot { sequences[slot] = last.sequence }
                let kept = trim?[slot] ?? 0
                sequences[slot] = max(sequences[slot], kept)
                core.cursors.advance(slot, to: kept)
            }
            core.cursors.noteKept(sequences)
            let batch = RocksBatch()
            let identity: String
            var epoch = MetaRows.number(try database.value(.meta, MetaRows.epoch)) ?? 0
            if let known = try database.value(.meta, MetaRows.identity) {
                identity = String(decoding: known, as: UTF8.self)
            } else if marker.state == .new {
                identity = Self.newIdentity()
                batch.put(.meta, in: database, key: MetaRows.identity, value: Array(identity.utf8))
                batch.put(.meta, in: database, key: MetaRows.format, value: MetaRows.encode(1))
            } else {
                throw RocksDatabase.Failure(reason: "Corruption: the store's own rows are missing")
            }
            let isCut = marker.state == .open && marker.durability == .async
            if marker.state == .restored || configuration.acceptsDamagedLog {
                // The copy does not know which epochs came behind it: one that none of them can have had.
                epoch = max(epoch + 1, UInt64(max(0, configuration.now())))
                batch.put(.meta, in: database, key: MetaRows.epoch, value: MetaRows.encode(epoch))
            } else if epoch == 0 || isCut {
                epoch += 1
                batch.put(.meta, in: database, key: MetaRows.epoch, value: MetaRows.encode(epoch))
            }
            if batch.count > 0 { try database.commit(batch, synced: true) }
            let mark = MetaRows.number(try database.value(.meta, MetaRows.versionMark)) ?? 0
            return StoreState(identity: identity, epoch: epoch, versionMark: mark, lastSequences: sequences)
        } catch {
            throw StorageStartError(Self.explain(error.reason, path: configuration.path))
        }
    }

    /// Sixteen random hexadecimal digits.
    private static func newIdentity() -> String { Hexadecimal.digits(UInt64.random(in: 0...UInt64.max)) }
}
