// Martlet
// SPDX-License-Identifier: Apache-2.0

package import MemcacheProtocol
internal import Memory

/// What a span is called, and what is done in it.
package enum SpanName: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case get, gets, gat, gats
    case set, add, replace, append, prepend, cas
    case delete, incr, decr, touch
    case mg, ms, md, ma, me
    case batch, other
    case storageRead, storageWrite, storageQueue, storageLookup, storageCommit, storageLog
    case streamApply

    /// The span's name.
    var text: String {
        switch self {
        case .batch: "BATCH"
        case .storageRead: "storage.read"
        case .storageWrite: "storage.write"
        case .storageQueue: "storage.queue"
        case .storageLookup: "storage.lookup"
        case .storageCommit: "storage.commit"
        case .storageLog: "storage.log"
        case .streamApply: "stream.apply"
        default: "\(self)"
        }
    }

    /// Whether it is something that a command waits for at the store.
    var isStorage: Bool { (Self.storageRead.rawValue...Self.storageLog.rawValue).contains(rawValue) }

    /// Whether it is a command of a client.
    var isCommand: Bool { rawValue <= Self.other.rawValue }

    /// The name of a command.
    package init(_ verb: Verb) {
        switch verb {
        case .get: self = .get
        case .gets: self = .gets
        case .gat: self = .gat
        case .gats: self = .gats
        case .set: self = .set
        case .add: self = .add
        case .replace: self = .replace
        case .append: self = .append
        case .prepend: self = .prepend
        case .cas: self = .cas
        case .delete: self = .delete
        case .incr: self = .incr
        case .decr: self = .decr
        case .touch: self = .touch
        case .metaGet: self = .mg
        case .metaSet: self = .ms
        case .metaDelete: self = .md
        case .metaArithmetic: self = .ma
        case .metaDebug: self = .me
        default: self = .other
        }
    }
}

/// Which side of a call a span is. Source: opentelemetry-proto, trace.proto, Span.SpanKind.
package enum SpanKind: UInt8, BitwiseCopyable, Sendable {
    case `internal` = 1
    case server, client, producer, consumer
}

/// Why a span's work failed: the attribute `error.type`.
package enum SpanError: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case none
    /// A reply that begins with SERVER_ERROR, or says the like in binary.
    case serverError
    /// Refused, because there is too much to do.
    case busy
    case timeout, connectionLost, connectTimeout, connectError, unavailable
    /// The store did not do it.
    case storageNotSent, storageRefused, outcomeUnknown
    /// The client closed its connection before it had its reply.
    case clientGone

    var text: String {
        switch self {
        case .none: ""
        case .serverError: "server_error"
        case .busy: "busy"
        case .timeout: "timeout"
        case .connectionLost: "connection_lost"
        case .connectTimeout: "connect_timeout"
        case .connectError: "connect_error"
        case .unavailable: "unavailable"
        case .storageNotSent: "storage_not_sent"
        case .storageRefused: "storage_refused"
        case .outcomeUnknown: "outcome_unknown"
        case .clientGone: "client_gone"
        }
    }
}

/// Why a span is recorded.
package enum SpanReason: UInt8, BitwiseCopyable, Sendable {
    case sampled, slow, failed
}

/// What a get found.
package enum SpanHit: UInt8, BitwiseCopyable, Sendable {
    case unknown, hit, miss
}

/// One span: fixed size, trivially copied, no references. Times are monotonic nanoseconds.
package struct SpanRecord: BitwiseCopyable, Sendable {
    /// Bytes of a key that are kept, where keys are shown.
    package static var keyBytes: Int { 64 }

    /// The trace and the span's own number.
    package var context: SpanContext = .none
    /// The span that it belongs to; 0 for none.
    package var parent: UInt64 = 0
    /// When it began.
    package var start: UInt64 = 0
    /// When it ended; 0 while it goes on.
    package var end: UInt64 = 0
    /// The key's stable hash; 0 where there is no key.
    package var keyHash: UInt64 = 0
    /// The number of the server that was asked, as ``Tracing/peer(_:)`` gives it; below 0 for none.
    package var peer: Int32 = -1
    /// How many commands it stands for.
    package var count: UInt32 = 1
    /// What is done in it.
    package var name = SpanName.other
    /// Which side of a call it is.
    package var kind = SpanKind.server
    /// Why it failed.
    package var error = SpanError.none
    /// Why it is recorded.
    package var reason = SpanReason.sampled
    /// What a get found.
    package var hit = SpanHit.unknown
    /// Bytes of ``key``.
    var keyLength: UInt8 = 0
    /// The key's beginning, where keys are shown.
    private var key = InlineArray<64, UInt8>(repeating: 0)

    /// A span of nothing yet.
    package init() {}

    /// A span that begins at `start`.
    package init(_ seed: SpanSeed, _ name: SpanName, _ kind: SpanKind, start: UInt64) {
        context = seed.context
        parent = seed.parent
        self.name = name
        self.kind = kind
        self.start = start
    }

    /// Notes the key: its hash, and its beginning where keys are shown.
    package mutating func note(key bytes: Span<UInt8>, isShown: Bool) {
        guard !bytes.isEmpty else { return }
        keyHash = stableHash(bytes)
        guard isShown else { return }
        keyLength = UInt8(min(bytes.count, Self.keyBytes))
        for index in 0..<Int(keyLength) { key[index] = bytes[index] }
    }

    /// The key's beginning. Allocates.
    var shownKey: [UInt8] { (0..<Int(keyLength)).map { key[$0] } }
}

/// What a span is to be, before it is known whether it is recorded: its own context, and its parent.
package struct SpanSeed: BitwiseCopyable, Sendable, Equatable {
    /// The trace, with the span's own number; invalid where there is no span.
    package var context: SpanContext = .none
    /// The span that it belongs to; 0 for none.
    package var parent: UInt64 = 0

    /// No span.
    package init() {}

    /// A span below `parent`.
    package init(_ context: SpanContext, parent: UInt64) {
        self.context = context
        self.parent = parent
    }

    /// Whether there is a span, recorded or not.
    package var isThere: Bool { context.span != 0 }

    /// Whether it is recorded whatever becomes of it.
    package var isSampled: Bool { context.isSampled }
}
