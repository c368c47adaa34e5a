// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage
internal import StorageRocksDB

/// The commands on a directory of backups, which need no node: list, verify, restore.
struct BackupCommands {
    private let options: ControlOptions
    private let directory: String
    private var isJSON: Bool { options.has("json") }

    init(_ options: ControlOptions) throws(ControlError) {
        self.options = options
        directory = try options.required("from")
    }

    /// A line for each backup, the oldest first.
    func list() throws(ControlError) -> String {
        let backups = try data { () throws(StorageFailure) in try RocksDBBackend.backups(in: directory) }
        if isJSON {
            return "{\"backups\":[" + backups.map(Self.object).joined(separator: ",") + "]}\n"
        }
        if backups.isEmpty { return "There are no backups in \(directory)\n" }
        let heads = [["ID", "MADE (UTC)", "BYTES", "FILES"]]
        let rows = backups.map { ["\($0.number)", Self.time($0.unixSeconds), "\($0.bytes)", "\($0.files)"] }
        return (heads + rows).map { "\(Self.left($0[0], 8))\(Self.left($0[1], 22))\(Self.left($0[2], 16))\($0[3])\n" }
            .joined()
    }

    /// Reads a backup through.
    func verify() throws(ControlError) -> String {
        let number = try number()
        let (backup, bytes) = try data { () throws(StorageFailure) in
            try RocksDBBackend.verifyBackup(in: directory, number: number)
        }
        if isJSON { return "{\"verified\":\(backup.number),\"bytes\":\(bytes)}\n" }
        return "Backup \(backup.number) in \(directory) is whole: \(backup.files) files, \(bytes) bytes\n"
    }

    /// Puts a backup in a new directory.
    func restore() throws(ControlError) -> String {
        let target = try options.required("to")
        let number = try number()
        try data { () throws(StorageFailure) in
            try RocksDBBackend.restore(from: directory, number: number, to: target)
        }
        if isJSON { return "{\"restored\":true}\n" }
        let which = number.map { "Backup \($0)" } ?? "The newest backup"
        return "\(which) of \(directory) is in \(target): start a node with --storage-path \(target)\n"
    }

    private func number() throws(ControlError) -> UInt32? {
        guard let number = try options.number("id") else { return nil }
        return UInt32(clamping: number)
    }

    private func data<R>(_ body: () throws(StorageFailure) -> R) throws(ControlError) -> R {
        do throws(StorageFailure) { return try body() } catch { throw ControlError(.data, error.reason) }
    }

    private static func object(_ backup: StoredBackup) -> String {
        "{\"id\":\(backup.number),\"made\":\(JSONString.quoted(time(backup.unixSeconds))),"
            + "\"bytes\":\(backup.bytes),\"files\":\(backup.files)}"
    }

    private static func left(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }

    /// RFC 3339 in UTC. The date is Howard Hinnant's civil_from_days, with years that begin in March.
    static func time(_ unixSeconds: Int64) -> String {
        let seconds = max(0, unixSeconds)
        let day = seconds / 86_400 + 719_468
        let (era, dayOfEra) = day.quotientAndRemainder(dividingBy: 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let clock = "\(two(seconds / 3600 % 24)):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
        return "\(year)-\(two(month))-\(two(dayOfYear - (153 * shifted + 2) / 5 + 1))T\(clock)Z"
    }
}
