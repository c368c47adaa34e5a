// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Synchronization
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It, the shared buffer and the vectors are touched by the reactor's thread only.

/// How connections begin and end.
extension ReactorLoop {
    /// Takes a connected socket over, and closes it when that fails.
    mutating func open(_ fd: Int32, _ origin: Connection.Origin, _ security: ListenerConfiguration.Security) {
        var session: OpaquePointer?
        if security != .none {
            unsafe session = tls.flatMap { unsafe $0.makeSession(fd, security) }
            guard unsafe session != nil else { return discard(fd, origin) }
        }
        let interest: Readiness = unsafe session == nil && origin.transport == .tcp ? Connection.rest : .input
        let made = unsafe table.insert { id in
            unsafe Connection(
                id: id, fd: fd, origin: origin, interest: interest, inputLimitBytes: configuration.inputLimitBytes,
                status: unsafe reactor.registry.enter(id.slot, fd: fd, transport: origin.transport))
        }
        guard let connection = unsafe made else {
            unsafe session.map { unsafe TLSSession.free($0) }
            return discard(fd, origin)
        }
        unsafe connection.pointee.status.pointee.activity.store(reactor.nowNanoseconds, ordering: .relaxed)
        unsafe publishState(connection)
        reactor.counters.add(.connections)
        reactor.counters.add(.connectionsTotal)
        do throws(SystemError) {
            try unsafe reactor.poller.add(fd, interest, user: connection.pointee.id.rawValue)
        } catch {
            unsafe session.map { unsafe TLSSession.free($0) }
            unsafe close(connection, .error)
            return
        }
        guard let session = unsafe session else {
            unsafe begin(connection)
            return
        }
        unsafe connection.pointee.session = unsafe session
        unsafe connection.pointee.flags.insert(.handshaking)
        unsafe connection.pointee.deadline = deadline(configuration.handshakeTimeoutMilliseconds)
        unsafe publishState(connection)
    }

    private func discard(_ fd: Int32, _ origin: Connection.Origin) {
        StreamSocket.closeNumber(fd)
        if origin.listener >= 0 { admission.leave() }
    }

    func deadline(_ milliseconds: Int) -> UInt64 {
        reactor.nowNanoseconds &+ UInt64(milliseconds) &* 1_000_000
    }

    /// Tells the handler of a connection that is ready for it.
    mutating func begin(_ connection: UnsafeMutablePointer<Connection>) {
        unsafe connection.pointee.flags.insert(.opened)
        unsafe handler.opened(&connection.pointee, &output)
        _ = unsafe settle(connection)
    }

    /// Goes on with a TLS handshake.
    mutating func shakeHands(_ connection: UnsafeMutablePointer<Connection>) {
        guard let session = unsafe connection.pointee.session else { return }
        switch unsafe TLSSession.handshake(session) {
        case .wantsRead: unsafe watch(connection, .input)
        case .wantsWrite: unsafe watch(connection, .output)
        case .failed(let reason): unsafe refuse(connection, reason)
        case .done where unsafe isRevoked(connection):
            unsafe refuse(connection, TLSSession.revokedReason)
        case .done:
            unsafe watch(connection, .input)
            unsafe connection.pointee.flags.remove(.handshaking)
            unsafe connection.pointee.deadline = 0
            if tls?.configuration.hasSessionCache == true, unsafe !TLSSession.isResumed(session) {
                reactor.counters.add(.newSessions)
            }
            // The first request may have come with the last of the handshake.
            if unsafe TLSSession.hasHiddenInput(session) { unsafe connection.pointee.flags.insert(.hasHiddenInput) }
            unsafe begin(connection)
        }
    }

    /// Ends a handshake that failed, because of the peer's certificate where there is a reason.
    private mutating func refuse(_ connection: UnsafeMutablePointer<Connection>, _ reason: String?) {
        reactor.counters.add(.handshakeErrors)
        if let reason { unsafe handler.distrusted(&connection.pointee, reason) }
        unsafe close(connection, .error)
    }

    /// Whether a peer's certificate is revoked by now: the lists may have been read again since the handshake began.
    private func isRevoked(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        let isOutgoing = unsafe connection.pointee.flags.contains(.outgoing)
        guard let lists = isOutgoing ? outgoingRevocations : tls?.revocations,
            let session = unsafe connection.pointee.session
        else { return false }
        return unsafe lists.revoke(session)
    }

    /// Closes the connections whose peers' certificates are revoked by now. Those whose handshake goes on are looked at
    /// when it is done.
    mutating func closeRevoked() {
        guard tls?.revocations != nil || outgoingRevocations != nil else { return }
        for slot in 0..<table.count {
            guard let connection = unsafe table.find(slot: slot),
                unsafe connection.pointee.flags.isDisjoint(with: [.handshaking, .connecting]),
                unsafe isRevoked(connection)
            else { continue }
            unsafe handler.distrusted(&connection.pointee, TLSSession.revokedReason)
            unsafe close(connection, .error)
        }
    }

    /// Ends a connection whose output is all sent, so that the peer gets it: closing a socket with unread input would
    /// make the kernel throw away what the peer has not read.
    mutating func finish(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
        let fd = unsafe connection.pointee.fd
        let isCut = unsafe connection.pointee.kept.count > 0 || connection.pointee.flags.contains(.hasUnseenInput)
        guard isCut || StreamSocket.hasUnreadInput(fd), unsafe !connection.pointee.flags.contains(.inputEnded) else {
            unsafe close(connection, reason)
            return
        }
        unsafe sayGoodbye(connection, reason)
        if let session = unsafe connection.pointee.session { unsafe TLSSession.shutDown(session) }
        StreamSocket.endOutput(fd)
        unsafe connection.pointee.kept.removeAll(&pool)
        unsafe connection.pointee.flags.insert(.lingering)
        unsafe connection.pointee.deadline = deadline(configuration.lingerMilliseconds)
        unsafe watch(connection, .input)
        unsafe linger(connection)
    }

    /// Discards what a peer still sends after our goodbye, until it closes or the deadline passes.
    mutating func linger(_ connection: UnsafeMutablePointer<Connection>) {
        for _ in 0..<configuration.readsPerTurn {
            let count = unsafe StreamSocket.read(connection.pointee.fd, shared, configuration.readBufferBytes)
            if count == StreamSocket.wouldBlock { return }
            guard count > 0 else {
                unsafe close(connection, .handler)
                return
            }
            guard count == configuration.readBufferBytes else { return }
        }
    }

    /// Tells the handler, once, that a connection is over, and takes everything back that it had lent.
    private mutating func sayGoodbye(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
        guard unsafe !connection.pointee.flags.contains(.goodbye) else { return }
        unsafe connection.pointee.flags.insert(.goodbye)
        dropOutput()
        let handler = handler
        if let backlog = unsafe connection.pointee.backlog {
            backlogBytes -= backlog.ownRemaining
            backlog.drop { handler.released($0) }
            unsafe connection.pointee.backlog = nil
            give(backlog)
        }
        unsafe connection.pointee.stream?.end()
        unsafe connection.pointee.stream = nil
        if unsafe !connection.pointee.flags.isDisjoint(with: [.opened, .outgoing]) {
            unsafe handler.closed(&connection.pointee, reason)
        }
    }

    /// Closes a connection now; the pointer is dead afterwards.
    mutating func close(_ connection: UnsafeMutablePointer<Connection>, _ reason: CloseReason) {
        switch reason {
        case .idle: reactor.counters.add(.idleKicks)
        case .slowReader: reactor.counters.add(.slowReaders)
        case .inputLimit: reactor.counters.add(.inputLimits)
        case .handler, .peer, .error, .stopping: break
        }
        unsafe sayGoodbye(connection, reason)
        unsafe connection.pointee.kept.removeAll(&pool)
        if let session = unsafe connection.pointee.session {
            let isWhole =
                unsafe reason != .error
                && connection.pointee.flags.isDisjoint(with: [.handshaking, .lingering, .connecting])
            if isWhole { unsafe TLSSession.shutDown(session) }
            unsafe TLSSession.free(session)
        }
        unsafe reactor.registry.leave(connection.pointee.status)
        unsafe StreamSocket.closeNumber(connection.pointee.fd)
        if unsafe connection.pointee.listener >= 0 { admission.leave() }
        if unsafe connection.pointee.flags.contains(.outgoing) { outgoingCount -= 1 }
        reactor.counters.subtract(.connections)
        unsafe table.remove(connection.pointee.id)
    }

    /// Closes every connection: first those that peers made, who would be told otherwise that ours are gone.
    mutating func closeAll(_ reason: CloseReason) {
        for isOutgoing in [false, true] {
            for slot in 0..<table.count {
                guard let connection = unsafe table.find(slot: slot),
                    unsafe connection.pointee.flags.contains(.outgoing) == isOutgoing
                else { continue }
                unsafe close(connection, reason)
            }
        }
    }

    /// Looks at a tenth of the slots for deadlines and idle connections, so at each about once a second.
    mutating func sweep(_ now: UInt64) {
        guard table.count > 0 else { return }
        let idleLimit = UInt64(configuration.idleTimeoutSeconds) &* 1_000_000_000
        for _ in 0..<min(table.count, table.count / 10 + 16) {
            if sweepSlot >= table.count { sweepSlot = 0 }
            if let connection = unsafe table.find(slot: sweepSlot) {
                unsafe inspect(connection, now, idleLimit)
            }
            sweepSlot += 1
        }
    }

    private mutating func inspect(_ connection: UnsafeMutablePointer<Connection>, _ now: UInt64, _ idleLimit: UInt64) {
        let deadline = unsafe connection.pointee.deadline
        if deadline != 0, now >= deadline {
            if unsafe connection.pointee.flags.contains(.handshaking) { reactor.counters.add(.handshakeErrors) }
            unsafe close(connection, .error)
            return
        }
        if let backlog = unsafe connection.pointee.backlog, backlog.holdsExternals {
            unsafe backlog.noteQueued(StreamSocket.unacknowledgedBytes(connection.pointee.fd), now: now)
            let limit = UInt64(configuration.stalledOutputMilliseconds) &* 1_000_000
            if now > backlog.progressNanoseconds, now - backlog.progressNanoseconds > limit {
                unsafe close(connection, .slowReader)
                return
            }
        }
        // As memcached: only TCP, and only while it waits for a request.
        let busy: ConnectionFlags = [.paused, .yielded, .held, .handshaking, .lingering, .outgoing]
        guard idleLimit > 0, unsafe connection.pointee.transport != .unix, unsafe connection.pointee.stream == nil,
            unsafe connection.pointee.flags.isDisjoint(with: busy), unsafe connection.pointee.backlog == nil,
            unsafe connection.pointee.fillTarget == nil
        else { return }
        let active = unsafe connection.pointee.lastActivityNanoseconds
        if now > active, now - active > idleLimit { unsafe close(connection, .idle) }
    }

    /// Shows others what the connection is doing.
    func publishState(_ connection: UnsafeMutablePointer<Connection>) {
        let state = unsafe connection.pointee.stateNow
        guard unsafe state != connection.pointee.shownState else { return }
        unsafe connection.pointee.shownState = state
        unsafe connection.pointee.status.pointee.state.store(state.rawValue, ordering: .relaxed)
    }
}

extension Connection {
    /// What it is doing, as others would say.
    var stateNow: ConnectionState {
        if !flags.isDisjoint(with: [.handshaking, .connecting]) { return .handshaking }
        if !flags.isDisjoint(with: [.lingering, .closeAfterFlush]) { return .closing }
        if stream != nil { return .streaming }
        if backlog != nil { return .writing }
        if fillTarget != nil { return .filling }
        if swallowBytes > 0 { return .swallowing }
        return flags.contains(.paused) ? .paused : .reading
    }
}
