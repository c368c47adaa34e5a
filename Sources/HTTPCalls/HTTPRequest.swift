// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What an ``HTTPCall`` asks, and how.
package struct HTTPRequest: Sendable {
    /// GET, POST and their like.
    package var method: String
    /// The whole address.
    package var url: String
    /// nil for none.
    package var body: [UInt8]?
    /// `Name: value`.
    package var headers: [String]
    /// HTTP's basic authentication; nil for none.
    package var username: String?
    /// Its password.
    package var password = ""
    /// The authorities that may have signed the server's certificate, PEM; nil for the system's.
    package var caFile: String?
    /// Our certificate and its key, PEM; nil for none.
    package var certificateFile: String?
    /// See ``certificateFile``; nil where that file holds it.
    package var keyFile: String?
    /// Whether the server's certificate is not looked at.
    package var skipsVerification = false
    /// Whether TLS 1.3 is wanted, and 1.2 will not do.
    package var needsTLS13 = false
    /// Whether the environment's proxies are used. Otherwise the server is asked directly: requests carry secrets of
    /// the fleet.
    package var usesProxy = false
    /// The whole call may take that long; a connection five seconds of it at most.
    package var timeoutMilliseconds: Int

    /// A request that follows the defaults of its other properties.
    package init(
        _ method: String = "GET", url: String, body: [UInt8]? = nil, headers: [String] = [], caFile: String? = nil,
        timeoutMilliseconds: Int = 10_000
    ) {
        self.method = method
        self.url = url
        self.body = body
        self.headers = headers
        self.caFile = caFile
        self.timeoutMilliseconds = timeoutMilliseconds
    }
}
