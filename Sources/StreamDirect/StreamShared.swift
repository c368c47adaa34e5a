// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation
internal import Platform
internal import Reactor
package import Storage
internal import Synchronization
internal import Telemetry

/// Whose cached copies a stream keeps fresh. Called on the stream's thread, one call at a time.
package protocol StreamConsumer: AnyObject, Sendable {
    /// A key changed: see ``FollowerAction/apply(_:)``.
    func apply(_ record: OutboxRecord)
    /// What is cached of the slots of the mask may be stale: see ``FollowerAction/quarantine(_:)``.
    func quarantine(_ mask: UInt64)
    /// The stream was complete at a reading of the monotonic clock.
    func proved(_ nanoseconds: UInt64)
}

/// How a stream goes, for statistics.
package struct StreamFigures: Sendable, Equatable {
    /// One who follows us.
    package struct Consumer: Sendable, Equatable {
        /// Its region and name.
        package var region: String
        /// Its name in its region.
        package var name: String
        /// Records that it has not been sent yet.
        package var backlog: Int64
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
    /// Connections to him that were made.
    package var connections: UInt64 = 0
    /// Connections to him that failed or were lost.
    package var losses: UInt64 = 0
    /// Why there is no connection.
    package var reason = ""
    /// Records that made no sense.
    package var damaged: UInt64 = 0
    /// Records that are known and were not received.
    package var backlog: Int64 = 0
    /// Slots that wait for missing records.
    package var missingSlots = 0
    /// What the follower counted.
    package var follower = FollowerStatistics()
}

/// What the stream's thread shares with others.
final class StreamShared: Sendable {
    let configuration: StreamDirectConfiguration
    let source: (any ChangeSource)?
    let consumer: (any StreamConsumer)?
    let log: Log?
    let figures = Guarded(StreamFigures())
    let clientTLS = Guarded<TLSClientContext?>(nil)
    private let reactor = Guarded<Reactor?>(nil)
    private let isWoken = Atomic<Bool>(false)

    init(
        _ configuration: StreamDirectConfiguration, source: (any ChangeSource)?, consumer: (any StreamConsumer)?,
        log: Log?
    ) {
        self.configuration = configuration
        self.source = source
        self.consumer = consumer
        self.log = log
    }

    static var wakeKind: UInt32 { 1 }
    static var resolvedKind: UInt32 { 2 }

    func attach(_ reactor: Reactor) { self.reactor.withLock { $0 = reactor } }

    /// Tells the stream's thread that changes came; once, until it has looked.
    func wake() {
        guard !isWoken.exchange(true, ordering: .acquiringAndReleasing) else { return }
        reactor.withLock { $0 }?.post(ReactorMessage(kind: Self.wakeKind))
    }

    /// The stream's thread looks: what comes from now on wakes it again.
    func noteAwake() { isWoken.store(false, ordering: .releasing) }

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
