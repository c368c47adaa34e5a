// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Platform
internal import Synchronization
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It is touched by the reactor's thread only.

/// Connections that a handler makes, to peers of its own choice.
extension ReactorLoop {
    /// Begins a connection to `address`; nil when the kernel refuses at once, for want of descriptors for instance.
    ///
    /// The handler's `opened` is called when it stands (over `tls`: and hands were shaken), its `closed` when it ends
    /// or never comes to stand, in a later turn at the earliest. It is served like any other, but for the limits of
    /// those that peers make: idle time and number. How long it may take is the handler's to watch: see ``close(_:)``.
    package mutating func connect(
        to address: SocketAddress, tag: UInt64, tls: TLSClientContext? = nil
    ) -> ConnectionID? {
        guard let socket = try? OutboundSocket(connectingTo: address) else { return nil }
        let fd = socket.release()
        let transport: Transport = address.isUnix ? .unix : tls == nil ? .tcp : .tls
        let session = unsafe tls.map { unsafe $0.makeSession(fd) }
        if let lists = tls?.revocations { outgoingRevocations = lists }
        let origin = Connection.Origin(listener: -1, tag: tag, transport: transport)
        let made = unsafe table.insert { id in
            unsafe Connection(
                id: id, fd: fd, origin: origin, interest: .output, inputLimitBytes: configuration.inputLimitBytes,
                status: unsafe reactor.registry.enter(id.slot, fd: fd, transport: transport, isOutgoing: true))
        }
        guard let connection = unsafe made else {
            if let session = unsafe session, let session = unsafe session { unsafe TLSSession.free(session) }
            StreamSocket.closeNumber(fd)
            return nil
        }
        unsafe connection.pointee.flags.insert([.outgoing, .connecting])
        unsafe connection.pointee.session = unsafe session.flatMap { unsafe $0 }
        unsafe connection.pointee.status.pointee.activity.store(reactor.nowNanoseconds, ordering: .relaxed)
        unsafe publishState(connection)
        outgoingCount += 1
        reactor.counters.add(.connections)
        reactor.counters.add(.connectionsTotal)
        let id = unsafe connection.pointee.id
        do throws(SystemError) {
            try reactor.poller.add(fd, .output, user: id.rawValue)
        } catch {
            // Refused at once: the handler hears of it by the result.
            unsafe connection.pointee.flags.remove(.outgoing)
            outgoingCount -= 1
            unsafe close(connection, .error)
            return nil
        }
        return id
    }

    /// Closes a connection at once, whatever it is doing; the handler's `closed` is called within.
    package mutating func close(_ id: ConnectionID) {
        guard let connection = unsafe table.find(id) else { return }
        unsafe close(connection, .handler)
    }

    /// Looks at what became of a connection that was begun.
    mutating func finishConnecting(_ connection: UnsafeMutablePointer<Connection>) {
        guard unsafe OutboundSocket.failure(of: connection.pointee.fd) == nil else {
            unsafe close(connection, .error)
            return
        }
        unsafe connection.pointee.flags.remove(.connecting)
        guard unsafe connection.pointee.transport == .tls else {
            unsafe watch(connection, .input)
            unsafe begin(connection)
            return
        }
        guard unsafe connection.pointee.session != nil else {
            unsafe close(connection, .error)
            return
        }
        unsafe connection.pointee.flags.insert(.handshaking)
        unsafe connection.pointee.deadline = deadline(configuration.handshakeTimeoutMilliseconds)
        unsafe shakeHands(connection)
    }
}
