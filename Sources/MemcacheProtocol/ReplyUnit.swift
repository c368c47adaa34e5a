// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a line of a server's reply is.
@usableFromInline
package enum ReplyKind: UInt8, BitwiseCopyable, Sendable {
    /// `VALUE key flags bytes [cas]`, with a data block behind it.
    case value
    /// `VA bytes flags…`, with a data block behind it.
    case metaValue
    /// `END`: the end of a classic get, or of a list of `STAT` lines.
    case end
    /// `HD`, `EN`, `NS`, `EX`, `NF`, `MN` and `ME`.
    case metaDone, metaMiss, metaNotStored, metaExists, metaNotFound, metaNoop, metaDebug
    case stored, notStored, exists, notFound, deleted, touched, ok, reset
    /// A number by itself: the new value of incr and decr.
    case number
    case version, stat
    /// `ERROR`, `CLIENT_ERROR text` and `SERVER_ERROR text`.
    case error, clientError, serverError
    /// A line that is none of these.
    case other

    /// Whether the server refused.
    @inlinable package var isError: Bool { self == .error || self == .clientError || self == .serverError }

    /// Whether a data block follows the line.
    @inlinable package var hasBlock: Bool { self == .value || self == .metaValue }
}

/// One line of a server's reply, taken apart. Offsets count from the start of the input it was found in.
@usableFromInline
package struct ReplyUnit: BitwiseCopyable, Sendable {
    /// What it is.
    @usableFromInline package var kind = ReplyKind.other
    /// Where the line starts.
    @usableFromInline package var start = 0
    /// Where the line's text ends, its line end not counted.
    @usableFromInline package var textEnd = 0
    /// Where the line ends, with its line end: the data block starts here when ``ReplyKind/hasBlock``.
    @usableFromInline package var lineEnd = 0
    /// The key of a `VALUE` line.
    @usableFromInline package var keyStart = 0
    @usableFromInline package var keyLength = 0
    /// Where the text behind the kind starts, or ``textEnd`` when there is none: the flags of a meta reply, an error's
    /// message.
    @usableFromInline package var restStart = 0
    /// The client flags of a `VALUE` line.
    @usableFromInline package var clientFlags: UInt32 = 0
    /// The CAS value of a `VALUE` line that has one, or the number of ``ReplyKind/number``; 0 otherwise.
    @usableFromInline package var number: UInt64 = 0
    /// Bytes in the data block, its line end not counted; 0 without one.
    @usableFromInline package var blockLength = 0

    @inlinable @inline(__always)
    init() {}

    /// Where the whole unit ends, block and line ends included.
    @inlinable package var end: Int {
        @inline(__always) get { kind.hasBlock ? lineEnd &+ blockLength &+ 2 : lineEnd }
    }
}

/// How far ``ReplyParser`` came.
@usableFromInline
package enum ReplyStep: BitwiseCopyable, Sendable {
    /// A whole line; its data block may still be on its way: see ``ReplyUnit/end``.
    case unit(ReplyUnit)
    /// The line has not arrived whole.
    case incomplete
    /// No server of ours says that: the connection is of no more use.
    case malformed(ReplyDefect)
}

/// Why a reply cannot be understood.
@usableFromInline
package enum ReplyDefect: UInt8, BitwiseCopyable, Sendable {
    case lineTooLong, badNumber, blockTooLong, blockWithoutEnd

    /// What is wrong, for people.
    package var description: String {
        switch self {
        case .lineTooLong: "a line of more than \(ReplyParser.lineLimitBytes) bytes"
        case .badNumber: "a number that is none"
        case .blockTooLong: "a value of more than \(ReplyParser.blockLimitBytes) bytes"
        case .blockWithoutEnd: "a value that does not end where it says"
        }
    }
}
