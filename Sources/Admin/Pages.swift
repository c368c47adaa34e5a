// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The routes of an admin server, and what is answered when none fits. Knows nothing of sockets.
final class Pages: Sendable {
    private let routes: [String: AdminRoute]
    private let index: String
    private let token: [UInt8]?

    init(_ configuration: AdminConfiguration, _ routes: [AdminRoute]) {
        var table: [String: AdminRoute] = [:]
        for route in routes {
            precondition(table.updateValue(route, forKey: route.path) == nil, "two pages at \(route.path)")
        }
        self.routes = table
        token = configuration.token
        let width = (routes.map(\.path.count).max() ?? 0) + 2
        index =
            "\(configuration.product)\n\n"
            + routes.map { route in
                route.path + String(repeating: " ", count: width - route.path.count) + route.summary + "\n"
            }.joined()
    }

    /// The answer to a request. The closures look into it: `query` gives the value of a name, `header` of a header.
    /// `isLocal` tells whether the caller is on this machine.
    func respond(
        _ method: String, _ path: String, query: (String) -> String?, header: (String) -> String?,
        isLocal: () -> Bool = { false }
    ) -> AdminResponse {
        guard let route = routes[path] ?? root(path) else {
            return .failure("there is no \(path); / lists the pages", status: 404)
        }
        let methods = route.access.isAction ? ["POST"] : ["GET", "HEAD"]
        guard methods.contains(method) else {
            let allowed = route.access.isAction ? "POST is" : "GET and HEAD are"
            var response = AdminResponse.failure("\(method) is not allowed here; \(allowed)", status: 405)
            response.allow = methods.joined(separator: ", ")
            return response
        }
        if token == nil, route.access == .localAction {
            // A page in a browser of this machine may post here as well, and a proxy on it for others, but not without
            // saying where it is from.
            let foreign = ["Origin", "Forwarded", "X-Forwarded-For", "Via"]
            guard isLocal(), foreign.allSatisfy({ header($0) == nil }) else {
                return .failure(
                    "without a token (adminTokenFile), this is for programs on the server's own machine", status: 403)
            }
        } else if route.access != .open, let refusal = refusal(header("Authorization")) {
            return refusal
        }
        var values: [String: String] = [:]
        for name in route.queryNames { values[name] = query(name) }
        return route.handler(AdminRequest(path: path, accept: header("Accept") ?? "", query: values))
    }

    /// Why a page that needs the token is not given; nil when it is. Source: RFC 6750, 2.1.
    private func refusal(_ authorization: String?) -> AdminResponse? {
        guard let token else {
            return .failure("this page needs a token, and the server has none: set adminTokenFile", status: 403)
        }
        guard let authorization, authorization.hasPrefix("Bearer ") else {
            return .failure("this page needs the header Authorization: Bearer TOKEN", status: 401)
        }
        let given = Array(authorization.utf8.dropFirst("Bearer ".utf8.count))
        // Every byte is looked at, so that the time does not tell how many are right.
        var difference = UInt8(given.count == token.count ? 0 : 1)
        for index in given.indices { difference |= given[index] ^ token[index % token.count] }
        return difference == 0 ? nil : .failure("the token is not the right one", status: 401)
    }

    /// The list of pages; browsers get the console instead, where there is one.
    private func root(_ path: String) -> AdminRoute? {
        guard path == "/" else { return nil }
        let console = routes["/console"]
        return AdminRoute("/", "this page") { [index] request in
            if let console, request.accept.contains("text/html") { return console.handler(request) }
            return .text(index)
        }
    }
}
