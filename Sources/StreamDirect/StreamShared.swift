// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation
internal import Platform
internal import Reactor
package import Storage
internal import Synchronization
internal import Telemetry

/// Who knows which region is home, and may fence this one. The first is called on the stream's thread; the others may
/// block for some seconds, and are called one at a time on a thread of their own.
package protocol HomeKeeper: AnyObject, Sendable {
    /// What is known.
    var term: HomeTerm { get }
    /// Has this region take no writes any more, as `term` is to hold; what stands against that, nil where it is done.
    func fence(for term: HomeTerm) throws(StorageFailure) -> HomeTerm?
    /// Has no other promotion take the place of `term`, whose fence there is; what stands against that.
    func claim(_ term: HomeTerm) throws(StorageFailure) -> HomeTerm?
    /// Takes that back.
    func release(_ term: HomeTerm) throws(StorageFailure)
}

/// Where a node's stream comes from, and what it gives.
package struct StreamWay: Sendable {
    /// Whom it follows; nil where it follows its own store, or nobody.
    package var home: StreamDirectConfiguration.Home?
    /// Its own store's outbox; nil where it has none, and cannot be followed.
    package var source: (any ChangeSource)?
    /// Whether it follows that itself.
    package var followsOwnStore: Bool

    /// A way.
    package init(
        home: StreamDirectConfiguration.Home?, source: (any ChangeSource)?, followsOwnStore: Bool
    ) {
        self.home = home
        self.source = source
        self.followsOwnStore = followsOwnStore
    }
}

/// How a stream goes, for statistics.
package struct StreamFigures: Sendable, Equatable {
    /// One who follows us.
    package struct Consumer: Sendable, Equatable {
        /// Its region and name.
        package var region: String
        /// Its name in its region.
        package var name: String
        /// By slot, the last number that it was sent.
        package var sent: [Int64]
        /// Records that it has not been sent yet.
        package var backlog: Int64 = 0
        /// Bytes of records that it was sent.
        package var sentBytes: UInt64
        /// Records that it was sent.
        package var sentRecords: UInt64
        /// Bytes that all of it took on the wire.
        package var wireBytes: UInt64
    }

    /// Those who follow us.
    package var consumers: [Consumer] = []
    /// Peers that were refused.
    package var refused: UInt64 = 0
    /// The source that is ours; empty when there is none.
    package var source = ""
    /// Its epoch.
    package var epoch: Int64 = 0
    /// Whether we follow somebody: his region, and where he is, empty while there is no connection.
    package var home: String?
    /// The address of the connection to him.
    package var peer = ""
    /// What the stream is called that is followed; empty before that is known.
    package var followed = ""
    /// Connections to him that were made.
    package var connections: UInt64 = 0
    /// Connections to him that failed or were lost.
    package var losses: UInt64 = 0
    /// Why there is no connection, or what came that could not be read.
    package var reason = ""
    /// Whether a source can ask what we have cached, the consistency monitor's.
    package var isMonitored = false
    /// Records that made no sense.
    package var damaged: UInt64 = 0
    /// Records that are known and were not received.
    package var backlog: Int64 = 0
    /// Slots that wait for missing records.
    package var missingSlots = 0
    /// What the follower counted.
    package var follower = FollowerStatistics()
}

/// What a broker's consumer wants of the source, and what came of it.
struct RepairOrder: Sendable {
    /// What it has; nil where it wants nothing.
    var position: StreamPosition?
    /// Which of the orders it is.
    var number: UInt64 = 0
    /// What came and was not taken yet.
    var items: [RepairItem] = []
    /// How much of what the source was granted they took, in bytes.
    var bytes = 0
    /// How much was taken, and may be granted again.
    var taken = 0
}

/// What the stream's thread shares with others.
final class StreamShared: Sendable {
    let configuration: StreamDirectConfiguration
    /// Where the stream comes from now.
    let way: Guarded<StreamWay>
    /// Who knows which region is home; nil where that is fixed.
    let keeper = Guarded<(any HomeKeeper)?>(nil)
    /// Does what other regions want of that one.
    let clerk: HomeClerk
    let consumer: (any StreamConsumer)?
    let log: Log?
    let figures = Guarded(StreamFigures())
    let clientTLS = Guarded<TLSClientContext?>(nil)
    /// Questions what nodes have cached, and their answers.
    let desk = LookDesk()
    /// What is asked of the source on behalf of a broker's consumer.
    let repair = Guarded(RepairOrder())
    /// By slot, how far a broker's consumer is.
    let reached = Guarded<[(epoch: Int64, sequence: Int64)?]>([])
    private let reactor = Guarded<Reactor?>(nil)
    private let isWoken = Atomic<Bool>(false)

    init(
        _ configuration: StreamDirectConfiguration, source: (any ChangeSource)?, consumer: (any StreamConsumer)?,
        log: Log?
    ) {
        self.configuration = configuration
        way = Guarded(
            StreamWay(home: configuration.home, source: source, followsOwnStore: configuration.followsOwnStore))
        self.consumer = consumer
        self.log = log
        clerk = HomeClerk(limit: configuration.errandsMax)
    }

    static var wakeKind: UInt32 { 1 }
    static var resolvedKind: UInt32 { 2 }
    static var turnKind: UInt32 { 3 }
    static var orderKind: UInt32 { 4 }
    static var lookKind: UInt32 { 5 }
    static var repairKind: UInt32 { 6 }
    static var errandKind: UInt32 { 7 }

    /// What operators ask for.
    let orders = Guarded(StreamOrders())

    func order(_ order: StreamOrder) {
        orders.withLock { $0.add(order) }
        reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.orderKind))
    }

    var source: (any ChangeSource)? { way.withLock { $0.source } }
    var home: StreamDirectConfiguration.Home? { way.withLock { $0.home } }

    /// Tells the stream's thread that there are answers for other regions.
    func noteAnswers() { reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.errandKind)) }

    /// Tells the stream's thread that its way is another one.
    func turn() { reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.turnKind)) }

    func attach(_ reactor: Reactor) { self.reactor.withLock { $0 = reactor } }

    /// Tells the stream's thread that changes came; once, until it has looked.
    func wake() {
        guard !isWoken.exchange(true, ordering: .acquiringAndReleasing) else { return }
        reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.wakeKind))
    }

    /// The stream's thread looks: what comes from now on wakes it again.
    func noteAwake() { isWoken.store(false, ordering: .releasing) }

    /// Asks nodes what they have cached.
    func look(_ look: StreamLook) {
        desk.put(look)
        reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.lookKind))
    }

    /// Tells the stream's thread that something else is asked for.
    func orderRepair(_ position: StreamPosition?) {
        repair.withLock { $0 = RepairOrder(position: position, number: $0.number &+ 1) }
        reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.repairKind))
    }

    /// Where addresses are put that a thread of its own has looked up.
    let resolved = Guarded<Result<[SocketAddress], SystemError>?>(nil)

    /// Looks an endpoint up without holding the stream's thread up.
    func resolve(_ endpoint: StreamDirectConfiguration.Endpoint) throws(SystemError) {
        _ = try Thread(name: "martlet-lookup") { [self] in
            let found: Result<[SocketAddress], SystemError>
            do throws(SystemError) {
                found = .success(
                    try ListeningSocket.resolve(host: endpoint.host, port: endpoint.port, isDatagram: false))
            } catch { found = .failure(error) }
            resolved.withLock { $0 = found }
            reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.resolvedKind))
        }
    }
}
