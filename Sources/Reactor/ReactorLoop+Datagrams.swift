// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Memory
internal import Platform
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It, the shared buffer and the vectors are touched by the reactor's thread only.

/// UDP: memcached's protocol.txt, "UDP protocol". Requests are one datagram; replies are cut into as many as they need.
extension ReactorLoop {
    /// Request number, sequence, total and zero, two bytes each.
    private static var headerBytes: Int { 8 }
    /// The largest datagram sent, header included.
    private static var datagramBytes: Int { 1400 }

    /// The user word of a UDP socket.
    static func datagramWord(_ index: Int) -> UInt64 { ownMark &<< 56 | UInt64(index) }

    /// Takes requests, executes each and sends the reply.
    mutating func readDatagrams(_ index: Int) {
        guard index < datagramSockets.count else { return }
        sendWaiting(index)
        let socket = datagramSockets[index]
        for _ in 0..<configuration.datagramsPerTurn {
            let (count, peer) = unsafe DatagramCall.receive(socket.fd, shared, configuration.readBufferBytes)
            // Another reactor took it, or an earlier reply was refused by its receiver.
            guard count >= 0 else { return }
            reactor.counters.add(.datagramsRead)
            reactor.counters.add(.bytesRead, UInt64(count))
            let header = unsafe MemoryBlock(unsafeBase: shared, count: count)
            guard count > Self.headerBytes, header.load(4, as: UInt16.self).bigEndian == 1 else { continue }
            let envelope = Datagram(
                tag: socket.tag, listener: socket.listener, fd: socket.fd,
                requestID: header.load(0, as: UInt16.self).bigEndian, peer: peer)
            // SAFETY: the datagram's bytes stay until the call returns.
            let body = unsafe UnsafeBufferPointer(
                start: (shared + Self.headerBytes).assumingMemoryBound(to: UInt8.self), count: count - Self.headerBytes)
            unsafe handler.datagram(envelope, Span(_unsafeElements: body), &output)
            reply(index, envelope)
            dropOutput()
        }
    }

    /// Cuts the output into datagrams. The request in the shared buffer is done with; they are built there.
    private mutating func reply(_ index: Int, _ envelope: borrowing Datagram) {
        let room = Self.datagramBytes - Self.headerBytes
        let total = min((output.totalCount + room - 1) / room, Int(UInt16.max))
        var cursor = OutputCursor()
        let packet = unsafe MemoryBlock(unsafeBase: shared, count: Self.datagramBytes)
        for sequence in 0..<total {
            packet.store(envelope.requestID.bigEndian, at: 0)
            packet.store(UInt16(sequence).bigEndian, at: 2)
            packet.store(UInt16(total).bigEndian, at: 4)
            packet.store(UInt16(0), at: 6)
            let count = Self.headerBytes + cursor.copy(output, to: packet, at: Self.headerBytes)
            send(index, packet.slice(0, count), to: envelope.peer)
        }
    }

    private mutating func send(_ index: Int, _ packet: MemoryBlock, to peer: SocketAddress) {
        if datagramSockets[index].waitingBytes == 0 {
            let result = unsafe DatagramCall.send(datagramSockets[index].fd, packet.unsafeBase, packet.count, to: peer)
            guard result == StreamSocket.wouldBlock else {
                count(result)
                return
            }
        }
        guard datagramSockets[index].waitingBytes + packet.count <= configuration.pendingDatagramLimitBytes else {
            reactor.counters.add(.datagramsDropped)
            return
        }
        if datagramSockets[index].waitingBytes == 0 { rewatch(index, [.input, .output]) }
        packet.withSpan { span in
            var bytes: [UInt8] = []
            bytes.reserveCapacity(span.count)
            for position in span.indices { bytes.append(span[position]) }
            datagramSockets[index].waiting.append((peer, bytes))
        }
        datagramSockets[index].waitingBytes += packet.count
    }

    private func count(_ result: Int) {
        if result >= 0 {
            reactor.counters.add(.datagramsWritten)
            reactor.counters.add(.bytesWritten, UInt64(result))
        } else {
            reactor.counters.add(.datagramsDropped)
        }
    }

    private mutating func sendWaiting(_ index: Int) {
        while datagramSockets[index].waitingBytes > 0 {
            let socket = datagramSockets[index]
            let (peer, bytes) = socket.waiting[socket.sent]
            let result = unsafe bytes.withUnsafeBytes { buffer in
                guard let base = buffer.baseAddress else { return 0 }
                return unsafe DatagramCall.send(socket.fd, base, buffer.count, to: peer)
            }
            guard result != StreamSocket.wouldBlock else { return }
            count(result)
            datagramSockets[index].sent += 1
            datagramSockets[index].waitingBytes -= bytes.count
            if datagramSockets[index].waitingBytes == 0 {
                datagramSockets[index].waiting.removeAll()
                datagramSockets[index].sent = 0
                rewatch(index, [.input, .exclusive])
            }
        }
    }

    /// An exclusive watch cannot be changed, only made anew.
    private func rewatch(_ index: Int, _ interest: Readiness) {
        reactor.poller.remove(datagramSockets[index].fd)
        try? reactor.poller.add(datagramSockets[index].fd, interest, user: Self.datagramWord(index))
    }
}

extension OutputCursor {
    /// Copies what comes next to `target` from `offset` on, as much as fits, and moves past it; returns how much.
    mutating func copy(_ buffer: borrowing OutputBuffer, to target: MemoryBlock, at offset: Int) -> Int {
        var position = offset
        while position < target.count, !isAtEnd(of: buffer) {
            let room = target.count - position
            let step: Int
            if external < buffer.externals.count, buffer.externals[external].position == own {
                let piece = rest(of: buffer.externals[external].block)
                step = min(piece.count, room)
                target.copy(piece, from: 0, length: step, at: position)
            } else {
                step = min(ownEnd(buffer) - own, room)
                unsafe buffer.withUnsafeBytes(from: own) { bytes in
                    guard let base = bytes.baseAddress else { return }
                    // SAFETY: `step` bytes from the cursor are valid; the copy is checked against the target.
                    let source = unsafe MemoryBlock(unsafeBase: UnsafeMutableRawPointer(mutating: base), count: step)
                    target.copy(source, from: 0, length: step, at: position)
                }
            }
            // The owner is told when the whole reply is dealt with.
            advance(step, in: buffer) { _ in }
            position += step
        }
        return position - offset
    }
}
