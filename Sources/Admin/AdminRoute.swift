// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// A request for a page.
package struct AdminRequest: Sendable {
    /// The path, without the query: `/metrics`.
    package let path: String
    /// The Accept header; empty when there is none.
    package let accept: String
    /// The names in the query that have a meaning here (``AdminRoute/queryNames``) and their values, empty for `?name`.
    package let query: [String: String]
}

/// An answer.
package struct AdminResponse: Sendable {
    /// The HTTP status code.
    package var status: Int
    /// The value of Content-Type.
    package var contentType: String
    /// The content, as it is sent.
    package var body: [UInt8]
    /// The value of Allow, for status 405.
    package var allow: String?
    /// The value of Content-Security-Policy, for pages that a browser shows.
    package var securityPolicy: String?

    /// An answer without Allow.
    package init(status: Int = 200, contentType: String, body: [UInt8]) {
        self.status = status
        self.contentType = contentType
        self.body = body
    }

    /// A text.
    package static func text(_ text: String, status: Int = 200) -> AdminResponse {
        AdminResponse(status: status, contentType: "text/plain; charset=utf-8", body: Array(text.utf8))
    }

    /// A JSON document.
    package static func json(_ text: String, status: Int = 200) -> AdminResponse {
        AdminResponse(status: status, contentType: "application/json", body: Array(text.utf8))
    }

    /// An error as JSON: `{"error":"…"}`.
    package static func failure(_ message: String, status: Int) -> AdminResponse {
        json("{\"error\":\(JSONString.quoted(message)),\"status\":\(status)}\n", status: status)
    }
}

/// A page of the admin server.
package struct AdminRoute: Sendable {
    /// What a page is asked with, and who may.
    package enum Access: Sendable {
        /// GET and HEAD, for everybody who reaches the port.
        case open
        /// GET and HEAD, with the token.
        case guarded
        /// POST, with the token.
        case action
        /// POST, with the token; without one on the server, for callers on this machine that are no web pages.
        case localAction

        /// Whether it is asked for by POST.
        var isAction: Bool { self == .action || self == .localAction }
    }

    /// The path that is asked for, from its `/` on.
    package let path: String
    /// How it may be asked for.
    package let access: Access
    /// One line for the index at `/`.
    package let summary: String
    /// The names of a query that the handler wants to know.
    package let queryNames: [String]
    /// Makes the page. Called on one of two admin threads, so at the same time as
    /// others; must not block for long, because the others wait.
    package let handler: @Sendable (AdminRequest) -> AdminResponse

    /// A page at `path`, which begins with `/`.
    package init(
        _ path: String, _ summary: String, access: Access = .open, queryNames: [String] = [],
        handler: @escaping @Sendable (AdminRequest) -> AdminResponse
    ) {
        precondition(path.hasPrefix("/"), "a path begins with /")
        self.path = path
        self.access = access
        self.summary = summary
        self.queryNames = queryNames
        self.handler = handler
    }
}
