// Martlet
// SPDX-License-Identifier: Apache-2.0

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
        json("{\"error\":\(jsonString(message)),\"status\":\(status)}\n", status: status)
    }
}

/// A page of the admin server.
package struct AdminRoute: Sendable {
    /// The path that is asked for, from its `/` on.
    package let path: String
    /// One line for the index at `/`.
    package let summary: String
    /// The names of a query that the handler wants to know.
    package let queryNames: [String]
    /// Makes the page. Called on the admin thread; must not block for long, because the others wait.
    package let handler: @Sendable (AdminRequest) -> AdminResponse

    /// A page at `path`, which begins with `/`.
    package init(
        _ path: String, _ summary: String, queryNames: [String] = [],
        handler: @escaping @Sendable (AdminRequest) -> AdminResponse
    ) {
        precondition(path.hasPrefix("/"), "a path begins with /")
        self.path = path
        self.summary = summary
        self.queryNames = queryNames
        self.handler = handler
    }
}

/// A text as a JSON string, quotes included.
package func jsonString(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
        switch scalar {
        case "\"": result += "\\\""
        case "\\": result += "\\\\"
        case "\n": result += "\\n"
        case "\r": result += "\\r"
        case "\t": result += "\\t"
        case "\u{0}"..<" ", "\u{7F}":
            let digits = String(scalar.value, radix: 16)
            result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        default: result.unicodeScalars.append(scalar)
        }
    }
    return result + "\""
}
