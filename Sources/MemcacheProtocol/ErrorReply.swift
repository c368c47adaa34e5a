// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Memory

/// What is answered to a request that is refused: memcached's texts, to the byte.
@usableFromInline
package enum ErrorReply: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case none

    // Form: found by the parser.
    case error
    case badCommandLine
    case badDataChunk
    case invalidExptime
    case invalidDelta
    case optionsTooLong
    case duplicateFlag
    case invalidFlag
    case badToken
    case badKeyEncoding
    case invalidInitialFlag
    case invalidDeltaFlag
    case invalidOrDuplicateFlag
    case invalidSetMode
    case invalidArithmeticMode
    case opaqueTooLong

    // Form, binary.
    case unknownCommand
    case invalidArguments

    // Login.
    case unauthenticated
    case loginTooLong
    case badLoginEnd
    case badLoginFormat
    case loginFailed

    // Found by whoever executes.
    case nonNumeric
    case tooLarge
    case outOfMemoryStoring
    case outOfMemoryReading
    case outOfMemory
    case flushNotAllowed
    case watchNotAllowed
    case shutdownNotEnabled
    case invalidShutdownMode
    case tooManyConnections
    /// The tenant may not do that, or not with this key.
    case accessDenied
    /// The tenant has used up what it may have of these.
    case overOperations
    case overBytes
    case tooManyConnectionsOfTenant

    /// Whether there is nothing to refuse.
    @inlinable package var isNone: Bool { @inline(__always) get { self == .none } }

    /// The reply's line in a text protocol, without its line end.
    package var text: StaticString {
        switch self {
        case .none: ""
        case .error, .unknownCommand: "ERROR"
        case .badCommandLine, .invalidArguments: "CLIENT_ERROR bad command line format"
        case .badDataChunk: "CLIENT_ERROR bad data chunk"
        case .invalidExptime: "CLIENT_ERROR invalid exptime argument"
        case .invalidDelta: "CLIENT_ERROR invalid numeric delta argument"
        case .optionsTooLong: "CLIENT_ERROR options flags are too long"
        case .duplicateFlag: "CLIENT_ERROR duplicate flag"
        case .invalidFlag: "CLIENT_ERROR invalid flag"
        case .badToken: "CLIENT_ERROR bad token in command line format"
        case .badKeyEncoding: "CLIENT_ERROR error decoding key"
        case .invalidInitialFlag: "CLIENT_ERROR invalid numeric initial value"
        case .invalidDeltaFlag: "CLIENT_ERROR invalid numeric delta value"
        case .invalidOrDuplicateFlag: "CLIENT_ERROR invalid or duplicate flag"
        case .invalidSetMode: "CLIENT_ERROR invalid mode for ms M token"
        case .invalidArithmeticMode: "CLIENT_ERROR invalid mode for ma M token"
        case .opaqueTooLong: "CLIENT_ERROR opaque token too long"
        case .unauthenticated: "CLIENT_ERROR unauthenticated"
        case .loginTooLong: "CLIENT_ERROR auth token too long"
        case .badLoginEnd: "CLIENT_ERROR bad command line termination"
        case .badLoginFormat: "CLIENT_ERROR bad authentication token format"
        case .loginFailed: "CLIENT_ERROR authentication failure"
        case .nonNumeric: "CLIENT_ERROR cannot increment or decrement non-numeric value"
        case .tooLarge: "SERVER_ERROR object too large for cache"
        case .outOfMemoryStoring: "SERVER_ERROR out of memory storing object"
        case .outOfMemoryReading: "SERVER_ERROR out of memory writing get response"
        case .outOfMemory: "SERVER_ERROR out of memory"
        case .flushNotAllowed: "CLIENT_ERROR flush_all not allowed"
        case .watchNotAllowed: "CLIENT_ERROR watch commands not allowed"
        case .shutdownNotEnabled: "SERVER_ERROR: shutdown not enabled"
        case .invalidShutdownMode: "CLIENT_ERROR invalid shutdown mode"
        case .tooManyConnections: "ERROR Too many open connections"
        case .accessDenied: "CLIENT_ERROR access denied"
        case .overOperations: "SERVER_ERROR 307 busy: over the quota of operations"
        case .overBytes: "SERVER_ERROR 307 busy: over the quota of bytes"
        case .tooManyConnectionsOfTenant: "ERROR Too many open connections of this tenant"
        }
    }

    /// The status of a binary reply.
    package var status: BinaryStatus {
        switch self {
        case .none: .success
        case .error, .unknownCommand: .unknownCommand
        case .nonNumeric: .nonNumeric
        case .tooLarge: .tooLarge
        case .outOfMemoryStoring, .outOfMemoryReading, .outOfMemory: .outOfMemory
        case .overOperations, .overBytes: .busy
        case .flushNotAllowed, .unauthenticated, .loginFailed, .accessDenied: .authenticationFailed
        default: .invalidArguments
        }
    }

    /// Bytes of the reply.
    package func replyLength(in form: ProtocolForm) -> Int {
        form == .binary ? BinaryHeader.bytes + status.text.utf8CodeUnitCount : text.utf8CodeUnitCount + 2
    }

    /// Appends the reply as a line of a text protocol.
    package func appendText(to output: inout OutputBuffer) {
        output.append(text)
        output.append("\r\n")
    }
}
