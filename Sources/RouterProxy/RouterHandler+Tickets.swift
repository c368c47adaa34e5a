// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Telemetry
internal import Tracing

/// Replies in the order of their requests: what is first goes out, what comes before its turn is kept.
extension RouterHandler {
    /// Adds bytes to the reply of a ticket.
    @inline(__always)
    func append(to ticket: Int, _ bytes: Span<UInt8>) {
        let slot = ConnectionID(rawValue: tickets[ticket].client).slot
        if clients[slot].first == Int32(truncatingIfNeeded: ticket) {
            emit(slot, ticket, bytes)
        } else {
            stash(slot, ticket, bytes)
        }
    }

    /// Writes bytes of a client's first ticket.
    @inline(__always)
    private func emit(_ slot: Int, _ ticket: Int, _ bytes: Span<UInt8>) {
        if clients[slot].traits.contains(.skipping), tickets[ticket].traits.contains(.partOfGet) { return }
        let buffer = readyBuffer(slot)
        buffers[buffer].bytes.append(bytes)
    }

    /// The buffer of what a client gets when the turn ends.
    @inline(__always)
    func readyBuffer(_ slot: Int) -> Int {
        if clients[slot].ready < 0 {
            clients[slot].ready = takeBuffer()
            markDirty(client: slot)
        }
        return Int(clients[slot].ready)
    }

    private func stash(_ slot: Int, _ ticket: Int, _ bytes: Span<UInt8>) {
        // A chunk of nothing would outlive the stash, which ends when all that it holds went out.
        guard !bytes.isEmpty else { return }
        if clients[slot].stash < 0 { clients[slot].stash = takeBuffer() }
        let buffer = Int(clients[slot].stash)
        let offset = buffers[buffer].bytes.count
        meter.counters.add(.stashedBytes, UInt64(bytes.count))
        let last = Int(tickets[ticket].lastChunk)
        if last >= 0, chunks[last].offset &+ chunks[last].length == offset {
            chunks[last].length &+= bytes.count
        } else if let index = chunks.take() {
            chunks[index] = Chunk(offset: offset, length: bytes.count)
            let number = Int32(truncatingIfNeeded: index)
            if last >= 0 { chunks[last].next = number } else { tickets[ticket].firstChunk = number }
            tickets[ticket].lastChunk = number
        } else {
            clients[slot].traits.insert(.broken)
            markDirty(client: slot)
            return
        }
        buffers[buffer].bytes.append(bytes)
        clients[slot].stashed &+= bytes.count
        if clients[slot].stashed > limits.stashBytes {
            clients[slot].traits.insert(.broken)
            markDirty(client: slot)
        }
    }

    /// A get of several keys was answered with an error: the client gets it in place of what is left.
    func errorOfGet(_ ticket: Int, _ line: Span<UInt8>) {
        append(to: ticket, line)
        let traits = tickets[ticket].traits.intersection([.partOfGet, .lastOfGet])
        guard traits.contains(.partOfGet) else { return }
        // A part that is not the first in line says so when its turn has come.
        tickets[ticket].traits.insert(.endsWithError)
        let slot = ConnectionID(rawValue: tickets[ticket].client).slot
        if clients[slot].first == Int32(truncatingIfNeeded: ticket) { clients[slot].traits.insert(.skipping) }
    }

    /// Everything of a ticket's reply is there.
    @inline(__always)
    func done(_ ticket: Int) {
        tickets[ticket].call = -1
        tickets[ticket].traits.insert(.done)
        let slot = ConnectionID(rawValue: tickets[ticket].client).slot
        if clients[slot].first == Int32(truncatingIfNeeded: ticket) { advance(slot) }
    }

    /// A ticket gets no reply of a server.
    func fail(_ ticket: Int, _ failure: RouteFailure) {
        if tickets[ticket].traits.contains(.midValue) {
            let slot = ConnectionID(rawValue: tickets[ticket].client).slot
            clients[slot].traits.insert(.broken)
            markDirty(client: slot)
        }
        if tickets[ticket].remaining > 0 { return answered(broadcast: ticket, failure) }
        tickets[ticket].failure = failure
        done(ticket)
    }

    /// Takes what is done off the front of a client's tickets.
    @inline(__always)
    private func advance(_ slot: Int) {
        while clients[slot].first >= 0 {
            let ticket = Int(clients[slot].first)
            if tickets[ticket].firstChunk >= 0 { emitStash(slot, ticket) }
            guard tickets[ticket].traits.contains(.done) else { return }
            if traces { endSpan(ofTicket: ticket) }
            if tickets[ticket].failure != .none { writeFailure(slot, ticket) }
            if tickets[ticket].traits.contains(.partOfGet) { endPart(slot, ticket) }
            clients[slot].first = tickets[ticket].next
            clients[slot].count &-= 1
            clients[slot].finished &+= 1
            tickets.give(ticket)
        }
        clients[slot].last = -1
        markDirty(client: slot)
        if clients[slot].stash >= 0 {
            giveBuffer(clients[slot].stash)
            clients[slot].stash = -1
            clients[slot].stashed = 0
        }
    }

    @inline(never)
    private func endPart(_ slot: Int, _ ticket: Int) {
        if tickets[ticket].traits.contains(.endsWithError) { clients[slot].traits.insert(.skipping) }
        if tickets[ticket].traits.contains(.lastOfGet) { clients[slot].traits.remove(.skipping) }
    }

    @inline(never)
    private func emitStash(_ slot: Int, _ ticket: Int) {
        let stash = Int(clients[slot].stash)
        var next = Int(tickets[ticket].firstChunk)
        tickets[ticket].firstChunk = -1
        tickets[ticket].lastChunk = -1
        while next >= 0 {
            let chunk = chunks[next]
            chunks.give(next)
            if !clients[slot].traits.contains(.skipping) || !tickets[ticket].traits.contains(.partOfGet) {
                let ready = readyBuffer(slot)
                buffers[ready].bytes.append(
                    buffers[stash].bytes, own: chunk.offset..<chunk.offset &+ chunk.length, externals: 0..<0)
            }
            clients[slot].stashed &-= chunk.length
            next = Int(chunk.next)
        }
        if clients[slot].stashed == 0 {
            buffers[stash].bytes.removeAll()
        } else if buffers[stash].bytes.count > 4 * clients[slot].stashed &+ 64 << 10 {
            compactStash(slot)
        }
    }

    /// Leaves out what of a stash went out: keeps a client that always has something outstanding from growing for ever.
    private func compactStash(_ slot: Int) {
        let old = Int(clients[slot].stash)
        let fresh = takeBuffer()
        var ticket = Int(clients[slot].first)
        while ticket >= 0 {
            var next = Int(tickets[ticket].firstChunk)
            while next >= 0 {
                let chunk = chunks[next]
                chunks[next].offset = buffers[Int(fresh)].bytes.count
                buffers[Int(fresh)].bytes.append(
                    buffers[old].bytes, own: chunk.offset..<chunk.offset &+ chunk.length, externals: 0..<0)
                next = Int(chunk.next)
            }
            ticket = Int(tickets[ticket].next)
        }
        giveBuffer(Int32(old))
        clients[slot].stash = fresh
    }

    @inline(never)
    private func writeFailure(_ slot: Int, _ ticket: Int) {
        let entry = tickets[ticket]
        if entry.traits.contains(.silent) || clients[slot].traits.contains(.broken) { return }
        if entry.traits.contains(.partOfGet) {
            guard !clients[slot].traits.contains(.skipping) else { return }
            clients[slot].traits.insert(.skipping)
        }
        let buffer = readyBuffer(slot)
        guard entry.form == .binary else { return buffers[buffer].bytes.append(entry.failure.text) }
        let status = entry.failure.status
        buffers[buffer].bytes.appendBinaryHeader(
            opcode: entry.opcode, status: status, extrasLength: 0, keyLength: 0,
            bodyLength: status.text.utf8CodeUnitCount, opaque: entry.opaque, cas: 0)
        buffers[buffer].bytes.append(status.text)
    }

    /// A client is gone: nobody waits for what it asked.
    func clientClosed(_ slot: Int, _ id: ConnectionID) {
        guard slot < clients.count, clients[slot].id == id.rawValue else { return }
        var next = Int(clients[slot].first)
        while next >= 0 {
            let ticket = tickets[next]
            if ticket.call >= 0 { calls[Int(ticket.call)].ticket = -1 }
            if ticket.routed >= 0 { forget(routed: Int(ticket.routed)) }
            var chunk = Int(ticket.firstChunk)
            while chunk >= 0 {
                let after = Int(chunks[chunk].next)
                chunks.give(chunk)
                chunk = after
            }
            if ticket.remaining > 0 { forgetBroadcast(next) }
            if ticket.span >= 0 { endSpan(Int(ticket.span), .clientGone) }
            tickets.give(next)
            next = Int(ticket.next)
        }
        releaseIncoming(slot)
        clients[slot].identity.leave()
        if clients[slot].ready >= 0 { giveBuffer(clients[slot].ready) }
        if clients[slot].stash >= 0 { giveBuffer(clients[slot].stash) }
        let isListed = clients[slot].traits.contains(.dirty)
        clients[slot] = ClientState()
        // The list still has the slot.
        if isListed { clients[slot].traits.insert(.dirty) }
    }
}
