// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Storage
internal import Telemetry
internal import Tracing

/// The spans of one turn of a connection.
struct TurnSpans: ~Copyable {
    /// Spans that are kept until the turn's end at most; what comes then ends the others early.
    static var limit: Int { 64 }

    /// Those that may be recorded, of requests that are answered.
    let records: FixedArray<SpanRecord>
    var count = 0
    /// The request that is being executed, and where its reply begins in the output.
    var current = SpanSeed()
    var outputStart = 0
    /// Whether it waits for the store, which its span then does as well.
    var isParked = false
    /// The span of what is asked of the store or of another node for it, and which node.
    var child: UInt64 = 0
    var peer: Int32 = -1
    /// Requests of the turn that were answered and have no span yet, and the last of them.
    var others: UInt32 = 0
    var lastName = SpanName.other

    init(isOn: Bool) { records = FixedArray(count: isOn ? Self.limit : 1) { _ in SpanRecord() } }
}

/// What is traced of requests: those whose trace somebody records, and those that are slow or fail.
extension RequestExecutor {
    /// Begins the span of a request, before it is executed.
    @inline(never)
    mutating func beginSpan(_ request: Request, _ input: Span<UInt8>, _ output: borrowing OutputBuffer) {
        spans.outputStart = output.count
        spans.isParked = false
        spans.child = 0
        spans.peer = -1
        spans.current = SpanSeed()
        guard request.keyLength > 0 else { return }
        if let parent = TraceToken.context(of: request, in: input) {
            spans.current = tracer.seed(below: parent)
        } else {
            spans.current = tracer.root()
        }
    }

    /// Goes on with a request whose value had to come in first.
    mutating func takeSpan() -> SpanSeed {
        defer { spans.current = SpanSeed() }
        return spans.current
    }

    /// The same, once the value is there.
    mutating func resumeSpan(_ seed: SpanSeed, _ output: borrowing OutputBuffer) {
        spans.outputStart = output.count
        spans.isParked = false
        spans.child = 0
        spans.peer = -1
        spans.current = seed
    }

    /// Ends the span of a request that was answered.
    @inline(never)
    mutating func endSpan(_ request: Request, key: Span<UInt8>, _ output: borrowing OutputBuffer) {
        let seed = spans.current
        spans.current = SpanSeed()
        if spans.isParked || request.keyLength == 0 { return }
        let (error, hit) = Self.glance(at: request, output, from: spans.outputStart)
        guard seed.isThere || error != .none && tracer.recordsFailed else {
            spans.others &+= 1
            spans.lastName = SpanName(request.verb)
            return
        }
        if spans.count == TurnSpans.limit { endSpans(at: Clock.monotonicNanoseconds()) }
        var record = SpanRecord(seed, SpanName(request.verb), .server, start: reactor.readyNanoseconds)
        record.error = error
        record.hit = hit
        record.note(key: key, isShown: tracer.showsKeys)
        spans.records[spans.count] = record
        spans.count += 1
    }

    /// Ends what the turn has of spans.
    @inline(never)
    mutating func endSpans(at now: UInt64) {
        let isSlow = now &- reactor.readyNanoseconds >= tracer.slowNanoseconds
        for index in 0..<spans.count {
            var record = spans.records[index]
            record.end = now
            if !record.context.isSampled {
                let isFailed = record.error != .none && tracer.recordsFailed
                guard isFailed || isSlow else { continue }
                record.reason = isFailed ? .failed : .slow
                let seed = tracer.late(SpanSeed(record.context, parent: record.parent), now: now)
                guard seed.isThere else { continue }
                record.context = seed.context
            }
            emit(record, as: CommandKind(record.name))
        }
        spans.count = 0
        let others = spans.others
        spans.others = 0
        guard isSlow, others > 0 else { return }
        let seed = tracer.late(SpanSeed(), now: now)
        guard seed.isThere else { return }
        var record = SpanRecord(
            seed, others == 1 ? spans.lastName : .batch, .server, start: reactor.readyNanoseconds)
        record.end = now
        record.count = others
        record.reason = .slow
        emit(record, as: CommandKind(spans.lastName))
    }

    /// Hands a command's span over, and remembers it beside the histogram that counts the command.
    private func emit(_ record: SpanRecord, as kind: CommandKind) {
        tracer.record(record)
        counters.exemplars[kind.rawValue].note(record.exemplar)
    }

    /// What a reply says: whether the server failed, and whether a get found something.
    private static func glance(
        at request: Request, _ output: borrowing OutputBuffer, from start: Int
    ) -> (SpanError, SpanHit) {
        let isGet = request.verb.rawValue <= Verb.gats.rawValue || request.verb == .metaGet
        let reply = output.span
        guard start < reply.count else { return (.none, isGet && request.form == .classic ? .miss : .unknown) }
        guard request.form != .binary else {
            guard reply.count - start >= BinaryHeader.bytes else { return (.none, .unknown) }
            switch reply.bigEndian(at: start + 6, as: UInt16.self) {
            case BinaryStatus.success.rawValue: return (.none, isGet ? .hit : .unknown)
            case BinaryStatus.notFound.rawValue: return (.none, isGet ? .miss : .unknown)
            case BinaryStatus.busy.rawValue: return (.busy, .unknown)
            case BinaryStatus.outOfMemory.rawValue, BinaryStatus.internalError.rawValue,
                BinaryStatus.temporaryFailure.rawValue:
                return (.serverError, .unknown)
            default: return (.none, .unknown)
            }
        }
        switch reply[start] {
        case UInt8(ascii: "S") where reply.holds("SERVER_ERROR", at: start):
            return (reply.holds("SERVER_ERROR 307", at: start) ? .busy : .serverError, .unknown)
        case UInt8(ascii: "V"), UInt8(ascii: "H"): return (.none, isGet ? .hit : .unknown)
        case UInt8(ascii: "E"): return (.none, isGet ? .miss : .unknown)
        default: return (.none, .unknown)
        }
    }

    // MARK: Requests that wait

    /// Gives the span of the request that is being executed to where it waits.
    // Not inlined, here and where it is called: Swift 6.3's optimizer then takes the request for leaked, and crashes.
    @inline(never)
    mutating func handSpan(to waiting: ParkedRequest) {
        waiting.span = spans.current
        waiting.childSpan = spans.child
        waiting.peer = spans.peer
        spans.isParked = true
    }

    /// The context of a write on its way to the store, where it is recorded: who applies it elsewhere goes on below it.
    mutating func storageTrace() -> String? {
        guard spans.current.isSampled else { return nil }
        spans.child = tracer.spanNumber()
        return spans.current.context.with(span: spans.child).traceparent
    }

    /// Has a command to another node carry the context of the request that is being executed.
    mutating func carrySpan(in command: inout OutputBuffer, to owner: String) {
        spans.peer = node.tracing.peer(owner)
        guard spans.current.isSampled else { return }
        spans.child = tracer.spanNumber()
        if node.configuration.tracing.propagates {
            command.carry(spans.current.context.with(span: spans.child), from: 0)
        }
    }

    /// Ends the span of a request that waited, with what it waited for.
    @inline(never)
    mutating func endSpan(of parked: ParkedRequest, at now: UInt64) {
        let error = parked.spanError
        var (seed, reason) = (parked.span, SpanReason.sampled)
        if !seed.isSampled {
            let isFailed = error != .none && tracer.recordsFailed
            guard isFailed || now &- parked.readyNanoseconds >= tracer.slowNanoseconds else { return }
            reason = isFailed ? .failed : .slow
            seed = tracer.late(seed, now: now)
            guard seed.isThere else { return }
            parked.span = seed
        }
        let key = parked.key
        var record = SpanRecord(seed, SpanName(parked.request.verb), .server, start: parked.readyNanoseconds)
        (record.end, record.error, record.reason, record.hit) = (now, error, reason, parked.spanHit)
        record.note(key: key.span, isShown: tracer.showsKeys)
        emit(record, as: parked.kind)
        if parked.askedNanoseconds > 0 { recordWait(of: parked, below: record, until: now) }
    }

    /// Records what a request waited for: another node, or the store.
    private mutating func recordWait(of parked: ParkedRequest, below server: SpanRecord, until now: UInt64) {
        var seed = tracer.child(of: server.context)
        if parked.childSpan != 0 { seed.context.span = parked.childSpan }
        let isForwarded = parked.reply != nil || parked.peer >= 0
        if parked.isAboutCopy { return }
        let name = isForwarded ? server.name : parked.isRead ? SpanName.storageRead : .storageWrite
        let kind: SpanKind = isForwarded || node.configuration.storage.backend == .postgres ? .client : .internal
        var record = SpanRecord(seed, name, kind, start: parked.askedNanoseconds)
        // The reactor's time is that of its turn's beginning: an answer may have come since.
        let answered = max(parked.answeredNanoseconds, parked.timing?.endedNanoseconds ?? 0)
        record.end = min(max(answered, record.start), now)
        record.error = server.error
        record.peer = parked.peer
        record.keyHash = server.keyHash
        tracer.record(record)
        guard let timing = parked.timing, !isForwarded else { return }
        let taken = max(timing.takenNanoseconds, record.start)
        recordPart(.storageQueue, below: record, from: record.start, to: taken)
        guard timing.beganNanoseconds > 0 else { return }
        let began = max(timing.beganNanoseconds, taken)
        let part = recordPart(
            timing.isCommit ? .storageCommit : .storageLookup, below: record, from: began, to: timing.endedNanoseconds,
            count: timing.count)
        if timing.logNanoseconds > 0 {
            // A commit begins with the log.
            recordPart(
                .storageLog, below: part, from: began,
                to: min(began &+ timing.logNanoseconds, timing.endedNanoseconds))
        }
    }

    @discardableResult
    private mutating func recordPart(
        _ name: SpanName, below parent: SpanRecord, from start: UInt64, to end: UInt64, count: UInt32 = 1
    ) -> SpanRecord {
        var record = SpanRecord(tracer.child(of: parent.context), name, .internal, start: start)
        record.end = max(min(end, parent.end), start)
        record.count = count
        tracer.record(record)
        return record
    }
}

extension CommandKind {
    /// The kind that a command counts as in /metrics.
    init(_ name: SpanName) {
        switch name {
        case .get, .gets, .gat, .gats, .mg: self = .get
        case .set, .add, .replace, .append, .prepend, .cas, .ms: self = .set
        case .delete, .md: self = .delete
        case .incr, .decr, .ma: self = .arithmetic
        case .touch: self = .touch
        default: self = .other
        }
    }
}

extension ParkedRequest {
    /// Why it failed, as a span says it. That a key is another node's is no failure.
    fileprivate var spanError: SpanError {
        let failure: StorageFailure
        switch answer {
        case .read(_, .failed(let why)), .write(_, .failed(let why)): failure = why
        default:
            let bytes = reply ?? []
            return bytes.span.holds("SERVER_ERROR", at: 0) ? .serverError : .none
        }
        switch failure.kind {
        case .notSent: return .storageNotSent
        case .refused: return .storageRefused
        case .unknownOutcome: return isRead ? .storageNotSent : .outcomeUnknown
        case .notOwner: return .none
        }
    }

    /// What a get found.
    fileprivate var spanHit: SpanHit {
        guard showsRow else { return .unknown }
        switch answer {
        case .read(_, .found), .write(_, .stored): return .hit
        case .read(_, .absent), .write(_, .notFound): return .miss
        default: return .unknown
        }
    }
}
