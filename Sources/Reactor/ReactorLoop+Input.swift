// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Memory
internal import Platform
internal import Synchronization
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It, the shared buffer and the vectors are touched by the reactor's thread only.

/// From the socket to the handler.
extension ReactorLoop {
    /// Whether input may be offered to the handler now.
    @inline(__always)
    func takesInput(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        unsafe connection.pointee.flags.isDisjoint(with: .stopsInput) && connection.pointee.backlog == nil
    }

    /// Whether input may be read and offered now.
    @inline(__always)
    func wantsInput(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        unsafe takesInput(connection) && !connection.pointee.flags.contains(.inputEnded)
    }

    /// Unconsumed input up to this is copied before new input in the shared buffer; more grows in a buffer of its own.
    private var sharedKeptLimit: Int { 16 * 1024 }

    /// Reads what is there and offers it, a few times at most.
    mutating func readInput(_ connection: UnsafeMutablePointer<Connection>) {
        unsafe connection.pointee.flags.remove(.hasHiddenInput)
        for _ in 0..<configuration.readsPerTurn {
            let goesOn: Bool?
            if unsafe connection.pointee.kept.count == 0 {
                if unsafe connection.pointee.fillTarget == nil {
                    goesOn = unsafe readShared(connection)
                } else {
                    goesOn = unsafe readFill(connection)
                }
            } else if unsafe connection.pointee.kept.count <= sharedKeptLimit
                && connection.pointee.minimumBytes <= configuration.readBufferBytes / 2
            {
                goesOn = unsafe readShared(connection)
            } else {
                goesOn = unsafe readKept(connection)
            }
            guard let goesOn, goesOn else { return }
            guard unsafe wantsInput(connection) else { break }
        }
        unsafe watchLevel(connection)
        // Stopped with input left: epoll tells again, but not of what is inside OpenSSL.
        if let session = unsafe connection.pointee.session, unsafe TLSSession.hasHiddenInput(session) {
            unsafe connection.pointee.flags.insert(.hasHiddenInput)
            if unsafe wantsInput(connection) { unsafe enqueue(connection) }
        }
    }

    /// Reads to the shared buffer behind what was kept. True when there may be more, nil when there is nothing more to
    /// do.
    private mutating func readShared(_ connection: UnsafeMutablePointer<Connection>) -> Bool? {
        let kept = unsafe connection.pointee.kept.count
        if kept > 0, let start = unsafe connection.pointee.kept.unsafeStart {
            // SAFETY: kept is at most `sharedKeptLimit`, and the shared buffer is larger.
            unsafe _ = memcpy(shared, start, kept)
        }
        let room = configuration.readBufferBytes - kept
        let count = unsafe read(connection, shared + kept, room)
        guard count > 0 else { return unsafe endRead(connection, count) }
        if unsafe connection.pointee.flags.contains(.sendsMuch) { unsafe noteSize(connection, count) }
        let isFull = unsafe mayHaveMore(connection, count == room)
        let total = kept + count
        guard let consumed = unsafe offer(connection, shared, total) else { return nil }
        if consumed < total {
            unsafe connection.pointee.kept.replace(shared + consumed, total - consumed, &pool)
        } else if kept > 0 {
            unsafe connection.pointee.kept.removeAll(&pool)
        }
        return unsafe settle(connection) ? isFull : nil
    }

    /// Reads behind kept input in its own buffer.
    private mutating func readKept(_ connection: UnsafeMutablePointer<Connection>) -> Bool? {
        let count = unsafe connection.pointee.kept.count
        let limit = unsafe connection.pointee.inputLimitBytes
        let minimum = unsafe connection.pointee.minimumBytes
        let wanted = minimum > count ? min(minimum, 2 * count + configuration.readBufferBytes) : 2 * count
        unsafe connection.pointee.kept.grow(to: min(max(wanted, count + 1), max(limit, count + 1)), &pool)
        guard pool.lentBytes <= configuration.keptInputTotalBytes else {
            unsafe close(connection, .inputLimit)
            return nil
        }
        guard let (target, room) = unsafe connection.pointee.kept.unsafeFree, room > 0 else { return nil }
        let length = unsafe read(connection, target, room)
        guard length > 0 else { return unsafe endRead(connection, length) }
        unsafe connection.pointee.kept.wrote(length)
        let isFull = unsafe mayHaveMore(connection, length == room)
        return unsafe offerKept(connection) ? isFull : nil
    }

    /// Reads to the target of a fill, and what follows to the shared buffer.
    private mutating func readFill(_ connection: UnsafeMutablePointer<Connection>) -> Bool? {
        guard let target = unsafe connection.pointee.fillTarget else { return nil }
        let done = unsafe connection.pointee.fillCount
        let rest = target.slice(done, target.count - done)
        let count: Int
        if unsafe connection.pointee.session != nil {
            count = unsafe read(connection, rest.unsafeBase, rest.count)
        } else {
            // SAFETY: the block is valid until filled or closed, by `fill`'s contract; the shared buffer is ours.
            unsafe vectors[0] = iovec(iov_base: rest.unsafeBase, iov_len: rest.count)
            unsafe vectors[1] = iovec(iov_base: shared, iov_len: configuration.readBufferBytes)
            count = unsafe StreamSocket.read(connection.pointee.fd, vectors, count: 2)
            reactor.counters.add(.readCalls)
            if count > 0 { reactor.counters.add(.bytesRead, UInt64(count)) }
        }
        guard count > 0 else { return unsafe endRead(connection, count) }
        let isFull = unsafe mayHaveMore(connection, count == rest.count + configuration.readBufferBytes)
        unsafe connection.pointee.fillCount += min(count, rest.count)
        unsafe connection.pointee.status.pointee.activity.store(reactor.nowNanoseconds, ordering: .relaxed)
        if count >= rest.count {
            unsafe finishFill(connection)
            let extra = count - rest.count
            if extra > 0 {
                guard let consumed = unsafe offer(connection, shared, extra) else { return nil }
                if consumed < extra {
                    unsafe connection.pointee.kept.replace(shared + consumed, extra - consumed, &pool)
                }
            }
        }
        return unsafe settle(connection) ? isFull : nil
    }

    /// Whether reading again is worth a system call: a plain socket that gave less than asked for is empty; OpenSSL
    /// says.
    private func mayHaveMore(_ connection: UnsafeMutablePointer<Connection>, _ gotAll: Bool) -> Bool {
        if let session = unsafe connection.pointee.session { return unsafe TLSSession.hasHiddenInput(session) }
        return gotAll
    }

    /// Tells the handler that its block is full.
    private mutating func finishFill(_ connection: UnsafeMutablePointer<Connection>) {
        unsafe connection.pointee.fillTarget = nil
        unsafe handler.filled(&connection.pointee, &output)
    }

    @inline(__always)
    private func read(
        _ connection: UnsafeMutablePointer<Connection>, _ target: UnsafeMutableRawPointer, _ count: Int
    ) -> Int {
        let result: Int
        if let session = unsafe connection.pointee.session {
            result = unsafe TLSSession.read(session, target, count)
        } else {
            result = unsafe StreamSocket.read(connection.pointee.fd, target, count)
        }
        reactor.counters.add(.readCalls)
        if result > 0 { reactor.counters.add(.bytesRead, UInt64(truncatingIfNeeded: result)) }
        return result
    }

    /// A read that brought nothing. False: wait for an event; nil: closed.
    mutating func endRead(_ connection: UnsafeMutablePointer<Connection>, _ result: Int) -> Bool? {
        switch result {
        case StreamSocket.wouldBlock: return false
        case TLSSession.wantsWrite:
            unsafe connection.pointee.flags.insert(.readWantsWrite)
            unsafe watch(connection, [.input, .output])
            return false
        case 0: return unsafe endInput(connection) ? false : nil
        default:
            if result == TLSSession.protocolError { reactor.counters.add(.protocolErrors) }
            unsafe close(connection, .error)
            return nil
        }
    }

    /// The peer sends no more. Whole requests that it sent before are served yet, whoever waits for replies. False when
    /// the connection is closed.
    private mutating func endInput(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        guard unsafe !connection.pointee.flags.isDisjoint(with: [.held, .hasUnseenInput]) else {
            unsafe close(connection, .peer)
            return false
        }
        unsafe connection.pointee.flags.insert(.inputEnded)
        unsafe watchLevel(connection)
        unsafe watch(connection, connection.pointee.interest.subtracting(.input))
        unsafe handler.inputEnded(&connection.pointee, &output)
        return unsafe settle(connection)
    }

    /// Offers kept input. False when the connection is gone.
    mutating func offerKept(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        unsafe connection.pointee.flags.remove(.hasUnseenInput)
        if let start = unsafe connection.pointee.kept.unsafeStart {
            guard let consumed = unsafe offer(connection, start, connection.pointee.kept.count) else { return false }
            unsafe connection.pointee.kept.consume(consumed, &pool)
        }
        return unsafe settle(connection)
    }

    /// Feeds `count` bytes at `base` to whatever is due: discarding, filling, the handler. Returns how many are done
    /// with, nil when the connection is gone.
    mutating func offer(
        _ connection: UnsafeMutablePointer<Connection>, _ base: UnsafeMutableRawPointer, _ count: Int
    ) -> Int? {
        var offset = 0
        unsafe connection.pointee.flags.remove(.hasUnseenInput)
        while offset < count {
            if unsafe connection.pointee.swallowBytes > 0 || connection.pointee.fillTarget != nil {
                offset += unsafe absorb(connection, base + offset, count - offset)
                continue
            }
            guard unsafe takesInput(connection) else {
                unsafe connection.pointee.flags.insert(.hasUnseenInput)
                break
            }
            let available = count - offset
            guard unsafe available >= connection.pointee.minimumBytes || available >= connection.pointee.inputLimitBytes
            else { break }
            unsafe connection.pointee.minimumBytes = 1
            // SAFETY: `available` bytes from here are initialised and stay until the call returns.
            let bytes = unsafe UnsafeBufferPointer(
                start: (base + offset).assumingMemoryBound(to: UInt8.self), count: available)
            let consumed = unsafe handler.received(&connection.pointee, Span(_unsafeElements: bytes), &output)
            precondition(consumed >= 0 && consumed <= available, "a handler consumed more than there was")
            offset += consumed
            if consumed > 0 { unsafe connection.pointee.flags.insert(.active) }
            if output.count >= configuration.outputKeptBytes {
                guard unsafe flush(connection) else { return nil }
            }
            let goesOn = unsafe connection.pointee.swallowBytes > 0 || connection.pointee.fillTarget != nil
            guard !goesOn else { continue }
            if offset < count, unsafe !takesInput(connection) {
                unsafe connection.pointee.flags.insert(.hasUnseenInput)
            } else if consumed == 0, unsafe available >= connection.pointee.inputLimitBytes {
                unsafe close(connection, .inputLimit)
                return nil
            }
            break
        }
        unsafe noteActivity(connection)
        return offset
    }

    /// Starts the idle clock of a connection again if something was executed.
    @inline(__always)
    func noteActivity(_ connection: UnsafeMutablePointer<Connection>) {
        guard unsafe connection.pointee.flags.contains(.active) else { return }
        unsafe connection.pointee.flags.remove(.active)
        unsafe connection.pointee.status.pointee.activity.store(reactor.nowNanoseconds, ordering: .relaxed)
    }

    /// Discards or fills with up to `count` bytes; returns how many.
    private mutating func absorb(
        _ connection: UnsafeMutablePointer<Connection>, _ base: UnsafeMutableRawPointer, _ count: Int
    ) -> Int {
        let swallowed = unsafe min(connection.pointee.swallowBytes, count)
        if swallowed > 0 {
            unsafe connection.pointee.swallowBytes -= swallowed
            return swallowed
        }
        guard let target = unsafe connection.pointee.fillTarget else { return 0 }
        let done = unsafe connection.pointee.fillCount
        let step = min(count, target.count - done)
        // SAFETY: the source has `count` bytes; the copy is checked against the target.
        unsafe target.copy(MemoryBlock(unsafeBase: base, count: count), from: 0, length: step, at: done)
        unsafe connection.pointee.fillCount += step
        if done + step == target.count { unsafe finishFill(connection) }
        return step
    }
}
