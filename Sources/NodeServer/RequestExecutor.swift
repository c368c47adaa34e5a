// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Storage
internal import Telemetry
internal import Tracing

/// Executes parsed requests against the engine and appends their replies. One for each reactor; its state is what a
/// turn of the reactor needs at hand.
struct RequestExecutor: ~Copyable {
    let node: Node
    let engine: CacheEngine
    let reactor: Reactor
    let counters: ReactorCounters
    /// The store behind the cache; nil for a plain cache.
    let storage: NodeStorage?
    /// What a followed stream does to the cache, and whether there is one.
    let stream: NodeStream?
    let follows: Bool
    /// Which keys are the node's; nil where it is the only one.
    let ownership: NodeOwnership?
    /// Whether requests are looked at before they are executed: for a stream's sake, or the ring's.
    let isGuarded: Bool
    /// What the stream says of the copy of the request's key.
    var standing = CopyStanding.vouched
    /// What this turn goes by, of who owns what.
    var turn = NodeOwnership.Turn()
    /// Whether the connection asked to be told where keys are that are others'.
    var knowsOwners = false
    /// Requests for keys of others, to be sent when the turn ends.
    var outgoing: [ForwardedCommand] = []
    /// Flags of mg that want a look before the cache answers; none without a store.
    let specialOptions: MetaOptions
    /// The second in which this turn happens.
    var now: UInt32 = 0
    /// The connection's descriptor, for watchers; 0 for datagrams.
    var fd: Int32 = 0
    /// What watchers want to see; empty nearly always.
    var watched: WatchTopics = []
    /// Whether statistics by prefix are collected in this turn.
    var countsPrefixes = false
    /// Commands of this turn by kind, for the latency histograms.
    var kinds = InlineArray<6, UInt32>(repeating: 0)
    var sampler: HotKeySampler
    /// Whose requests are served when not all can be.
    var shedder: RequestShedder

    /// Whose requests these are; nil where everybody may do everything.
    private(set) var tenant: Tenant?
    /// A classic get was answered with a denial, and its keys go on coming.
    var skipsDeniedGet = false
    /// What the tenant may use up.
    var quota = QuotaGate()
    /// Output of the reactor before the connection's turn.
    var outputBefore = 0

    /// The connection whose turn it is.
    var connection = ConnectionID(rawValue: .max)
    /// Whether replies of this connection wait for the store, so that later ones must wait behind them.
    var defers = false
    /// The places of this turn's output where replies are still to come.
    var parks: [Park] = []
    /// Requests that wait for the store, by the token that their answer will have.
    var parked: [UInt64: ParkedRequest] = [:]
    var order = CommandOrder()
    var nextToken: UInt64 = 0
    /// Bytes of values that wait behind earlier commands of their connections.
    var heldBytes = 0
    /// How large rows of the store are lately.
    var rowSizes = RowSizes()

    /// Whether requests are traced, with what, and what the turn has of spans.
    let traces: Bool
    var tracer: Tracer
    var spans: TurnSpans

    /// Values up to this many bytes wait in the input buffer until they are whole; longer ones are received straight
    /// into an item.
    static var waitLimit: Int { 32 << 10 }
    /// Values from this many bytes on are sent from where they lie rather than copied into the reply buffer.
    static var copyLimit: Int { 64 << 10 }

    init(_ node: Node, _ reactor: Reactor) {
        self.node = node
        self.reactor = reactor
        engine = node.engine
        storage = node.storage
        stream = node.stream
        follows = node.stream != nil
        ownership = node.ownership
        isGuarded = node.stream != nil || node.ownership != nil
        specialOptions = node.storage?.specialOptions ?? []
        counters = node.counters[reactor.index]
        sampler = HotKeySampler(node.hotKeys, reactor: reactor.index)
        shedder = RequestShedder(
            node.configuration, figures: node.overload[reactor.index], reactor: reactor.index,
            seed: UInt64.random(in: .min ... .max))
        traces = node.tracing.configuration.isOn
        tracer = node.tracing.tracer(reactor.index)
        spans = TurnSpans(isOn: node.tracing.configuration.isOn)
    }

    /// Says whose requests come next, and whether the keys of a get that was denied are still coming.
    @inline(__always)
    mutating func identify(_ tenant: Tenant?, skips: Bool) {
        if tenant == nil, self.tenant == nil { return }
        self.tenant = tenant
        shedder.account = tenant
        skipsDeniedGet = skips
        quota.begin(tenant, at: reactor.nowNanoseconds)
    }

    /// The tenant's requests of this turn are over.
    @inline(__always)
    mutating func endQuota(_ output: borrowing OutputBuffer) {
        if quota.isOn { quota.end(sent: output.totalCount &- outputBefore, reactor: reactor.index) }
    }

    /// Takes in what may have changed since the last turn.
    mutating func beginTurn(fd: Int32, _ connection: ConnectionID = ConnectionID(rawValue: .max), defers: Bool = false)
    {
        self.fd = fd
        self.connection = connection
        self.defers = defers
        now = node.clock.second(reactor.nowNanoseconds)
        standing = .vouched
        watched = node.watchers.topics
        countsPrefixes = node.prefixes.isOn
        node.flushIfDue(now: now)
        if let ownership { ownership.begin(&turn) }
    }

    /// Notes how long the turn's commands took, from when their input was ready.
    mutating func endTurn() {
        let took = Clock.monotonicNanoseconds() &- reactor.readyNanoseconds
        for kind in kinds.indices where kinds[kind] > 0 {
            counters.latencies[kind].record(nanoseconds: took, count: UInt64(kinds[kind]))
            kinds[kind] = 0
        }
        if traces { endSpans(at: reactor.readyNanoseconds &+ took) }
    }

    @inline(__always)
    mutating func count(_ kind: CommandKind) { kinds[kind.rawValue] &+= 1 }

    /// Executes one request whose data block, if any, is in the input, and appends its reply.
    @inline(__always)
    mutating func execute(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ connection: inout Connection,
        _ output: inout OutputBuffer
    ) {
        if isGuarded, !passesGuards(request, key: key, input, &output) { return }
        switch request.verb {
        case .get where request.form == .classic: get(request, key: key, &output)
        case .set where request.form == .classic: store(request, key: key, input, &output)
        case .metaGet: metaGet(request, key: key, input, &output)
        case .metaSet: metaSet(request, key: key, input, &output)
        default: executeOther(request, key: key, input, &connection, &output)
        }
    }

    /// Whether a request may be executed, as far as a stream says: the copy of its key is forgotten before where it may
    /// not be shown. False where the request was answered. What a replica region reads (`isMarked`) is never stale.
    @inline(never)
    mutating func passesStream(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, isMarked: Bool, _ output: inout OutputBuffer
    ) -> Bool {
        standing = .vouched
        guard let stream, stream.isDoubtful, key.count > 0 else { return true }
        standing = stream.judge(key, hash(request, key), isRead: showsCopy(request), isMarked: isMarked, now: now)
        guard standing == .refused else { return true }
        refuseBehind(request, key: key, opaque: Self.opaque(of: request, in: input), output)
        return false
    }

    /// Whether a request is a read: behind a store, those that set an expiry are writes.
    private func showsCopy(_ request: Request) -> Bool {
        switch request.verb {
        case .get, .gets, .metaDebug: true
        case .gat, .gats: storage == nil
        case .metaGet: storage == nil || !request.options.contains(.setTTL)
        default: false
        }
    }

    /// Whether a request may not be executed where a stream is followed: versions are those of the stream's source, and
    /// a client's would outlive its changes.
    @inline(__always)
    func namesVersion(_ request: Request) -> Bool { request.form == .meta && request.options.contains(.setCAS) }

    @inline(never)
    private mutating func executeOther(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ connection: inout Connection,
        _ output: inout OutputBuffer
    ) {
        if executeData(request, key: key, input, &output) { return }
        count(.other)
        switch request.verb {
        case .quit:
            if request.form == .binary, !request.isQuiet { output.appendBinaryHeader(replyTo: request) }
            connection.closeAfterFlush()
        case .watch: watch(request, input, &connection, &output)
        case .lruCrawler: lruCrawler(request, input, &connection, &output)
        case .shutdown: shutdown(request, input, &connection, &output)
        default: executeAdministrative(request, key: key, input, &output)
        }
    }

    /// Executes a request that came in a datagram: everything but what needs a connection.
    mutating func executeDatagram(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        if tenant != nil, !allows(request, key: key, input, &output) { return }
        if follows {
            if namesVersion(request) { return refuseVersion(request, &output) }
            // No pool fails its reads here, whose errors wait for their turn: see NodeConfigurationDraft.
            _ = passesStream(request, key: key, input, isMarked: false, &output)
        }
        if executeData(request, key: key, input, &output) { return }
        count(.other)
        switch request.verb {
        case .quit: break
        case .watch, .lruCrawler, .shutdown: refuse(.error, request, &output)
        default: executeAdministrative(request, key: key, input, &output)
        }
    }

    /// Executes commands on items. False for all others.
    private mutating func executeData(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) -> Bool {
        switch request.verb {
        case .get, .gets, .gat, .gats:
            if request.form == .binary {
                binaryGet(request, key: key, &output)
            } else {
                get(request, key: key, &output)
            }
        case .set, .add, .replace, .append, .prepend, .cas: store(request, key: key, input, &output)
        case .delete: delete(request, key: key, &output)
        case .incr, .decr: arithmetic(request, key: key, &output)
        case .touch: touch(request, key: key, &output)
        case .metaGet: metaGet(request, key: key, input, &output)
        case .metaSet: metaSet(request, key: key, input, &output)
        case .metaDelete: metaDelete(request, key: key, input, &output)
        case .metaArithmetic: metaArithmetic(request, key: key, input, &output)
        case .metaDebug: metaDebug(request, key: key, &output)
        default: return false
        }
        return true
    }

    /// Answers a request that is refused. Classic requests with noreply are not answered.
    func refuse(_ error: ErrorReply, _ request: Request, _ output: inout OutputBuffer) {
        if request.form == .classic, request.isQuiet { return }
        output.append(error, replyTo: request)
    }

    /// Appends `text` and a line end, unless the request is quiet.
    @inline(__always)
    func answer(_ text: StaticString, _ request: Request, _ output: inout OutputBuffer) {
        if request.isQuiet { return }
        output.append(text)
    }

    @inline(__always)
    func hash(_ key: Span<UInt8>) -> UInt64 { stableHash(key, seed: engine.hashSeed) }

    /// The hash of a request's key: from the batch's prefetch, or made now.
    @inline(__always)
    func hash(_ request: Request, _ key: Span<UInt8>) -> UInt64 { request.hash != 0 ? request.hash : hash(key) }

    func noteLogin(_ succeeded: Bool) {
        counters.commands.add(.authCommands)
        if !succeeded { counters.commands.add(.authErrors) }
    }
}
