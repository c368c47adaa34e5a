// Martlet
// SPDX-License-Identifier: Apache-2.0

/// One parsed command: fixed size, trivially copied, no references. Offsets count from the start of the input.
///
/// ``RequestParser/next(_:at:into:decodedKeys:)`` sets every field: what a command does not have is zero.
@usableFromInline
package struct Request: BitwiseCopyable, Sendable {
    /// Room for the executor: the key's hash, between parsing a batch and executing it.
    @usableFromInline package var hash: UInt64 = 0
    /// The CAS value to compare with: `cas`, meta `C`, the binary header's.
    @usableFromInline package var cas: UInt64 = 0
    /// By how much to count: `incr`, `decr`, meta `D` (1 when absent). The level of `verbosity`.
    @usableFromInline package var delta: UInt64 = 0
    /// What a counter starts with: meta `J`, binary.
    @usableFromInline package var initial: UInt64 = 0
    /// The CAS value to give to the item: meta `E`.
    @usableFromInline package var casIn: UInt64 = 0
    /// Which meta flags the line has.
    @usableFromInline package var options: MetaOptions = []
    /// The flags that answer something or act while the answer is built, in the order of the line.
    @usableFromInline package var steps: MetaSteps = MetaSteps()
    /// The expiry time as the client sent it (relative, absolute or negative): classic, meta `T`, binary (0 ... 2^32 -
    /// 1).
    @usableFromInline package var exptime: Int64 = 0
    @usableFromInline var keyStart: UInt32 = 0
    @usableFromInline var valueStart: UInt32 = 0
    @usableFromInline var valueCount: UInt32 = 0
    @usableFromInline var lineStart: UInt32 = 0
    @usableFromInline var lineCount: UInt32 = 0
    @usableFromInline var opaqueStart: UInt32 = 0
    /// What the client wants stored beside the value: classic, meta `F`, binary.
    @usableFromInline package var clientFlags: UInt32 = 0
    /// The binary header's opaque, in the order of its bytes on the wire.
    @usableFromInline package var opaque: UInt32 = 0
    /// The expiry time of an item made on a miss: meta `N`.
    @usableFromInline package var vivifyTTL: Int32 = 0
    /// Below which remaining time a client is asked to fetch anew: meta `R`.
    @usableFromInline package var recacheTTL: Int32 = 0
    @usableFromInline var keyCount: UInt8 = 0
    @usableFromInline var opaqueCount: UInt8 = 0
    @usableFromInline package var verb: Verb = .protocolError
    @usableFromInline package var form: ProtocolForm = .classic
    /// The mode of `ms` (`S`, `E`, `A`, `P`, `R`) and `ma` (`I`, `D`), already made canonical.
    @usableFromInline package var mode: UInt8 = 0
    /// The binary header's opcode, for the reply's header.
    @usableFromInline package var opcode: UInt8 = 0
    /// What to answer when the request is refused; see ``Verb/protocolError``.
    ///
    /// Two commands keep their verb beside it, because something comes first: of a command that stores,
    /// ``ErrorReply/badDataChunk`` is answered only after "too large" was ruled out; of `flush_all`,
    /// ``ErrorReply/invalidExptime`` only where flushing is allowed.
    @usableFromInline package var error: ErrorReply = .none
    @usableFromInline package var traits: RequestTraits = []

    @inlinable package init() {}

    /// Where the key starts: in the input, or in `decodedKeys` when ``keyIsDecoded``.
    @inlinable package var keyOffset: Int {
        @inline(__always) get { Int(keyStart) }
        @inline(__always) set { keyStart = UInt32(truncatingIfNeeded: newValue) }
    }
    /// Bytes of the key: 1 to 250, 0 when the command has none.
    @inlinable package var keyLength: Int {
        @inline(__always) get { Int(keyCount) }
        @inline(__always) set { keyCount = UInt8(truncatingIfNeeded: newValue) }
    }
    /// Where the data block starts.
    @inlinable package var valueOffset: Int {
        @inline(__always) get { Int(valueStart) }
        @inline(__always) set { valueStart = UInt32(truncatingIfNeeded: newValue) }
    }
    /// Bytes of the data block, without the line end that follows it in text.
    @inlinable package var valueLength: Int {
        @inline(__always) get { Int(valueCount) }
        @inline(__always) set { valueCount = UInt32(truncatingIfNeeded: newValue) }
    }
    /// Where the command starts: its line, or its binary header.
    @inlinable package var lineOffset: Int {
        @inline(__always) get { Int(lineStart) }
        @inline(__always) set { lineStart = UInt32(truncatingIfNeeded: newValue) }
    }
    /// Bytes of the command's line with its line end. Only for commands of operators, `stats` and `config`; 0 for the
    /// rest.
    @inlinable package var lineLength: Int {
        @inline(__always) get { Int(lineCount) }
        @inline(__always) set { lineCount = UInt32(truncatingIfNeeded: newValue) }
    }
    /// Where meta's `O` token starts, its letter included.
    @inlinable package var opaqueOffset: Int {
        @inline(__always) get { Int(opaqueStart) }
        @inline(__always) set { opaqueStart = UInt32(truncatingIfNeeded: newValue) }
    }
    /// Bytes of meta's `O` token, its letter included: 0 to 32.
    @inlinable package var opaqueLength: Int {
        @inline(__always) get { Int(opaqueCount) }
        @inline(__always) set { opaqueCount = UInt8(truncatingIfNeeded: newValue) }
    }

    /// `noreply`, meta `q`, a quiet opcode. What it hides depends on the command; errors of form are hidden only in
    /// classic commands: a ``Verb/protocolError`` that is quiet is not answered at all.
    @inlinable package var isQuiet: Bool { @inline(__always) get { traits.contains(.quiet) } }
    /// A miss is not answered: meta `mg` with `q`, binary GETQ, GETKQ, GATQ, GATKQ.
    @inlinable package var hidesMiss: Bool { @inline(__always) get { traits.contains(.hidesMiss) } }
    /// The last key of a classic get: `END` follows.
    @inlinable package var isLastKeyOfGet: Bool { @inline(__always) get { traits.contains(.lastKey) } }
    /// The key came as base64 and lies decoded in `decodedKeys`; replies that show it encode it again.
    @inlinable package var keyIsDecoded: Bool { @inline(__always) get { traits.contains(.keyIsDecoded) } }
    /// The connection ends once the reply is sent; nothing after this request is looked at.
    @inlinable package var closesAfterReply: Bool { @inline(__always) get { traits.contains(.closesAfterReply) } }
    /// The binary reply carries the key: GETK, GETKQ, GATK, GATKQ.
    @inlinable package var returnsKey: Bool { @inline(__always) get { traits.contains(.returnsKey) } }

    /// What `ms` does, as the classic verb with the same meaning: its mode, and `cas` where `C` compares a set or
    /// replace.
    ///
    /// (Append and prepend compare as well when `options` has `C`; add does not.)
    @inlinable package var storeVerb: Verb {
        switch mode {
        case UInt8(ascii: "E"): .add
        case UInt8(ascii: "A"): .append
        case UInt8(ascii: "P"): .prepend
        case UInt8(ascii: "R"): options.contains(.compareCAS) ? .cas : .replace
        default: options.contains(.compareCAS) ? .cas : .set
        }
    }
}

/// Yes-or-no properties of a ``Request``; it has an accessor for each.
@usableFromInline
package struct RequestTraits: OptionSet, BitwiseCopyable, Sendable {
    /// The bits.
    @usableFromInline package let rawValue: UInt8

    @inlinable @inline(__always)
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// ``Request/isQuiet``.
    @inlinable package static var quiet: RequestTraits { RequestTraits(rawValue: 1) }
    @inlinable package static var hidesMiss: RequestTraits { RequestTraits(rawValue: 2) }
    @inlinable package static var lastKey: RequestTraits { RequestTraits(rawValue: 4) }
    @inlinable package static var keyIsDecoded: RequestTraits { RequestTraits(rawValue: 8) }
    @inlinable package static var closesAfterReply: RequestTraits { RequestTraits(rawValue: 16) }
    @inlinable package static var returnsKey: RequestTraits { RequestTraits(rawValue: 32) }
}
