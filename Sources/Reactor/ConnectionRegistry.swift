// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

// SAFETY (file): chunks are allocated and initialised whole and freed with the registry; a status never moves. What is
// not atomic in it is touched under the registry's lock.

/// What other threads may see of a connection.
@usableFromInline
struct SlotStatus: ~Copyable {
    /// When something was last executed, in monotonic nanoseconds.
    let activity = Atomic<UInt64>(0)
    /// A ``ConnectionState``.
    let state = Atomic<UInt8>(0)
    /// The descriptor, -1 when the slot is free; under the registry's lock.
    var fd: Int32 = -1
    /// A ``Transport``; under the registry's lock.
    var transport = Transport.tcp
    /// Whether we made the connection; under the registry's lock.
    var isOutgoing = false
}

/// A reactor's connections as other threads may see them, by slot.
@safe
final class ConnectionRegistry: @unchecked Sendable {
    // SAFETY (Sendable): `chunks` and what a status says of its descriptor are touched under `lock`, the rest is
    // atomic.
    private static var perChunk: Int { 64 }
    private let lock = Lock()
    private var chunks: [UnsafeMutablePointer<SlotStatus>]

    init() { unsafe chunks = [] }

    deinit {
        for index in unsafe chunks.indices {
            // SAFETY: every chunk was allocated and initialised whole.
            unsafe chunks[index].deinitialize(count: Self.perChunk)
            unsafe chunks[index].deallocate()
        }
    }

    /// Enters a connection; the status stays where it is as long as the registry lives.
    func enter(
        _ slot: Int, fd: Int32, transport: Transport, isOutgoing: Bool = false
    ) -> UnsafeMutablePointer<SlotStatus> {
        lock.lock()
        defer { lock.unlock() }
        while unsafe slot / Self.perChunk >= chunks.count {
            let chunk = UnsafeMutablePointer<SlotStatus>.allocate(capacity: Self.perChunk)
            // SAFETY: freshly allocated with room for as many.
            for index in 0..<Self.perChunk { unsafe (chunk + index).initialize(to: SlotStatus()) }
            unsafe chunks.append(chunk)
        }
        let status = unsafe chunks[slot / Self.perChunk] + slot % Self.perChunk
        unsafe status.pointee.fd = fd
        unsafe status.pointee.transport = transport
        unsafe status.pointee.isOutgoing = isOutgoing
        return unsafe status
    }

    /// Forgets a connection, before its descriptor is closed.
    func leave(_ status: UnsafeMutablePointer<SlotStatus>) {
        lock.withLock { unsafe status.pointee.fd = -1 }
    }

    /// How many of the peers' connections had something executed since `moment`, in monotonic nanoseconds.
    func activeCount(since moment: UInt64) -> Int {
        lock.lock()
        defer { lock.unlock() }
        var count = 0
        for index in unsafe chunks.indices {
            for slot in 0..<Self.perChunk {
                let status = unsafe chunks[index] + slot
                guard unsafe status.pointee.fd >= 0, unsafe !status.pointee.isOutgoing else { continue }
                if unsafe status.pointee.activity.load(ordering: .relaxed) >= moment { count += 1 }
            }
        }
        return count
    }

    /// Appends every open connection to `list`. Holds the lock for a chunk at a time.
    func describe(into list: inout [ConnectionDescription], now: UInt64) {
        var index = 0
        while appendChunk(index, to: &list, now: now) { index += 1 }
    }

    private func appendChunk(_ index: Int, to list: inout [ConnectionDescription], now: UInt64) -> Bool {
        lock.lock()
        defer { lock.unlock() }
        guard unsafe index < chunks.count else { return false }
        for slot in 0..<Self.perChunk {
            let status = unsafe chunks[index] + slot
            let fd = unsafe status.pointee.fd
            guard fd >= 0 else { continue }
            let activity = unsafe status.pointee.activity.load(ordering: .relaxed)
            list.append(
                ConnectionDescription(
                    fd: fd,
                    address: SocketAddress.peer(of: fd).description(isDatagram: false),
                    listenAddress: SocketAddress.local(of: fd).description(isDatagram: false),
                    state: unsafe ConnectionState(rawValue: status.pointee.state.load(ordering: .relaxed)) ?? .reading,
                    transport: unsafe status.pointee.transport,
                    idleSeconds: now > activity ? Int((now - activity) / 1_000_000_000) : 0))
        }
        return true
    }
}

/// A connection or listener as `stats conns` shows it.
package struct ConnectionDescription: Sendable {
    /// The descriptor's number.
    package let fd: Int32
    /// The peer's address, or a listener's own.
    package let address: String
    /// The address that the peer connected to; empty for listeners and UDP sockets.
    package let listenAddress: String
    /// What it is doing.
    package let state: ConnectionState
    /// How it is reached.
    package let transport: Transport
    /// Seconds since something was executed.
    package let idleSeconds: Int
}

/// What a connection is doing.
package enum ConnectionState: UInt8, Sendable {
    case reading, filling, swallowing, writing, paused, streaming, handshaking, closing, listening
}
