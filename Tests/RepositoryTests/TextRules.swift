// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Rules about how a file is written, whatever it means.
enum TextRules {
    static let lineLimit = 120
    static let fileLimit = 600
    static let testFileLimit = 900
    static let executableLimit = 100
    static let functionLimit = 70
    /// Names that say nothing about what is in a file.
    static let emptyNames = ["Utils", "Util", "Helpers", "Helper", "Common", "Extensions", "Misc"]

    static func length(_ file: SourceFile) -> [Finding] {
        let limit = file.isTest ? testFileLimit : file.path.hasSuffix("/main.swift") ? executableLimit : fileLimit
        guard file.lines.count > limit else { return [] }
        return [Finding(path: file.path, line: limit + 1, what: "\(file.lines.count) lines; at most \(limit)")]
    }

    static func lineWidth(_ file: SourceFile) -> [Finding] {
        // Characters are counted only where there are too many bytes: that takes its time.
        file.lines.indices.filter { file.lines[$0].utf8.count > lineLimit && file.lines[$0].count > lineLimit }
            .map {
                Finding(path: file.path, line: $0 + 1, what: "\(file.lines[$0].count) columns; at most \(lineLimit)")
            }
    }

    static func header(_ file: SourceFile) -> [Finding] {
        let isRight = Array(file.lines.prefix(2)) == ["// Martlet", "// SPDX-License-Identifier: Apache-2.0"]
        return isRight ? [] : [Finding(path: file.path, line: 1, what: "the two-line header is missing")]
    }

    static func name(_ file: SourceFile) -> [Finding] {
        let name = file.path.split(separator: "/").last?.dropLast(".swift".count) ?? ""
        let parts = name.split(separator: "+")
        guard let empty = parts.first(where: { part in emptyNames.contains { part.hasSuffix($0) } }) else { return [] }
        return [Finding(path: file.path, line: 1, what: "'\(empty)' says nothing about what is in the file")]
    }

    /// Notes of work not done, in comments of any file kind that has them.
    static func unfinished(_ file: SourceFile) -> [Finding] {
        let marks = ["TODO", "FIXME", "XXX", "HACK"]
        return file.comments.indices.compactMap { index in
            guard let mark = marks.first(where: { hasWord($0, in: file.comments[index]) }) else { return nil }
            return Finding(path: file.path, line: index + 1, what: "\(mark): finish it or leave it out")
        }
    }

    /// Paths that exist on one machine only, in any text file.
    static func machinePaths(_ path: String, _ text: String) -> [Finding] {
        let roots = ["/tmp/" + "w/", "/" + "work/", "/" + "home/", "/" + "Users/", "/" + "root/"]
        let places = roots.flatMap { root in Bytes.offsets(of: root, in: text).map { (root, $0) } }
        if places.isEmpty { return [] }
        let bytes = Array(text.utf8)
        var lines: Set<Int> = []
        return places.sorted { $0.1 < $1.1 }.compactMap { root, start in
            let before = start > 0 ? bytes[start - 1] : UInt8(ascii: " ")
            // Of a longer path, or of a host's: `.`, `}` and `)`, letters and digits of any script.
            let isLonger = isWordByte(before) && before != UInt8(ascii: "_") || before >= 0x80
            if isLonger || [46, 125, 41].contains(before) { return nil }
            let line = bytes[..<start].count { $0 == UInt8(ascii: "\n") } + 1
            guard lines.insert(line).inserted else { return nil }
            return Finding(path: path, line: line, what: "the path \(root) is of one machine")
        }
    }

    /// Functions, initialisers and accessors longer than the limit, from their first to their last line.
    static func functionLength(_ file: SourceFile) -> [Finding] {
        Declarations.functions(file).filter { $0.last - $0.first + 1 > functionLimit }.map {
            Finding(
                path: file.path, line: $0.first + 1,
                what: "a function of \($0.last - $0.first + 1) lines; at most \(functionLimit)")
        }
    }

    // MARK: Text, without Foundation

    /// Whether `word` is in `text`, not as part of a longer word.
    static func hasWord(_ word: String, in text: String) -> Bool { !offsets(ofWord: word, in: text).isEmpty }

    static func isWordByte(_ byte: UInt8) -> Bool {
        byte == 95 || (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
    }

    /// Where `word` starts in the text's UTF-8, each time it stands alone.
    static func offsets(ofWord word: String, in text: String) -> [Int] {
        let places = Bytes.offsets(of: word, in: text)
        if places.isEmpty { return [] }
        let (line, length) = (Array(text.utf8), word.utf8.count)
        return places.filter { start in
            if start > 0, isWordByte(line[start - 1]) { return false }
            return start + length == line.count || !isWordByte(line[start + length])
        }
    }
}
