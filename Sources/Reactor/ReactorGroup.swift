// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Platform
package import Telemetry

/// A server's network side: listeners, an acceptor thread, and reactor threads that share out the connections.
///
/// Order: `init`, `listen` for each address, `start`, later `stop` and `join`.
package final class ReactorGroup: Sendable {
    /// What it was made from.
    package let configuration: ReactorConfiguration
    /// Its reactors, by index.
    package let reactors: [Reactor]
    private let makeHandler: @Sendable (Reactor) -> any ReactorHandler
    private let tls: TLSContext?

    /// Makes the reactors, without threads. `makeHandler` is called once on each reactor's thread.
    package init(
        _ configuration: ReactorConfiguration, tls: TLSContext? = nil,
        makeHandler: @escaping @Sendable (Reactor) -> any ReactorHandler
    ) throws(SystemError) {
        self.configuration = configuration
        self.makeHandler = makeHandler
        self.tls = tls
        var reactors: [Reactor] = []
        for index in 0..<configuration.threads {
            reactors.append(try Reactor(index: index, messageLimit: configuration.messageLimit))
        }
        self.reactors = reactors
    }

    /// Binds an address, before `start`. A host can resolve to several; those that cannot be bound are left out as
    /// long as one can.
    @discardableResult
    package func listen(_ listener: ListenerConfiguration) throws(ListenError) -> [BoundListener] { [] }

    /// What is bound, in the order of ``listen(_:)``; the index is ``Connection/listener``.
    package var listeners: [BoundListener] { [] }

    /// Starts the threads.
    package func start() throws(SystemError) {}

    /// Tells all threads to end; does not wait. Unix sockets' paths are removed.
    package func stop(_ mode: StopMode) {}

    /// Waits until all threads have ended.
    package func join() {}

    /// Sends `bytes` to any connection of the group; see ``Reactor/send(_:to:)``.
    @discardableResult
    package func send(_ bytes: [UInt8], to connection: ConnectionID) -> Bool {
        reactors[connection.reactor].send(bytes, to: connection)
    }

    /// Sums of all threads' counters.
    package func totals() -> CounterTotals<ReactorCounter> {
        var totals = CounterTotals<ReactorCounter>()
        for reactor in reactors { totals.add(reactor.counters) }
        return totals
    }

    /// Whether new connections are taken: false while the limit is reached and connections wait instead of being refused.
    package var isAccepting: Bool { true }

    /// Every listener and connection now, for `stats conns`. From any thread.
    package func describeConnections() -> [ConnectionDescription] { [] }

    /// Hands a connected, non-blocking stream socket to a reactor, as if it had been accepted. Not counted against the
    /// connection limit.
    package func adopt(_ descriptor: consuming Descriptor, tag: UInt64, transport: Transport = .tcp) {}
}

/// An address that cannot be listened on.
package struct ListenError: Error, Sendable, CustomStringConvertible {
    /// The address.
    package let address: String
    /// Why not.
    package let reason: String

    package var description: String { "cannot listen on \(address): \(reason)" }
}
