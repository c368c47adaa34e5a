// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Platform
internal import Settings
internal import Telemetry

/// The files that a configuration was read from, as they were when it could be used: kept in one file, and read from
/// there when it can be no more.
package struct LastGoodConfiguration: Sendable, Equatable {
    /// Their paths, the first first, with what stood in them.
    package var files: [(path: String, bytes: [UInt8])]

    private static var start: String { "martlet-router configuration 1\n" }

    /// These files.
    package init(_ files: [(path: String, bytes: [UInt8])]) { self.files = files }

    /// Whether both have the same files.
    package static func == (left: LastGoodConfiguration, right: LastGoodConfiguration) -> Bool {
        left.files.elementsEqual(right.files) { $0 == $1 }
    }

    /// As it is kept: for each file its lengths, its path and its bytes, which a person can read.
    package var encoded: [UInt8] {
        var text = Array(Self.start.utf8)
        for (path, bytes) in files {
            text += Array("\(path.utf8.count) \(bytes.count)\n\(path)\n".utf8) + bytes + [UInt8(ascii: "\n")]
        }
        return text
    }

    /// What was kept; nil for what is none.
    package init?(encoded: [UInt8]) {
        let start = Array(Self.start.utf8)
        guard encoded.starts(with: start) else { return nil }
        var (rest, files) = (encoded.dropFirst(start.count), [(path: String, bytes: [UInt8])]())
        while !rest.isEmpty {
            let line = rest.prefix { $0 != UInt8(ascii: "\n") }
            let numbers = String(decoding: line, as: UTF8.self).split(separator: " ").compactMap { Int($0) }
            rest = rest.dropFirst(line.count + 1)
            guard numbers.count == 2, numbers.allSatisfy({ $0 >= 0 && $0 <= rest.count }),
                rest.count >= numbers[0] + numbers[1] + 2
            else { return nil }
            let path = String(decoding: rest.prefix(numbers[0]), as: UTF8.self)
            rest = rest.dropFirst(numbers[0] + 1)
            files.append((path, Array(rest.prefix(numbers[1]))))
            rest = rest.dropFirst(numbers[1] + 1)
        }
        guard !files.isEmpty else { return nil }
        self.files = files
    }

    func bytes(of path: String) -> [UInt8]? { files.first { $0.path == path }?.bytes }

    /// Where a file of ours says that its last good state is kept, though it cannot be read otherwise.
    static func path(in bytes: [UInt8]) -> String? {
        for line in bytes.split(separator: UInt8(ascii: "\n")) where line.starts(with: "lastGoodFile:".utf8) {
            // The line by itself; what is wrong with the file is on another.
            guard let root = try? SettingsNode.parse(Array(line), file: ""), case .mapping(let entries) = root.content,
                let value = entries.first?.value, !value.isNull, case .scalar(let path, _) = value.content
            else { continue }
            return path.isEmpty ? nil : path
        }
        return nil
    }

    /// Keeps it at `path`, where something else is there. Blocks.
    func keep(at path: String, log: Log) {
        let bytes = encoded
        if let known = try? readFile(path, limitBytes: bytes.count), known == bytes { return }
        do throws(SystemError) {
            try writeFile(path + ".new", bytes, mode: 0o600)
            try renameFile(path + ".new", to: path)
        } catch {
            log.error("the configuration is not kept", ["reason": .of(error), "setting": "lastGoodFile"])
        }
    }
}
