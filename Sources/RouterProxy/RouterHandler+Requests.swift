// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Reactor
internal import Routing
internal import Telemetry

/// From a client's input to the lanes of the servers.
extension RouterHandler {
    func receivedRequests(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        let slot = connection.slot
        mindSpool()
        if clients[slot].incoming > 0 { releaseIncoming(slot) }
        var parser = clients[slot].parser
        var offset = 0
        let goesOn = !clients[slot].identity.mustLogIn || logIn(&connection, input, at: &offset, &output)
        // Whoever has logged in counts as his tenant's at once.
        if !clients[slot].identity.mustLogIn, !identify(&connection, &output) { return input.count }
        guard goesOn else { return offset }
        let isGuarded = clients[slot].identity.tenant != nil
        var left = limits.requestsPerTurn
        let allowed = allowance(slot)
        if decoded[0].count > 0 { decoded[0].removeAll() }
        reading: while true {
            let outcome = Self.parse(&parser, input, at: &offset, into: requests, decoded)
            switch outcome {
            case .complete:
                if !isGuarded || allows(slot, input, &output) { take(slot, &connection, input, &output) }
            case .swallow(let count):
                take(slot, &connection, input, &output)
                skip(count, &connection, input, at: &offset)
            case .incomplete(let needed):
                if needed > 0 { connection.minimumInput(needed) }
                break reading
            case .valuePending:
                guard awaitValue(slot, &connection, input, at: &offset, &output) else { break reading }
            case .close:
                connection.closeAfterFlush()
                break reading
            }
            if connection.isClosing { break }
            if Int(clients[slot].count) >= allowed {
                clients[slot].traits.insert(.paused)
                connection.pauseReading()
                break
            }
            left &-= 1
            if left == 0 {
                if offset < input.count { connection.yield() }
                break
            }
        }
        if !openLanes.isEmpty { closeLines() }
        if quota.isOn { quota.end(sent: 0, reactor: reactor.index) }
        clients[slot].parser = parser
        if clients[slot].count > 0 { connection.hold() }
        return offset
    }

    @inline(__always)
    private static func parse(
        _ parser: inout RequestParser, _ input: Span<UInt8>, at offset: inout Int,
        into requests: borrowing FixedArray<Request>, _ decoded: borrowing FixedArray<OutputBuffer>
    ) -> ParseOutcome {
        parser.next(input, at: &offset, into: &requests[0], decodedKeys: &decoded[0])
    }

    /// How many replies a client may have outstanding: as many as will probably fit into what may wait for it.
    @inline(__always)
    private func allowance(_ slot: Int) -> Int {
        min(max(limits.clientReplyBytes / max(clients[slot].typicalReply, 64), 8), limits.clientRequests)
    }

    /// Leaves out bytes of a request that was refused.
    private func skip(_ count: Int, _ connection: inout Connection, _ input: Span<UInt8>, at offset: inout Int) {
        let here = min(count, input.count - offset)
        offset += here
        if here < count { connection.swallow(count - here) }
    }

    /// A value that is not all there: waits for it, or refuses one that is too long. False when the turn is over.
    private func awaitValue(
        _ slot: Int, _ connection: inout Connection, _ input: Span<UInt8>, at offset: inout Int,
        _ output: inout OutputBuffer
    ) -> Bool {
        let request = requests[0]
        let expected = request.valueLength + (request.form == .binary ? 0 : 2)
        guard allows(slot, input, isWhole: false, &output) else {
            skip(expected, &connection, input, at: &offset)
            return offset < input.count
        }
        let whole = offset - request.lineOffset + expected
        let isShort = whole <= limits.valueBytes + 4096
        let isRoom = incomingBytes + whole <= limits.incomingBytes / router.meters.count
        if isShort, isRoom || incomingBytes == 0 {
            incomingBytes += whole
            clients[slot].incoming = whole
            connection.minimumInput(whole)
            offset = request.lineOffset
            return false
        }
        if isShort { meter.counters.add(.overflowed) }
        let range = request.keyOffset..<request.keyOffset + request.keyLength
        let key = request.keyIsDecoded ? Self.decodedKey(request, decoded) : [UInt8](copying: input.extracting(range))
        refuseValue(slot, request, key: key.span, isShort ? .outOfMemoryStoring : .tooLarge, &output)
        skip(expected, &connection, input, at: &offset)
        return offset < input.count
    }

    /// A value that was coming in is there, or will not come.
    func releaseIncoming(_ slot: Int) {
        incomingBytes -= clients[slot].incoming
        clients[slot].incoming = 0
    }

    /// Does what the request asks for.
    @inline(__always)
    private func take(_ slot: Int, _ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) {
        let request = requests[0]
        let range = request.keyOffset..<request.keyOffset &+ request.keyLength
        switch request.verb {
        case .get
        where request.form == .classic && request.isLastKeyOfGet
            && !clients[slot].traits.contains(.inGet):
            get(slot, request, key: input.extracting(range), input, .get, &output)
        case .get, .gets, .gat, .gats:
            if request.form == .binary {
                forward(slot, request, key: input.extracting(range), input, &output)
            } else if request.isLastKeyOfGet, !clients[slot].traits.contains(.inGet) {
                get(slot, request, key: input.extracting(range), input, request.routeOperation ?? .gets, &output)
            } else {
                getPart(slot, request, key: input.extracting(range), input)
            }
        default:
            if request.keyIsDecoded {
                Self.forwardDecoded(self, slot, request, decoded, input, &output)
            } else if request.isRouted {
                forward(slot, request, key: input.extracting(range), input, &output)
            } else {
                answer(slot, request, key: input.extracting(range), input, &connection, &output)
            }
        }
        if request.closesAfterReply { connection.closeAfterFlush() }
    }

    private static func forwardDecoded(
        _ handler: RouterHandler, _ slot: Int, _ request: Request, _ decoded: borrowing FixedArray<OutputBuffer>,
        _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        let key = decoded[0].span.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
        handler.forward(slot, request, key: key, input, &output)
    }

    // MARK: get

    /// A get of one key.
    @inline(__always)
    private func get(
        _ slot: Int, _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ operation: RouteOperation,
        _ output: inout OutputBuffer
    ) {
        meter.counters.add(.gets)
        if Self.isService(key) { return serve(slot, request, key: key, &output) }
        let lane = textLane(key, operation)
        guard lane >= 0 else { return route(slot, request, key: key, input, operation) }
        var hotHash: UInt64 = 0
        // A server that is not read from is not read from here either.
        if findsHotKeys, operation == .get, !lanes[lane].withholdsReads {
            let hot = answerHot(slot, request, key: key, input, &output)
            if hot.isAnswered { return }
            hotHash = hot.hash
        }
        guard let ticket = openTicket(slot, request) else { return dropHot(hotHash) }
        if traces { beginSpan(ticket, request, key: key, input) }
        guard let call = openCall(lane, ticket, .values, isRead: true) else { return dropHot(hotHash) }
        (calls[call].hash, calls[call].isHotRead) = (hotHash, hotHash != 0)
        lanes[lane].pending.appendGet(request.verb, exptime: request.exptime, key: key)
        lanes[lane].pending.appendLineEnd()
    }

    /// A read of a hot key was not sent.
    @inline(__always)
    private func dropHot(_ hash: UInt64) {
        if hash != 0 { hotCache[0].answered(hash, Span(), router.writes, now: now) }
    }

    /// A key of a get of several: joins the line that is open to its server, or opens one.
    private func getPart(_ slot: Int, _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>) {
        meter.counters.add(.gets)
        let operation = request.routeOperation ?? .get
        let lane = textLane(key, operation)
        let isLast = request.isLastKeyOfGet
        if isLast { clients[slot].traits.remove(.inGet) } else { clients[slot].traits.insert(.inGet) }
        guard lane >= 0 else {
            route(slot, request, key: key, input, operation, isPartOfGet: true)
            if isLast { endGet(slot, request) }
            return
        }
        if lanes[lane].openCall >= 0, lanes[lane].openKeys < limits.keysPerLine {
            lanes[lane].openKeys += 1
            lanes[lane].pending.append(UInt8(ascii: " "))
            lanes[lane].pending.append(key)
            if isLast { endGet(slot, request) }
            return
        }
        closeLine(lane)
        meter.counters.add(.fragments)
        guard let ticket = openTicket(slot, request) else { return }
        tickets[ticket].traits.insert(.partOfGet)
        if traces { beginSpan(ticket, request, key: key, input) }
        if let call = openCall(lane, ticket, .values, isRead: true) {
            lanes[lane].openCall = Int32(truncatingIfNeeded: call)
            lanes[lane].openKeys = 1
            openLanes.append(lane)
            lanes[lane].pending.appendGet(request.verb, exptime: request.exptime, key: key)
        }
        if isLast { endGet(slot, request) }
    }

    /// The last key of a get of several was seen: behind its parts comes `END`, unless one of them says that it failed.
    func endGet(_ slot: Int, _ request: Request) {
        closeLines()
        guard let ticket = openTicket(slot, request) else { return }
        tickets[ticket].traits.formUnion([.partOfGet, .lastOfGet])
        let end: InlineArray<5, UInt8> = [0x45, 0x4e, 0x44, 0x0d, 0x0a]
        append(to: ticket, end.span)
        done(ticket)
    }

    /// Ends the `get` lines that are open: before anything else goes to their servers.
    func closeLines() {
        while let lane = openLanes.popLast() { closeLine(lane) }
    }

    @inline(__always)
    private func closeLine(_ lane: Int) {
        guard lanes[lane].openCall >= 0 else { return }
        lanes[lane].openCall = -1
        lanes[lane].pending.append("\r\n")
    }

    // MARK: Everything else with a key

    /// A request that goes to the server of its key.
    private func forward(
        _ slot: Int, _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        count(request)
        if request.verb.stores, !request.error.isNone { return refuse(slot, request, request.error, &output) }
        if request.verb.stores, request.valueLength > limits.valueBytes {
            return refuseValue(slot, request, key: key, .tooLarge, &output)
        }
        guard let operation = request.routeOperation, !isMistaken(request, key) else {
            return refuse(slot, request, .badCommandLine, &output)
        }
        if request.keyIsDecoded, request.breaksReplies(key: key) {
            return route(slot, request, key: key, input, operation)
        }
        let text = operation == .delete && spool.keeps ? deletingLane(key) : textLane(key, operation)
        guard text >= 0 else { return route(slot, request, key: key, input, operation) }
        let isBinary = request.form == .binary
        let lane = text + (isBinary ? 1 : 0)
        guard let ticket = openTicket(slot, request) else { return }
        if traces { beginSpan(ticket, request, key: key, input) }
        let shape: ReplyShape = isBinary ? .binary : request.form == .meta ? .meta : .line
        let requestClass = request.requestClass(operation, input)
        guard let call = openCall(lane, ticket, shape, isRead: operation.readsValue, requestClass) else { return }
        if findsHotKeys, operation.group != .get { noteWrite(call, key) }
        calls[call].hides = request.hideRule
        calls[call].opcode = request.opcode
        if calls[call].span >= 0 {
            forwardTraced(request, key: key, input, lane, call)
        } else {
            lanes[lane].pending.appendForwarded(request, key: key, input)
        }
        if spreadsHotKeys, operation.group != .get { dropCopies(key, stableHash(key)) }
    }

    /// Whether a command, or its reply, may be taken for another than it is: memcached 1.6.18 reads a line to a NUL
    /// only, and then the value as commands; and whatever key `me` asks for is given as a binary client stored it.
    @inline(__always)
    private func isMistaken(_ request: Request, _ key: Span<UInt8>) -> Bool {
        if request.form == .binary { return false }
        if request.keyIsDecoded {
            return request.verb == .metaDebug && key.firstOffset(of: UInt8(ascii: "\n"), from: 0, to: key.count) != nil
        }
        return request.verb.stores && key.firstOffset(of: 0, from: 0, to: key.count) != nil
    }

    private static func decodedKey(_ request: Request, _ decoded: borrowing FixedArray<OutputBuffer>) -> [UInt8] {
        [UInt8](copying: decoded[0].span.extracting(request.keyOffset..<request.keyOffset + request.keyLength))
    }

    /// There is no room for a value. As servers have it, the one that it should have replaced goes; but not below a
    /// store, and not where the key could not be said in text.
    private func refuseValue(
        _ slot: Int, _ request: Request, key: Span<UInt8>, _ error: ErrorReply, _ output: inout OutputBuffer
    ) {
        let isCache = plan.routes.tree.pools.allSatisfy { $0.consistency == .lookAside }
        if isCache, request.replaces, CommandKey(made: [UInt8](copying: key)).spelling == .plain {
            var delete = Request()
            (delete.verb, delete.keyLength) = (.delete, key.count)
            delete.traits.insert(.quiet)
            forward(slot, delete, key: key, key, &output)
        }
        refuse(slot, request, error, &output)
    }

    private func count(_ request: Request) {
        switch request.verb {
        case .get, .gets, .gat, .gats, .metaGet: meter.counters.add(.gets)
        case .set, .add, .replace, .append, .prepend, .cas, .metaSet: meter.counters.add(.sets)
        case .delete, .metaDelete: meter.counters.add(.deletes)
        case .incr, .decr, .metaArithmetic: meter.counters.add(.arithmetics)
        case .touch: meter.counters.add(.touches)
        default: meter.counters.add(.others)
        }
        if request.form == .meta { meter.counters.add(.metas) }
    }

    /// The text lane of the server that a key belongs to; -1 where a route has more to say.
    @inline(__always)
    func textLane(_ key: Span<UInt8>, _ operation: RouteOperation) -> Int {
        let target = plan.routes.target(of: key, for: operation)
        guard target.destination >= 0, target.keyOffset == 0, !followsOwners(pool: Int(target.pool)) else { return -1 }
        return laneOfDestination[Int(target.destination)]
    }

    /// The text lane of the server that a key is deleted on; -1 also where the delete is kept if it fails.
    private func deletingLane(_ key: Span<UInt8>) -> Int {
        let target = plan.routes.target(of: key, for: .delete)
        guard target.destination >= 0, target.keyOffset == 0, !keepsDeletes(pool: Int(target.pool)),
            !followsOwners(pool: Int(target.pool))
        else { return -1 }
        return laneOfDestination[Int(target.destination)]
    }

    // MARK: Tickets and calls

    /// A ticket behind the client's others; nil when there are no more, which the client's end answers.
    @inline(__always)
    func openTicket(_ slot: Int, _ request: Request) -> Int? {
        guard let index = tickets.take() else {
            clients[slot].traits.insert(.broken)
            markDirty(client: slot)
            return nil
        }
        tickets[index] = Ticket()
        tickets[index].client = clients[slot].id
        tickets[index].form = request.form
        if traces { (tickets[index].started, tickets[index].verb) = (now, request.verb) }
        if request.form == .binary {
            tickets[index].opaque = request.opaque
            tickets[index].opcode = request.opcode
        } else if request.isQuiet, request.form == .classic {
            tickets[index].traits = .silent
        }
        let number = Int32(truncatingIfNeeded: index)
        let last = Int(clients[slot].last)
        if last >= 0 { tickets[last].next = number } else { clients[slot].first = number }
        clients[slot].last = number
        clients[slot].count &+= 1
        return index
    }

    /// A call on a lane for a ticket; nil when the lane takes none: the ticket has failed then.
    @inline(__always)
    func openCall(
        _ lane: Int, _ ticket: Int, _ shape: ReplyShape, isRead: Bool = false,
        _ requestClass: RequestClass = .standard, isOwn: Bool = false
    ) -> Int? {
        let (call, failure) = makeCall(
            lane, shape, isRead: isRead, requestClass, sender: tickets[ticket].client, isOwn: isOwn)
        guard let call else {
            failAtOnce(lane, ticket, failure)
            return nil
        }
        calls[call].ticket = Int32(truncatingIfNeeded: ticket)
        tickets[ticket].call = Int32(truncatingIfNeeded: call)
        if traces, tickets[ticket].span >= 0 { beginSpan(of: call, below: Int(tickets[ticket].span), lane) }
        return call
    }

    /// A call on a lane that nobody waits for yet; nil when the lane takes none, and why not. What belongs to no
    /// client, or goes to all servers, is the router's `own`: it does not wait, and is not refused for the server's
    /// sake.
    @inline(__always)
    func makeCall(
        _ lane: Int, _ shape: ReplyShape, isRead: Bool = false, isProbe: Bool = false,
        _ requestClass: RequestClass = .standard, sender: UInt64 = 0, isOwn: Bool = false
    ) -> (Int?, RouteFailure) {
        let failure = isProbe ? admitProbe(lane) : admit(lane, isRead: isRead)
        guard failure == .none else { return (nil, failure) }
        if lanes[lane].openCall >= 0 { closeLine(lane) }
        if lanes[lane].sealedChunk >= 0 { seal(lane) }
        let time = now
        let waits = !isOwn && !isProbe && mustWait(lane)
        if !isOwn, !isProbe, lanes[lane].gate.isThrottling {
            guard lanes[lane].gate.admits(requestClass, tenant: share(of: sender), now: time) else {
                lanes[lane].meter.counters.add(.throttled)
                tenant(of: sender)?.noteShed(reactor: reactor.index)
                return (nil, .busy)
            }
        }
        guard let index = calls.take() else { return (nil, .busy) }
        let deadline = time &+ lanes[lane].requestNanoseconds
        calls[index] = Call(deadline: deadline, started: time, shape: shape)
        calls[index].requestClass = requestClass
        if waits {
            guard beginWait(lane, index, sender: sender) else {
                calls.give(index)
                return (nil, .busy)
            }
            return (index, .none)
        }
        append(call: Int32(truncatingIfNeeded: index), to: lane)
        mind(deadline)
        return (index, .none)
    }

    @inline(__always)
    func append(call number: Int32, to lane: Int) {
        let last = Int(lanes[lane].last)
        if last >= 0 { calls[last].next = number } else { lanes[lane].first = number }
        lanes[lane].last = number
        if lanes[lane].firstLive < 0 { lanes[lane].firstLive = number }
        lanes[lane].outstanding &+= 1
        lanes[lane].meter.counters.add(.requests)
        markDirty(lane: lane)
    }

    /// Whether a lane takes another call, and why not.
    @inline(__always)
    private func admit(_ lane: Int, isRead: Bool) -> RouteFailure {
        if isRead, lanes[lane].withholdsReads { return .unavailable }
        let destination = Int(lanes[lane].destination)
        if destination >= 0, !health.allows(destination), !health.admitsTrial(destination) { return .unavailable }
        if lanes[lane].state == .waiting {
            guard now >= lanes[lane].retryAt else { return .unavailable }
            lanes[lane].state = .idle
        }
        if lanes[lane].outstanding >= limits.laneRequests
            || lanes[lane].pending.count &+ lanes[lane].unsent &+ lanes[lane].waitingLength >= limits.laneBytes
        {
            return .busy
        }
        return .none
    }

    /// Whether a lane takes a probe: whatever is known of the server.
    private func admitProbe(_ lane: Int) -> RouteFailure {
        if lanes[lane].state == .waiting { lanes[lane].state = .idle }
        return lanes[lane].outstanding < limits.laneRequests ? .none : .busy
    }

    @inline(never)
    private func failAtOnce(_ lane: Int, _ ticket: Int, _ failure: RouteFailure) {
        lanes[lane].meter.note(failure)
        fail(ticket, failure)
    }
}

extension Request {
    /// Whether it stores whatever is there before.
    var replaces: Bool { verb == .set || (verb == .metaSet && storeVerb == .set) }

    /// Whether it goes to the server of its key.
    var isRouted: Bool {
        switch verb {
        case .set, .add, .replace, .append, .prepend, .cas, .delete, .incr, .decr, .touch, .metaGet, .metaSet,
            .metaDelete, .metaArithmetic, .metaDebug:
            true
        default: false
        }
    }
}
