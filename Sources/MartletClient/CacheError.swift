// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Why a call of a ``MartletClient`` did not do what it was asked for. A miss is not an error.
public enum CacheError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The key is empty, longer than 250 bytes, or has a space or a control character.
    case invalidKey(String)
    /// The value has more bytes than ``ClientConfiguration/valueLimitBytes``.
    case valueTooLong(bytes: Int, limit: Int)
    /// A setting that cannot be; the text names it and what is allowed.
    case invalidConfiguration(String)
    /// The operation needs the meta protocol, and the client is set to the classic one.
    case needsMetaProtocol
    /// Nobody knows a server, with the reason.
    case noServers(String)
    /// The server could not be reached; the request was not sent.
    case unavailable(server: String, reason: String)
    /// The server failed so often that it is left alone for a while; the request was not sent.
    case circuitOpen(server: String)
    /// More calls wait for the server than ``ClientConfiguration/waitingCallsPerServer``; the request was not sent.
    case overloaded(server: String)
    /// The server sheds load; it did not execute the request.
    case busy(server: String, message: String)
    /// The server refused the request, in its words.
    case rejected(server: String, message: String)
    /// The time was over before a reply had come. If it was sent, the request may have been executed, or be later.
    case deadlineExceeded(server: String, wasSent: Bool)
    /// The connection broke after the request was sent; it may have been executed.
    case connectionLost(server: String)
    /// What the server sent is no reply to the request; its connection was closed.
    case nonsense(server: String, what: String)
    /// The task was cancelled. The request may have been executed.
    case cancelled
    /// The client was shut down.
    case shutDown

    /// Whether the same call may succeed when it is made again a little later.
    public var isRetryable: Bool {
        switch self {
        case .noServers, .unavailable, .circuitOpen, .overloaded, .busy, .deadlineExceeded, .connectionLost: true
        case .invalidKey, .valueTooLong, .invalidConfiguration, .needsMetaProtocol, .rejected, .nonsense, .cancelled,
            .shutDown:
            false
        }
    }

    /// Whether the server may have executed the request all the same.
    public var mayHaveHappened: Bool {
        switch self {
        case .deadlineExceeded(_, let wasSent): wasSent
        case .connectionLost, .nonsense, .cancelled: true
        default: false
        }
    }

    /// What went wrong, for people.
    public var description: String {
        switch self {
        case .invalidKey(let key):
            "'\(key)' is no key: 1 to 250 bytes without spaces and control characters are allowed"
        case .valueTooLong(let bytes, let limit): "a value of \(bytes) bytes: at most \(limit) are allowed"
        case .invalidConfiguration(let text): text
        case .needsMetaProtocol: "the operation needs the meta protocol"
        case .noServers(let reason): "no servers: \(reason)"
        case .unavailable(let server, let reason): "\(server) cannot be reached: \(reason)"
        case .circuitOpen(let server): "\(server) failed too often, and is left alone for a while"
        case .overloaded(let server): "too many calls wait for \(server)"
        case .busy(let server, let message): "\(server) is busy: \(message)"
        case .rejected(let server, let message): "\(server) refused: \(message)"
        case .deadlineExceeded(let server, let wasSent):
            "no reply of \(server) in time\(wasSent ? "" : "; the request was not sent")"
        case .connectionLost(let server): "the connection to \(server) broke"
        case .nonsense(let server, let what): "\(server) sent what is no reply: \(what)"
        case .cancelled: "the task was cancelled"
        case .shutDown: "the client was shut down"
        }
    }
}
