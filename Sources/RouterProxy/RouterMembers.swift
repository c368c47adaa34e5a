// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Platform
internal import Routing
internal import Telemetry

/// Who is in the pools whose servers are looked up: a watch of each source that pools name.
///
/// Begun and ended by one thread, looked at by any.
final class RouterMembers: Sendable {
    private let discovery: RouterDiscovery
    private let log: Log?
    private let watches = Guarded<[String: MemberWatch]>([:])
    /// Where changes are announced.
    private let parking = Parking()

    init(_ discovery: RouterDiscovery, log: Log?) {
        self.discovery = discovery
        self.log = log
    }

    /// Watches these sources too, and waits a while for the first members of each. Returns the sources that nobody was
    /// found at.
    func watch(_ sources: Set<String>) throws(RouterStartError) -> [String] {
        for source in sources where watches.withLock({ $0[source] == nil }) {
            let watch: MemberWatch
            do { watch = try begin(source) } catch { throw RouterStartError(description: "members: \(error)") }
            watches.withLock { $0[source] = watch }
        }
        let end = Clock.monotonicNanoseconds() &+ UInt64(discovery.waitMilliseconds) * 1_000_000
        while true {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            let unknown = sources.filter { found(at: $0).epoch == 0 }.sorted()
            guard !unknown.isEmpty, now < end else { return unknown }
            parking.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    private func begin(_ source: String) throws -> MemberWatch {
        let (log, parking) = (log, parking)
        return try MemberWatch(
            try MemberSource([source]), configuration: discovery.configuration,
            log: { log?.warning("members", ["source": .text(source), "what": .text($0)]) },
            onChange: { set in
                log?.info(
                    "members changed",
                    ["source": .text(source), "count": .count(set.members.count), "epoch": .count(set.epoch)])
                parking.announce()
            })
    }

    /// Ends the watches of all other sources. Waits until they have.
    func keep(_ sources: Set<String>) {
        let gone = watches.withLock { watches in
            let gone = watches.filter { !sources.contains($0.key) }
            for source in gone.keys { watches[source] = nil }
            return gone
        }
        for watch in gone.values { watch.stop() }
    }

    /// What is known of each source, in the order of their names.
    var states: [(source: String, state: MemberWatch.State)] {
        watches.withLock { $0 }.map { ($0.key, $0.value.state) }.sorted { $0.0 < $1.0 }
    }

    /// The servers that were found at a source, and how often they changed; none when nothing was found.
    func found(at source: String) -> (servers: [PoolServer], epoch: UInt64) {
        guard let set = watches.withLock({ $0[source] })?.state.members else { return ([], 0) }
        return (set.members.map { PoolServer($0.server, isWarming: $0.isWarming) }, set.epoch)
    }

    /// Why texts name no source; nil when they do.
    static func problem(_ source: String) -> String? {
        do throws(MemberSource.Problem) {
            _ = try MemberSource([source])
            return nil
        } catch {
            return error.description
        }
    }
}
