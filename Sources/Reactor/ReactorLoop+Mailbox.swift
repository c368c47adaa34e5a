// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It, the shared buffer and the vectors are touched by the reactor's thread only.

/// What other threads want.
extension ReactorLoop {
    /// Does what the letters that wait now say.
    mutating func drainMailbox() {
        reactor.mailbox.take(into: &letters)
        for index in letters.indices { deliver(letters[index]) }
        letters.removeAll(keepingCapacity: true)
    }

    private mutating func deliver(_ letter: Mailbox.Letter) {
        switch letter {
        case .message(let message):
            reactor.counters.add(.messages)
            handler.message(message, &self)
        case .work(let work):
            reactor.counters.add(.messages)
            work(&self)
        case .bytes(let id, let bytes): send(bytes, to: id)
        case .finish(let id, let closing): finishStream(id, closing: closing)
        case .adopt(let fd, let listener, let tag, let transport, let security):
            open(fd, Connection.Origin(listener: listener, tag: tag, transport: transport), security)
        case .closeRevoked: closeRevoked()
        case .stop(let mode): stop(mode)
        }
    }

    private mutating func send(_ bytes: [UInt8], to id: ConnectionID) {
        guard let connection = unsafe table.find(id), unsafe !connection.pointee.flags.contains(.goodbye) else {
            return
        }
        let stream = unsafe connection.pointee.stream
        output.append(bytes.span)
        _ = unsafe settle(connection)
        stream?.arrived(bytes.count)
    }

    private mutating func finishStream(_ id: ConnectionID, closing: Bool) {
        guard let connection = unsafe table.find(id), let stream = unsafe connection.pointee.stream else { return }
        stream.end()
        unsafe connection.pointee.stream = nil
        if closing {
            unsafe connection.pointee.closeAfterFlush()
        } else {
            unsafe connection.pointee.resumeReading()
        }
        _ = unsafe settle(connection)
    }

    private mutating func stop(_ mode: StopMode) {
        switch mode {
        case .immediate: isRunning = false
        case .graceful(let milliseconds, let idleMilliseconds):
            let time = UInt64(max(milliseconds, 0)) &* 1_000_000
            stopDeadline = reactor.nowNanoseconds &+ time
            stopIdleNanoseconds = UInt64(max(idleMilliseconds, 0)) &* 1_000_000
            stopPatience = reactor.nowNanoseconds &+ time / 4 * 3
            // What the kernel has by now is still executed.
            for slot in 0..<table.count {
                guard let connection = unsafe table.find(slot: slot), unsafe wantsInput(connection) else { continue }
                unsafe readInput(connection)
            }
            closeIdle()
        }
    }

    /// While stopping: closes connections that wait for nothing but their peer.
    mutating func closeIdle() {
        let busy: ConnectionFlags = [.yielded, .queued, .held, .hasUnseenInput]
        let idle = reactor.nowNanoseconds < stopPatience ? stopIdleNanoseconds : 0
        for slot in 0..<table.count {
            guard let connection = unsafe table.find(slot: slot) else { continue }
            let isMoving =
                unsafe connection.pointee.fillTarget != nil
                && reactor.nowNanoseconds < connection.pointee.lastActivityNanoseconds &+ Self.fillPatienceNanoseconds
            // What our peers answer is still wanted as long as somebody waits for it.
            if unsafe connection.pointee.flags.contains(.outgoing), connectionCount > outgoingCount { continue }
            guard !isMoving, unsafe connection.pointee.flags.isDisjoint(with: busy),
                unsafe connection.pointee.backlog == nil
            else { continue }
            // Whoever still asks has not learnt yet that we end.
            let quiet = unsafe reactor.nowNanoseconds &- connection.pointee.lastActivityNanoseconds
            if quiet < idle { continue }
            // It comes to its turn.
            if unsafe StreamSocket.hasUnreadInput(connection.pointee.fd) { continue }
            unsafe close(connection, .stopping)
        }
    }

    /// While stopping, a value that has stood still so long does not come any more.
    private static var fillPatienceNanoseconds: UInt64 { 500_000_000 }
}
