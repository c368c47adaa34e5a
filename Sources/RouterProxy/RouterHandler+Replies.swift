// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Reactor
internal import Routing
internal import Telemetry

/// From a server's output to the tickets of clients.
extension RouterHandler {
    func receivedReplies(_ lane: Int, _ connection: inout Connection, _ input: Span<UInt8>) -> Int {
        lanes[lane].lastInput = now
        var offset = 0
        defer { lanes[lane].meter.counters.add(.bytesRead, UInt64(offset)) }
        while offset < input.count {
            if lanes[lane].streamLeft > 0 {
                stream(lane, input, at: &offset)
                continue
            }
            let call = Int(lanes[lane].first)
            guard call >= 0 else {
                // Nobody asked: what follows cannot be told apart any more.
                connection.closeNow()
                return input.count
            }
            let start = offset
            switch read(lane, call, input, at: &offset) {
            case .goesOn: break
            case .wait(let needed):
                if needed > 0 { connection.minimumInput(needed) }
                return offset
            case .broken:
                connection.closeNow()
                return input.count
            }
            precondition(offset > start, "a reply has bytes")
        }
        return offset
    }

    private enum Reading {
        /// The reply, or a part of it, was passed on.
        case goesOn
        /// More must arrive: so many bytes from the offset on, or any.
        case wait(Int)
        /// This is no reply.
        case broken
    }

    /// Passes on what is there of the reply to `call`.
    @inline(__always)
    private func read(_ lane: Int, _ call: Int, _ input: Span<UInt8>, at offset: inout Int) -> Reading {
        let start = offset
        let shape = calls[call].shape
        while true {
            switch ReplyScanner.next(input, at: offset, shape) {
            case .block(let total, let ends):
                guard total <= input.count &- offset else {
                    return begin(lane, call, total, input, from: start, at: &offset)
                }
                offset &+= total
                guard ends else { continue }
                finish(lane, call, input, start, offset, isBlock: true)
                return .goesOn
            case .last(let length):
                let line = offset
                offset &+= length
                if shape == .statistics {
                    append(call, input, start, line)
                    finishPart(lane, call, input, at: line)
                } else if shape == .values {
                    guard endValues(lane, call, input, start, line, offset) else { return .broken }
                } else {
                    finish(lane, call, input, start, offset, isBlock: false)
                }
                return .goesOn
            case .incomplete(let needed):
                return pause(lane, call, needed, input, from: start, at: offset)
            case .malformed: return .broken
            }
        }
    }

    /// Passes on the values before `offset`, and waits for the rest.
    private func pause(
        _ lane: Int, _ call: Int, _ needed: Int, _ input: Span<UInt8>, from start: Int, at offset: Int
    ) -> Reading {
        if offset > start { passOn(call, input, start, offset) }
        if offset > start, calls[call].isHotRead { keepHot(call, Span()) }
        return .wait(needed)
    }

    /// A value that is not all there: waits for it, or begins to pass it on if it is large.
    private func begin(
        _ lane: Int, _ call: Int, _ total: Int, _ input: Span<UInt8>, from start: Int, at offset: inout Int
    ) -> Reading {
        guard total > limits.wholeReplyBytes else { return pause(lane, call, total, input, from: start, at: offset) }
        if calls[call].isHotRead { keepHot(call, Span()) }
        let end = input.count
        lanes[lane].streamLeft = total &- (end &- offset)
        lanes[lane].streams = !hides(call, input, offset, isBlock: true)
        if lanes[lane].streams {
            passOn(call, input, start, end)
            setMidValue(call, true)
        }
        offset = end
        return .goesOn
    }

    /// Passes on more of a large value.
    private func stream(_ lane: Int, _ input: Span<UInt8>, at offset: inout Int) {
        let call = Int(lanes[lane].first)
        let length = min(lanes[lane].streamLeft, input.count &- offset)
        if lanes[lane].streams { append(call, input, offset, offset &+ length) }
        offset &+= length
        lanes[lane].streamLeft &-= length
        guard lanes[lane].streamLeft == 0 else { return }
        setMidValue(call, false)
        if calls[call].shape != .values { complete(lane, call) }
    }

    private func setMidValue(_ call: Int, _ isMid: Bool) {
        let ticket = Int(calls[call].ticket)
        guard ticket >= 0 else { return }
        if isMid { tickets[ticket].traits.insert(.midValue) } else { tickets[ticket].traits.remove(.midValue) }
    }

    /// The line that ends the values of a get: `END`, or an error. False when it is neither.
    @inline(__always)
    private func endValues(
        _ lane: Int, _ call: Int, _ input: Span<UInt8>, _ start: Int, _ line: Int, _ end: Int
    ) -> Bool {
        let ticket = Int(calls[call].ticket)
        if calls[call].isHotRead { keepHot(call, input.extracting(start..<(end &- line == 5 ? line : start))) }
        if end &- line == 5, input[line] == UInt8(ascii: "E"), input[line &+ 1] == UInt8(ascii: "N") {
            // A get of several keys has its END behind the last part.
            append(call, input, start, ticket >= 0 && tickets[ticket].traits.contains(.partOfGet) ? line : end)
        } else if !ReplyScanner.isError(input, at: line) {
            return false
        } else if calls[call].routed >= 0 {
            noteRefusal(lane, call, input, line)
            append(call, input, start, end)
        } else {
            noteRefusal(lane, call, input, line)
            lanes[lane].meter.counters.add(.errorReplies)
            if line > start { append(call, input, start, line) }
            if ticket >= 0 { errorOfGet(ticket, input.extracting(line..<end)) }
        }
        complete(lane, call)
        return true
    }

    /// A whole reply that is no get's.
    @inline(__always)
    private func finish(_ lane: Int, _ call: Int, _ input: Span<UInt8>, _ start: Int, _ end: Int, isBlock: Bool) {
        if calls[call].isPartOfBroadcast { return finishPart(lane, call, input, at: start) }
        noteRefusal(lane, call, input, start)
        if !hides(call, input, start, isBlock: isBlock) { passOn(call, input, start, end) }
        complete(lane, call)
    }

    /// Whether the client does not want to see the reply at `start`.
    @inline(__always)
    private func hides(_ call: Int, _ input: Span<UInt8>, _ start: Int, isBlock: Bool) -> Bool {
        switch calls[call].hides {
        case .nothing: false
        case .everything: true
        case .metaMiss: !isBlock && input.holds("EN", at: start)
        case .metaHit: isBlock || input.holds("HD", at: start)
        case .binaryMiss: input.bigEndian(at: start &+ 6, as: UInt16.self) == BinaryStatus.notFound.rawValue
        case .binaryHit: input.bigEndian(at: start &+ 6, as: UInt16.self) == BinaryStatus.success.rawValue
        }
    }

    /// Passes a reply on, or the beginning of one, to a client under the opcode that it used; to a machine as it is.
    @inline(__always)
    private func passOn(_ call: Int, _ input: Span<UInt8>, _ start: Int, _ end: Int) {
        guard calls[call].shape == .binary, calls[call].ticket >= 0 else { return append(call, input, start, end) }
        append(call, input, start, start &+ 1)
        appendByte(call, calls[call].opcode)
        append(call, input, start &+ 2, end)
    }

    private func appendByte(_ call: Int, _ byte: UInt8) {
        let bytes: InlineArray<1, UInt8> = [byte]
        append(call, bytes.span, 0, 1)
    }

    @inline(__always)
    private func append(_ call: Int, _ input: Span<UInt8>, _ start: Int, _ end: Int) {
        let ticket = Int(calls[call].ticket)
        guard ticket >= 0, end > start else {
            if calls[call].routed >= 0, end > start {
                collect(routed: Int(calls[call].routed), Int(calls[call].token), input.extracting(start..<end))
            } else if calls[call].isHotReport, end > start {
                noteHotRates(input.extracting(start..<end))
            }
            return
        }
        if calls[call].isPartOfBroadcast { return collect(ticket, input.extracting(start..<end)) }
        append(to: ticket, input.extracting(start..<end))
    }

    /// The reply to the lane's first call is whole.
    @inline(__always)
    private func complete(_ lane: Int, _ call: Int) {
        let ticket = Int(calls[call].ticket)
        if calls[call].hash != 0 { hotDone(calls[call]) }
        if traces { endSpan(ofAnswered: call, lane) }
        noteGate(lane, call)
        if ticket >= 0 {
            lanes[lane].meter.counters.add(.replies)
            lanes[lane].meter.latency.record(nanoseconds: now &- calls[call].started)
            removeFirst(lane, call)
            noteAnswer(lane)
            done(ticket)
        } else {
            completeOther(lane, call)
        }
    }

    /// The reply is to a machine or a probe, or comes too late.
    @inline(never)
    private func completeOther(_ lane: Int, _ call: Int) {
        let (entry, destination) = (calls[call], Int(lanes[lane].destination))
        removeFirst(lane, call)
        if entry.isProbe {
            if destination >= 0 {
                _ = health.probeDone(destination, succeeded: true, nowNanoseconds: now)
                mindHealth()
            }
            return
        }
        guard entry.routed >= 0 else { return lanes[lane].meter.counters.add(.lateReplies) }
        lanes[lane].meter.counters.add(.replies)
        lanes[lane].meter.latency.record(nanoseconds: now &- entry.started)
        noteAnswer(lane)
        answered(routed: Int(entry.routed), Int(entry.token))
    }

    /// A server that had failed answers.
    @inline(__always)
    func noteAnswer(_ lane: Int) {
        let destination = Int(lanes[lane].destination)
        guard destination >= 0, health.failures(destination) > 0 else { return }
        _ = health.record(destination, .ok, nowNanoseconds: now)
    }

    /// Takes the first call off a lane.
    @inline(__always)
    func removeFirst(_ lane: Int, _ call: Int) {
        let next = calls[call].next
        let number = Int32(truncatingIfNeeded: call)
        lanes[lane].first = next
        if next < 0 { lanes[lane].last = -1 }
        if lanes[lane].firstLive == number { lanes[lane].firstLive = next }
        lanes[lane].outstanding &-= 1
        calls.give(call)
    }
}
