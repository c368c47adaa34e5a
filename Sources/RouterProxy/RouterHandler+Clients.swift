// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Telemetry

/// What goes out to clients, and what the router answers by itself.
extension RouterHandler {
    /// Sends what a client gets in this turn, and lets its input go on.
    func flush(client slot: Int, _ loop: inout ReactorLoop) {
        clients[slot].traits.remove(.dirty)
        guard clients[slot].id != .max else { return }
        let id = ConnectionID(rawValue: clients[slot].id)
        let ready = clients[slot].ready
        clients[slot].ready = -1
        if ready >= 0 { noteReplies(slot, bytes: buffers[Int(ready)].bytes.count) }
        if ready >= 0, clients[slot].identity.tenant != nil { charge(slot, bytes: buffers[Int(ready)].bytes.count) }
        let allowed = limits.clientRequests
        let limit = limits.clientReplyBytes
        loop.withConnection(id) { connection, output in
            if clients[slot].traits.contains(.broken) { return connection.closeNow() }
            if ready >= 0 {
                if output.isEmpty {
                    swap(&output, &buffers[Int(ready)].bytes)
                } else {
                    output.append(buffers[Int(ready)].bytes, from: 0, externalStart: 0)
                }
            }
            if clients[slot].count == 0 { connection.release() }
            guard clients[slot].traits.contains(.paused), Int(clients[slot].count) <= allowed / 2,
                Int(clients[slot].count) &* clients[slot].typicalReply <= limit / 2
            else { return }
            clients[slot].traits.remove(.paused)
            connection.resumeReading()
        }
        if ready >= 0 { giveBuffer(ready) }
    }

    /// Charges a tenant for replies.
    @inline(never)
    private func charge(_ slot: Int, bytes: Int) {
        let free = min(clients[slot].freeBytes, bytes)
        clients[slot].freeBytes -= free
        clients[slot].identity.tenant?.charge(bytes: bytes - free, at: now, reactor: reactor.index)
    }

    /// Learns how large a client's replies are.
    @inline(__always)
    private func noteReplies(_ slot: Int, bytes: Int) {
        let finished = clients[slot].finished
        clients[slot].finished = 0
        let each = bytes / max(finished, 1)
        let old = clients[slot].typicalReply
        // Up at once, down slowly.
        clients[slot].typicalReply = each >= old ? each : (7 &* old &+ each) / 8
    }

    /// A request that the router answers by itself.
    @inline(never)
    func answer(
        _ slot: Int, _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ connection: inout Connection,
        _ output: inout OutputBuffer
    ) {
        meter.counters.add(.others)
        let line = input.extracting(request.lineOffset..<request.lineOffset + request.lineLength)
        switch request.verb {
        case .protocolError: refuse(slot, request, request.error, &output)
        case .metaNoop: reply(slot, request, &output) { $0.append("MN\r\n") }
        case .noop: reply(slot, request, &output) { $0.appendBinaryHeader(replyTo: request) }
        case .version: reply(slot, request, &output) { Self.appendVersion(request, &$0) }
        case .verbosity:
            if !request.isQuiet { reply(slot, request, &output) { $0.append("OK\r\n") } }
        case .quit:
            if request.form == .binary, !request.isQuiet {
                reply(slot, request, &output) { $0.appendBinaryHeader(replyTo: request) }
            }
            connection.closeAfterFlush()
        case .flushAll: flushAll(slot, request, &output)
        case .stats: statistics(slot, request, key: key, line, &output)
        case .shutdown: refuse(slot, request, .shutdownNotEnabled, &output)
        case .config: tellCluster(slot, request, line, &output)
        case .watch, .cacheMemlimit, .lruCrawler, .lru, .slabs, .extstore, .refreshCerts, .debugtime:
            refuseForeign(slot, request, line, &output)
        default: refuse(slot, request, .error, &output)
        }
    }

    private static func appendVersion(_ request: Request, _ output: inout OutputBuffer) {
        if request.form == .binary {
            output.appendBinaryHeader(replyTo: request, bodyLength: ProductVersion.memcached.utf8.count)
            output.append(string: ProductVersion.memcached)
        } else if !request.isQuiet {
            output.append("VERSION ")
            output.append(string: ProductVersion.memcached)
            output.append("\r\n")
        }
    }

    /// Writes a reply of the router's own, behind those that are outstanding.
    func reply(_ slot: Int, _ request: Request, _ output: inout OutputBuffer, _ write: (inout OutputBuffer) -> Void) {
        if clients[slot].count == 0, clients[slot].ready < 0 { return write(&output) }
        guard let ticket = openTicket(slot, request) else { return }
        tickets[ticket].traits.remove(.silent)
        let scratch = takeBuffer()
        write(&buffers[Int(scratch)].bytes)
        buffers[Int(scratch)].bytes.withSpan { append(to: ticket, $0) }
        giveBuffer(scratch)
        done(ticket)
    }

    /// Refuses a request in memcached's words.
    func refuse(_ slot: Int, _ request: Request, _ error: ErrorReply, _ output: inout OutputBuffer) {
        meter.counters.add(.refused)
        if request.form == .classic, request.isQuiet { return }
        reply(slot, request, &output) { $0.append(error, replyTo: request) }
    }

    /// Refuses what is about one server's insides.
    private func refuseForeign(_ slot: Int, _ request: Request, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        meter.counters.add(.refused)
        if request.isQuiet { return }
        var end = 0
        while end < line.count, line[end] > 0x20 { end += 1 }
        let name = [UInt8](copying: line.extracting(0..<end))
        reply(slot, request, &output) { output in
            output.append("SERVER_ERROR the router does not pass on ")
            output.append(name.span)
            output.append("\r\n")
        }
    }
}
