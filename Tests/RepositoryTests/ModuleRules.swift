// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which module may import which: docs/architecture.md.
enum ModuleRules {
    /// A module imports lower levels only.
    static let levels: [String: Int] = [
        "Platform": 0, "Memory": 0,
        "Telemetry": 1, "MemcacheProtocol": 1, "CacheEngine": 1, "Settings": 1, "Storage": 1,
        "Routing": 1, "Overload": 1, "Spool": 1, "HTTPCalls": 1,
        "Reactor": 2, "Admin": 2, "StorageRocksDB": 2, "StoragePostgres": 2, "Invalidation": 2,
        "RouteConfiguration": 2, "Discovery": 2, "Tracing": 2, "LoadModel": 2, "ScriptEngine": 1,
        "Hosting": 3, "MartletClient": 3, "SimulationKit": 3, "StreamDirect": 3, "StreamKafka": 3,
        "NodeServer": 4, "StorageRegion": 4, "RouterProxy": 4, "Control": 4, "LoadRunner": 4,
        "martlet-server": 5, "martlet-router": 5, "martletctl": 5, "martlet-load": 5,
    ]

    /// C modules, each with those that may import it.
    static let adapters: [String: Set<String>] = [
        "CPlatform": ["Platform", "Memory", "Reactor"],
        "CXXHash": ["Memory"],
        "CJemalloc": ["Memory"],
        "COpenSSL": ["Reactor"],
        "CMicroHTTPD": ["Admin"],
        "CYAML": ["Settings"],
        "CZlib": ["LoadRunner"],
        "CLZ4": ["StreamDirect"],
        "CRDKafka": ["StreamKafka"],
        "CRocksDB": ["StorageRocksDB"],
        "CAres": ["Discovery"],
        "CCurl": ["HTTPCalls"],
        "CPostgres": ["StoragePostgres"],
        "CJavaScript": ["ScriptEngine"],
    ]

    /// The toolchain's modules that may be imported, each with those that may.
    static let system: [String: Set<String>] = [
        // LoadModel: for libm's functions.
        "Glibc": ["Platform", "Memory", "Admin", "LoadModel"]
    ]

    /// Of the toolchain's modules, what anybody may import.
    static let free: Set<String> = ["Synchronization"]

    static func imports(_ file: SourceFile) -> [(module: String, line: Int)] {
        file.code.indices.compactMap { index in
            guard Bytes.contain("import", in: file.code[index]) else { return nil }
            let words = file.code[index].split(separator: " ").map(String.init)
            guard let position = words.firstIndex(of: "import"), position + 1 < words.count else { return nil }
            guard
                words[..<position].allSatisfy({
                    ["internal", "package", "public", "private"].contains($0) || $0.hasPrefix("@")
                })
            else { return nil }
            return (words[position + 1], index)
        }
    }

    static func levels(_ file: SourceFile) -> [Finding] {
        // What a tutorial shows is the reader's code, which is compiled into nothing.
        if file.path.contains(".docc/") { return [] }
        guard let own = levels[file.module] else {
            return [Finding(path: file.path, line: 1, what: "module \(file.module) has no level in RepositoryTests")]
        }
        return imports(file).compactMap { module, line in
            guard let what = complaint(file.module, own, module) else { return nil }
            return Finding(path: file.path, line: line + 1, what: what)
        }
    }

    private static func complaint(_ importer: String, _ own: Int, _ module: String) -> String? {
        if free.contains(module) { return nil }
        if let level = levels[module] {
            return level < own ? nil : "\(importer) (level \(own)) may not import \(module) (level \(level))"
        }
        if let allowed = adapters[module] ?? system[module] {
            return allowed.contains(importer)
                ? nil : "\(module) is for \(allowed.sorted().joined(separator: ", ")) only"
        }
        return "nobody may import \(module)"
    }
}
