// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Reactor
internal import Storage

/// The connection to a region that is asked.
private struct WatchLine {
    enum State: Equatable {
        case waiting(until: UInt64)
        case resolving
        case connecting(ConnectionID, since: UInt64)
        case open(ConnectionID)
    }

    var state = State.waiting(until: 0)
    var endpoint = 0
    var addresses: ArraySlice<SocketAddress> = []
    /// When it was asked last, and whether the answer is due.
    var asked: UInt64 = 0
    var isAsked = false
    /// The numbers of the commands that were sent over it and are not answered, in the order of the answers.
    var sent: ArraySlice<UInt64> = []

    var id: ConnectionID? {
        switch state {
        case .waiting, .resolving: nil
        case .connecting(let id, _), .open(let id): id
        }
    }
}

/// Asks on its one reactor: a connection to each region, made again when it is lost.
final class WatchHandler: ReactorHandler {
    private let shared: WatchShared
    private let reactor: Reactor
    private var lines: [WatchLine]

    init(_ shared: WatchShared, _ reactor: Reactor) {
        self.shared = shared
        self.reactor = reactor
        lines = shared.peers.map { _ in WatchLine() }
    }

    private var configuration: StreamDirectConfiguration { shared.configuration }

    func started(_ loop: inout ReactorLoop) { tick(&loop, now: reactor.nowNanoseconds) }

    func tick(_ loop: inout ReactorLoop, now: UInt64) {
        for index in lines.indices {
            switch lines[index].state {
            case .waiting(let until): if now >= until { begin(index, &loop) }
            case .resolving: break
            case .connecting(let id, let since):
                if now > since &+ configuration.silenceNanoseconds { lost(index, "it does not answer", id, &loop) }
            case .open(let id):
                let line = lines[index]
                if line.isAsked, now > line.asked &+ configuration.silenceNanoseconds {
                    lost(index, "it says nothing", id, &loop)
                } else if !line.isAsked, now >= line.asked &+ configuration.askNanoseconds {
                    loop.withConnection(id) { _, output in ask(index, &output) }
                }
            }
        }
        sendCommand(&loop)
    }

    func message(_ message: ReactorMessage, _ loop: inout ReactorLoop) {
        switch message.kind {
        case WatchShared.commandKind: sendCommand(&loop)
        case WatchShared.resolvedKind:
            for index in lines.indices where lines[index].state == .resolving {
                let found = shared.resolved.withLock { resolved in
                    defer { resolved[index] = nil }
                    return resolved[index]
                }
                switch found {
                case nil: break
                case .failure(let error): failed(index, error.description)
                case .success(let addresses):
                    lines[index].addresses = addresses[...]
                    connect(index, &loop)
                }
            }
        default: break
        }
    }

    // MARK: Connections

    private func begin(_ index: Int, _ loop: inout ReactorLoop) {
        if !lines[index].addresses.isEmpty { return connect(index, &loop) }
        let endpoints = shared.peers[index].endpoints
        guard !endpoints.isEmpty else { return failed(index, "it has no address") }
        lines[index].state = .resolving
        do throws(SystemError) {
            try shared.resolve(endpoints[lines[index].endpoint % endpoints.count], for: index)
        } catch { failed(index, error.description) }
    }

    private func connect(_ index: Int, _ loop: inout ReactorLoop) {
        let tls = shared.certificates.withLock { $0[index] }
        guard let address = lines[index].addresses.popFirst(),
            let id = loop.connect(to: address, tag: UInt64(index), tls: tls)
        else { return failed(index, "the kernel refuses to connect") }
        lines[index].state = .connecting(id, since: reactor.nowNanoseconds)
    }

    /// Goes on with the next address, soon; with the next endpoint, when there is none.
    private func failed(_ index: Int, _ reason: String) {
        let hasMore = !lines[index].addresses.isEmpty
        if !hasMore { lines[index].endpoint += 1 }
        let isLast = !hasMore && lines[index].endpoint % max(1, shared.peers[index].endpoints.count) == 0
        let wait = isLast ? configuration.askNanoseconds : 0
        lines[index].state = .waiting(until: reactor.nowNanoseconds &+ wait)
        lines[index].isAsked = false
        shared.states.withLock { states in
            states[index].reason = reason
            if isLast { states[index].failures += 1 }
        }
        // Behind that: it is no failure since the next command, which who hears of this may give at once.
        let sent = lines[index].sent
        lines[index].sent = []
        for number in sent { answer(number, .unknown("the connection ended before the answer")) }
        shared.parking.announce()
    }

    private func lost(_ index: Int, _ reason: String, _ id: ConnectionID, _ loop: inout ReactorLoop) {
        failed(index, reason)
        loop.close(id)
    }

    func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        let index = Int(truncatingIfNeeded: connection.tag)
        guard lines.indices.contains(index), lines[index].id == connection.id else { return connection.closeNow() }
        lines[index].state = .open(connection.id)
        ask(index, &output)
    }

    func closed(_ connection: inout Connection, _ reason: CloseReason) {
        let index = Int(truncatingIfNeeded: connection.tag)
        guard lines.indices.contains(index), lines[index].id == connection.id else { return }
        let known = shared.states.withLock { $0[index].reason }
        failed(index, known.isEmpty ? "the connection ended: \(reason)" : known)
    }

    // MARK: Questions and answers

    private func send(_ frame: StreamFrame, _ output: inout OutputBuffer) {
        var bytes: [UInt8] = []
        frame.encode(into: &bytes)
        output.append(bytes.span)
    }

    private func ask(_ index: Int, _ output: inout OutputBuffer) {
        (lines[index].asked, lines[index].isAsked) = (reactor.nowNanoseconds, true)
        send(.ask(cluster: configuration.cluster, region: configuration.region), &output)
    }

    /// Tells a region what it is to be told, behind a question over the same connection.
    ///
    /// One that was given up stays among those that were sent: the next goes the same way, so that the node hears it
    /// later, and its answer is the one behind.
    private func sendCommand(_ loop: inout ReactorLoop) {
        let due = shared.command.withLock { $0.isDue ? $0.region : nil }
        guard let due, let index = shared.peers.firstIndex(where: { $0.region == due }),
            case .open(let id) = lines[index].state
        else { return }
        loop.withConnection(id) { _, output in
            // In one step: who gives it up meanwhile takes it for one that nobody heard of, and then nobody does.
            let command = shared.command.withLock { command -> WatchCommand? in
                guard command.isDue, command.region == due else { return nil }
                command.isSent = true
                return command
            }
            guard let command else { return }
            lines[index].sent.append(command.number)
            // The answer to the fence may take its time.
            lines[index].asked = reactor.nowNanoseconds &+ 5_000_000_000
            send(command.frame, &output)
        }
    }

    /// What came of a command that was sent; nothing is done where another was given since, or it was given up.
    private func answer(_ number: UInt64, _ answer: HomeAnswer) {
        shared.command.withLock { command in
            if command.number == number, command.answer == nil { command.answer = answer }
        }
        shared.parking.announce()
    }

    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        let index = Int(truncatingIfNeeded: connection.tag)
        guard lines.indices.contains(index), lines[index].id == connection.id else {
            connection.closeNow()
            return input.count
        }
        var offset = 0
        while offset < input.count, !connection.isClosing {
            switch StreamFrame.read(input.extracting(offset..<input.count)) {
            case .incomplete(let needed):
                connection.minimumInput(needed)
                return offset
            case .invalid(let reason):
                shared.states.withLock { $0[index].reason = reason }
                connection.closeNow()
                return input.count
            case .frame(let frame, let bytes):
                offset += bytes
                take(frame, index, &connection)
            }
        }
        return offset
    }

    private func take(_ frame: StreamFrame, _ index: Int, _ connection: inout Connection) {
        switch frame {
        case .home(let term, let succession):
            lines[index].isAsked = false
            shared.states.withLock { states in
                states[index].answers += 1
                (states[index].last, states[index].term) = (Clock.monotonicNanoseconds(), term)
                states[index].reason = ""
            }
            shared.heard(term, succession, shared.peers[index].region)
            shared.parking.announce()
        case .done, .contested:
            // One that nobody waits for is no answer to anything that comes later.
            if let number = lines[index].sent.popFirst() {
                if case .contested(let term) = frame { return answer(number, .contested(term)) }
                return answer(number, .done)
            }
            shared.states.withLock { $0[index].reason = "it does not keep to the protocol" }
            connection.closeNow()
        case .refused(let reason):
            if let number = lines[index].sent.popFirst() { answer(number, .refused(reason)) }
            shared.states.withLock { $0[index].reason = "refused: \(reason)" }
            connection.closeNow()
        default:
            shared.states.withLock { $0[index].reason = "it does not keep to the protocol" }
            connection.closeNow()
        }
    }
}
