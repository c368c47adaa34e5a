// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It and the group's buffer are touched by the reactor's thread only.

/// Connections that are ready together and send little: all are read first, then offered one after another.
///
/// One request at a time, as most clients send, would wait for each of its cache misses; of sixteen connections the
/// misses overlap as those of a pipelined batch do.
extension ReactorLoop {
    /// Reads the input of a connection into the group, unless it is one that must be served by itself: false then.
    @inline(__always)
    mutating func gather(_ user: UInt64, _ readiness: Readiness) -> Bool {
        guard readiness == .input, user &>> 56 != Self.ownMark,
            let connection = unsafe table.find(ConnectionID(rawValue: user)),
            unsafe isPlainReader(connection)
        else { return false }
        let length = unsafe StreamSocket.read(connection.pointee.fd, group.unsafeNext, InputGroup.sliceBytes)
        reactor.counters.add(.readCalls)
        guard length > 0 else {
            _ = unsafe endRead(connection, length)
            return true
        }
        reactor.counters.add(.bytesRead, UInt64(truncatingIfNeeded: length))
        if length == InputGroup.sliceBytes {
            unsafe connection.pointee.flags.insert(.sendsMuch)
            unsafe connection.pointee.smallReads = 0
            unsafe watchLevel(connection)
        } else if unsafe connection.pointee.interest == .input, unsafe connection.pointee.transport == .tcp {
            // The socket is empty: nothing is left that an edge would not tell of.
            unsafe watch(connection, Connection.rest)
        }
        unsafe group.add(connection.pointee.id, length)
        if group.isFull { runGroup() }
        return true
    }

    /// Lets a connection that sent much back into groups when it has long sent little.
    func noteSize(_ connection: UnsafeMutablePointer<Connection>, _ count: Int) {
        guard count < InputGroup.sliceBytes else {
            unsafe connection.pointee.smallReads = 0
            return
        }
        unsafe connection.pointee.smallReads += 1
        if unsafe connection.pointee.smallReads == Self.smallReadsOfGroup {
            unsafe connection.pointee.flags.remove(.sendsMuch)
        }
    }

    private static var smallReadsOfGroup: UInt8 { 64 }

    @inline(__always)
    private func isPlainReader(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        unsafe connection.pointee.flags.isDisjoint(with: .staysAlone) && connection.pointee.backlog == nil
            && connection.pointee.kept.count == 0 && connection.pointee.fillTarget == nil
            && connection.pointee.session == nil
    }

    /// Offers what the group holds.
    mutating func runGroup() {
        if group.count > 1 { handler.foresee(group) }
        for index in 0..<group.count {
            // Closed by what another connection asked for: its input is of no use.
            guard let connection = unsafe table.find(group.connection(index)) else { continue }
            let (base, count) = unsafe group.unsafeInput(index)
            guard let consumed = unsafe offer(connection, base, count) else { continue }
            if consumed < count { unsafe connection.pointee.kept.replace(base + consumed, count - consumed, &pool) }
            guard unsafe settle(connection), count == InputGroup.sliceBytes, unsafe wantsInput(connection) else {
                continue
            }
            // There may be more, and nobody to wait for.
            unsafe readInput(connection)
        }
        group.removeAll()
    }
}
