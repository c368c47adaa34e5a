// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a cache has under a key.
public struct CacheValue: Sendable, Equatable {
    /// The value.
    public var bytes: [UInt8]
    /// The number that was stored with it; memcached's client flags.
    public var flags: UInt32
    /// What names this version of the value, for ``MartletClient/compareAndSwap(_:_:cas:ttl:flags:options:)``.
    public var cas: UInt64
    /// Whether the value was marked as stale (``MartletClient/invalidate(_:ttl:options:)``) or outlived its time.
    public var isStale: Bool

    /// A value.
    public init(bytes: [UInt8], flags: UInt32 = 0, cas: UInt64 = 0, isStale: Bool = false) {
        self.bytes = bytes
        self.flags = flags
        self.cas = cas
        self.isStale = isStale
    }

    /// The value as UTF-8; what is none is replaced.
    public var string: String { String(decoding: bytes, as: UTF8.self) }
}

/// What came of a write with a condition.
public enum SwapResult: Sendable, Equatable {
    /// The value was stored.
    case stored
    /// Somebody else changed the value since.
    case changed
    /// There is no such value any more.
    case missing
}

/// What a get of several keys found.
public struct MultiGetResult: Sendable {
    /// What is there, by key.
    public var values: [String: CacheValue] = [:]
    /// Keys whose servers gave no answer, and why; the rest was answered.
    public var failures: [String: CacheError] = [:]

    /// Nothing yet.
    public init() {}
}

/// What one call wants other than the client's settings.
public struct CallOptions: Sendable {
    /// How long the call may take with all its attempts; nil for ``ClientConfiguration/timeout``.
    public var timeout: Duration?
    /// How often it is tried again at most; nil for ``ClientConfiguration/retries``.
    public var retries: Int?
    /// Whether a second request may be sent when the first takes long; nil for whether the client is set to hedge.
    public var hedges: Bool?
    /// The trace that the call belongs to, which its requests carry in the meta protocol; nil for none.
    public var trace: TraceContext?

    /// The client's settings.
    public init(
        timeout: Duration? = nil, retries: Int? = nil, hedges: Bool? = nil, trace: TraceContext? = nil
    ) {
        self.timeout = timeout
        self.trace = trace
        self.retries = retries
        self.hedges = hedges
    }
}
