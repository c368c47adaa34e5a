// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Storage

/// Replies that wait for the store: kept in order behind each other, and sent when their answers come.
extension NodeHandler {
    func message(_ message: ReactorMessage, _ loop: inout ReactorLoop) {
        switch message.kind {
        case StorageMailbox.messageKind: deliverAnswers(&loop)
        case Self.drainKind: drainOn(&loop)
        default: break
        }
    }

    /// The kind of the message by which a reactor reminds itself of connections with more to send.
    private static var drainKind: UInt32 { 2 }

    func drained(_ connection: inout Connection, _ output: inout OutputBuffer) {
        if connection.tag & Self.ownerMark != 0 { return }
        if states[connection.slot].replies != nil { drain(&connection, &output) }
    }

    /// Keeps what a turn wrote behind replies that wait, or from the first reply that waits on.
    func settleReplies(
        _ connection: inout Connection, from mark: (bytes: Int, externals: Int), _ output: inout OutputBuffer
    ) {
        let slot = connection.slot
        let parks = runner.executor.parks
        let cut: (bytes: Int, externals: Int)
        let queue: ReplyQueue
        if let waiting = states[slot].replies {
            (queue, cut) = (waiting, mark)
        } else if let first = parks.first {
            (queue, cut) = (ReplyQueue(connection.id), (first.position, first.externalCount))
            states[slot].replies = queue
            connection.hold()
        } else {
            return
        }
        let held = queue.rowBytes
        queue.take(&output, from: cut, parks)
        let came = queue.rowBytes - held
        if came > 0 { rows.add(came) }
        runner.executor.parks.removeAll(keepingCapacity: true)
        if queue.isFull(entryLimit: runner.executor.parkLimit), !connection.isPaused {
            queue.pausesInput = true
            connection.pauseReading()
        }
        // No answer will come for what is ready already.
        if queue.isHeadReady { drain(&connection, &output) }
        if came > 0 { settleRows() }
    }

    /// Notes the answers that came, and sends the replies that have nothing before them any more.
    func deliverAnswers(_ loop: inout ReactorLoop) {
        guard let mailbox = node.storage?.mailboxes[reactor.index] else { return }
        if !unfinished.isEmpty { drainOn(&loop) }
        guard mailbox.hasAnswers else { return }
        runner.executor.now = node.clock.second(reactor.nowNanoseconds)
        var due: [ConnectionID] = []
        for delivery in mailbox.take() {
            guard let parked = runner.executor.accept(delivery.answer, timing: delivery.timing) else { continue }
            let slot = parked.connection.slot
            // The connection may be gone, and its slot another's.
            guard let queue = states[slot].replies, queue.connection == parked.connection else { continue }
            queue.noteRow(of: parked)
            rows.add(parked.rowBytes)
            guard queue.isHeadReady, !queue.isDue else { continue }
            queue.isDue = true
            due.append(parked.connection)
        }
        for id in due {
            loop.withConnection(id) { connection, output in drain(&connection, &output) }
        }
        settleRows()
    }

    /// Sees to it that rows which wait keep within their bound, once all that can go out has gone.
    func settleRows() {
        if rows.isOver { giveUpRows() }
        publishRows()
    }

    private func publishRows() { node.storage?.mailboxes[reactor.index].rows.set(bytes: rows.bytes) }

    /// Lets rows go whose clients do not read, of those who hold the most: see ``WaitingRows``.
    private func giveUpRows() {
        let queues = states.compactMap(\.replies).filter { $0.rowBytes > 0 }
        let share = rows.share(among: queues.map(\.rowBytes))
        var count = 0
        for queue in queues where queue.rowBytes > share {
            let before = queue.rowBytes
            count += queue.giveUpRows(beyond: share)
            rows.add(queue.rowBytes - before)
        }
        node.storage?.mailboxes[reactor.index].rows.add(givenUp: count)
    }

    /// Forgets the replies that wait for a connection that is gone.
    func dropReplies(slot: Int) {
        guard let queue = states[slot].replies else { return }
        rows.add(-queue.rowBytes)
        publishRows()
        queue.drop { node.engine.unpin($0) }
    }

    /// Refuses values that stand still on their way into the store, where there is no room for others. What still comes
    /// of one is skipped.
    func giveUpUploads(_ loop: inout ReactorLoop, now: UInt64) {
        guard let intake = node.storage?.intake else { return }
        let standing = uploads.standing(at: now) { id in
            guard case .store? = states[id.slot].pending?.target else { return nil }
            var found: (bytes: Int, isKeptWaiting: Bool)?
            loop.withConnection(id) { connection, _ in
                found = (connection.filledCount, connection.isPaused || connection.pendingOutput > 0)
            }
            return found
        }
        guard intake.isFull(at: now) else { return }
        for id in standing {
            loop.withConnection(id) { connection, output in
                let slot = connection.slot
                guard let pending = states[slot].pending else { return }
                intake.noteGivenUp()
                connection.cancelFill()
                if pending.request.form != .binary { connection.swallow(2) }
                states[slot].pending = nil
                states[slot].awaitsLineEnd = false
                runner.executor.beginTurn(fd: connection.fd, connection.id, defers: states[slot].replies != nil)
                let mark = (bytes: output.count, externals: output.externals.count)
                runner.executor.refuseIncoming("the value stood still on its way", pending.request, &output)
                runner.executor.endTurn()
                settleReplies(&connection, from: mark, &output)
            }
        }
    }

    /// Goes on with connections that had more to send than one turn's worth.
    private func drainOn(_ loop: inout ReactorLoop) {
        let ids = unfinished
        unfinished = []
        for id in ids {
            loop.withConnection(id) { connection, output in drain(&connection, &output) }
        }
    }

    func drain(_ connection: inout Connection, _ output: inout OutputBuffer) {
        let slot = connection.slot
        guard let queue = states[slot].replies else { return }
        queue.isDue = false
        // What the socket has not taken goes first; `drained` comes back.
        guard connection.pendingOutput == 0 else { return }
        runner.executor.beginTurn(fd: connection.fd, connection.id)
        let engine = node.engine
        let held = queue.rowBytes
        var written = 0
        queue.drain(into: &output) { parked, output in
            let before = output.count
            defer { written += output.count - before }
            return runner.executor.finish(parked, &output)
        } release: {
            engine.unpin($0)
        }
        states[slot].identity.tenant?.charge(bytes: written, at: reactor.nowNanoseconds, reactor: reactor.index)
        if queue.rowBytes != held {
            rows.add(queue.rowBytes - held)
            publishRows()
        }
        if queue.isOver {
            states[slot].replies = nil
            connection.release()
        } else if queue.isHeadReady, output.count >= ReplyQueue.highWaterBytes {
            unfinished.append(connection.id)
            reactor.post(ReactorMessage(kind: Self.drainKind))
        }
        if queue.pausesInput, !queue.isFull(entryLimit: runner.executor.parkLimit / 2) {
            queue.pausesInput = false
            connection.resumeReading()
        }
    }
}
