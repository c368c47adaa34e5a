// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which module may import which: docs/architecture.md.
enum ModuleRules {
    /// A module imports lower levels only.
    static let levels: [String: Int] = [
        "Platform": 0, "Memory": 0,
        "Telemetry": 1, "MemcacheProtocol": 1, "CacheEngine": 1, "Settings": 1,
        "Reactor": 2, "Admin": 2,
        "NodeServer": 3,
        "martlet-server": 4,
    ]

    /// C modules, each with those that may import it.
    static let adapters: [String: Set<String>] = [
        "CPlatform": ["Platform", "Memory", "Reactor"],
        "CXXHash": ["Memory"],
        "CJemalloc": ["Memory"],
        "COpenSSL": ["Reactor"],
        "CMicroHTTPD": ["Admin"],
        "CYAML": ["Settings"],
    ]

    /// The toolchain's modules that may be imported, each with those that may.
    static let system: [String: Set<String>] = [
        "Glibc": ["Platform", "Memory", "Admin"]
    ]

    /// Of the toolchain's modules, what anybody may import.
    static let free: Set<String> = ["Synchronization"]

    static func imports(_ file: SourceFile) -> [(module: String, line: Int)] {
        file.code.indices.compactMap { index in
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
