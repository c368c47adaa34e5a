// Martlet
// SPDX-License-Identifier: Apache-2.0

import Routing
import Settings
import Testing

@testable import RouteConfiguration

/// What mcrouter's configuration says by runtime variables.
struct RuntimeVariableTests {
    private static let variables = #"""
        {"hash_route_weights": {"west": [1, 0, 0, 0], "short": [0], "bad": [2, 1, 1, 1]},
        "key_fraction_range_old": [0.25, 0.5], "key_fraction_range_bad": [1]}
        """#

    private func load(_ route: String, _ variables: String = Self.variables) throws -> RouteConfiguration {
        var defaults = RouteDefaults()
        defaults.variablesPath = "/etc/vars.json"
        return try Loading.load(
            Loading.mcrouter(route), .mcrouter, files: ["/etc/vars.json": variables], defaults: defaults)
    }

    private func weighted(_ name: String) -> String {
        #"{"type": "PoolRoute", "pool": "W", "hash": {"hash_func": "WeightedCh3Rv", "weights_rv": "\#(name)"}}"#
    }

    @Test func weightsAreThoseOfTheVariable() throws {
        let found = try load(weighted("west"))
        #expect(found.files == ["/etc/routes.json", "/etc/vars.json"], "a change of either is looked for")
        #expect(try owners(found) == [["10.1.0.1:1"]])
        // What is missing is 0.5, as mcrouter has it.
        let others = try owners(try load(weighted("short")))
        #expect(others == [["10.1.0.2:1"], ["10.1.0.3:1"], ["10.1.0.4:1"]])
    }

    private func owners(_ configuration: RouteConfiguration) throws -> Set<[String]> {
        let plan = try Loading.plan(configuration)
        return Set(
            (0..<200).map { plan.explain(.get, key: Array("k\($0)".utf8), clock: Loading.clock).destinations })
    }

    private func shadow(_ name: String, _ variables: String = Self.variables) throws -> ClosedRange<Double>? {
        let route = #"""
            {"type": "PoolRoute", "pool": "W", "shadows": [{"target": "PoolRoute|A", "index_range": [0, 3],
            "key_fraction_range": [0, 1], "key_fraction_range_rv": "\#(name)"}]}
            """#
        let tree = try load(route, variables).tree
        for case .shadow(_, let targets) in tree.handles { return targets.first?.keys }
        return nil
    }

    @Test func partsOfKeysAreThoseOfTheVariable() throws {
        #expect(try shadow("key_fraction_range_old") == 0.25...0.5)
        #expect(try shadow("key_fraction_range_none") == 0...1, "what no variable says stays")
        let fractions = #"{"key_fractions": {"west": 0.125, "key_x": 1}}"#
        #expect(try shadow("key_fraction_range_west", fractions) == 0...0.125)
        #expect(try shadow("key_x", fractions) == 0...1)
    }

    @Test(arguments: ["bad", "none"])
    func wrongWeightsAreNamed(_ name: String) {
        #expect(throws: SettingsError.self) { try load(weighted(name)) }
        do { _ = try load(weighted(name)) } catch { #expect("\(error)".contains("hash_route_weights")) }
    }

    @Test func wrongPartsAndFilesAreNamed() {
        #expect(throws: SettingsError.self) { try shadow("key_fraction_range_bad") }
        #expect(throws: SettingsError.self) { try shadow("x", "[]") }
        #expect(throws: SettingsError.self) { try shadow("x", "{") }
    }
}
