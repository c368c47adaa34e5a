// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation
internal import Platform
internal import Reactor
package import Storage
package import Telemetry

/// The direct transport of a node: follows the home region's stream, and lets others follow ours. One thread, which
/// may wait for the outbox, and serves no client.
///
/// Order: `init` loads certificates, `bind` binds the address, `start` begins, `stop` ends it.
package final class StreamService: StreamRepairer, StreamFollowing {
    private let shared: StreamShared
    private let group: ReactorGroup
    private let tls: TLSContext?
    private let revocations: RevocationLists?
    private let alsoWakes: (@Sendable () -> Void)?

    /// A service that is not started. `source` is our own store's outbox, `consumer` whom a followed stream is for;
    /// `alsoWakes` is called with each change of the outbox, and must not block.
    package init(
        _ configuration: StreamDirectConfiguration, source: (any ChangeSource)?, consumer: (any StreamConsumer)?,
        log: Log?, alsoWakes: (@Sendable () -> Void)? = nil
    ) throws(StreamStartError) {
        self.alsoWakes = alsoWakes
        let shared = StreamShared(configuration, source: source, consumer: consumer, log: log)
        self.shared = shared
        shared.figures.withLock { $0.home = configuration.home?.region }
        do throws(TLSError) {
            let lists = try RevocationLists(configuration.security?.revocationPath)
            revocations = lists
            tls = try configuration.security.map { security throws(TLSError) in
                var files = TLSConfiguration(chainPath: security.certificatePath, keyPath: security.keyPath)
                files.authorityPath = security.authorityPath
                files.verifyMode = .require
                files.minimumVersion = .tls13
                return try TLSContext(files, revocations: lists)
            }
            let client = try Self.clientContext(configuration, to: configuration.home, lists)
            shared.clientTLS.withLock { $0 = client }
        } catch { throw StreamStartError(description: "stream: \(error)") }
        var reactors = ReactorConfiguration()
        reactors.threads = 1
        reactors.threadName = "martlet-stream"
        reactors.connectionLimit = configuration.consumersMax + 16
        reactors.readBufferBytes = 1 << 20
        reactors.inputLimitBytes = 8 << 20
        do throws(SystemError) {
            group = try ReactorGroup(reactors, tls: tls) { reactor in StreamHandler(shared, reactor) }
        } catch { throw StreamStartError(description: "stream: \(error)") }
        shared.attach(group.reactors[0])
    }

    /// What connections to a region are made with; nil without TLS.
    static func clientContext(
        _ configuration: StreamDirectConfiguration, to home: StreamDirectConfiguration.Home?,
        _ revocations: RevocationLists?
    ) throws(TLSError) -> TLSClientContext? {
        guard let security = configuration.security, let home else { return nil }
        var files = TLSClientConfiguration()
        files.authorityPath = security.authorityPath
        files.chainPath = security.certificatePath
        files.keyPath = security.keyPath
        files.requiresTLS13 = true
        return try TLSClientContext(files, host: home.region, revocations: revocations)
    }

    /// Binds the address that others follow us at, if there is one.
    package func bind() throws(StreamStartError) {
        guard let listen = shared.configuration.listen else { return }
        let security: ListenerConfiguration.Security = tls == nil ? .none : .mutualTLS
        do throws(ListenError) {
            try group.listen(
                ListenerConfiguration(.tcp(host: listen.host, port: listen.port), security: security))
        } catch { throw StreamStartError(description: "stream.listen: \(error)") }
    }

    /// The port that was bound; nil when nobody may follow us.
    package var port: UInt16? { group.listeners.first?.port }

    /// Starts the thread.
    package func start() throws(StreamStartError) {
        let (shared, alsoWakes) = (shared, alsoWakes)
        shared.source?.tail.setWake {
            shared.wake()
            alsoWakes?()
        }
        do throws(SystemError) { try group.start() } catch { throw StreamStartError(description: "stream: \(error)") }
    }

    /// Ends the service. Blocks until its threads have ended; what other regions want of a database that does not
    /// answer is left to end with the process.
    package func stop() {
        shared.source?.tail.setWake(nil)
        group.stop(.immediate)
        group.join()
        if !shared.clerk.stop(milliseconds: shared.configuration.errandEndMilliseconds) {
            shared.log?.warning("stream: the database does not answer what another region wants of it")
        }
    }

    /// Reads certificates and revocation lists again; connections go on with the old certificates, but for those of
    /// peers that are revoked. Returns what went wrong.
    package func reload() -> String? {
        var problem: String?
        do throws(TLSError) { try tls?.reload() } catch { problem = "stream: \(error)" }
        do throws(TLSError) { try shared.clientTLS.withLock { $0 }?.reload() } catch { problem = "stream: \(error)" }
        group.closeRevoked()
        return problem
    }

    /// Asks those who follow us, and the node itself where it follows its own store, what they have cached. Answers are
    /// to be had from ``lookEvents()``.
    package func look(_ look: StreamLook) { shared.look(look) }

    /// Our own store's outbox, as it is by now; nil where there is none.
    package var source: (any ChangeSource)? { shared.source }

    /// Has `wake` called when answers came, on the stream's thread; it must not block.
    package func setLookWake(_ wake: (@Sendable () -> Void)?) { shared.desk.setWake(wake) }

    /// What came of questions since the last call.
    package func lookEvents() -> [StreamLookEvent] { shared.desk.takeEvents() }

    /// Names who knows which region is home. Before the start.
    package func attach(_ keeper: any HomeKeeper) { shared.keeper.withLock { $0 = keeper } }

    /// Follows somebody else from now on, or its own store; goes on where it was, as far as that was taken over. Those
    /// who follow us come again, to whoever is home. Returns what is wrong with the certificates: then it follows
    /// nobody, and it is to be said again.
    package func turn(to way: StreamWay) -> String? {
        do throws(TLSError) {
            let client = try Self.clientContext(shared.configuration, to: way.home, revocations)
            shared.clientTLS.withLock { $0 = client }
        } catch {
            follow(StreamWay(home: nil, source: way.source, followsOwnStore: way.followsOwnStore))
            return "stream: \(error)"
        }
        follow(way)
        return nil
    }

    private func follow(_ way: StreamWay) {
        let before = shared.way.withLock { current in
            defer { current = way }
            return current.source
        }
        if before !== way.source {
            before?.tail.setWake(nil)
            let (shared, alsoWakes) = (shared, alsoWakes)
            way.source?.tail.setWake {
                shared.wake()
                alsoWakes?()
            }
        }
        shared.figures.withLock { $0.home = way.home?.region }
        shared.turn()
    }

    /// Has the stream that is followed do something, soon. What only gives copies up needs no connection.
    package func order(_ order: StreamOrder) throws(StreamOrderRefusal) {
        let way = shared.way.withLock { $0 }
        let isOwn = way.followsOwnStore && way.source != nil
        guard way.home != nil || isOwn else {
            throw StreamOrderRefusal("this node follows no stream", isPassing: false)
        }
        if case .skip = order { return shared.order(order) }
        if let home = way.home, shared.figures.withLock({ $0.peer.isEmpty }) {
            throw StreamOrderRefusal("there is no connection to \(home.region)", isPassing: true)
        }
        shared.order(order)
    }

    /// Asks the source for what follows a position, on behalf of a broker's consumer; nil ends that.
    package func repair(_ position: StreamPosition?) { shared.orderRepair(position) }

    /// Notes how far a broker's consumer is, for those who ask what it has cached.
    package func reached(_ places: [(epoch: Int64, sequence: Int64)?]) { shared.reached.withLock { $0 = places } }

    /// What came of it since the last call.
    package func takeRepaired() -> [RepairItem] {
        shared.repair.withLock { order in
            order.taken += order.bytes
            defer { (order.items, order.bytes) = ([], 0) }
            return order.items
        }
    }

    /// How it goes. Backlogs of consumers are those of now: what was committed before this call and not sent is among
    /// them.
    package var figures: StreamFigures {
        var figures = shared.figures.withLock { $0 }
        guard !figures.consumers.isEmpty, let last = shared.source?.position?.sequences else { return figures }
        for index in figures.consumers.indices {
            let sent = figures.consumers[index].sent
            figures.consumers[index].backlog = (0..<StreamSlots.count).reduce(Int64(0)) { sum, slot in
                sum &+ max(0, last[slot] - sent[slot])
            }
        }
        return figures
    }
}
