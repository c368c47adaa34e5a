// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage

/// The files of one backup, as its own list has them: RocksDB's C interface compares lengths only.
///
/// Source: RocksDB's backup_engine.cc, the files `meta/NUMBER`: a line for each file, with its path below the
/// directory, `crc32` and the CRC-32C of its content.
struct BackupFiles {
    private let directory: String
    private let number: UInt32

    /// What is read of a file at once.
    private static let fileLimitBytes = 4 << 30

    init(_ directory: String, _ number: UInt32) {
        self.directory = directory
        self.number = number
    }

    /// Reads every file and compares it with its checksum; returns how many bytes that were. Blocks.
    func verify() throws(StorageFailure) -> Int {
        let list = String(decoding: try read("meta/\(number)", limitBytes: 64 << 20), as: UTF8.self)
        var (bytes, files) = (0, 0)
        for line in list.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let mark = words.firstIndex(of: "crc32"), mark == 1, words.count > 2 else { continue }
            guard let checksum = UInt32(words[2]) else { throw failure("the checksum of \(words[0]) is no number") }
            let content = try read(String(words[0]), limitBytes: Self.fileLimitBytes)
            guard CRC32C.checksum(content.span, from: 0, length: content.count) == checksum else {
                throw failure("\(words[0]) is damaged: its checksum is wrong")
            }
            bytes += content.count
            files += 1
        }
        guard files > 0 else { throw failure("its list names no files with checksums") }
        return bytes
    }

    private func read(_ name: String, limitBytes: Int) throws(StorageFailure) -> [UInt8] {
        do throws(SystemError) { return try readFile("\(directory)/\(name)", limitBytes: limitBytes) } catch {
            throw failure("\(error)")
        }
    }

    private func failure(_ reason: String) -> StorageFailure {
        StorageFailure(.refused, "backup \(number) in \(directory): \(reason)")
    }
}
