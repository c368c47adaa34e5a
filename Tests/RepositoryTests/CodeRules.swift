// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Rules about what the code says.
enum CodeRules {
    /// Modules that may hold unsafe code: raw memory and system calls end there.
    static let unsafeModules: Set<String> = ["Platform", "Memory", "Reactor"]

    /// Adapters of C libraries outside of these modules, each with the reason.
    static let unsafeAdapters: [String: String] = [
        "Sources/Settings/YAMLParser.swift": "libyaml's parser and its events",
        "Sources/HTTPCalls/HTTPCall.swift": "libcurl's handles and callbacks",
        "Sources/Discovery/Resolver.swift": "c-ares's channel and its callbacks",
        "Sources/Admin/AdminServer.swift": "libmicrohttpd's daemon, connections and responses",
        "Sources/MartletClient/CallWaiter.swift": "the Swift runtime's continuations",
        "Sources/MartletClient/ClientExecutor.swift": "the Swift runtime's jobs",
        "Sources/LoadRunner/GzipFile.swift": "zlib's stream",
        "Sources/ScriptEngine/ScriptContext.swift": "JavaScriptCore's contexts and values",
        "Sources/ScriptEngine/ScriptHub.swift": "JavaScriptCore's values and the memory of its arrays",
        "Sources/StreamDirect/BatchCompression.swift": "LZ4's blocks",
        "Sources/StreamKafka/KafkaHandle.swift": "librdkafka's handles, messages and callbacks",
        "Sources/StoragePostgres/SQLConnection.swift": "libpq's connections and results",
        "Sources/StoragePostgres/SQLConnection+Address.swift": "libpq's list of a connection's options",
        "Sources/StorageRocksDB/BackupDirectory.swift": "RocksDB's engine for backups",
        "Sources/StorageRocksDB/CompactionFilters.swift": "RocksDB's compaction filters and their callbacks",
        "Sources/StorageRocksDB/LogTimer.swift": "RocksDB's performance context",
        "Sources/StorageRocksDB/RocksBatch.swift": "RocksDB's write batch",
        "Sources/StorageRocksDB/RocksDatabase.swift": "RocksDB's database and column families",
        "Sources/StorageRocksDB/RocksDatabase+Maintenance.swift": "RocksDB's checkpoints and options",
        "Sources/StorageRocksDB/RocksIterator.swift": "RocksDB's iterator",
        "Sources/StorageRocksDB/RocksSettings.swift": "RocksDB's options",
        // No raw memory: what the tier takes for shared between threads lives on a simulation's one thread.
        "Sources/SimulationKit/VirtualWorld.swift": "a simulation's one thread",
        "Sources/SimulationKit/SimulatedStore.swift": "a simulation's one thread",
        "Sources/SimulationKit/SimulatedCache.swift": "a simulation's one thread",
        "Sources/SimulationKit/SimulatedNode.swift": "a simulation's one thread",
        "Sources/SimulationKit/StreamHome.swift": "a simulation's one thread",
        "Sources/SimulationKit/FleetNode.swift": "a simulation's one thread",
        "Sources/SimulationKit/FleetStore.swift": "a simulation's one thread",
    ]

    /// How far above an `unsafe` its SAFETY line may stand, when it is not in the same function or on the type.
    static let safetyReach = 12

    static func noFoundation(_ file: SourceFile) -> [Finding] {
        file.code.indices.compactMap { index in
            let line = file.code[index]
            guard TextRules.hasWord("import", in: line) else { return nil }
            guard TextRules.hasWord("Foundation", in: line) || TextRules.hasWord("FoundationEssentials", in: line)
            else {
                return nil
            }
            return Finding(path: file.path, line: index + 1, what: "Foundation stays out of Sources")
        }
    }

    static func unsafePlaces(_ file: SourceFile) -> [Finding] {
        guard !unsafeModules.contains(file.module), unsafeAdapters[file.path] == nil else { return [] }
        return unsafeLines(file).map {
            Finding(
                path: file.path, line: $0 + 1, what: "unsafe code outside of Platform, Memory, Reactor and C adapters")
        }
    }

    static func unsafeLines(_ file: SourceFile) -> [Int] {
        file.code.indices.filter { index in
            ["unsafe", "unchecked", "unowned"].contains { TextRules.hasWord($0, in: file.code[index]) }
        }
    }

    /// Each `unsafe` has a SAFETY line: right above it, in its function, in the function's documentation, or, where the
    /// whole type rests on one argument, in the type's head.
    static func safetyComments(_ file: SourceFile) -> [Finding] {
        let places = file.code.indices.filter { TextRules.hasWord("unsafe", in: file.code[$0]) }
        if places.isEmpty || typeArguments(file) { return [] }
        let functions = Declarations.functions(file)
        return places.compactMap { index in
            let function = functions.filter { $0.first <= index && index <= $0.last }.last
            let from = function.map { documentationStart(file, of: $0.first) } ?? max(0, index - safetyReach)
            let to = function?.last ?? index
            let isCommented = (min(from, max(0, index - safetyReach))...to).contains {
                Bytes.contain("SAFETY", in: file.comments[$0])
            }
            if isCommented { return nil }
            return Finding(path: file.path, line: index + 1, what: "unsafe without a SAFETY line")
        }
    }

    /// Whether the file makes its argument once for all of it: `SAFETY (type)` or `SAFETY (file)`.
    private static func typeArguments(_ file: SourceFile) -> Bool {
        file.comments.contains { Bytes.contain("SAFETY (type)", in: $0) || Bytes.contain("SAFETY (file)", in: $0) }
    }

    private static func documentationStart(_ file: SourceFile, of line: Int) -> Int {
        var start = line
        while start > 0, !file.comments[start - 1].isEmpty || Bytes.contain("@", in: file.code[start - 1]) {
            start -= 1
        }
        return start
    }

    /// `fatalError`, `try!`, `as!`, forced unwrapping and implicitly unwrapped types.
    static func force(_ file: SourceFile) -> [Finding] {
        file.code.indices.compactMap { index in
            let line = file.code[index]
            if TextRules.hasWord("fatalError", in: line) {
                return Finding(path: file.path, line: index + 1, what: "fatalError: use precondition, or a typed error")
            }
            guard hasForce(line) else { return nil }
            return Finding(path: file.path, line: index + 1, what: "something is forced with '!'")
        }
    }

    private static func hasForce(_ line: String) -> Bool {
        guard Bytes.contain("!", in: line) else { return false }
        let bytes = Array(line.utf8)
        return bytes.indices.contains { index in
            guard bytes[index] == UInt8(ascii: "!"), index > 0 else { return false }
            if index + 1 < bytes.count, bytes[index + 1] == UInt8(ascii: "=") { return false }
            let before = bytes[index - 1]
            return TextRules.isWordByte(before) || [41, 93, 125, 34, 96, 62].contains(before)
        }
    }

    /// Declarations that need no words of their own: what they mean is said where they come from.
    static let documentedElsewhere: Set<String> = ["description", "debugDescription", "hash", "deinit"]

    /// A documentation comment on every `package` and `public` declaration.
    static func documentation(_ file: SourceFile) -> [Finding] {
        file.code.indices.compactMap { index in
            let line = file.code[index]
            guard TextRules.hasWord("package", in: line) || TextRules.hasWord("public", in: line),
                let found = Declarations.declaration(line), found.keyword != "extension", found.keyword != "case",
                found.modifiers.contains(where: { $0 == "package" || $0 == "public" }),
                !found.modifiers.contains("override"), !found.modifiers.contains("import"),
                !documentedElsewhere.contains(found.name), !documentedElsewhere.contains(found.keyword)
            else { return nil }
            if isDocumented(file, index) || isWitness(file, index, found.name) || isPlain(file, index) { return nil }
            return Finding(
                path: file.path, line: index + 1, what: "\(found.keyword) \(found.name) has no documentation")
        }
    }

    private static func isDocumented(_ file: SourceFile, _ line: Int) -> Bool {
        var above = line - 1
        while above >= 0 {
            if file.comments[above].hasPrefix("///") { return true }
            let code = file.code[above].drop { $0 == " " }
            // Attributes, plain comments and conditions may stand between.
            guard code.hasPrefix("@") || code.hasPrefix("#") || (code.isEmpty && !file.comments[above].isEmpty) else {
                return false
            }
            above -= 1
        }
        return false
    }

    /// Declarations that the type's own words cover: an initialiser without parameters or of a raw or literal value,
    /// the order of a Comparable, and the constants of a type that names their source.
    private static func isPlain(_ file: SourceFile, _ line: Int) -> Bool {
        let code = file.code[line]
        let heads = [
            "init()", "init(rawValue:", "init(stringLiteral ", "init(integerLiteral ", "init(booleanLiteral ",
            "func < (",
        ]
        if heads.contains(where: { Bytes.contain($0, in: code) }) { return true }
        guard TextRules.hasWord("static", in: code), TextRules.hasWord("let", in: code) else { return false }
        let head = (0..<line).last { file.code[$0].first.map { $0 != " " && $0 != "}" } ?? false }
        var comment = (head ?? 0) - 1
        while comment >= 0, file.comments[comment].hasPrefix("///") || file.code[comment].hasPrefix("@") {
            if Bytes.contain("Source: ", in: file.comments[comment]) { return true }
            comment -= 1
        }
        return false
    }

    /// Whether the file documents a declaration of the same name: a requirement, or an overload.
    private static func isWitness(_ file: SourceFile, _ line: Int, _ name: String) -> Bool {
        guard !name.isEmpty, Declarations.declaration(file.code[line])?.keyword == "func" else { return false }
        return file.code.indices.contains { other in
            other != line && TextRules.hasWord("func", in: file.code[other])
                && Declarations.declaration(file.code[other])?.name == name && isDocumented(file, other)
        }
    }
}
