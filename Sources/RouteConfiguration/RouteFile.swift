// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Routing
package import Settings

/// Routes as a file describes them.
package struct RouteConfiguration: Sendable {
    /// The handles and pools.
    package var tree: RouteTree
    /// The defaults that were given, with what the file says of them.
    package var defaults: RouteDefaults
    /// What was left alone although it was there, one line each.
    package var warnings: [String]
    /// All files that were read, the first first: what is to be watched.
    package var files: [String]
}

/// Reads files of routes: our own YAML, and mcrouter's JSON. docs/mcrouter.md and docs/routes.md describe them.
package enum RouteFile {
    /// How a file is written.
    package enum Format: Sendable, Equatable {
        /// Our own YAML.
        case martlet
        /// mcrouter's JSON, with its preprocessor.
        case mcrouter
    }

    /// Why a file could not be read, in words.
    package struct ReadError: Error, Sendable {
        /// The reason.
        package let reason: String

        /// An error for that reason.
        package init(_ reason: String) { self.reason = reason }
    }

    /// The keys of our YAML that are about routes; a program's own settings may stand beside them.
    package static let keys = ["pools", "handles", "route", "routes", "routing"]

    /// What a file name's ending says: `.json` is mcrouter's.
    package static func format(of path: String) -> Format { path.hasSuffix(".json") ? .mcrouter : .martlet }

    /// Reads a file, and those that it imports, by `read`.
    ///
    /// Imports are looked up beside the file that `path` names, unless they begin with `file:` or `/`. In our YAML, the
    /// keys of `otherKeys` are somebody else's and are skipped; nil are all that are not known, with a warning.
    /// `constants` are what mcrouter calls config params.
    /// Throws the first problem, with its place and what is allowed. Whether the hashes like their servers, making a
    /// plan tells.
    package static func load(
        _ path: String, format: Format? = nil, defaults: RouteDefaults = RouteDefaults(),
        otherKeys: Set<String>? = [], constants: [String: String] = [:],
        isLocalAddress: @escaping (String) -> Bool = { _ in false },
        read: @escaping (String) throws(ReadError) -> [UInt8]
    ) throws(SettingsError) -> RouteConfiguration {
        let log = ReadLog()
        func bytes(_ path: String) throws(RouteProblem) -> [UInt8] {
            do throws(ReadError) {
                let bytes = try read(path)
                log.files.append(path)
                return bytes
            } catch {
                throw RouteProblem("\(path): \(error.reason)", at: nil)
            }
        }
        do throws(RouteProblem) {
            let content = try bytes(path)
            guard format ?? Self.format(of: path) == .mcrouter else {
                return try loadOwn(content, path, defaults, otherKeys, log)
            }
            let directory = path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
            var surroundings = PreprocessorSurroundings { name throws(RouteProblem) in
                let bare = name.hasPrefix("file:") ? String(name.dropFirst(5)) : name
                let full = name.hasPrefix("file:") || bare.hasPrefix("/") ? bare : directory + bare
                return (full, try bytes(full))
            }
            surroundings.isLocalAddress = isLocalAddress
            surroundings.seed = defaults.hostID
            surroundings.constants = Self.constants(defaults, constants)
            var variables: JSONObject?
            if let path = defaults.variablesPath {
                let node = try JSONParser.parse(try bytes(path), file: path)
                guard let object = node.object else { throw RouteProblem("an object is expected", at: node.place) }
                variables = object
            }
            return try loadMCRouter(content, path, defaults, variables, surroundings, log)
        } catch {
            throw SettingsError([error.line])
        }
    }

    private final class ReadLog {
        var files: [String] = []
    }

    private static func loadMCRouter(
        _ bytes: [UInt8], _ path: String, _ defaults: RouteDefaults, _ variables: JSONObject?,
        _ surroundings: PreprocessorSurroundings, _ log: ReadLog
    ) throws(RouteProblem) -> RouteConfiguration {
        let root = try Preprocessor(surroundings).process(try JSONParser.parse(bytes, file: path))
        let problems = ProblemList()
        var reader = MCRouterReader(defaults: defaults, problems: problems, variables: variables)
        try reader.read(root)
        return RouteConfiguration(
            tree: reader.tree, defaults: defaults, warnings: problems.warnings, files: log.files)
    }

    private static func loadOwn(
        _ bytes: [UInt8], _ path: String, _ defaults: RouteDefaults, _ otherKeys: Set<String>?, _ log: ReadLog
    ) throws(RouteProblem) -> RouteConfiguration {
        let root: SettingsNode?
        do throws(SettingsError) { root = try SettingsNode.parse(bytes, file: path) } catch {
            throw RouteProblem(error.problems.joined(separator: "\n"), at: nil)
        }
        guard let root, !root.isNull else { throw RouteProblem("\(path): the file is empty", at: nil) }
        let problems = ProblemList()
        var reader = YAMLRoutes(defaults: defaults, problems: problems)
        let node = YAMLRoutes.node(root, path)
        let foreign = otherKeys ?? Set(node.object?.entries.map(\.key) ?? []).subtracting(keys)
        if otherKeys == nil {
            for key in foreign.sorted() { problems.warn("\(key): not about routes, and not looked at", at: node.place) }
        }
        try reader.read(node, otherKeys: foreign)
        return RouteConfiguration(
            tree: reader.tree, defaults: reader.defaults, warnings: problems.warnings, files: log.files)
    }

    /// What every configuration of mcrouter's can refer to.
    private static func constants(
        _ defaults: RouteDefaults, _ given: [String: String]
    ) -> [String: JSONNode.Content] {
        let prefix = try? RoutingPrefix(defaults.routingPrefix)
        var result: [String: JSONNode.Content] = [
            "default-route": .text(prefix?.text ?? ""), "default-region": .text(prefix?.region ?? ""),
            "default-cluster": .text(prefix?.cluster ?? ""),
            "hostid": .integer(Int64(truncatingIfNeeded: defaults.hostID)), "router-name": .text("martlet"),
            "service-name": .text("martlet"), "service-router-capable": .integer(0),
            "router-info-name": .text("Memcache"), "num-proxies": .integer(1),
        ]
        for (name, value) in given { result[name] = .text(value) }
        return result
    }
}
