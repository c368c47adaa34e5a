// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Memory
internal import Platform
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It, the shared buffer and the vectors are touched by the reactor's thread only.

/// From the handler to the socket.
extension ReactorLoop {
    /// After calls of the handler: sends what it wrote and does what it asked for. False when the connection is gone.
    @inline(__always)
    mutating func settle(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        if !output.isEmpty {
            guard unsafe flush(connection) else { return false }
        }
        if unsafe connection.pointee.flags.isDisjoint(with: .needsCare),
            unsafe connection.pointee.interest == Connection.rest || connection.pointee.interest == .input,
            unsafe connection.pointee.backlog == nil, unsafe connection.pointee.isPlain
        {
            return true
        }
        return unsafe settleSlowly(connection)
    }

    @inline(never)
    private mutating func settleSlowly(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        if unsafe connection.pointee.flags.contains(.closeNow) {
            unsafe close(connection, .handler)
            return false
        }
        let ended: ConnectionFlags = [.inputEnded, .held, .hasUnseenInput]
        if unsafe connection.pointee.flags.intersection(ended) == .inputEnded {
            unsafe connection.pointee.flags.insert(.closeAfterFlush)
        }
        if unsafe connection.pointee.flags.intersection([.yielded, .hasUnseenInput]) == .yielded {
            // Nothing to come back for; whatever arrives is an event.
            unsafe connection.pointee.flags.remove(.yielded)
            reactor.counters.add(.yields)
        }
        unsafe publishState(connection)
        guard unsafe connection.pointee.backlog == nil else {
            unsafe watch(connection, .output)
            return true
        }
        if unsafe connection.pointee.flags.intersection([.closeAfterFlush, .held]) == .closeAfterFlush {
            unsafe finish(connection, .handler)
            return false
        }
        let takesNoInput = unsafe !connection.pointee.flags.isDisjoint(with: [.paused, .closeAfterFlush])
        if unsafe takesNoInput || connection.pointee.flags.contains(.inputEnded) {
            // Input that arrives is seen, and then no longer watched for; nothing to do while there is none.
            unsafe watch(connection, connection.pointee.interest.subtracting(.output))
        } else if unsafe !connection.pointee.flags.contains(.readWantsWrite)
            && connection.pointee.interest != Connection.rest
        {
            // One whose socket was emptied stays watched for edges.
            unsafe watch(connection, .input)
        }
        if unsafe !takesNoInput && !connection.pointee.flags.isDisjoint(with: [.hasUnseenInput, .hasHiddenInput]) {
            unsafe enqueue(connection)
        }
        return true
    }

    /// Sends what the handler wrote; what the socket does not take is kept. False when the connection is gone.
    mutating func flush(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        if unsafe connection.pointee.flags.contains(.closeNow) { return true }
        guard unsafe connection.pointee.backlog == nil else {
            return unsafe extendBacklog(connection)
        }
        var cursor = OutputCursor()
        let result: Int
        if output.externals.isEmpty, unsafe connection.pointee.session == nil {
            // The hot path: one write.
            result = unsafe output.withUnsafeBytes(from: 0) { bytes in
                guard let base = bytes.baseAddress else { return 0 }
                return unsafe StreamSocket.write(connection.pointee.fd, base, bytes.count)
            }
            countWrite(result)
            if result == output.count {
                output.removeAll()
                return true
            }
            cursor.own = max(result, 0)
        } else {
            result = unsafe send(connection, output, &cursor)
            if cursor.isAtEnd(of: output) {
                output.removeAll()
                return true
            }
        }
        guard result != StreamSocket.failed, result != TLSSession.protocolError else {
            dropOutput(from: cursor.external)
            if result == TLSSession.protocolError { reactor.counters.add(.protocolErrors) }
            unsafe close(connection, .error)
            return false
        }
        return unsafe startBacklog(connection, cursor)
    }

    @inline(__always)
    private func countWrite(_ result: Int) {
        reactor.counters.add(.writeCalls)
        if result > 0 { reactor.counters.add(.bytesWritten, UInt64(truncatingIfNeeded: result)) }
    }

    /// Keeps what the socket did not take of `output`.
    private mutating func startBacklog(_ connection: UnsafeMutablePointer<Connection>, _ cursor: OutputCursor) -> Bool {
        reactor.counters.add(.partialWrites)
        let keepsMemory = Backlog.keepsMemory(of: output, from: cursor)
        let backlog = takeBacklog(keepsMemory ? configuration.outputBufferBytes : output.count - cursor.own)
        backlog.take(&output, from: cursor)
        backlog.noteProgress(now: reactor.nowNanoseconds)
        unsafe connection.pointee.backlog = backlog
        backlogBytes += backlog.ownRemaining
        unsafe connection.pointee.stream?.waits(backlog.remaining)
        // One value of any size may wait; what was copied is bounded.
        return unsafe admitBacklog(connection, backlog.buffer.count - backlog.cursor.own)
    }

    private mutating func extendBacklog(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        guard let backlog = unsafe connection.pointee.backlog else { return true }
        backlogBytes -= backlog.ownRemaining
        backlog.append(output)
        backlogBytes += backlog.ownRemaining
        output.removeAll()
        unsafe connection.pointee.stream?.waits(backlog.remaining)
        return unsafe admitBacklog(connection, backlog.ownRemaining)
    }

    /// Closes a connection with more than the allowed bytes waiting. False when it did.
    private mutating func admitBacklog(_ connection: UnsafeMutablePointer<Connection>, _ bytes: Int) -> Bool {
        guard
            bytes > configuration.pendingOutputLimitBytes || backlogBytes > configuration.pendingOutputTotalBytes
        else { return true }
        unsafe close(connection, .slowReader)
        return false
    }

    /// The socket takes bytes again. False when the connection is gone.
    mutating func drain(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        guard let backlog = unsafe connection.pointee.backlog else { return true }
        backlogBytes -= backlog.ownRemaining
        backlog.noteProgress(now: reactor.nowNanoseconds)
        let result = unsafe send(connection, backlog)
        backlogBytes += backlog.ownRemaining
        guard result != StreamSocket.failed, result != TLSSession.protocolError else {
            if result == TLSSession.protocolError { reactor.counters.add(.protocolErrors) }
            unsafe close(connection, .error)
            return false
        }
        unsafe connection.pointee.stream?.waits(backlog.remaining)
        guard backlog.remaining == 0 else { return true }
        unsafe connection.pointee.backlog = nil
        give(backlog)
        if unsafe connection.pointee.flags.isDisjoint(with: [.closeAfterFlush, .closeNow]) {
            unsafe handler.drained(&connection.pointee, &output)
        }
        return unsafe settle(connection)
    }

    /// Sends from a backlog until the socket is full. The result is of the last write.
    private func send(_ connection: UnsafeMutablePointer<Connection>, _ backlog: Backlog) -> Int {
        let handler = handler
        var result = 0
        while backlog.remaining > 0 {
            result = unsafe sendOnce(connection, backlog.buffer, backlog.cursor)
            guard result > 0 else { return result }
            backlog.sent(result) { handler.released($0) }
        }
        return result
    }

    /// Sends from `buffer` until the socket is full. The result is of the last write.
    private func send(
        _ connection: UnsafeMutablePointer<Connection>, _ buffer: borrowing OutputBuffer, _ cursor: inout OutputCursor
    ) -> Int {
        let handler = handler
        var result = 0
        // Passes external pieces without bytes, which no write would.
        cursor.advance(0, in: buffer) { handler.released($0) }
        while !cursor.isAtEnd(of: buffer) {
            result = unsafe sendOnce(connection, buffer, cursor)
            guard result > 0 else { return result }
            cursor.advance(result, in: buffer) { handler.released($0) }
        }
        return result
    }

    /// One write of what follows `cursor`.
    private func sendOnce(
        _ connection: UnsafeMutablePointer<Connection>, _ buffer: borrowing OutputBuffer, _ cursor: OutputCursor
    ) -> Int {
        if let session = unsafe connection.pointee.session {
            return unsafe sendRecord(session, buffer, cursor)
        }
        let used = unsafe cursor.gather(buffer, vectors, limit: Self.vectorLimit)
        let result = unsafe StreamSocket.write(connection.pointee.fd, vectors, count: used)
        countWrite(result)
        return result
    }

    /// TLS: writes one record. Small pieces are gathered, so that a value and its frame are one record.
    private func sendRecord(
        _ session: OpaquePointer, _ buffer: borrowing OutputBuffer, _ cursor: OutputCursor
    ) -> Int {
        let used = unsafe cursor.gather(buffer, vectors, limit: Self.vectorLimit)
        let limit = gathered.count
        let result: Int
        if unsafe used == 1 || vectors[0].iov_len >= limit {
            guard let base = unsafe vectors[0].iov_base else { return StreamSocket.failed }
            result = unsafe TLSSession.write(session, base, vectors[0].iov_len)
        } else {
            var count = 0
            for index in 0..<used where count < limit {
                guard let base = unsafe vectors[index].iov_base else { continue }
                let piece = unsafe MemoryBlock(unsafeBase: base, count: vectors[index].iov_len)
                let length = min(piece.count, limit - count)
                gathered.copy(piece, from: 0, length: length, at: count)
                count += length
            }
            result = unsafe TLSSession.write(session, gathered.unsafeBase, count)
        }
        countWrite(result)
        return result
    }

    /// A backlog without content. Those that were used are used again: fresh memory of their size would cost a page
    /// fault for every few kilobytes.
    private mutating func takeBacklog(_ capacity: Int) -> Backlog {
        guard let spare = spareBacklogs.popLast() else { return Backlog(capacity: capacity) }
        spareBacklogBytes -= spare.buffer.capacityBytes
        return spare
    }

    /// Takes back a backlog that is done with.
    mutating func give(_ backlog: Backlog) {
        backlog.reset()
        let bytes = backlog.buffer.capacityBytes
        guard spareBacklogBytes + bytes <= configuration.spareOutputBytes else { return }
        spareBacklogBytes += bytes
        spareBacklogs.append(backlog)
    }

    /// Forgets the shared output; the owners of its external pieces from `start` on get them back.
    mutating func dropOutput(from start: Int = 0) {
        for piece in output.externals[start...] { handler.released(piece.token) }
        output.removeAll()
    }
}

extension Connection {
    /// Nothing under way that a state shown to others would name.
    @inline(__always)
    var isPlain: Bool { fillTarget == nil && swallowBytes == 0 && shownState == .reading }
}
