// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage

/// The file `MARTLET` of a store's directory: what must be known before RocksDB is opened.
///
/// It says that the directory is a store of ours, of which format, and how the last run ended. It is replaced as a
/// whole and durably when a store is opened and closed.
struct StoreMarker: Equatable {
    /// How the last run left the store.
    enum State: String {
        /// There is no database yet: the directory was just made.
        case new
        /// It is open, or its process ended without closing it.
        case open
        /// It was closed.
        case closed
        /// It was put there from a backup or a checkpoint, and not opened since.
        case restored
    }

    /// The format that this program writes.
    static let currentFormat = 1
    static let name = "MARTLET"
    /// What may lie in a directory that becomes a store.
    private static let harmless: Set<String> = ["lost+found", name + ".new"]

    var format = currentFormat
    var durability = RocksDBConfiguration.Durability.sync
    var state = State.new

    /// What the directory at `path` says. Makes the directory and the marker where there is nothing; refuses what is no
    /// store, or one of a newer format, or one that lost its database.
    static func examine(_ path: String, durability: RocksDBConfiguration.Durability) throws(StorageStartError) -> Self {
        let entries = try starting(path) { () throws(SystemError) in
            try makeDirectory(path, mode: 0o700)
            return try directoryEntries(path)
        }
        if entries.contains(name) {
            let text = try starting(path) { () throws(SystemError) in
                try readFile(path + "/" + name, limitBytes: 4_096)
            }
            let marker = try parse(text, path: path)
            if marker.state != .new, !entries.contains("CURRENT") {
                throw StorageStartError(
                    "storage path \(path): the database is damaged: its file CURRENT is missing; restore a backup, or "
                        + "remove the directory to begin with an empty store")
            }
            // Whoever put it there may not have synced the directory's name.
            if marker.state == .restored { try syncName(of: path) }
            return marker
        }
        let strangers = entries.filter { !harmless.contains($0) }.sorted()
        guard strangers.isEmpty else {
            let whose = entries.contains("CURRENT") ? "a database of another program" : "no store"
            throw StorageStartError(
                "storage path \(path) is \(whose): it holds \(strangers[0]) and no file \(name); name an empty or "
                    + "a new directory")
        }
        let marker = StoreMarker(durability: durability)
        try marker.write(path)
        try syncName(of: path)
        return marker
    }

    private static func syncName(of path: String) throws(StorageStartError) {
        try starting(path) { () throws(SystemError) in try syncDirectory(parent(path)) }
    }

    /// Puts the marker in the directory at `path`, durably.
    func write(_ path: String) throws(StorageStartError) {
        let text = "martlet-store\nformat \(format)\ndurability \(durability.rawValue)\nstate \(state.rawValue)\n"
        try starting(path) { () throws(SystemError) in
            try replaceFileDurably(Self.name, in: path, with: Array(text.utf8))
        }
    }

    private static func parse(_ bytes: [UInt8], path: String) throws(StorageStartError) -> StoreMarker {
        let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
        var values: [Substring: Substring] = [:]
        for line in lines.dropFirst() {
            let words = line.split(separator: " ", maxSplits: 1)
            if words.count == 2 { values[words[0]] = words[1] }
        }
        guard lines.first == "martlet-store", let format = values["format"].flatMap({ Int($0) }) else {
            throw StorageStartError("storage path \(path): the file \(name) is damaged; restore a backup")
        }
        guard format <= currentFormat else {
            throw StorageStartError(
                "storage path \(path) has format \(format); this version reads formats up to \(currentFormat): use the "
                    + "newer version that wrote it")
        }
        guard let durability = values["durability"].flatMap({ RocksDBConfiguration.Durability(rawValue: String($0)) }),
            let state = values["state"].flatMap({ State(rawValue: String($0)) })
        else { throw StorageStartError("storage path \(path): the file \(name) is damaged; restore a backup") }
        return StoreMarker(format: format, durability: durability, state: state)
    }

    /// The directory above `path`.
    private static func parent(_ path: String) -> String {
        var parts = path.split(separator: "/", omittingEmptySubsequences: false)
        while parts.count > 1, parts.last == "" { parts.removeLast() }
        let above = parts.dropLast().joined(separator: "/")
        return above.isEmpty ? (path.hasPrefix("/") ? "/" : ".") : above
    }
}

/// Runs a system call on a store's directory; its failure becomes one of the start.
func starting<R>(_ path: String, _ body: () throws(SystemError) -> R) throws(StorageStartError) -> R {
    do throws(SystemError) { return try body() } catch {
        throw StorageStartError("storage path \(path): \(error.call) \(error.subject): \(error.reason)")
    }
}
