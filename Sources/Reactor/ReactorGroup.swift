// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Platform
internal import Synchronization
package import Telemetry

/// A server's network side: listeners, an acceptor thread, and reactor threads that share out the connections.
///
/// Order: `init`, `listen` for each address, `start`, later `stop` and `join`. Between `init` and `start` there are no
/// threads, so a program may fork or change its user there.
package final class ReactorGroup: Sendable {
    /// What it was made from.
    package let configuration: ReactorConfiguration
    /// Its reactors, by index.
    package let reactors: [Reactor]
    private let makeHandler: @Sendable (Reactor) -> any ReactorHandler
    private let tls: TLSContext?
    private let admission: Admission
    private let acceptorCounters = AcceptorCounters()
    private let state = Guarded(State())

    private struct State {
        var isStarted = false
        var listeners: [BoundListener] = []
        var threads: [Thread] = []
        var nextAdopter = 0
    }

    /// Makes the reactors, without threads. `makeHandler` is called once on each reactor's thread.
    package init(
        _ configuration: ReactorConfiguration, tls: TLSContext? = nil,
        makeHandler: @escaping @Sendable (Reactor) -> any ReactorHandler
    ) throws(SystemError) {
        precondition(
            configuration.threads >= 1 && configuration.threads <= ConnectionID.reactorLimit,
            "a group has 1 to \(ConnectionID.reactorLimit) reactors")
        self.configuration = configuration
        self.makeHandler = makeHandler
        self.tls = tls
        admission = try Admission()
        var reactors: [Reactor] = []
        for index in 0..<configuration.threads {
            reactors.append(try Reactor(index: index, messageLimit: configuration.messageLimit))
        }
        self.reactors = reactors
    }

    deinit {
        let state = state.withLock { $0 }
        guard !state.isStarted else { return }
        for listener in state.listeners { StreamSocket.closeNumber(listener.fd) }
    }

    /// Binds an address, before `start`. A host can resolve to several; those that cannot be bound are left out as
    /// long as one can.
    @discardableResult
    package func listen(_ listener: ListenerConfiguration) throws(ListenError) -> [BoundListener] {
        guard listener.security == .none || tls != nil else {
            throw ListenError(address: listener.text, reason: "TLS is asked for and not configured")
        }
        let bound: [BoundListener]
        do throws(SystemError) {
            bound = try BoundListener.bind(listener, backlog: configuration.backlog)
        } catch {
            throw ListenError(address: listener.text, reason: error.description)
        }
        state.withLock { $0.listeners += bound }
        return bound
    }

    /// What is bound, in the order of ``listen(_:)``; the index is ``Connection/listener``.
    package var listeners: [BoundListener] { state.withLock { $0.listeners } }

    /// Starts the threads. Once only.
    package func start() throws(SystemError) {
        let listeners = state.withLock { state in
            precondition(!state.isStarted, "a group is started twice")
            state.isStarted = true
            return state.listeners
        }
        let datagramListeners = listeners.enumerated().filter(\.element.isDatagram).map { ($0.offset, $0.element) }
        let environment = LoopEnvironment(
            configuration: configuration, admission: admission, tls: tls, datagramListeners: datagramListeners)
        var threads: [Thread] = []
        do throws(SystemError) {
            for reactor in reactors {
                try reactor.poller.add(reactor.mailbox.fd, [.input, .edge], user: ReactorLoop.mailboxWord)
                try reactor.poller.add(reactor.timer.fd, [.input, .edge], user: ReactorLoop.timerWord)
                for (index, entry) in datagramListeners.enumerated() {
                    // Of the reactors, one is woken for a datagram.
                    try reactor.poller.add(entry.1.fd, [.input, .exclusive], user: ReactorLoop.datagramWord(index))
                }
                threads.append(try startReactor(reactor, environment))
            }
            if !listeners.isEmpty { threads.append(try startAcceptor(listeners)) }
        } catch {
            stop(.immediate)
            for thread in threads { thread.join() }
            throw error
        }
        state.withLock { $0.threads = threads }
    }

    private func startReactor(_ reactor: Reactor, _ environment: LoopEnvironment) throws(SystemError) -> Thread {
        let makeHandler = makeHandler
        return try Thread(name: "\(configuration.threadName)\(reactor.index)") {
            var loop = ReactorLoop(reactor, makeHandler(reactor), environment)
            loop.run()
        }
    }

    private func startAcceptor(_ listeners: [BoundListener]) throws(SystemError) -> Thread {
        let acceptor = try Acceptor(configuration, listeners, reactors, admission, acceptorCounters)
        return try Thread(name: "martlet-accept") { acceptor.run() }
    }

    /// Tells all threads to end; does not wait. Unix sockets' paths are removed.
    package func stop(_ mode: StopMode) {
        admission.stop()
        for reactor in reactors { reactor.mailbox.put(.stop(mode)) }
    }

    /// Waits until all threads have ended. Once only, after `start`.
    package func join() {
        let (threads, listeners) = state.withLock { state in
            defer { state.threads = [] }
            return (state.threads, state.listeners)
        }
        for thread in threads { thread.join() }
        guard !threads.isEmpty else { return }
        for listener in listeners where listener.isDatagram { StreamSocket.closeNumber(listener.fd) }
    }

    /// Has connections closed, soon, whose peers' certificates are revoked by lists that were read again; and none of
    /// theirs opened from now on.
    package func closeRevoked() {
        for reactor in reactors { reactor.mailbox.put(.closeRevoked) }
    }

    /// Sends `bytes` to any connection of the group; see ``Reactor/send(_:to:)``.
    @discardableResult
    package func send(_ bytes: [UInt8], to connection: ConnectionID) -> Bool {
        reactors[connection.reactor].send(bytes, to: connection)
    }

    /// Sums of all threads' counters.
    package func totals() -> CounterTotals<ReactorCounter> {
        var totals = CounterTotals<ReactorCounter>()
        for reactor in reactors { totals.add(reactor.counters) }
        totals.add(acceptorCounters.set)
        return totals
    }

    /// The sum of one counter.
    package func total(of counter: ReactorCounter) -> UInt64 { totals()[counter] }

    /// Connections that were accepted and are not closed.
    package var connectionCount: Int { admission.count.load(ordering: .relaxed) }

    /// Peers' connections that had something executed in the last so many nanoseconds.
    package func activeConnectionCount(withinNanoseconds span: UInt64) -> Int {
        let now = Clock.monotonicNanoseconds()
        return reactors.reduce(0) { $0 + $1.registry.activeCount(since: now > span ? now - span : 0) }
    }

    /// Whether new connections are taken: false while the limit is reached and connections wait instead of being
    /// refused.
    package var isAccepting: Bool { admission.isAccepting.load(ordering: .relaxed) }

    /// Every listener and connection now, for `stats conns`. From any thread; asks the kernel for each address.
    package func describeConnections() -> [ConnectionDescription] {
        var list = listeners.map(\.description)
        let now = Clock.monotonicNanoseconds()
        for reactor in reactors { reactor.registry.describe(into: &list, now: now) }
        return list
    }

    /// Hands a connected, non-blocking stream socket to a reactor, as if it had been accepted. Not counted against the
    /// connection limit. Reactors take turns, unless one is named.
    package func adopt(
        _ descriptor: consuming Descriptor, tag: UInt64, transport: Transport = .tcp, reactor: Int? = nil
    ) {
        let turn = state.withLock { state in
            state.nextAdopter = (state.nextAdopter + 1) % reactors.count
            return state.nextAdopter
        }
        let fd = descriptor.release()
        let letter = Mailbox.Letter.adopt(fd: fd, listener: -1, tag: tag, transport: transport, security: .none)
        if !reactors[reactor ?? turn].mailbox.put(letter) { StreamSocket.closeNumber(fd) }
    }
}
