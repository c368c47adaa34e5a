// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Platform

/// What is asked of a server, with one key and one reply.
struct CacheRequest: Sendable {
    enum Operation: Equatable, Sendable {
        case get
        /// A get that also sets the time to live.
        case getAndTouch
        /// A get that may win a lease of `CacheRequest/lease` seconds.
        case lease
        case exists
        case touch
        case store(StoreVerb)
        case delete
        /// Marks the value as stale instead of removing it.
        case invalidate
        case increment, decrement
        /// Whether the server answers.
        case ping
    }

    var operation: Operation
    var key: String
    var value: [UInt8] = []
    var flags: UInt32 = 0
    /// As memcached's expiry: seconds, from 30 days on since 1970; 0 for never, negative for at once.
    var expiry: Int64 = 0
    /// The version that a write names; 0 for none.
    var cas: UInt64 = 0
    /// Of increment and decrement; of a lease the remaining seconds under which it is renewed.
    var number: UInt64 = 0
    /// Of a lease: its seconds. Of increment and decrement: the expiry of a counter that begins.
    var lease: Int64 = 0
    /// Of increment and decrement: what a counter that is not there begins with.
    var initial: UInt64?
    /// Of the call's trace: its `traceparent`.
    var trace: String?

    /// Whether it can be sent twice without doing harm: a read, or a write that leaves the same behind. A second set
    /// may undo what others did between the two.
    var isIdempotent: Bool {
        switch operation {
        case .get, .getAndTouch, .exists, .touch, .delete, .ping: true
        // The mark of whoever won would be lost with the first reply.
        case .lease, .store, .invalidate, .increment, .decrement: false
        }
    }

    /// Whether it only reads, so that it may be sent once more while it is under way.
    var isRead: Bool { operation == .get || operation == .exists }

    /// Whether a key is one: 1 to 250 bytes above 32, no 127.
    static func isKey(_ key: String) -> Bool {
        let bytes = key.utf8.span
        guard 1...250 ~= bytes.count else { return false }
        for index in bytes.indices where bytes[index] <= 32 || bytes[index] == 127 { return false }
        return true
    }

    /// A time to live as memcached takes it; nil is never.
    static func expiry(_ ttl: Duration?) -> Int64 {
        guard let ttl else { return 0 }
        let seconds = ttl.roundedUpSeconds
        guard seconds > 0 else { return -1 }
        guard seconds > 60 * 60 * 24 * 30 else { return seconds }
        return min(seconds, 1 << 31) + Int64(Clock.realtimeNanoseconds() / 1_000_000_000)
    }
}

/// The client's requests on the wire. Sources: memcached's protocol.txt.
extension OutputBuffer {
    /// Appends a request of the meta protocol.
    mutating func append(meta request: CacheRequest) {
        switch request.operation {
        case .get: append(meta: "mg ", request.key, " v f c")
        case .getAndTouch:
            append(meta: "mg ", request.key, " v f c T")
            append(decimal: request.expiry)
        case .lease:
            append(meta: "mg ", request.key, " v f c N")
            append(decimal: request.lease)
            if request.number > 0 {
                append(" R")
                append(decimal: request.number)
            }
        case .exists: append(meta: "mg ", request.key, "")
        case .touch:
            append(meta: "mg ", request.key, " T")
            append(decimal: request.expiry)
        case .store(let verb): return append(metaStore: request, verb)
        case .delete: append(meta: "md ", request.key, "")
        case .invalidate:
            append(meta: "md ", request.key, " I")
            if request.expiry != 0 {
                append(" T")
                append(decimal: request.expiry)
            }
        case .increment, .decrement: append(metaArithmetic: request)
        case .ping: append("mn")
        }
        if request.cas != 0 {
            append(" C")
            append(decimal: request.cas)
        }
        append(trace: request)
        append("\r\n")
    }

    private mutating func append(trace request: CacheRequest) {
        guard let trace = request.trace, request.operation != .ping else { return }
        append(" L")
        append(string: trace)
    }

    private mutating func append(meta command: StaticString, _ key: String, _ flags: StaticString) {
        append(command)
        append(string: key)
        append(flags)
    }

    private mutating func append(metaArithmetic request: CacheRequest) {
        append(meta: "ma ", request.key, request.operation == .increment ? " v MI D" : " v MD D")
        append(decimal: request.number)
        guard let initial = request.initial else { return }
        append(" J")
        append(decimal: initial)
        append(" N")
        append(decimal: request.lease)
    }

    private mutating func append(metaStore request: CacheRequest, _ verb: StoreVerb) {
        append("ms ")
        append(string: request.key)
        append(UInt8(ascii: " "))
        append(decimal: UInt64(request.value.count))
        switch verb {
        case .set, .cas: break
        case .add: append(" ME")
        case .replace: append(" MR")
        case .append: append(" MA")
        case .prepend: append(" MP")
        }
        if request.expiry != 0 {
            append(" T")
            append(decimal: request.expiry)
        }
        if request.flags != 0 {
            append(" F")
            append(decimal: UInt64(request.flags))
        }
        if request.cas != 0 {
            append(" C")
            append(decimal: request.cas)
        }
        append(trace: request)
        append("\r\n")
        append(request.value.span)
        append("\r\n")
    }

    /// Appends a request of the classic protocol, which has no leases and no invalidation.
    mutating func append(classic request: CacheRequest) {
        switch request.operation {
        case .get, .lease, .invalidate: append("gets ")
        case .exists: append("get ")
        case .getAndTouch:
            append("gats ")
            append(decimal: request.expiry)
            append(" ")
        case .touch: append("touch ")
        case .store(let verb): return append(classicStore: request, verb)
        case .delete: append("delete ")
        case .increment: append("incr ")
        case .decrement: append("decr ")
        case .ping: return append("version\r\n")
        }
        append(string: request.key)
        switch request.operation {
        case .touch:
            append(" ")
            append(decimal: request.expiry)
        case .increment, .decrement:
            append(" ")
            append(decimal: request.number)
        default: break
        }
        append("\r\n")
    }

    private mutating func append(classicStore request: CacheRequest, _ verb: StoreVerb) {
        append(verb.text)
        append(string: request.key)
        append(" ")
        append(decimal: UInt64(request.flags))
        append(" ")
        append(decimal: request.expiry)
        append(" ")
        append(decimal: UInt64(request.value.count))
        if verb == .cas {
            append(" ")
            append(decimal: request.cas)
        }
        append("\r\n")
        append(request.value.span)
        append("\r\n")
    }
}
