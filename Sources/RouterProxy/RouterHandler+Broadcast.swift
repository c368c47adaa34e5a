// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Telemetry

/// Requests that go to every server.
extension RouterHandler {
    /// `flush_all`: the answer is the worst of the servers'.
    func flushAll(_ slot: Int, _ request: Request, _ output: inout OutputBuffer) {
        guard limits.allowsFlush else { return refuse(slot, request, .flushNotAllowed, &output) }
        guard request.error.isNone else { return refuse(slot, request, request.error, &output) }
        guard let ticket = openTicket(slot, request) else { return }
        router.writes.bumpAll()
        if spreadsHotKeys { router.copies.distrustAll(until: copyEnd) }
        tickets[ticket].remaining = Int32(laneOfDestination.count)
        if request.isQuiet { tickets[ticket].traits.insert(.silent) }
        for lane in laneOfDestination {
            // One that cannot be reached is an answer too.
            // Behind what the client asked before, so on the lane of its protocol.
            let own = request.form == .binary ? lane + 1 : lane
            guard let call = openCall(own, ticket, request.form == .binary ? .binary : .line, isOwn: true)
            else { continue }
            calls[call].isPartOfBroadcast = true
            // It waits for several.
            tickets[ticket].call = -1
            lanes[own].pending.appendFlush(request)
        }
        if laneOfDestination.isEmpty { finish(broadcast: ticket) }
    }

    /// `stats`: the router's own, and sums of the servers' that answer.
    func gatherStatistics(_ slot: Int, _ request: Request) {
        guard let ticket = openTicket(slot, request) else { return }
        tickets[ticket].remaining = Int32(laneOfDestination.count)
        gathers[ticket] = ServerSums()
        for lane in laneOfDestination {
            guard let call = openCall(lane, ticket, .statistics, isOwn: true) else { continue }
            calls[call].isPartOfBroadcast = true
            tickets[ticket].call = -1
            lanes[lane].pending.append("stats\r\n")
        }
        if laneOfDestination.isEmpty { finish(broadcast: ticket) }
    }

    /// Takes in lines of one server's answer.
    func collect(_ ticket: Int, _ lines: Span<UInt8>) { gathers[ticket]?.add(lines) }

    private func writeStatistics(_ ticket: Int, _ sums: ServerSums) {
        var request = Request()
        request.form = tickets[ticket].form
        request.opcode = tickets[ticket].opcode
        request.opaque = tickets[ticket].opaque
        var list = router.generalStatistics()
        sums.append(to: &list)
        let scratch = takeBuffer()
        list.append(to: &buffers[Int(scratch)].bytes, replyTo: request)
        buffers[Int(scratch)].bytes.withSpan { append(to: ticket, $0) }
        giveBuffer(scratch)
    }

    /// One server's answer came.
    func finishPart(_ lane: Int, _ call: Int, _ input: Span<UInt8>, at start: Int) {
        if calls[call].isInvalidation {
            invalidated(calls[call], succeeded: Self.isGone(input, at: start, calls[call].shape))
            lanes[lane].meter.counters.add(.replies)
            return removeFirst(lane, call)
        }
        if calls[call].isHotReport {
            lanes[lane].awaitsRates = false
            lanes[lane].tellsNoRates = !input.holds("END", at: start)
            lanes[lane].meter.counters.add(.replies)
            return removeFirst(lane, call)
        }
        let isDone =
            calls[call].shape == .binary
            ? input.bigEndian(at: start &+ 6, as: UInt16.self) == BinaryStatus.success.rawValue
            : input.holds(calls[call].shape == .statistics ? "END" : "OK", at: start)
        let (ticket, isReplay, token) = (Int(calls[call].ticket), calls[call].isReplay, Int(calls[call].token))
        let shape = calls[call].shape
        lanes[lane].meter.counters.add(.replies)
        removeFirst(lane, call)
        if isReplay {
            noteAnswer(lane)
            return finish(replay: token, succeeded: Self.isGone(input, at: start, shape))
        }
        if ticket >= 0 { answered(broadcast: ticket, isDone ? .none : .lost) }
    }

    /// Notes one answer, and replies when all are there.
    func answered(broadcast ticket: Int, _ failure: RouteFailure) {
        if failure != .none { tickets[ticket].failure = failure }
        tickets[ticket].remaining -= 1
        if tickets[ticket].remaining == 0 { finish(broadcast: ticket) }
    }

    /// Replies to a request that went to every server, of which there may be none.
    private func finish(broadcast ticket: Int) {
        if let sums = gathers.removeValue(forKey: ticket) {
            tickets[ticket].failure = .none
            writeStatistics(ticket, sums)
            return done(ticket)
        }
        router.writes.bumpAll()
        if tickets[ticket].failure == .none, !tickets[ticket].traits.contains(.silent) {
            let scratch = takeBuffer()
            if tickets[ticket].form == .binary {
                buffers[Int(scratch)].bytes.appendBinaryHeader(
                    opcode: tickets[ticket].opcode, status: .success, extrasLength: 0, keyLength: 0, bodyLength: 0,
                    opaque: tickets[ticket].opaque, cas: 0)
            } else {
                buffers[Int(scratch)].bytes.append("OK\r\n")
            }
            buffers[Int(scratch)].bytes.withSpan { append(to: ticket, $0) }
            giveBuffer(scratch)
        }
        done(ticket)
    }

    /// The client of a request that went to every server is gone.
    func forgetBroadcast(_ ticket: Int) {
        gathers[ticket] = nil
        let number = Int32(truncatingIfNeeded: ticket)
        for lane in 0..<laneCount {
            var call = Int(lanes[lane].first)
            while call >= 0 {
                if calls[call].ticket == number { calls[call].ticket = -1 }
                call = Int(calls[call].next)
            }
        }
    }
}
