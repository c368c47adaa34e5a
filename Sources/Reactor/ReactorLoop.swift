// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
package import Memory
internal import Platform
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It, the shared buffer and the vectors are touched by the reactor's thread only.

/// A reactor's loop: everything that one event-loop thread owns. Its handler sees it in calls that are not about one
/// connection.
///
/// Connections are pointers into the slot table for the length of a step. A step that may have closed its connection
/// says so in its result, and the pointer is dead then.
@safe
package struct ReactorLoop: ~Copyable {
    /// The reactor that runs.
    package let reactor: Reactor
    /// Its handler.
    package let handler: any ReactorHandler
    let configuration: ReactorConfiguration
    let admission: Admission
    let tls: TLSContext?

    var table: SlotTable
    var pool = InputPool()
    /// Input of connections that were ready together, before it is offered.
    var group = InputGroup()
    /// Input of the connection whose turn it is.
    let shared: UnsafeMutableRawPointer
    /// Output of the connection whose turn it is; empty between turns.
    var output: OutputBuffer
    let vectors: UnsafeMutablePointer<iovec>
    /// TLS: room to gather pieces for one record.
    let gathered: MemoryBlock
    /// Connections that go on without an event, in this turn or the next.
    var queue: [ConnectionID] = []
    var queueInTurn: [ConnectionID] = []
    var letters: [Mailbox.Letter] = []
    var datagramSockets: [DatagramSocket]
    /// Output that waits in all backlogs, in bytes.
    var backlogBytes = 0
    /// Backlogs without content, to be used again, and their memory.
    var spareBacklogs: [Backlog] = []
    var spareBacklogBytes = 0
    var nextTick: UInt64 = 0
    /// What the reactor's timer is set to, in monotonic nanoseconds; 0 before it ever was.
    var timerDue: UInt64 = 0
    /// How long the loop slept before this turn.
    var sleptNanoseconds: UInt64 = 0
    var sweepSlot = 0
    /// Connections that we made and that are still there.
    var outgoingCount = 0
    /// By which the peers of connections that the handler made are checked.
    var outgoingRevocations: RevocationLists?
    /// When the handler's `turnEnded` must be called at the latest, in monotonic nanoseconds; 0 when it need not.
    /// Rounded up to whole milliseconds.
    package var wakeNanoseconds: UInt64 = 0
    /// As ``wakeNanoseconds``, for what may be late by up to ten milliseconds where the loop was busy until then.
    package var lateWakeNanoseconds: UInt64 = 0
    /// When the loop ends for good; nil when it was not told to stop.
    var stopDeadline: UInt64?
    /// While stopping: how long a connection must have been quiet to be closed, and until when that is heeded.
    var stopIdleNanoseconds: UInt64 = 0
    var stopPatience: UInt64 = 0
    var isRunning = true
    /// Whether epoll may have had more than the last turn took.
    var leftEvents = false

    static var tickNanoseconds: UInt64 { 100_000_000 }
    /// How many vectors one write takes.
    static var vectorLimit: Int { 64 }
    /// The user word of the mailbox's descriptor.
    static var mailboxWord: UInt64 { .max }
    /// The user word of the timer's.
    static var timerWord: UInt64 { .max - 1 }
    /// The top byte of user words that are not connections.
    static var ownMark: UInt64 { 0xFF }

    init(_ reactor: Reactor, _ handler: any ReactorHandler, _ environment: borrowing LoopEnvironment) {
        self.reactor = reactor
        self.handler = handler
        configuration = environment.configuration
        admission = environment.admission
        tls = environment.tls
        table = SlotTable(reactor: reactor.index)
        // SAFETY: all freed in deinit, used by this thread only.
        unsafe shared = UnsafeMutableRawPointer.allocate(
            byteCount: environment.configuration.readBufferBytes, alignment: 4096)
        unsafe vectors = UnsafeMutablePointer<iovec>.allocate(capacity: Self.vectorLimit)
        output = OutputBuffer(capacity: environment.configuration.outputBufferBytes)
        let gatherBytes = max(environment.tls?.configuration.writeBufferBytes ?? 64, 64)
        unsafe gathered = MemoryBlock(
            unsafeBase: UnsafeMutableRawPointer.allocate(byteCount: gatherBytes, alignment: 64), count: gatherBytes)
        datagramSockets = environment.datagramListeners.map { DatagramSocket(listener: $0.index, bound: $0.bound) }
    }

    deinit {
        unsafe shared.deallocate()
        unsafe vectors.deallocate()
        unsafe gathered.unsafeBase.deallocate()
    }

    /// Runs `body` with the connection, if it is still open, then sends what was written and does what was asked for.
    /// Input that a resumed connection kept is offered later in the turn. False when the connection is gone.
    @discardableResult
    package mutating func withConnection(
        _ id: ConnectionID, _ body: (inout Connection, inout OutputBuffer) -> Void
    ) -> Bool {
        guard let connection = unsafe table.find(id),
            unsafe connection.pointee.flags.contains(.opened),
            unsafe connection.pointee.flags.isDisjoint(with: [.goodbye])
        else { return false }
        unsafe body(&connection.pointee, &output)
        unsafe noteActivity(connection)
        _ = unsafe settle(connection)
        return true
    }

    /// Calls `body` with the name of every open connection.
    package func forEachConnection(_ body: (ConnectionID) -> Void) {
        for slot in 0..<table.count {
            if let connection = unsafe table.find(slot: slot), unsafe connection.pointee.flags.contains(.opened) {
                unsafe body(connection.pointee.id)
            }
        }
    }

    /// Connections that are open.
    package var connectionCount: Int { Int(reactor.counters.load(.connections)) }
}

/// What a loop gets from its group.
struct LoopEnvironment: Sendable {
    let configuration: ReactorConfiguration
    let admission: Admission
    let tls: TLSContext?
    let datagramListeners: [(index: Int, bound: BoundListener)]
}
