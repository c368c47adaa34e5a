// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Telemetry

/// Executes parsed requests against the engine and appends their replies. One for each reactor; its state is what a
/// turn of the reactor needs at hand.
struct RequestExecutor: ~Copyable {
    let node: Node
    let engine: CacheEngine
    let reactor: Reactor
    let counters: ReactorCounters
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

    /// Values up to this many bytes wait in the input buffer until they are whole; longer ones are received straight
    /// into an item.
    static var waitLimit: Int { 32 << 10 }
    /// Values from this many bytes on are sent from where they lie rather than copied into the reply buffer.
    static var copyLimit: Int { 64 << 10 }

    init(_ node: Node, _ reactor: Reactor) {
        self.node = node
        self.reactor = reactor
        engine = node.engine
        counters = node.counters[reactor.index]
        sampler = HotKeySampler(node.hotKeys, reactor: reactor.index)
    }

    /// Takes in what may have changed since the last turn.
    mutating func beginTurn(fd: Int32) {
        self.fd = fd
        now = node.clock.second(reactor.nowNanoseconds)
        watched = node.watchers.topics
        countsPrefixes = node.prefixes.isOn
        node.flushIfDue(now: now)
    }

    /// Notes how long the turn's commands took, from when their input was ready.
    mutating func endTurn() {
        let took = Clock.monotonicNanoseconds() &- reactor.readyNanoseconds
        for kind in kinds.indices where kinds[kind] > 0 {
            counters.latencies[kind].record(nanoseconds: took, count: UInt64(kinds[kind]))
            kinds[kind] = 0
        }
    }

    @inline(__always)
    mutating func count(_ kind: CommandKind) { kinds[kind.rawValue] &+= 1 }

    /// Executes one request whose data block, if any, is in the input, and appends its reply.
    @inline(__always)
    mutating func execute(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ connection: inout Connection,
        _ output: inout OutputBuffer
    ) {
        switch request.verb {
        case .get where request.form == .classic: get(request, key: key, &output)
        case .set where request.form == .classic: store(request, key: key, input, &output)
        case .metaGet: metaGet(request, key: key, input, &output)
        case .metaSet: metaSet(request, key: key, input, &output)
        default: executeOther(request, key: key, input, &connection, &output)
        }
    }

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
