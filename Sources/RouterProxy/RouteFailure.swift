// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory

/// Why a request got no reply of a server. The words are mcrouter's, which clients and dashboards know.
enum RouteFailure: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case none
    /// The server did not answer in time. It may or may not have done what was asked.
    case timeout
    /// The connection broke while the reply was awaited. As with a timeout.
    case lost
    /// No connection came to stand in time, or it was refused. Nothing was sent.
    case connectTimeout, connectError
    /// The server is known to be down, and nothing was tried.
    case unavailable
    /// Too much waits for the server already.
    case busy
    /// The router has no route for the key, or no room for the request.
    case local

    /// The reply's line in a text protocol.
    var text: StaticString {
        switch self {
        case .none: ""
        case .timeout: "SERVER_ERROR timeout\r\n"
        case .lost: "SERVER_ERROR remote error\r\n"
        case .connectTimeout: "SERVER_ERROR connection timeout\r\n"
        case .connectError: "SERVER_ERROR connection error\r\n"
        case .unavailable: "SERVER_ERROR unavailable\r\n"
        case .busy: "SERVER_ERROR 307 busy\r\n"
        case .local: "SERVER_ERROR local error\r\n"
        }
    }

    /// The status of a binary reply.
    var status: BinaryStatus {
        switch self {
        case .none: .success
        case .timeout, .lost: .internalError
        case .busy: .busy
        case .connectTimeout, .connectError, .unavailable, .local: .temporaryFailure
        }
    }
}
