// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc

/// The repository that this file is part of, as files on the disk.
enum Repository {
    /// Directories that are made, not written.
    static let generated: Set<String> = [
        ".build", ".git", ".venv", "out", ".ruff_cache", ".pytest_cache", "__pycache__",
    ]

    /// Where it lies.
    static let root: String = {
        let parts = #filePath.split(separator: "/").dropLast(3)
        return "/" + parts.joined(separator: "/")
    }()

    /// Every file below `directory` (of the root), by path from the root, in order.
    static func paths(below directory: String, suffix: String = "") -> [String] {
        var found: [String] = []
        for name in names(in: directory) where !generated.contains(name) {
            let path = directory.isEmpty ? name : directory + "/" + name
            if isDirectory(path) {
                found += paths(below: path, suffix: suffix)
            } else if name.hasSuffix(suffix) {
                found.append(path)
            }
        }
        return found.sorted()
    }

    /// The names in a directory; none when there is no such directory.
    static func names(in directory: String) -> [String] {
        guard let stream = unsafe opendir(root + "/" + directory) else { return [] }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    private static func isDirectory(_ path: String) -> Bool {
        guard let stream = unsafe opendir(root + "/" + path) else { return false }
        unsafe closedir(stream)
        return true
    }

    /// A file's content; nil when it cannot be read or is not text.
    static func text(_ path: String) -> String? {
        let fd = unsafe open(root + "/" + path, O_RDONLY | O_CLOEXEC)
        guard fd >= 0 else { return nil }
        defer { close(fd) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe read(fd, $0.baseAddress, $0.count) }
            guard count >= 0 else { return nil }
            if count == 0 { break }
            bytes += buffer[0..<count]
        }
        return bytes.contains(0) ? nil : String(decoding: bytes, as: UTF8.self)
    }

    /// Every Swift file of the products and their tests, parsed once.
    static let swiftFiles: [SourceFile] =
        (paths(below: "Sources", suffix: ".swift") + paths(below: "Tests", suffix: ".swift"))
        .compactMap { path in text(path).map { SourceFile(path: path, text: $0) } }
}

/// What a rule has against a place.
struct Finding: CustomStringConvertible, Equatable {
    let path: String
    let line: Int
    let what: String

    var description: String { "\(path):\(line): \(what)" }
}
