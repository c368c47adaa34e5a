// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Reactor
internal import Routing

/// A plan with what one reactor needs to carry it out. Kept by requests that began under it.
final class PlanContext {
    let plan: RouterPlan
    let engine: RouteEngine
    /// By destination of the plan: the number of its text lane. Its binary lane is the next.
    let lanes: [Int]

    init(_ plan: RouterPlan, _ engine: RouteEngine, lanes: [Int]) {
        self.plan = plan
        self.engine = engine
        self.lanes = lanes
    }
}

/// A request that more than one server may have a part in: what the client sent, the machine that says what is to be
/// done, and what servers answered so far. Used again when it is over.
final class RoutedRequest {
    /// Where the client's reply goes; -1 when it has it, or is gone.
    var ticket: Int32 = -1
    /// The client, as ``ConnectionID/rawValue``.
    var sender: UInt64 = 0
    /// Counts uses, so that a time that nobody waits for any more is known.
    var generation = 0
    var context: PlanContext?
    var machine = RouteMachine()
    /// The client's command; its offsets count in ``bytes``.
    var request = Request()
    var operation = RouteOperation.get
    /// The command as it came: line and value, or packet; of a classic get the key.
    var bytes: [UInt8] = []
    /// The key, decoded, with its routing prefix.
    var key: [UInt8] = []
    /// Whether servers are not asked for the key that the client wants to see again (`k`): memcached gives a key that a
    /// binary client stored as it is, so one with a line feed would look like several replies.
    var asksNoKey = false
    /// When it came, in monotonic nanoseconds.
    var started: UInt64 = 0
    /// The handle that it entered the routes by; below 0 when there are several.
    var entry = -1
    /// Of a write that a hot key's value must not outlive: the key's hash; 0 for others.
    var writeHash: UInt64 = 0
    /// Of a read of a copy of a hot key: the key's hash, what ``WriteVersions`` said of it, and which copy; 0 for none.
    var copyHash: UInt64 = 0
    var copyVersion: UInt64 = 0
    var copy = 0
    /// Bytes that are kept for it.
    var heldBytes = 0
    /// What was sent for it, by token.
    var parts: [Part] = []

    /// A command to a server, and its reply.
    struct Part {
        let operation: RouteOperation
        /// The protocol that it was sent in.
        let form: ProtocolForm
        /// Whether the reply can be passed on as it is: the client's own command, with its own key.
        let isVerbatim: Bool
        /// Whether it is the client's own command under another key.
        let isSame: Bool
        /// Flags of a meta get that the route asked for and the client did not.
        var added: [UInt8] = []
        /// The key that was sent; nil for the client's own command as it came.
        let key: CommandKey?
        let destination: Int
        /// Whether it is a read that was asked of another server before.
        var isHedge = false
        /// Whether it makes a copy of a hot key.
        var isFill = false
        /// What was sent, where its server may say that another one owns the key; how often that was said, and who.
        var command: SubRequest?
        var hops = 0
        var owner: String?
        /// Of a delete that is kept if it fails, the key that was sent; and whether it is.
        var spoolKey: [UInt8]?
        var isKept = false
        /// Whether the reply had no room.
        var isOverflowing = false
        /// The reply as it came.
        var bytes: [UInt8] = []
        var reply = RouteReply(.unknown)
        /// The value in it.
        var value = 0..<0
    }

    /// Takes over what the client sent.
    func begin(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, ticket: Int, context: PlanContext,
        operation: RouteOperation
    ) {
        generation += 1
        self.ticket = Int32(truncatingIfNeeded: ticket)
        self.context = context
        self.operation = operation
        parts.removeAll(keepingCapacity: true)
        keep(request, key: key, input)
    }

    /// Keeps the client's command.
    func keep(_ request: Request, key: Span<UInt8>, _ input: Span<UInt8>) {
        self.request = request
        self.key = [UInt8](copying: key)
        asksNoKey = request.breaksReplies(key: key)
        let start = request.lineOffset
        let end = Self.end(of: request, input)
        bytes = [UInt8](copying: input.extracting(start..<end))
        self.request.lineOffset = 0
        if !request.keyIsDecoded { self.request.keyOffset = max(request.keyOffset - start, 0) }
        self.request.valueOffset = max(request.valueOffset - start, 0)
        self.request.opaqueOffset = max(request.opaqueOffset - start, 0)
    }

    private static func end(of request: Request, _ input: Span<UInt8>) -> Int {
        if request.verb.stores { return request.valueOffset + request.valueLength + (request.form == .binary ? 0 : 2) }
        switch request.form {
        case .binary, .classic: return request.keyOffset + request.keyLength
        case .meta:
            let feed = input.firstOffset(of: UInt8(ascii: "\n"), from: request.lineOffset, to: input.count)
            return (feed ?? input.count - 1) + 1
        }
    }

    /// How much what it asks of a server matters.
    func requestClass(_ operation: RouteOperation) -> RequestClass {
        let bytes = bytes
        return request.requestClass(operation, bytes.span)
    }

    /// The value that the client stores.
    var storedRange: Range<Int> { request.valueOffset..<request.valueOffset + request.valueLength }

    /// What routes look at.
    func routeRequest(id: Int, sender: UInt64) -> RouteRequest {
        RouteRequest(
            id: UInt64(id), operation, sender: sender == 0 ? 1 : sender, exptime: request.exptime,
            flags: request.clientFlags, casToken: request.cas,
            isValueless: request.verb == .metaGet && !request.options.contains(.value))
    }

    /// The flags that routes want to see in replies to a meta get, and the client did not ask for.
    func added(_ plan: RoutePlan) -> [UInt8] {
        guard plan.readsFlags, request.verb == .metaGet else { return [] }
        let wanted = operation == .leaseGet ? [UInt8(ascii: "f"), UInt8(ascii: "c")] : [UInt8(ascii: "f")]
        return wanted.filter { !request.options.contains(MetaOptions(letter: $0)) }
    }
}

extension Request {
    /// Whether it is a meta get that asks for a key with a line feed in it.
    func breaksReplies(key: Span<UInt8>) -> Bool {
        guard keyIsDecoded, verb == .metaGet, options.contains(MetaOptions(letter: UInt8(ascii: "k"))) else {
            return false
        }
        return key.firstOffset(of: UInt8(ascii: "\n"), from: 0, to: key.count) != nil
    }

    /// What it is to routes; nil for what has no key, or is about one server.
    var routeOperation: RouteOperation? {
        switch verb {
        case .get: form == .binary ? .gets : .get
        case .gets: .gets
        case .gat: form == .binary ? .gats : .gat
        case .gats: .gats
        case .set: .set
        case .add: .add
        case .replace: .replace
        case .append: .append
        case .prepend: .prepend
        case .cas: .cas
        case .delete, .metaDelete: .delete
        case .incr: .increment
        case .decr: .decrement
        case .touch: .touch
        case .metaGet: metaGetOperation
        case .metaSet: metaSetOperation
        case .metaArithmetic: mode == UInt8(ascii: "D") ? .decrement : .increment
        case .metaDebug: .metaGet
        default: nil
        }
    }

    private var metaGetOperation: RouteOperation {
        if !options.isDisjoint(with: [.vivify, .recache]) { return .leaseGet }
        let asksVersion = options.contains(MetaOptions(letter: UInt8(ascii: "c")))
        if options.contains(.setTTL) { return asksVersion ? .gats : .gat }
        guard options.contains(.value) else { return .metaGet }
        return asksVersion ? .gets : .get
    }

    private var metaSetOperation: RouteOperation {
        switch storeVerb {
        case .add: .add
        case .replace: .replace
        case .append: .append
        case .prepend: .prepend
        case .cas: .cas
        default: .set
        }
    }
}
