// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
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
        default: return "ERROR: the router answers version, route(op,key) and route_handles(op,key)"
        }
    }
}
