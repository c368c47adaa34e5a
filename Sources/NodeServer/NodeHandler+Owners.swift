// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Storage

/// Requests of clients that cannot be told whose a key is: asked of the owner, and answered with what it says.
extension NodeHandler {
    /// The mark of a connection to another node in its tag; the rest is the lane's number.
    static var ownerMark: UInt64 { 1 << 63 }

    func turnEnded(_ loop: inout ReactorLoop) {
        guard node.ownership != nil else { return }
        while true {
            let due = ownerDue
            ownerDue = []
            for id in due { loop.withConnection(id) { connection, output in drain(&connection, &output) } }
            let now = reactor.nowNanoseconds
            let again = ownerRetries.filter { $0.due <= now }.map(\.command)
            ownerRetries.removeAll { $0.due <= now }
            let commands = runner.executor.outgoing + again
            runner.executor.outgoing = []
            if commands.isEmpty && due.isEmpty { break }
            for command in commands { send(command) }
            for lane in ownerLanes where lane.isDirty { flush(lane, &loop) }
        }
        settleRows()
        loop.wakeNanoseconds = ownerRetries.map(\.due).min() ?? 0
    }

    /// Gives up what waits too long, and lanes that lead to nobody any more.
    func tickOwners(_ loop: inout ReactorLoop) {
        for lane in ownerLanes where !lane.owner.isEmpty {
            if let command = lane.oldest, command.deadline <= reactor.nowNanoseconds {
                if let id = lane.connection { loop.close(id) } else { failAll(lane, isSent: false) }
            } else if lane.count == 0, node.ownership?.address(of: lane.owner) == nil {
                if let id = lane.connection { loop.close(id) }
                lane.owner = ""
            }
        }
    }

    private func send(_ command: ForwardedCommand) {
        let isBinary = command.parked.request.form == .binary
        let lane = ownerLane(command.owner, isBinary: isBinary)
        let bytes = command.bytes
        let waiting = bytes.count > 1024 ? ownerBacklog.bytes : 0
        guard lane.count < OwnerLane.callLimit, waiting == 0 || waiting + bytes.count <= OwnerLane.byteLimit else {
            return fail(command, .notSent, "too many commands wait for the key's owner")
        }
        if lane.connection == nil, lane.count == 0 { lane.greet() }
        lane.append(command)
        lane.pending.append(bytes.span)
        lane.isDirty = true
    }

    private func ownerLane(_ owner: String, isBinary: Bool) -> OwnerLane {
        if let known = ownerLanes.first(where: { $0.owner == owner && $0.isBinary == isBinary }) { return known }
        let lane: OwnerLane
        if let free = ownerLanes.first(where: { $0.owner.isEmpty && $0.isBinary == isBinary && $0.connection == nil }) {
            lane = free
        } else {
            lane = OwnerLane(isBinary: isBinary, ownerBacklog)
            ownerLanes.append(lane)
        }
        lane.owner = owner
        return lane
    }

    private func flush(_ lane: OwnerLane, _ loop: inout ReactorLoop) {
        lane.isDirty = false
        guard let id = lane.connection else {
            guard let address = node.ownership?.address(of: lane.owner),
                let number = ownerLanes.firstIndex(where: { $0 === lane }),
                let made = loop.connect(to: address, tag: Self.ownerMark | UInt64(number))
            else { return failAll(lane, isSent: false) }
            lane.connection = made
            return
        }
        guard lane.isOpen, lane.pending.count > 0 else { return }
        loop.withConnection(id) { _, output in
            output.append(lane.pending, from: 0, externalStart: 0)
            lane.pending.removeAll()
        }
    }

    // MARK: Calls of the reactor

    func ownerOpened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        let lane = ownerLanes[Int(truncatingIfNeeded: connection.tag & ~Self.ownerMark)]
        lane.isOpen = true
        output.append(lane.pending, from: 0, externalStart: 0)
        lane.pending.removeAll()
    }

    func ownerClosed(_ connection: inout Connection) {
        let lane = ownerLanes[Int(truncatingIfNeeded: connection.tag & ~Self.ownerMark)]
        guard lane.connection == connection.id else { return }
        lane.connection = nil
        failAll(lane, isSent: lane.isOpen)
        lane.isOpen = false
    }

    func ownerReceived(_ connection: inout Connection, _ input: Span<UInt8>) -> Int {
        let lane = ownerLanes[Int(truncatingIfNeeded: connection.tag & ~Self.ownerMark)]
        var offset = 0
        while offset < input.count {
            guard let call = lane.first,
                let length = OwnerLane.replyLength(to: call, isBinary: lane.isBinary, input, at: offset)
            else {
                if lane.first == nil { connection.closeNow() }
                return offset
            }
            guard length > 0 else {
                connection.closeNow()
                return input.count
            }
            lane.removeFirst()
            if let command = call { answer(command, input.extracting(offset..<offset + length)) }
            offset += length
        }
        return offset
    }

    // MARK: Answers

    private func failAll(_ lane: OwnerLane, isSent: Bool) {
        lane.pending.removeAll()
        for command in lane.takeAll() {
            if isSent {
                fail(command, .unknownOutcome, "the owner's connection was lost")
            } else {
                fail(command, .notSent, "the key's owner cannot be reached")
            }
        }
    }

    private func fail(_ command: ForwardedCommand, _ kind: StorageFailure.Kind, _ reason: String) {
        let failure = StorageFailure(command.parked.changesNothing ? .notSent : kind, reason)
        command.parked.take(.write(token: command.parked.token, .failed(failure)))
        finish(command)
    }

    private func answer(_ command: ForwardedCommand, _ reply: Span<UInt8>) {
        let request = command.parked.request
        if request.form != .binary, reply.holds("SERVER_ERROR 302 try again ", at: 0), command.hops < 64,
            reactor.nowNanoseconds < command.deadline
        {
            let words = String(decoding: [UInt8](copying: reply), as: UTF8.self).split { $0 == " " || $0.isNewline }
            if words.count == 6 { command.owner = String(words[5]) }
            command.hops += 1
            // Nodes that do not agree yet will soon.
            let pause = command.hops == 1 ? 0 : UInt64(min(command.hops, 10)) * 5_000_000
            return ownerRetries.append((reactor.nowNanoseconds &+ pause, command))
        }
        command.parked.takeForwarded(request.reply(toForwarded: reply))
        let last = reply.count >= 5 && reply.holds("END\r\n", at: reply.count - 5)
        command.parked.endsGet = request.isClassicGet && !last
        finish(command)
    }

    /// Lets the client's connection go on.
    private func finish(_ command: ForwardedCommand) {
        let parked = command.parked
        runner.executor.finishForwarded(parked)
        let slot = parked.connection.slot
        // The connection may be gone, and its slot another's.
        guard slot < states.count, let queue = states[slot].replies, queue.connection == parked.connection
        else { return }
        queue.noteRow(of: parked)
        rows.add(parked.rowBytes)
        guard queue.isHeadReady, !queue.isDue else { return }
        queue.isDue = true
        ownerDue.append(parked.connection)
    }
}

extension Request {
    /// What the client is to see of its owner's reply.
    fileprivate func reply(toForwarded reply: Span<UInt8>) -> [UInt8] {
        var bytes = [UInt8](copying: reply)
        if form == .binary { bytes[1] = opcode }
        if isClassicGet, !isLastKeyOfGet, reply.count >= 5, reply.holds("END\r\n", at: reply.count - 5) {
            bytes.removeLast(5)
        }
        let isHidden: Bool =
            switch hideRule {
            case .nothing: false
            case .everything: !isClassicGet
            case .metaMiss: reply.holds("EN\r\n", at: 0)
            case .metaHit: reply.holds("HD", at: 0) || reply.holds("VA ", at: 0)
            case .binaryMiss: reply.bigEndian(at: 6, as: UInt16.self) == BinaryStatus.notFound.rawValue
            case .binaryHit: reply.bigEndian(at: 6, as: UInt16.self) == BinaryStatus.success.rawValue
            }
        return isHidden ? [] : bytes
    }
}
