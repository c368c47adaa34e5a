// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Platform

/// How members are looked up.
package struct DiscoveryConfiguration: Sendable {
    /// How changes are taken over.
    package var membership = MembershipConfiguration()
    /// DNS servers, `address:port` with commas between them; nil for the system's.
    package var dnsServers: String?
    /// How often a watched file is looked at. Milliseconds.
    package var fileIntervalMilliseconds: UInt64 = 500
    /// A file with the certificates that etcd's and Kubernetes's are checked by; nil for the system's, and in a pod for
    /// the service account's.
    package var caFile: String?
    /// Where a pod's service account is.
    package var serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"
    /// The process's environment: a pod's says where the API server is.
    package var environment: [String: String] = [:]

    /// The ordinary ones.
    package init() {}
}

/// Watches a fleet: looks its members up, on threads of its own, and tells when they change.
package final class MemberWatch: Sendable {
    /// What is known of the fleet.
    package struct State: Sendable, Equatable {
        /// The members that count.
        package let members: MemberSet
        /// Why the last attempt to look them up failed; nil when it did not.
        package let failure: String?
        /// Why members that were found do not count yet; nil when there are none.
        package let hold: MembershipCore.Hold?
        /// Seconds since members were last found; nil before.
        package let ageSeconds: Double?
    }

    private let core: Guarded<MembershipCore>
    private let parking = Parking()
    private let reporter: MemberReporter
    private let threads: Guarded<[Thread]>

    /// Starts to watch. `onChange` is called with each new set, from one thread, beginning with the first that is
    /// found; `log` with a line whenever looking up begins to fail, or fails for another reason, or works again.
    /// `initial` counts until something is found.
    package init(
        _ source: MemberSource, configuration: DiscoveryConfiguration = DiscoveryConfiguration(),
        initial: MemberSet = MemberSet([], epoch: 0), log: @escaping @Sendable (String) -> Void = { _ in },
        onChange: @escaping @Sendable (MemberSet) -> Void
    ) throws(SystemError) {
        let core = Guarded(
            MembershipCore(configuration.membership, initial: initial.members, epoch: initial.epoch))
        let parking = parking
        let reporter = MemberReporter(
            MemberReporter.Words(
                works: "the members can be looked up again",
                fails: "the members cannot be looked up, and stay as they are"), log: log,
            onFound: { members in
                core.withLock { $0.found(members, nowNanoseconds: Clock.monotonicNanoseconds()) }
                parking.announce()
            },
            onFailed: { reason in core.withLock { $0.failed(reason) } })
        self.core = core
        self.reporter = reporter
        threads = Guarded([])
        let applying = try Thread(name: "members-apply") { Self.apply(core, parking, reporter, onChange) }
        let asking = try Thread(name: "members-ask") { Self.run(source, configuration, reporter) }
        threads.withLock { $0 = [applying, asking] }
    }

    /// What is known now.
    package var state: State {
        core.withLock { core in
            let age = core.foundNanoseconds.map { Double(Clock.monotonicNanoseconds() &- $0) / 1e9 }
            return State(members: core.current, failure: core.failure, hold: core.hold, ageSeconds: age)
        }
    }

    /// Ends the watch, and waits until its threads did.
    package func stop() {
        reporter.stop()
        parking.announce()
        let threads = threads.exchange([])
        for thread in threads { thread.join() }
    }

    private static func apply(
        _ core: Guarded<MembershipCore>, _ parking: Parking, _ reporter: MemberReporter,
        _ onChange: @Sendable (MemberSet) -> Void
    ) {
        while !reporter.isStopped {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            let (changed, due) = core.withLock { ($0.tick(nowNanoseconds: now), $0.dueNanoseconds) }
            if let changed { onChange(changed) }
            let wait = due.map { $0 > now ? $0 - now : 1 } ?? 60_000_000_000
            if !reporter.isStopped { parking.wait(ticket, timeoutNanoseconds: wait) }
        }
    }

    private static func run(
        _ source: MemberSource, _ configuration: DiscoveryConfiguration, _ reporter: MemberReporter
    ) {
        switch source {
        case .fixed(let members): reporter.found(members)
        case .file(let path): FileSource(path, configuration.fileIntervalMilliseconds).run(reporter)
        case .addresses, .services, .serviceNames: DNSSource(source, servers: configuration.dnsServers).run(reporter)
        case .etcd(let address): EtcdSource(address, caFile: configuration.caFile).run(reporter)
        case .kubernetes(let service): KubernetesSource(service, configuration).run(reporter)
        }
    }
}
