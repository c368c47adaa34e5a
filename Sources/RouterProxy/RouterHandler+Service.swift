// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import RouteConfiguration
internal import Routing

/// Keys that are questions to the router, by mcrouter's names: `get __mcrouter__.route(get,key)`.
extension RouterHandler {
    /// Whether a key is such a question.
    @inline(__always)
    static func isService(_ key: Span<UInt8>) -> Bool {
        key.count > 13 && key[0] == UInt8(ascii: "_") && key.holds("__mcrouter__.", at: 0)
    }

    /// Answers it as if it had been stored.
    func serve(_ slot: Int, _ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer) {
        let question = String(decoding: [UInt8](copying: key.extracting(13..<key.count)), as: UTF8.self)
        let text = Array(router.answer(to: question, clock: clock).utf8)
        let name = [UInt8](copying: key)
        reply(slot, request, &output) { output in
            output.appendValueLine(
                key: name.span, clientFlags: 0, length: text.count, cas: request.verb == .gets ? 0 : nil)
            output.append(text.span)
            output.append("\r\nEND\r\n")
        }
    }
}

extension RouterHandler {
    /// `config get cluster`: the servers of the router's only pool, as ElastiCache's clients ask for them, who then
    /// hash keys themselves.
    func tellCluster(_ slot: Int, _ request: Request, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        let tokens = Tokenizer(line)
        guard tokens.count == 3, tokens.equals(1, "get", in: line), tokens.equals(2, "cluster", in: line) else {
            return refuse(slot, request, .error, &output)
        }
        let text = Array(plan.clusterAnswer.utf8)
        reply(slot, request, &output) { $0.append(text.span) }
    }
}

extension RouterPlan {
    /// The answer to `config get cluster`, with the time of the plan for a version, which grows over restarts, too.
    var clusterAnswer: String {
        guard routes.pools.count == 1, let pool = routes.pools.first else {
            return "SERVER_ERROR the router has \(routes.pools.count) pools: ask a node\r\n"
        }
        let servers = pool.destinations.map { routes.destinations[$0] }
        guard !servers.isEmpty else { return "SERVER_ERROR the cluster's members are not known yet\r\n" }
        guard servers.allSatisfy({ $0.port != 0 }) else { return "SERVER_ERROR a server is a unix socket\r\n" }
        let nodes = servers.map { "\($0.host)||\($0.port)" }.joined(separator: " ")
        let text = "\(madeSeconds)\n\(nodes)\n"
        return "CONFIG cluster 0 \(text.utf8.count)\r\n\(text)\r\nEND\r\n"
    }
}

extension Router {
    /// The answer to a question by mcrouter's names.
    func answer(to question: String, clock: RouteClock) -> String {
        let name = question.prefix { $0 != "(" }
        let inside = question.dropFirst(name.count + 1).prefix { $0 != ")" }
        let words = inside.split(separator: ",", maxSplits: 1, omittingEmptySubsequences: false)
        switch name {
        case "version": return "martlet-router \(ProductVersion.martlet)"
        case "route", "route_handles":
            guard words.count == 2, let operation = RouteOperation(name: words[0]), !words[1].isEmpty else {
                return "ERROR: \(name) wants an operation and a key, as in \(name)(get,key)"
            }
            let found = plan.routes.explain(operation, key: Array(words[1].utf8), clock: clock)
            return name == "route" ? found.destinationText : found.text
        case "config_age": return "\(Int64(clock.unixSeconds) - Int64(plan.madeSeconds))"
        case "config_file": return configurationPath ?? ""
        case "hostid": return "\(plan.routes.defaults.hostID)"
        case "pools": return plan.routes.pools.map(\.name).joined(separator: " ")
        case "preprocessed_config": return plan.routes.tree.yaml(plan.routes.defaults)
        default:
            return "ERROR: the router answers version, route(op,key), route_handles(op,key), config_age, config_file, "
                + "preprocessed_config, hostid and pools"
        }
    }
}
