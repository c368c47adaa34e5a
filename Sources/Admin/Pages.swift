// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The routes of an admin server, and what is answered when none fits. Knows nothing of sockets.
final class Pages: Sendable {
    private let routes: [String: AdminRoute]
    private let index: String

    init(_ configuration: AdminConfiguration, _ routes: [AdminRoute]) {
        var table: [String: AdminRoute] = [:]
        for route in routes {
            precondition(table.updateValue(route, forKey: route.path) == nil, "two pages at \(route.path)")
        }
        self.routes = table
        let width = (routes.map(\.path.count).max() ?? 0) + 2
        index =
            "\(configuration.product)\n\n"
            + routes.map { route in
                route.path + String(repeating: " ", count: width - route.path.count) + route.summary + "\n"
            }.joined()
    }

    /// The answer to a request. The closures look into it: `query` gives the value of a name, `accept` the header.
    func respond(
        _ method: String, _ path: String, query: (String) -> String?, accept: () -> String
    ) -> AdminResponse {
        guard let route = routes[path] ?? root(path) else {
            return .failure("there is no \(path); / lists the pages", status: 404)
        }
        guard method == "GET" || method == "HEAD" else {
            var response = AdminResponse.failure("\(method) is not allowed here; GET and HEAD are", status: 405)
            response.allow = "GET, HEAD"
            return response
        }
        var values: [String: String] = [:]
        for name in route.queryNames { values[name] = query(name) }
        return route.handler(AdminRequest(path: path, accept: accept(), query: values))
    }

    private func root(_ path: String) -> AdminRoute? {
        guard path == "/" else { return nil }
        return AdminRoute("/", "this page") { [index] _ in .text(index) }
    }
}
