// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor

/// memcached's protocols on one reactor: what belongs to a connection, around a ``BatchRunner``.
final class NodeHandler: ReactorHandler {
    private var states: [ConnectionState] = []
    private var runner: BatchRunner
    private let node: Node
    private let reactor: Reactor

    init(_ node: Node, _ reactor: Reactor) {
        self.node = node
        self.reactor = reactor
        runner = BatchRunner(node, reactor)
    }

    func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        while states.count <= connection.slot { states.append(ConnectionState()) }
        states[connection.slot] = ConnectionState(
            parser: RequestParser(node.parserConfiguration(listenerTag: connection.tag)),
            mustLogIn: node.authentication != nil)
        node.watchers.connectionOpened(connection)
    }

    func closed(_ connection: inout Connection, _ reason: CloseReason) {
        if let pending = states[connection.slot].pending { node.engine.discard(pending.item) }
        states[connection.slot] = ConnectionState()
        node.watchers.connectionClosed(connection, reason)
    }

    func released(_ token: UInt64) { node.engine.unpin(token) }

    func tick(_ loop: inout ReactorLoop, now: UInt64) {
        node.flushIfDue(now: node.clock.second(now))
        // One reactor is enough to send what waits for watchers.
        if reactor.index == 0 {
            node.watchers.noteEvictions(of: node.engine, now: node.clock.second(now))
            node.watchers.flush()
        }
    }

    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        runner.executor.beginTurn(fd: connection.fd)
        let slot = connection.slot
        var offset = 0
        if states[slot].isUnusual {
            guard resume(&connection, input, at: &offset, &output) else { return offset }
        }
        var parser = states[slot].parser
        var done = 0
        steps: while true {
            switch runner.run(&connection, &parser, input, at: &offset, &output, &done) {
            case .goOn: continue
            case .stop: break steps
            case .receive(let pending):
                states[slot].pending = pending
                connection.fill(pending.item.value, count: pending.request.valueLength)
                break steps
            }
        }
        states[slot].parser = parser
        runner.executor.endTurn()
        return offset
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
        runner.executor.beginTurn(fd: connection.fd)
        runner.executor.commit(pending, &connection, &output)
        runner.executor.endTurn()
    }

    func datagram(_ datagram: borrowing Datagram, _ input: Span<UInt8>, _ output: inout OutputBuffer) {
        runner.executor.beginTurn(fd: 0)
        runner.runDatagram(datagram.tag, input, &output)
        runner.executor.endTurn()
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
                runner.executor.commit(pending, &connection, &output)
            } else {
                node.engine.discard(pending.item)
                runner.executor.refuse(.badDataChunk, pending.request, &output)
            }
        }
        return states[slot].mustLogIn ? logIn(&connection, input, at: &offset, &output) : true
    }

    /// Text under `-Y`: nothing but a login is understood.
    private func logIn(
        _ connection: inout Connection, _ input: Span<UInt8>, at offset: inout Int, _ output: inout OutputBuffer
    ) -> Bool {
        let slot = connection.slot
        while states[slot].mustLogIn {
            guard offset < input.count else { return false }
            switch states[slot].login.next(input, at: &offset) {
            case .incomplete(let needed):
                if needed > 0 { connection.minimumInput(needed) }
                return false
            case .close:
                connection.closeAfterFlush()
                return false
            case .refused(let error): error.appendText(to: &output)
            case .credentials(let user, let password):
                let isRight =
                    node.authentication?.accepts(
                        user: input.extracting(user), password: input.extracting(password)) ?? false
                runner.executor.noteLogin(isRight)
                if isRight {
                    states[slot].mustLogIn = false
                    output.append("STORED\r\n")
                } else {
                    ErrorReply.loginFailed.appendText(to: &output)
                }
            }
        }
        return true
    }
}
