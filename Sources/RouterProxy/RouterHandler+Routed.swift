// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Platform
internal import Reactor
internal import Routing
internal import Telemetry

/// Requests whose route is more than one server: the machine of each says what is sent, and what is answered.
extension RouterHandler {
    /// Begins a request that a machine handles.
    func route(
        _ slot: Int, _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ operation: RouteOperation,
        isPartOfGet: Bool = false, copy: HotCopyRead? = nil
    ) {
        meter.counters.add(.routed)
        guard let ticket = openTicket(slot, request) else { return }
        guard routedBytes <= routedByteLimit else {
            meter.counters.add(.overflowed)
            if isPartOfGet { tickets[ticket].traits.insert(.partOfGet) }
            return fail(ticket, .busy)
        }
        if isPartOfGet { tickets[ticket].traits.insert(.partOfGet) }
        let index = takeRouted()
        let routed = routedRequests[index]
        tickets[ticket].routed = Int32(truncatingIfNeeded: index)
        if traces { beginSpan(ticket, request, key: key, input) }
        routed.begin(request, key: key, input, ticket: ticket, context: context, operation: operation)
        if findsHotKeys, operation.group != .get {
            routed.writeHash = stableHash(key)
            router.writes.begin(routed.writeHash)
            if spreadsHotKeys { dropCopies(key, routed.writeHash) }
        }
        (routed.copyHash, routed.copyVersion, routed.copy) = (copy?.hash ?? 0, copy?.version ?? 0, copy?.number ?? 0)
        routed.started = now
        routed.entry = Int(context.plan.routes.entry(of: key))
        hold(routed, routed.bytes.count)
        let sender = clients[slot].id
        routed.sender = sender
        let (keyBytes, bytes, range) = (routed.key, routed.bytes, routed.storedRange)
        drive(index) { routed, engine, actions in
            var asked = routed.routeRequest(id: index, sender: sender)
            (asked.copy, asked.copyTTL) = (routed.copy, router.hotKeys.copySeconds)
            routed.machine.start(
                asked, key: keyBytes.span,
                value: bytes.span.extracting(request.verb.stores ? range : 0..<0), engine: engine, clock: clock,
                actions: &actions)
        }
    }

    /// The time as routes count it.
    var clock: RouteClock {
        RouteClock(nowNanoseconds: now, unixSeconds: Clock.realtimeNanoseconds() / 1_000_000_000)
    }

    private func takeRouted() -> Int {
        if let index = freeRouted.popLast() { return index }
        routedRequests.append(RoutedRequest())
        return routedRequests.count - 1
    }

    /// Has a machine take a step, and does what it wants then. What a server is known to answer while that is being
    /// done, because it takes no request, is told to machines only afterwards.
    private func drive(_ index: Int, _ step: (RoutedRequest, RouteEngine, inout [RouteAction]) -> Void) {
        let routed = routedRequests[index]
        guard let context = routed.context else { return }
        let isInner = isSettling
        isSettling = true
        var actions: [RouteAction] = []
        step(routed, context.engine, &actions)
        perform(index, actions)
        finishIfOver(index)
        isSettling = isInner
        settleRouted()
    }

    /// Does what a machine wants.
    private func perform(_ index: Int, _ actions: [RouteAction]) {
        for action in actions {
            switch action {
            case .send(let sub): send(index, sub)
            case .wait(let token, let time):
                let timer = RouteTimer(
                    due: time, routed: index, generation: routedRequests[index].generation, token: token)
                timers.add(timer)
                mind(time)
            case .reply(let final): answer(index, final)
            }
        }
    }

    /// Goes on until nothing is left to be told to any machine.
    func settleRouted() {
        guard !isSettling else { return }
        isSettling = true
        defer { isSettling = false }
        while true {
            if let event = routedEvents.popLast() {
                deliver(event)
            } else if !resume() {
                return
            }
        }
    }

    /// Lets a request go on that an outstanding limit held back.
    private func resume() -> Bool {
        for engine in engines {
            guard let ticket = engine.nextResumable() else { continue }
            drive(Int(ticket.request)) { routed, _, actions in
                routed.machine.resume(ticket, engine: engine, clock: clock, actions: &actions)
            }
            return true
        }
        return false
    }

    /// Tells a machine what came of a command.
    private func deliver(_ event: RoutedEvent) {
        drive(event.routed) { routed, engine, actions in
            let (bytes, value) = (routed.parts[event.token].bytes, routed.parts[event.token].value)
            routed.machine.reply(
                event.token, routed.parts[event.token].reply, value: bytes.span.extracting(value), engine: engine,
                clock: clock, actions: &actions)
        }
    }

    private func finishIfOver(_ index: Int) {
        let routed = routedRequests[index]
        guard routed.machine.isFinished, routed.context != nil,
            !routedEvents.contains(where: { $0.routed == index })
        else { return }
        routed.context = nil
        routed.ticket = -1
        routed.parts.removeAll(keepingCapacity: true)
        routed.bytes = []
        if routed.writeHash != 0 { router.writes.end(routed.writeHash) }
        routed.writeHash = 0
        routedBytes -= routed.heldBytes
        routed.heldBytes = 0
        freeRouted.append(index)
    }

    // MARK: Sending

    private func send(_ index: Int, _ sub: SubRequest) {
        let routed = routedRequests[index]
        guard let context = routed.context else { return }
        let isOwn = sub.isSame && sub.value == .request && sub.flags == nil && sub.casToken == nil
        let isClientsKey = sub.key == .request(from: 0)
        let key = isOwn && isClientsKey ? nil : commandKey(sub, routed, isOwn: isOwn)
        let made = isOwn ? routed.request.form : key?.form(sub.operation)
        let form = made ?? .classic
        let added = isOwn ? routed.added(context.engine.plan) : []
        precondition(sub.token == routed.parts.count, "tokens count up")
        routed.parts.append(
            RoutedRequest.Part(
                operation: sub.operation, form: form, isVerbatim: isOwn && isClientsKey, isSame: isOwn,
                added: added, key: key, destination: sub.destination,
                spoolKey: sub.operation == .delete && keepsDeletes(sub, context) ? sentKey(sub, routed) : nil))
        guard made != nil, isClientsKey && isOwn || key != nil else { return refuseKey(routed: index, sub.token) }
        if planFollowsOwners, context.plan.routes.pools[sub.pool].followsOwners {
            routed.parts[sub.token].command = sub
        }
        let lane = context.lanes[sub.destination] + (form == .binary ? 1 : 0)
        if sub.kind == .hedge, !beginHedge(routed, sub.token, lane, context.engine) {
            return fail(routed: index, sub.token, .unavailable)
        }
        if sub.kind == .fill, !beginFill(routed, sub.token) { return fail(routed: index, sub.token, .local) }
        sendPart(index, sub, to: lane)
    }

    /// Whether a read is sent to a second server: not while servers have too much to do.
    private func beginHedge(_ routed: RoutedRequest, _ token: Int, _ lane: Int, _ engine: RouteEngine) -> Bool {
        let isBusy =
            engine.isBusy(nowNanoseconds: now) || lanes[lane].gate.isLimiting || mustWait(lane)
        meter.counters.add(isBusy ? .hedgesWithheld : .hedges)
        routed.parts[token].isHedge = !isBusy
        return !isBusy
    }

    /// Sends the command of the part that `sub` names.
    func sendPart(_ index: Int, _ sub: SubRequest, to lane: Int) {
        let routed = routedRequests[index]
        let part = routed.parts[sub.token]
        let form = part.form
        let shape: ReplyShape =
            switch form {
            case .binary: .binary
            case .meta: .meta
            case .classic: sub.operation.group == .get ? .values : .line
            }
        let requestClass = routed.requestClass(sub.operation)
        let (call, failure) = makeCall(
            lane, shape, isRead: sub.operation.readsValue, requestClass, sender: routed.sender)
        guard let call else {
            lanes[lane].meter.note(failure)
            return fail(routed: index, sub.token, failure)
        }
        calls[call].routed = Int32(truncatingIfNeeded: index)
        calls[call].token = Int32(truncatingIfNeeded: sub.token)
        let (ticket, start) = (Int(routed.ticket), lanes[lane].pending.count)
        if traces, ticket >= 0, tickets[ticket].span >= 0 {
            beginSpan(of: call, below: Int(tickets[ticket].span), lane)
        }
        write(sub, routed, lane)
        if calls[call].span >= 0 { carry(call, lane, from: start) }
    }

    private func sentKey(_ sub: SubRequest, _ routed: RoutedRequest) -> [UInt8] {
        switch sub.key {
        case .request(let start): start == 0 ? routed.key : Array(routed.key[start...])
        case .bytes(let bytes): bytes
        }
    }

    private func keepsDeletes(_ sub: SubRequest, _ context: PlanContext) -> Bool {
        spool.keeps && context.plan.routes.pools[sub.pool].spool != nil
    }

    /// The key as the command says it; nil when it cannot be said.
    private func commandKey(_ sub: SubRequest, _ routed: RoutedRequest, isOwn: Bool) -> CommandKey? {
        let bytes = sentKey(sub, routed)
        return isOwn ? CommandKey(bytes, asIn: routed.request) : CommandKey(made: bytes)
    }

    private func write(_ sub: SubRequest, _ routed: RoutedRequest, _ lane: Int) {
        let part = routed.parts[sub.token]
        guard !part.isSame, let key = part.key else {
            return lanes[lane].pending.appendOwn(routed, key: part.key, exptime: sub.exptime, added: part.added)
        }
        let value: [UInt8] =
            switch sub.value {
            case .request: Array(routed.bytes[routed.request.verb.stores ? routed.storedRange : 0..<0])
            case .slice(let range):
                Array(routed.bytes[routed.storedRange].dropFirst(range.lowerBound).prefix(range.count))
            case .reply(let token): Array(routed.parts[token].bytes[routed.parts[token].value])
            case .bytes(let bytes): bytes
            }
        lanes[lane].pending.append(
            MadeCommand(
                operation: sub.operation, key: key, value: value, exptime: sub.exptime ?? routed.request.exptime,
                flags: sub.flags ?? routed.request.clientFlags, casToken: sub.casToken ?? routed.request.cas,
                delta: routed.request.delta))
    }

    // MARK: What came of it

    /// Counts bytes that are kept for a request until it is over.
    private func hold(_ routed: RoutedRequest, _ bytes: Int) {
        routed.heldBytes += bytes
        routedBytes += bytes
    }

    /// What routed requests of this reactor may keep.
    private var routedByteLimit: Int { limits.routedBytes / router.meters.count }

    /// A part of a server's reply.
    func collect(routed index: Int, _ token: Int, _ bytes: Span<UInt8>) {
        let routed = routedRequests[index]
        // Of a reply that there is no room for, the rest is counted and no more.
        guard !routed.parts[token].isOverflowing else { return }
        guard routedBytes + bytes.count <= routedByteLimit else {
            routed.parts[token].isOverflowing = true
            routed.parts[token].bytes = []
            return meter.counters.add(.overflowed)
        }
        hold(routed, bytes.count)
        let piece = [UInt8](copying: bytes)
        if routedRequests[index].parts[token].bytes.isEmpty {
            routedRequests[index].parts[token].bytes = piece
        } else {
            routedRequests[index].parts[token].bytes += piece
        }
    }

    /// A server's reply is whole.
    func answered(routed index: Int, _ token: Int) {
        if routedRequests[index].parts[token].isFill { endFill(routedRequests[index], isKnown: true) }
        if routedRequests[index].parts[token].isOverflowing {
            routedRequests[index].parts[token].reply = RouteReply(.busy)
        } else {
            routedRequests[index].parts[token].read(routedRequests[index].request)
        }
        if planFollowsOwners, followOwner(routed: index, token) { return }
        if routedRequests[index].parts[token].reply.result.isMissed, keep(routed: index, token) { return }
        routedEvents.append(RoutedEvent(routed: index, token: token))
        settleRouted()
    }

    /// There is no reply of a server.
    func fail(routed index: Int, _ token: Int, _ failure: RouteFailure) {
        if routedRequests[index].parts[token].isFill { endFill(routedRequests[index], isKnown: false) }
        routedRequests[index].parts[token].bytes = []
        routedRequests[index].parts[token].value = 0..<0
        routedRequests[index].parts[token].reply = RouteReply(failure.result)
        if keep(routed: index, token) { return }
        routedEvents.append(RoutedEvent(routed: index, token: token))
        settleRouted()
    }

    /// There is no way to say a key to a server.
    private func refuseKey(routed index: Int, _ token: Int) {
        routedRequests[index].parts[token].reply = RouteReply(.badKey)
        routedEvents.append(RoutedEvent(routed: index, token: token))
        settleRouted()
    }

    /// Tells machines whose time has come; says when the next one's is.
    func wakeRouted() {
        let time = now
        while let timer = timers.take(due: time) {
            guard routedRequests[timer.routed].generation == timer.generation else { continue }
            if timer.token < 0 {
                sendToOwner(routed: timer.routed, -1 - timer.token)
                continue
            }
            drive(timer.routed) { routed, engine, actions in
                routed.machine.wake(timer.token, engine: engine, clock: clock, actions: &actions)
            }
        }
        if let next = timers.next { mind(next) }
    }

    /// The client of a request is gone.
    func forget(routed index: Int) {
        routedRequests[index].ticket = -1
        routedRequests[index].machine.cancel()
        finishIfOver(index)
        settleRouted()
    }

    /// Writes the client's reply.
    private func answer(_ index: Int, _ final: FinalReply) {
        let routed = routedRequests[index]
        let ticket = Int(routed.ticket)
        guard ticket >= 0 else { return }
        routed.ticket = -1
        tickets[ticket].routed = -1
        if traces { noteRoutedError(ticket, isFailed: final.result.isError) }
        if let meter = routed.context?.plan.routeMeters[routed.entry] {
            let latency = meter.latencies[reactor.index]
            latency.histogram.record(nanoseconds: now &- routed.started)
            if traces { remember(ticket, in: latency, tookNanoseconds: now &- routed.started) }
        }
        if case .token(let token) = final.source, routed.parts[token].isHedge { meter.counters.add(.hedgeWins) }
        let scratch = takeBuffer()
        let isPart = tickets[ticket].traits.contains(.partOfGet)
        write(final, routed, isPartOfGet: isPart, to: &buffers[Int(scratch)].bytes)
        buffers[Int(scratch)].bytes.withSpan { bytes in
            if isPart, final.result.isError { errorOfGet(ticket, bytes) } else { append(to: ticket, bytes) }
        }
        giveBuffer(scratch)
        done(ticket)
    }

    private func write(
        _ final: FinalReply, _ routed: RoutedRequest, isPartOfGet: Bool, to output: inout OutputBuffer
    ) {
        var text: String?
        var source: RoutedRequest.Part?
        var value: [UInt8] = []
        switch final.source {
        case .token(let token):
            source = routed.parts[token]
            value = Array(routed.parts[token].bytes[routed.parts[token].value])
        case .pieces(let tokens):
            for token in tokens { value += routed.parts[token].bytes[routed.parts[token].value] }
            source = tokens.first.map { routed.parts[$0] }
        case .made(let words): text = words
        }
        // A delete that will be done before anybody reads is as good as done.
        let isKept = final.result.isError && source?.isKept == true
        let writer = ReplyWriter(
            result: isKept ? .notFound : final.result, flags: final.flags ?? source?.reply.flags ?? 0,
            casToken: final.casToken ?? source?.reply.casToken ?? 0, hasLease: final.hasLease, text: text)
        if writer.isHidden(routed.request) { return }
        let isUnchanged = !isKept && final.flags == nil && final.casToken == nil
        if case .token = final.source, isUnchanged, let source, !source.bytes.isEmpty {
            let form = routed.request.form
            if source.isVerbatim || (final.result.isError && source.form == form) {
                return appendVerbatim(
                    source, routed.request, withheldKey: routed.asksNoKey ? routed.key : nil,
                    isPartOfGet: isPartOfGet, to: &output)
            }
            let isWhole = final.result == source.reply.result && final.hasLease == source.reply.hasLease
            if source.isSame, source.form == form, form != .classic, isWhole {
                return output.appendRenamed(source, routed)
            }
        }
        writer.append(to: &output, routed, value: value.span, isPartOfGet: isPartOfGet)
    }

    /// A reply as the server gave it; of a classic get that has more keys without `END`.
    private func appendVerbatim(
        _ part: RoutedRequest.Part, _ request: Request, withheldKey: [UInt8]?, isPartOfGet: Bool,
        to output: inout OutputBuffer
    ) {
        let bytes = part.bytes
        if request.form == .binary {
            output.append(bytes[0])
            output.append(request.opcode)
            return output.append(bytes.span.extracting(2..<bytes.count))
        }
        if !part.added.isEmpty || withheldKey != nil, !part.reply.result.isError {
            return output.append(metaReply: bytes.span, key: nil, without: part.added, withheldKey: withheldKey)
        }
        let isCut = isPartOfGet && !part.reply.result.isError && bytes.count >= 5
        output.append(bytes.span.extracting(0..<(isCut ? bytes.count - 5 : bytes.count)))
    }
}

/// A reply, or the lack of one, that a machine is yet to be told.
struct RoutedEvent {
    let routed: Int
    let token: Int
}
