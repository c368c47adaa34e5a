// Martlet
// SPDX-License-Identifier: Apache-2.0

import Routing
import Settings
import Testing

@testable import RouteConfiguration

/// Loads texts as files.
enum Loading {
    static func load(
        _ text: String, _ format: RouteFile.Format, files: [String: String] = [:],
        defaults: RouteDefaults = RouteDefaults(),
        constants: [String: String] = [:]
    ) throws -> RouteConfiguration {
        let main = format == .mcrouter ? "/etc/routes.json" : "/etc/routes.yaml"
        return try RouteFile.load(main, format: format, defaults: defaults, constants: constants) {
            path throws(RouteFile.ReadError) in
            if path == main { return Array(text.utf8) }
            guard let content = files[path] else { throw RouteFile.ReadError("no such file") }
            return Array(content.utf8)
        }
    }

    /// The problem that a text has; an empty text when it has none.
    static func problem(
        _ text: String, _ format: RouteFile.Format, files: [String: String] = [:]
    ) -> String {
        do {
            _ = try RoutePlan(load(text, format, files: files).tree, defaults: RouteDefaults())
            return ""
        } catch {
            return "\(error)"
        }
    }

    static func plan(_ configuration: RouteConfiguration) throws -> RoutePlan {
        try RoutePlan(configuration.tree, defaults: configuration.defaults)
    }

    static let clock = RouteClock(nowNanoseconds: 0, unixSeconds: 1_700_000_000)

    /// What routes do with some keys and operations: two that are the same here route the same.
    static func behaviour(_ configuration: RouteConfiguration) throws -> [String] {
        let plan = try plan(configuration)
        let keys = ["k", "user:1", "user:2|#|x", "a:1:b", "/x/y/k", "/*/*/k"] + (0..<20).map { "key\($0)" }
        return keys.flatMap { key in
            RouteOperation.allCases.map { operation in
                let explanation = plan.explain(operation, key: Array(key.utf8), clock: clock)
                return "\(operation) \(key): \(explanation.destinations.joined(separator: ",")) "
                    + explanation.handles.map(\.text).joined(separator: ";")
            }
        }
    }

    /// `{"pools": …, "route": …}` with pools A to E of one server each, and W of four.
    static func mcrouter(_ route: String, more: String = "") -> String {
        let pools = ["A", "B", "C", "D", "E"].enumerated().map { index, name in
            "\"\(name)\": {\"servers\": [\"10.0.0.\(index + 1):11211\"]}"
        }
        return """
            {
              // Pools of one server, and one of four.
              "pools": {
                \(pools.joined(separator: ",\n    ")),
                "W": {"servers": ["10.1.0.1:1", "10.1.0.2:1", "10.1.0.3:1", "10.1.0.4:1"]}
              },
              \(more)
              "route": \(route)
            }
            """
    }
}
