// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import RouteConfiguration
internal import Routing
internal import Settings

/// `martletctl convert` and `martletctl explain`: files of routes, without a router.
struct RouteCommands {
    private let options: ControlOptions

    /// Bytes of a file at most.
    private static var limitBytes: Int { 16 << 20 }

    init(_ options: ControlOptions) { self.options = options }

    private static func read(_ path: String) throws(RouteFile.ReadError) -> [UInt8] {
        do throws(SystemError) { return try readFile(path, limitBytes: limitBytes) } catch {
            throw RouteFile.ReadError(error.description)
        }
    }

    private func format() throws(ControlError) -> RouteFile.Format? {
        switch options["format"] {
        case nil: return nil
        case "mcrouter": return .mcrouter
        case "martlet": return .martlet
        case let other?:
            throw ControlError(.usage, "--format=\(other): martlet, mcrouter and (of convert) twemproxy are allowed")
        }
    }

    private func load(_ path: String) throws(ControlError) -> RouteConfiguration {
        var defaults = RouteDefaults()
        if let prefix = options["route-prefix"] {
            do throws(RouteError) { defaults.routingPrefix = try RoutingPrefix(prefix).text } catch {
                throw ControlError(.usage, "--route-prefix: \(error.description)")
            }
        }
        defaults.variablesPath = options["variables"]
        let format = try format()
        do throws(SettingsError) {
            // A router's settings may stand beside its routes.
            return try RouteFile.load(path, format: format, defaults: defaults, otherKeys: nil) {
                path throws(RouteFile.ReadError) in try Self.read(path)
            }
        } catch {
            throw ControlError(.data, error.description)
        }
    }

    private func plan(_ configuration: RouteConfiguration, _ path: String) throws(ControlError) -> RoutePlan {
        do throws(RouteError) { return try RoutePlan(configuration.tree, defaults: configuration.defaults) } catch {
            throw ControlError(.data, "\(path): \(error.description)")
        }
    }

    /// mcrouter's or twemproxy's configuration as ours.
    func convert(_ path: String) throws(ControlError) -> String {
        guard options["format"] != "twemproxy" else { return try convertTwemproxy(path) }
        let configuration = try load(path)
        _ = try plan(configuration, path)
        return answer(configuration.yaml, head: [], notes: configuration.warnings)
    }

    /// The YAML with its notes as comments above it, or all of it as JSON.
    private func answer(_ yaml: String, head: [String], notes: [String]) -> String {
        if options.has("json") {
            return "{\"yaml\":\(JSONString.quoted(yaml)),\"warnings\":\(ControlText.array(notes))}\n"
        }
        return (head + notes).map { "# \($0)\n" }.joined() + yaml
    }

    private func convertTwemproxy(_ path: String) throws(ControlError) -> String {
        let pools: [TwemproxyFile.Converted]
        do {
            pools = try TwemproxyFile.convert(try Self.read(path), file: path)
        } catch let error as SettingsError {
            throw ControlError(.data, error.description)
        } catch {
            throw ControlError(.system, "\(path): \((error as? RouteFile.ReadError)?.reason ?? "cannot be read")")
        }
        let wanted = options["pool"]
        let chosen = pools.filter { wanted == nil || $0.name == wanted }
        guard chosen.count == 1, let pool = chosen.first else {
            let names = pools.map(\.name).joined(separator: ", ")
            throw ControlError(
                .usage, "each pool of twemproxy's becomes a router of its own: name one with --pool (\(names))")
        }
        return answer(pool.yaml, head: ["\(pool.name), which listened on \(pool.listen)"], notes: pool.notes)
    }

    /// Which handles and destination a request takes.
    func explain(_ operation: String, _ key: String) throws(ControlError) -> String {
        guard let operation = RouteOperation(name: operation) else {
            let known = RouteOperation.allCases.map(\.name).joined(separator: ", ")
            throw ControlError(.usage, "\(operation): no operation; there are \(known)")
        }
        guard 1...250 ~= key.utf8.count else { throw ControlError(.usage, "a key has 1 to 250 bytes") }
        let path = try options.required("routes")
        let configuration = try load(path)
        let clock = RouteClock(nowNanoseconds: 0, unixSeconds: Clock.realtimeNanoseconds() / 1_000_000_000)
        let explanation = try plan(configuration, path).explain(operation, key: Array(key.utf8), clock: clock)
        if options.has("json") { return explanation.json + "\n" }
        let destinations =
            explanation.destinations.isEmpty ? "nowhere" : explanation.destinations.joined(separator: " ")
        return explanation.text + "-> \(destinations)\n"
    }
}
