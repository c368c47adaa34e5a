// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Telemetry
internal import Tracing

/// What is traced of requests on their way through a router: a span for each client's request, and below it one for
/// each command to a server. Those whose trace somebody records, and those that are slow or fail.
extension RouterHandler {
    /// Begins the span of a client's request, if it may be recorded.
    @inline(never)
    func beginSpan(_ ticket: Int, _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>) {
        let seed: SpanSeed
        if let parent = TraceToken.context(of: request, in: input) {
            seed = tracer[0].seed(below: parent)
        } else {
            seed = tracer[0].root()
        }
        guard seed.isThere, let index = spans.take() else { return }
        spans[index] = SpanRecord(seed, SpanName(request.verb), .server, start: now)
        spans[index].note(key: key, isShown: tracer[0].showsKeys)
        tickets[ticket].span = Int32(truncatingIfNeeded: index)
    }

    /// Begins the span of a command to a server, below that of the request that it is for, if that is recorded.
    @inline(never)
    func beginSpan(of call: Int, below parent: Int, _ lane: Int) {
        guard spans[parent].context.isSampled, let index = spans.take() else { return }
        let seed = tracer[0].child(of: spans[parent].context)
        spans[index] = SpanRecord(seed, spans[parent].name, .client, start: now)
        spans[index].keyHash = spans[parent].keyHash
        spans[index].peer = lanes[lane].tracePeer
        calls[call].span = Int32(truncatingIfNeeded: index)
    }

    /// Writes a command whose server is told the span that it belongs to.
    @inline(never)
    func forwardTraced(_ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ lane: Int, _ call: Int) {
        let start = lanes[lane].pending.count
        lanes[lane].pending.appendForwarded(request, key: key, input)
        carry(call, lane, from: start)
    }

    /// Has a command that was just written carry its span, if it is one that can.
    @inline(never)
    func carry(_ call: Int, _ lane: Int, from start: Int) {
        guard router.tracing.configuration.propagates else { return }
        lanes[lane].pending.carry(spans[Int(calls[call].span)].context, from: start)
    }

    // MARK: Ends

    /// A span is over.
    func endSpan(_ index: Int, _ error: SpanError) {
        if spans[index].context.isSampled {
            spans[index].end = Clock.monotonicNanoseconds()
            if spans[index].error == .none { spans[index].error = error }
            tracer[0].record(spans[index])
        }
        spans.give(index)
    }

    /// A server answered the lane's first call.
    @inline(__always)
    func endSpan(ofAnswered call: Int, _ lane: Int) {
        let isSlow = now &- calls[call].started >= tracer[0].slowNanoseconds
        guard calls[call].span >= 0 || lanes[lane].isFailure || isSlow else { return }
        let error: SpanError = lanes[lane].isRefusal ? .busy : lanes[lane].isFailure ? .serverError : .none
        lanes[lane].isFailure = false
        endSpan(of: calls[call], lane, error, isAnswered: true)
    }

    /// A command is over. Where nobody records it, and it was slow or failed, it is recorded now, with the request that
    /// it was for.
    @inline(never)
    func endSpan(of call: Call, _ lane: Int, _ error: SpanError, isAnswered: Bool = false) {
        if call.span >= 0 {
            if isAnswered, spans[Int(call.span)].context.isSampled { remember(spans[Int(call.span)], call, lane) }
            endSpan(Int(call.span), error)
        } else if call.ticket >= 0, !call.isPartOfBroadcast, beginLate(Int(call.ticket), error) {
            let parent = Int(tickets[Int(call.ticket)].span)
            let seed = tracer[0].child(of: spans[parent].context)
            var record = SpanRecord(seed, spans[parent].name, .client, start: call.started)
            record.end = Clock.monotonicNanoseconds()
            (record.error, record.peer, record.keyHash) = (error, lanes[lane].tracePeer, spans[parent].keyHash)
            record.reason = spans[parent].reason
            tracer[0].record(record)
            if isAnswered { remember(record, call, lane) }
        }
        guard error != .none, call.ticket >= 0, tickets[Int(call.ticket)].span >= 0 else { return }
        let span = Int(tickets[Int(call.ticket)].span)
        if spans[span].error == .none { spans[span].error = error }
    }

    /// Keeps a span beside the histogram that counts its command.
    private func remember(_ record: SpanRecord, _ call: Call, _ lane: Int) {
        var exemplar = record.exemplar
        exemplar.nanoseconds = now &- call.started
        lanes[lane].meter.exemplars.note(exemplar)
    }

    /// Keeps the span of a request that a machine answered, beside the histogram of its route.
    func remember(_ ticket: Int, in latency: RouteLatency, tookNanoseconds: UInt64) {
        let span = Int(tickets[ticket].span)
        guard span >= 0, spans[span].context.isSampled else { return }
        var exemplar = spans[span].exemplar
        exemplar.nanoseconds = tookNanoseconds
        latency.exemplars.note(exemplar)
    }

    /// Has a request recorded that nobody sampled, because it is slow or failed. False where it is recorded already, or
    /// not to be.
    private func beginLate(_ ticket: Int, _ error: SpanError) -> Bool {
        let known = Int(tickets[ticket].span)
        if known >= 0, spans[known].context.isSampled { return false }
        let time = Clock.monotonicNanoseconds()
        let isFailed = error != .none && tracer[0].recordsFailed
        guard isFailed || time &- tickets[ticket].started >= tracer[0].slowNanoseconds else { return false }
        let carried = known >= 0 ? SpanSeed(spans[known].context, parent: spans[known].parent) : SpanSeed()
        let seed = tracer[0].late(carried, now: time)
        guard seed.isThere, let index = known >= 0 ? known : spans.take() else { return false }
        if known < 0 {
            spans[index] = SpanRecord(
                seed, SpanName(tickets[ticket].verb), .server, start: tickets[ticket].started)
            tickets[ticket].span = Int32(truncatingIfNeeded: index)
        }
        spans[index].context = seed.context
        spans[index].reason = isFailed ? .failed : .slow
        return true
    }

    /// What a machine answers a client.
    func noteRoutedError(_ ticket: Int, isFailed: Bool) {
        let error: SpanError = isFailed ? .serverError : .none
        _ = beginLate(ticket, error)
        let span = Int(tickets[ticket].span)
        if isFailed, span >= 0, spans[span].error == .none { spans[span].error = error }
    }

    /// A request's reply has gone to its client.
    @inline(__always)
    func endSpan(ofTicket ticket: Int) {
        let failure = tickets[ticket].failure
        if failure != .none, failure != .local { _ = beginLate(ticket, failure.spanError) }
        guard tickets[ticket].span >= 0 else { return }
        endSpan(Int(tickets[ticket].span), failure.spanError)
        tickets[ticket].span = -1
    }
}

extension RouteFailure {
    /// As a span says it.
    var spanError: SpanError {
        switch self {
        case .none: .none
        case .timeout: .timeout
        case .lost: .connectionLost
        case .connectTimeout: .connectTimeout
        case .connectError: .connectError
        case .unavailable: .unavailable
        case .busy: .busy
        case .local: .serverError
        }
    }
}
