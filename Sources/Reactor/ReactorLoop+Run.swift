// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Synchronization
internal import Telemetry

// SAFETY (file): a connection pointer comes from the slot table and is good until its slot is removed; every step that
// may remove it says so in its result. It, the shared buffer and the vectors are touched by the reactor's thread only.

/// Turns of the loop.
extension ReactorLoop {
    /// Runs until told to stop; everything is closed afterwards.
    mutating func run() {
        refreshTime(isReady: true)
        handler.started(&self)
        nextTick = reactor.nowNanoseconds
        while isRunning { turn() }
        reactor.mailbox.close()
        drainMailbox()
        closeAll(.stopping)
        handler.stopped()
    }

    private mutating func turn() {
        let sleeps = maySleep()
        let before = sleeps ? Clock.monotonicNanoseconds() : 0
        let count = reactor.poller.wait(timeoutMilliseconds: sleeps ? -1 : 0)
        reactor.mailbox.awake()
        let previous = reactor.readyNanoseconds
        refreshTime(isReady: true)
        // epoll that returned at once had something: it may have been there since the turn before.
        sleptNanoseconds = sleeps ? reactor.readyNanoseconds &- before : 0
        let slept = sleptNanoseconds > Self.sleepNanoseconds
        // A turn that took all it had room for may have left some behind.
        let since = slept ? reactor.readyNanoseconds : leftEvents ? reactor.arrivalNanoseconds : previous
        reactor.arrival.store(since, ordering: .relaxed)
        leftEvents = count == Reactor.eventLimit
        reactor.counters.add(.turns)
        for index in 0..<count {
            let user = reactor.poller.user(index)
            let readiness = reactor.poller.readiness(index)
            if !gather(user, readiness) { handleEvent(user, readiness) }
        }
        if group.count > 0 { runGroup() }
        if reactor.mailbox.hasLetters || !queue.isEmpty {
            refreshTime(isReady: false)
            if reactor.mailbox.hasLetters { drainMailbox() }
            if !queue.isEmpty { runQueue() }
        }
        if reactor.nowNanoseconds >= nextTick { tick() }
        handler.turnEnded(&self)
        if let deadline = stopDeadline {
            // A client that asks without pause is quiet between two turns only.
            if stopIdleNanoseconds == 0 || reactor.nowNanoseconds >= stopPatience { closeIdle() }
            if connectionCount == 0 || reactor.nowNanoseconds >= deadline { isRunning = false }
        }
    }

    /// An epoll_wait that took longer than this slept.
    private static var sleepNanoseconds: UInt64 { 3_000 }

    /// Whether epoll may wait: not while work waits, or is due. The timer ends its sleep.
    private mutating func maySleep() -> Bool {
        guard queue.isEmpty, reactor.mailbox.fallAsleep() else { return false }
        let now = reactor.nowNanoseconds
        let exact = wakeNanoseconds == 0 ? UInt64.max : wakeNanoseconds
        let late = lateWakeNanoseconds == 0 ? nextTick : min(lateWakeNanoseconds, nextTick)
        guard now < min(exact, late) else { return false }
        setTimer(exact: exact, late: late, now)
        return true
    }

    /// Has the timer wake the loop for what is due. It is not set by each turn, as epoll's own would be: a timer that
    /// is the next one of its processor costs a virtual machine some ten microseconds to set, and again to take back.
    /// A loop that wakes all the time looks at the clock by itself, so its timer is kept some milliseconds ahead, for
    /// when nothing comes any more.
    private mutating func setTimer(exact: UInt64, late: UInt64, _ now: UInt64) {
        let isBusy = sleptNanoseconds < Self.busyNanoseconds
        let due = min(exact, isBusy ? max(late, now &+ 2 &* Self.aheadNanoseconds) : late)
        // What is due in one millisecond wakes once.
        let time = (due &+ 999_999) / 1_000_000 &* 1_000_000
        let isSoon = isBusy && timerDue < min(time, now &+ Self.aheadNanoseconds)
        guard isSoon || timerDue > time || timerDue <= now else { return }
        reactor.timer.set(time)
        reactor.counters.add(.timerSets)
        timerDue = time
    }

    /// A loop that slept for less is busy.
    private static var busyNanoseconds: UInt64 { 1_000_000 }
    /// How far ahead the timer of a busy loop is: a tick of most kernels.
    private static var aheadNanoseconds: UInt64 { 4_000_000 }

    private func refreshTime(isReady: Bool) {
        let now = Clock.monotonicNanoseconds()
        reactor.now.store(now, ordering: .relaxed)
        if isReady { reactor.ready.store(now, ordering: .relaxed) }
    }

    private mutating func tick() {
        let now = reactor.nowNanoseconds
        nextTick = now &+ Self.tickNanoseconds
        sweep(now)
        if stopDeadline != nil { closeIdle() }
        output.shrink(to: configuration.outputKeptBytes)
        handler.tick(&self, now: now)
    }

    private mutating func handleEvent(_ user: UInt64, _ readiness: Readiness) {
        guard user &>> 56 != Self.ownMark else {
            // The mailbox and the timer only wake. A timer that came is set again, whatever the clock says.
            if user == Self.timerWord { timerDue = 0 }
            if user < Self.timerWord { readDatagrams(Int(truncatingIfNeeded: user & 0xFFFF)) }
            return
        }
        // Closed earlier in this turn: nothing to do.
        guard let connection = unsafe table.find(ConnectionID(rawValue: user)) else { return }
        unsafe serve(connection, readiness)
    }

    /// Does what an event asks for.
    @inline(__always)
    private mutating func serve(_ connection: UnsafeMutablePointer<Connection>, _ readiness: Readiness) {
        let rare: ConnectionFlags = [.handshaking, .lingering, .readWantsWrite, .connecting]
        if unsafe !connection.pointee.flags.isDisjoint(with: rare) {
            guard unsafe serveRare(connection) else { return }
        }
        if readiness.contains(.output), unsafe connection.pointee.backlog != nil {
            guard unsafe drain(connection) else { return }
        }
        guard !readiness.isDisjoint(with: [.input, .hangup, .error]) else { return }
        if readiness != .input { unsafe watchLevel(connection) }
        if unsafe wantsInput(connection) {
            unsafe readInput(connection)
        } else {
            unsafe ignoreInput(connection, readiness)
        }
    }

    /// Handshakes, goodbyes, and TLS that could not read before it wrote. False when there is no more to do.
    private mutating func serveRare(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        if unsafe connection.pointee.flags.contains(.lingering) {
            unsafe linger(connection)
            return false
        }
        if unsafe connection.pointee.flags.contains(.connecting) {
            unsafe finishConnecting(connection)
            return false
        }
        if unsafe connection.pointee.flags.contains(.handshaking) {
            unsafe shakeHands(connection)
            return false
        }
        unsafe connection.pointee.flags.remove(.readWantsWrite)
        guard unsafe wantsInput(connection) else { return true }
        unsafe watch(connection, .input)
        unsafe readInput(connection)
        return false
    }

    /// Has epoll tell of input as long as there is some, for a connection that does not read it all now.
    func watchLevel(_ connection: UnsafeMutablePointer<Connection>) {
        if unsafe connection.pointee.interest == Connection.rest { unsafe watch(connection, .input) }
    }

    /// An event that a connection does not want now.
    private mutating func ignoreInput(_ connection: UnsafeMutablePointer<Connection>, _ readiness: Readiness) {
        if !readiness.isDisjoint(with: [.hangup, .error]) {
            // Both directions are down: nobody will read what we write. But what the peer sent before it left is to be
            // done as soon as the handler takes input again. Until then epoll tells of such a socket once.
            if unsafe connection.pointee.backlog == nil && connection.pointee.stream == nil
                && !connection.pointee.isClosing && holdsInput(connection)
            {
                unsafe watch(connection, .edge)
            } else {
                unsafe close(connection, .peer)
            }
            return
        }
        unsafe watchLevel(connection)
        if unsafe !connection.pointee.flags.contains(.queued) {
            unsafe watch(connection, connection.pointee.interest.subtracting(.input))
        }
    }

    /// Whether input waits that no handler has seen.
    private func holdsInput(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
        if unsafe !connection.pointee.flags.isDisjoint(with: [.hasUnseenInput, .hasHiddenInput]) { return true }
        return unsafe !connection.pointee.flags.contains(.inputEnded)
            && StreamSocket.hasUnreadInput(connection.pointee.fd)
    }

    /// Changes what epoll reports of a connection.
    func watch(_ connection: UnsafeMutablePointer<Connection>, _ interest: Readiness) {
        guard unsafe connection.pointee.interest != interest else { return }
        unsafe connection.pointee.interest = interest
        unsafe reactor.poller.change(connection.pointee.fd, interest, user: connection.pointee.id.rawValue)
    }

    /// Lets a connection go on in this turn, after those before it, or in the next.
    mutating func enqueue(_ connection: UnsafeMutablePointer<Connection>) {
        guard unsafe !connection.pointee.flags.contains(.queued) else { return }
        unsafe connection.pointee.flags.insert(.queued)
        unsafe queue.append(connection.pointee.id)
    }

    private mutating func runQueue() {
        swap(&queue, &queueInTurn)
        for index in queueInTurn.indices {
            guard let connection = unsafe table.find(queueInTurn[index]) else { continue }
            if unsafe connection.pointee.flags.contains(.yielded) { reactor.counters.add(.yields) }
            unsafe connection.pointee.flags.subtract([.queued, .yielded])
            guard unsafe takesInput(connection) else { continue }
            if unsafe connection.pointee.flags.contains(.hasUnseenInput) {
                guard unsafe offerKept(connection) else { continue }
            }
            if unsafe connection.pointee.flags.contains(.hasHiddenInput), unsafe wantsInput(connection) {
                unsafe readInput(connection)
            }
        }
        queueInTurn.removeAll(keepingCapacity: true)
    }
}
