// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Routing
internal import Telemetry

/// Sparing servers that have too much to do: commands that wait until there is room with a server, and what replies say
/// of how much it takes.
extension RouterHandler {
    /// How a lane's server is spared.
    var gateConfiguration: BackendGuard.Configuration {
        var configuration = limits.backend
        configuration.limit.most = limits.laneRequests
        return configuration
    }

    /// Whether a command has to wait: there is no room, or others wait already.
    @inline(__always)
    func mustWait(_ lane: Int) -> Bool {
        lanes[lane].outstanding >= lanes[lane].gate.inFlightLimit || lanes[lane].waitingCount > 0
    }

    /// A call waits; false when there is no room for it. Its command is written behind what goes out, as always, and
    /// taken out of there before anything else is written: see ``seal(_:)``.
    @inline(never)
    func beginWait(_ lane: Int, _ call: Int, sender: UInt64) -> Bool {
        let time = now
        if lanes[lane].waiting == nil {
            lanes[lane].waiting = WaitingRoom(
                capacity: limits.backend.waiting, limitNanoseconds: waitNanoseconds(lane))
        }
        guard let chunk = chunks.take() else { return false }
        chunks[chunk] = Chunk(offset: 0, length: 0, next: Int32(truncatingIfNeeded: call))
        guard lanes[lane].waiting?.add(chunk, sender: sender, now: time) == true else {
            chunks.give(chunk)
            lanes[lane].meter.counters.add(.expired)
            lanes[lane].gate.waitedInVain(now: time)
            return false
        }
        lanes[lane].waitingCount &+= 1
        lanes[lane].sealedChunk = Int32(truncatingIfNeeded: chunk)
        lanes[lane].sealStart = lanes[lane].pending.count
        markDirty(lane: lane)
        mind(time &+ waitNanoseconds(lane))
        return true
    }

    private func waitNanoseconds(_ lane: Int) -> UInt64 {
        let (limit, whole) = (limits.backend.waitNanoseconds, lanes[lane].requestNanoseconds)
        return limit > 0 ? min(limit, whole) : whole / 2
    }

    /// Takes the command of a call that waits out of what goes out.
    func seal(_ lane: Int) {
        let chunk = Int(lanes[lane].sealedChunk)
        guard chunk >= 0 else { return }
        lanes[lane].sealedChunk = -1
        let (start, end) = (lanes[lane].sealStart, lanes[lane].pending.count)
        chunks[chunk].offset = lanes[lane].waitingBytes.count
        chunks[chunk].length = end &- start
        lanes[lane].waitingBytes.append(lanes[lane].pending, own: start..<end, externals: 0..<0)
        lanes[lane].pending.truncate(to: start, externalCount: 0)
        lanes[lane].waitingLength &+= end &- start
    }

    /// Sends what waits, as far as there is room.
    func admitWaiting(_ lane: Int) {
        seal(lane)
        // What cannot be sent now stays until it is overdue.
        guard lanes[lane].state != .waiting else { return }
        let time = now
        while lanes[lane].outstanding < lanes[lane].gate.inFlightLimit {
            guard let chunk = lanes[lane].waiting?.take(now: time) else { break }
            let entry = chunks[chunk]
            let call = Int(entry.next)
            guard calls[call].isAwaited else {
                drop(lane, chunk, .none)
                continue
            }
            lanes[lane].pending.append(
                lanes[lane].waitingBytes, own: entry.offset..<entry.offset &+ entry.length, externals: 0..<0)
            chunks.give(chunk)
            forget(lane, bytes: entry.length)
            calls[call].waitedMicroseconds = UInt32(clamping: (time &- calls[call].started) / 1000)
            append(call: Int32(truncatingIfNeeded: call), to: lane)
            mind(calls[call].deadline)
        }
        compactWaiting(lane)
    }

    /// Gives up what waited too long.
    func expireWaiting(_ lane: Int, _ time: UInt64) {
        seal(lane)
        while let chunk = lanes[lane].waiting?.takeOverdue(now: time) {
            if calls[Int(chunks[chunk].next)].isAwaited {
                lanes[lane].meter.counters.add(.expired)
                lanes[lane].gate.waitedInVain(now: time)
            }
            drop(lane, chunk, .busy)
        }
        let deadline = lanes[lane].waiting?.deadline ?? .max
        if deadline != .max { mind(deadline) }
    }

    /// No connection comes to stand: what waits for room on it is given up. Who hears of it cannot send on the lane.
    func failWaiting(_ lane: Int, _ failure: RouteFailure) {
        while let chunk = lanes[lane].waiting?.take(now: now) { drop(lane, chunk, failure) }
    }

    private func drop(_ lane: Int, _ chunk: Int, _ failure: RouteFailure) {
        let entry = chunks[chunk]
        let call = calls[Int(entry.next)]
        chunks.give(chunk)
        calls.give(Int(entry.next))
        forget(lane, bytes: entry.length)
        giveUp(lane, call, failure)
    }

    private func forget(_ lane: Int, bytes: Int) {
        lanes[lane].waitingLength &-= bytes
        lanes[lane].waitingCount &-= 1
        guard lanes[lane].waitingCount == 0 else { return }
        lanes[lane].waitingBytes.removeAll()
        if lanes[lane].waitingBytes.capacityBytes > limits.keptBufferBytes {
            lanes[lane].waitingBytes.shrink(to: limits.keptBufferBytes)
        }
    }

    /// Leaves out bytes of commands that wait no longer: a queue that never empties would grow for ever.
    private func compactWaiting(_ lane: Int) {
        guard lanes[lane].waitingBytes.count > 4 * lanes[lane].waitingLength &+ 64 << 10 else { return }
        let fresh = Int(takeBuffer())
        lanes[lane].waiting?.forEach { chunk in
            let (offset, length) = (chunks[chunk].offset, chunks[chunk].length)
            chunks[chunk].offset = buffers[fresh].bytes.count
            buffers[fresh].bytes.append(lanes[lane].waitingBytes, own: offset..<offset &+ length, externals: 0..<0)
        }
        swap(&buffers[fresh].bytes, &lanes[lane].waitingBytes)
        giveBuffer(Int32(fresh))
    }

    // MARK: What replies say

    /// Notes whether the reply at `start` says that the server is too busy.
    @inline(__always)
    func noteRefusal(_ lane: Int, _ call: Int, _ input: Span<UInt8>, _ start: Int) {
        if calls[call].shape == .binary {
            let status = input.bigEndian(at: start &+ 6, as: UInt16.self)
            lanes[lane].isRefusal = status == BinaryStatus.busy.rawValue
            lanes[lane].isFailure = status > BinaryStatus.unknownCommand.rawValue
        } else if input[start] == UInt8(ascii: "S"), input[start &+ 1] == UInt8(ascii: "E") {
            lanes[lane].isFailure = true
            lanes[lane].isRefusal =
                input.holds("SERVER_ERROR 307", at: start) || input.holds("SERVER_ERROR out of memory: busy", at: start)
        }
    }

    /// Takes in that a call was answered, or refused.
    @inline(__always)
    func noteGate(_ lane: Int, _ call: Int) {
        let time = now
        if lanes[lane].isRefusal {
            lanes[lane].isRefusal = false
            lanes[lane].meter.counters.add(.refusals)
            lanes[lane].gate.refused(calls[call].requestClass, now: time)
            context.engine.noteBusy(nowNanoseconds: time)
        } else {
            let waited = UInt64(calls[call].waitedMicroseconds) &* 1000
            lanes[lane].gate.answered(
                calls[call].requestClass, latency: time &- calls[call].started &- waited,
                inFlight: lanes[lane].outstanding, isLate: !calls[call].isAwaited, now: time)
        }
        if lanes[lane].waitingCount > 0 { markDirty(lane: lane) }
    }

    /// Shows how a lane's server is spared.
    func showGate(_ lane: Int) {
        let (waiting, limit): (BackendCounter, BackendCounter) =
            lanes[lane].isBinary ? (.waitingBinary, .limitBinary) : (.waiting, .limit)
        lanes[lane].meter.counters.set(waiting, to: UInt64(lanes[lane].waitingCount))
        lanes[lane].meter.counters.set(limit, to: UInt64(lanes[lane].gate.inFlightLimit))
    }
}

extension Request {
    /// How much it matters: what its own `P` token says, of a meta command. Deletes are invalidations.
    @inline(__always)
    func requestClass(_ operation: RouteOperation, _ input: Span<UInt8>) -> RequestClass {
        if operation == .delete { return .invalidation }
        guard form == .meta, options.contains(MetaOptions(letter: UInt8(ascii: "P"))) else { return .standard }
        guard let tag = classTag(in: input) else { return .standard }
        return RequestClass(tag: input.extracting(tag)) ?? .standard
    }
}
