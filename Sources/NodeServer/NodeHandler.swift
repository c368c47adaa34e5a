// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor

/// memcached's protocols on one reactor: what belongs to a connection, around a ``BatchRunner``.
final class NodeHandler: ReactorHandler {
    var states: [ConnectionState] = []
    var runner: BatchRunner
    let node: Node
    let reactor: Reactor
    /// Connections with more replies ready than one turn sends.
    var unfinished: [ConnectionID] = []
    /// Rows that wait for their clients.
    var rows: WaitingRows
    /// Values that are on their way into the store.
    var uploads: Uploads<ConnectionID>
    /// Connections to other nodes; requests that are to be sent to another of them; and clients that these answered.
    var ownerLanes: [OwnerLane] = []
    let ownerBacklog = OwnerBacklog()
    var ownerRetries: [(due: UInt64, command: ForwardedCommand)] = []
    var ownerDue: [ConnectionID] = []

    init(_ node: Node, _ reactor: Reactor) {
        self.node = node
        self.reactor = reactor
        runner = BatchRunner(node, reactor)
        rows = WaitingRows(
            nodeLimitBytes: node.configuration.storage.waitingRowBytes, reactors: node.configuration.threads)
        uploads = Uploads(
            limitNanoseconds: UInt64(node.configuration.storage.timeoutMilliseconds) * 1_000_000)
    }

    func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        if connection.tag & Self.ownerMark != 0 { return ownerOpened(&connection, &output) }
        while states.count <= connection.slot { states.append(ConnectionState()) }
        states[connection.slot] = ConnectionState(
            parser: RequestParser(parserConfiguration(listenerTag: connection.tag)),
            mustLogIn: node.authentication != nil, caller: Caller(rule: UInt8(truncatingIfNeeded: connection.tag >> 8)))
        node.watchers.connectionOpened(connection)
        if node.tenants.epoch != 0, !states[connection.slot].identity.mustLogIn {
            _ = findTenant(&connection, &output)
        }
    }

    func started(_ loop: inout ReactorLoop) { node.storage?.mailboxes[reactor.index].attach(reactor) }

    func closed(_ connection: inout Connection, _ reason: CloseReason) {
        if connection.tag & Self.ownerMark != 0 { return ownerClosed(&connection) }
        states[connection.slot].pending?.discard(node.engine)
        dropReplies(slot: connection.slot)
        states[connection.slot].identity.leave()
        states[connection.slot] = ConnectionState()
        node.watchers.connectionClosed(connection, reason)
    }

    func released(_ token: UInt64) { node.engine.unpin(token) }

    func tick(_ loop: inout ReactorLoop, now: UInt64) {
        node.flushIfDue(now: node.clock.second(now))
        runner.executor.shedder.noteTurn(reactor)
        deliverAnswers(&loop)
        if !uploads.isEmpty { giveUpUploads(&loop, now: now) }
        if !ownerLanes.isEmpty { tickOwners(&loop) }
        // One reactor is enough to send what waits for watchers.
        if reactor.index == 0 {
            node.watchers.noteEvictions(of: node.engine, now: node.clock.second(now))
            node.watchers.flush()
        }
    }

    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        if connection.tag & Self.ownerMark != 0 { return ownerReceived(&connection, input) }
        let slot = connection.slot
        guard identify(&connection, &output) else { return input.count }
        runner.executor.beginTurn(fd: connection.fd, connection.id, defers: states[slot].replies != nil)
        runner.executor.knowsOwners = states[slot].knowsOwners
        runner.executor.shedder.begin(reactor, states[slot].caller, fd: connection.fd)
        let mark = (bytes: output.count, externals: output.externals.count)
        runner.executor.outputBefore = output.totalCount
        var offset = 0
        if states[slot].isUnusual {
            guard resume(&connection, input, at: &offset, &output) else {
                runner.executor.endQuota(output)
                settleReplies(&connection, from: mark, &output)
                return offset
            }
            guard identify(&connection, &output) else { return input.count }
        }
        var parser = states[slot].parser
        var done = 0
        var isFull = false
        steps: while true {
            switch runner.run(&connection, &parser, input, at: &offset, &output, &done) {
            case .goOn:
                isFull = runner.executor.parks.count >= runner.executor.parkLimit
                if isFull { break steps }
            case .stop: break steps
            case .receive(let pending):
                states[slot].pending = pending
                connection.fill(pending.target.value, count: pending.request.valueLength)
                if case .store = pending.target { uploads.begin(connection.id, at: reactor.nowNanoseconds) }
                break steps
            }
        }
        states[slot].parser = parser
        states[slot].knowsOwners = runner.executor.knowsOwners
        if states[slot].identity.tenant != nil {
            states[slot].skipsDeniedGet = runner.executor.skipsDeniedGet
            states[slot].caller = runner.executor.shedder.caller
            runner.executor.endQuota(output)
        } else if runner.executor.shedder.isCareful {
            states[slot].caller = runner.executor.shedder.caller
        }
        runner.executor.endTurn()
        if runner.executor.defers {
            settleReplies(&connection, from: mark, &output)
            // Stopped for the sake of what waits, and nothing waits any more.
            if isFull, offset < input.count, !connection.isPaused, !connection.isClosing { connection.yield() }
        }
        return offset
    }

    func foresee(_ inputs: borrowing InputGroup) {
        // What is refused is not looked up.
        if !runner.executor.shedder.refusesNow { runner.foresee(inputs) }
    }

    func filled(_ connection: inout Connection, _ output: inout OutputBuffer) {
        let slot = connection.slot
        guard let pending = states[slot].pending else { return }
        guard pending.request.form == .binary else {
            // The line end is still to come, with the next input.
            states[slot].awaitsLineEnd = true
            connection.minimumInput(2)
            return
        }
        states[slot].pending = nil
        runner.executor.beginTurn(fd: connection.fd, connection.id, defers: states[slot].replies != nil)
        let mark = (bytes: output.count, externals: output.externals.count)
        commit(pending, &connection, &output)
        runner.executor.endTurn()
        settleReplies(&connection, from: mark, &output)
    }

    /// Stores a value that came in by itself.
    private func commit(_ pending: PendingValue, _ connection: inout Connection, _ output: inout OutputBuffer) {
        guard runner.executor.traces else { return runner.executor.commit(pending, &connection, &output) }
        runner.executor.resumeSpan(pending.span, output)
        runner.executor.commit(pending, &connection, &output)
        let key = pending.key
        runner.executor.endSpan(pending.request, key: key.span, output)
    }

    func datagram(_ datagram: borrowing Datagram, _ input: Span<UInt8>, _ output: inout OutputBuffer) {
        runner.executor.beginTurn(fd: 0)
        // Nobody can log in by datagrams, or show a certificate.
        let isOpen = node.tenants.epoch == 0
        let tenant = isOpen ? nil : node.tenants.membership(user: nil, certificates: []).tenant
        runner.executor.shedder.caller = Caller()
        runner.executor.outputBefore = output.totalCount
        runner.executor.identify(tenant, skips: false)
        runner.runDatagram(datagram.tag, input, &output)
        runner.executor.endQuota(output)
        runner.executor.endTurn()
    }

    /// Tells the executor whose requests come next. False where the connection is one too many of its tenant's, and
    /// ends.
    @inline(__always)
    private func identify(_ connection: inout Connection, _ output: inout OutputBuffer) -> Bool {
        let slot = connection.slot
        if states[slot].identity.tenantEpoch != node.tenants.epoch, !findTenant(&connection, &output) { return false }
        runner.executor.identify(states[slot].identity.tenant, skips: states[slot].skipsDeniedGet)
        return true
    }

    @inline(never)
    private func findTenant(_ connection: inout Connection, _ output: inout OutputBuffer) -> Bool {
        let slot = connection.slot
        if states[slot].identity.findTenant(in: node.tenants, certificates: connection.tlsPeerNames) { return true }
        states[slot].identity.tenant?.noteOver(.connections, reactor: reactor.index)
        ErrorReply.tooManyConnectionsOfTenant.appendText(to: &output)
        connection.closeAfterFlush()
        return false
    }

    /// Goes on where the connection was left: behind a large value, or before its login. False when the turn is over.
    private func resume(
        _ connection: inout Connection, _ input: Span<UInt8>, at offset: inout Int, _ output: inout OutputBuffer
    ) -> Bool {
        let slot = connection.slot
        if states[slot].awaitsLineEnd {
            guard input.count >= 2 else {
                connection.minimumInput(2)
                return false
            }
            guard let pending = states[slot].pending else { return true }
            states[slot].awaitsLineEnd = false
            states[slot].pending = nil
            offset = 2
            if input[0] == UInt8(ascii: "\r"), input[1] == UInt8(ascii: "\n") {
                commit(pending, &connection, &output)
            } else {
                pending.discard(node.engine)
                runner.executor.refuse(.badDataChunk, pending.request, &output)
            }
        }
        guard states[slot].identity.mustLogIn else { return true }
        return states[slot].identity.logIn(&connection, input, at: &offset, users: node.authentication, &output) {
            runner.executor.noteLogin($0)
        }
    }
}
