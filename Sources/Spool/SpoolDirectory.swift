// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Platform

/// Where missed deletes are kept, and how many.
package struct SpoolConfiguration: Sendable, Equatable {
    /// The directory: made if missing, and one process's only.
    package var directory: String
    /// Bytes of all segments at most; beyond, deletes are refused.
    package var limitBytes = 1 << 30
    /// Bytes of a segment, about: what was replayed is removed by segments.
    package var segmentBytes = 4 << 20
    /// Whether every record outlives a power loss before it counts; else only the process's end.
    package var isSynced = true

    /// Those in `directory`.
    package init(directory: String) { self.directory = directory }
}

/// Deletes that servers missed, on disk: a log for each server. For one thread; blocks.
package final class SpoolDirectory {
    private let configuration: SpoolConfiguration
    private var logs: [String: SpoolLog] = [:]
    private let lock: Descriptor
    /// A name of this directory's own: the same whenever it is opened.
    package let identifier: String

    /// Why records were not taken.
    package enum Refusal: Error, Equatable {
        /// The directory is full.
        case full
        /// The disk did not take them.
        case failed(String)
    }

    /// Opens the directory with all that earlier processes left in it. Throws when another process has it open.
    package init(_ configuration: SpoolConfiguration) throws(SystemError) {
        self.configuration = configuration
        try makeDirectory(configuration.directory, mode: 0o700)
        lock = try lockFile(configuration.directory + "/lock")
        identifier = try Self.identifier(in: configuration.directory)
        for name in try directoryEntries(configuration.directory) {
            guard isDirectory(configuration.directory + "/" + name), let server = SpoolLog.server(of: name) else {
                continue
            }
            logs[server] = try SpoolLog(server, configuration)
        }
    }

    private static func identifier(in directory: String) throws(SystemError) -> String {
        if let known = try? readFile(directory + "/id", limitBytes: 64) {
            let text = String(decoding: known, as: UTF8.self).prefix { $0 != "\n" }
            if text.utf8.count == 16, text.allSatisfy(\.isHexDigit) { return String(text) }
        }
        let fresh = Hexadecimal.digits(UInt64.random(in: .min ... .max))
        try replaceFileDurably("id", in: directory, with: Array((fresh + "\n").utf8), mode: 0o600)
        return fresh
    }

    /// The servers that have records, and how many.
    package var counts: [String: Int] { logs.mapValues(\.count).filter { $0.value > 0 } }

    /// Bytes of all segments.
    package var bytes: Int { logs.values.reduce(0) { $0 + $1.bytes } }

    /// Keeps keys that `server` was to delete, in their order. All or nothing of it counts.
    package func append(_ keys: [[UInt8]], of server: String, seconds: UInt32) throws(Refusal) {
        guard bytes + SpoolLog.bytes(for: keys) <= configuration.limitBytes,
            keys.allSatisfy({ 1...SpoolRecord.keyLimit ~= $0.count })
        else { throw .full }
        do throws(SystemError) {
            let log = if let known = logs[server] { known } else { try SpoolLog(server, configuration) }
            logs[server] = log
            try log.append(keys, seconds: seconds)
        } catch {
            throw .failed(error.description)
        }
    }

    /// The oldest keys of a server, `limit` at most: the same again until ``advance(_:)`` is called.
    package func next(_ server: String, limit: Int) throws(SystemError) -> [[UInt8]] {
        try logs[server]?.next(limit: limit) ?? []
    }

    /// What ``next(_:limit:)`` gave last was replayed.
    package func advance(_ server: String) { logs[server]?.advance() }

    /// How many records of a server are left.
    package func count(_ server: String) -> Int { logs[server]?.count ?? 0 }
}
