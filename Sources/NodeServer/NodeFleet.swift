// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Platform
internal import Settings
internal import Storage
internal import Telemetry

/// What a node has to do with its fleet: whose members it looks up, and where it says that it is one.
package struct FleetSettings: Sendable, Equatable {
    /// Where the members are looked up; empty when they are listed.
    package var source: [String] = []
    /// Where the node registers: etcd. nil when it does not.
    package var registerAt: String?
    /// The address that others reach it by.
    package var address: String?
    /// What it is called, wherever it runs.
    package var name: String?
    /// Its zone.
    package var zone: String?
    /// How long it stays registered when it says nothing any more. Seconds.
    package var ttlSeconds = 10
    /// Certificates that etcd's or Kubernetes's is checked by.
    package var caFile: String?
    /// Whether it is to be registered as one that warms up.
    package var isWarming = false

    /// Settings of it, for the table.
    static let settings: [Setting] = [
        Setting(
            "register.at", .text, "Where the node registers among the members, as etcd://HOST:PORT/PREFIX."),
        Setting("register.address", .text, "The address that others reach the node by, as host:port."),
        Setting("register.name", .text, "Its name in the fleet, which it keeps wherever it runs."),
        Setting("register.zone", .text, "Its zone."),
        Setting(
            "register.ttl", .duration(2_000_000_000...3_600_000_000_000), default: "10s",
            "How long it stays registered when it says nothing any more."),
        Setting("discovery.caFile", .text, "Certificates that etcd's and Kubernetes's are checked by."),
    ]

    /// Reads the settings; adds what is wrong with them.
    init(_ values: SettingsValues, problems: inout [String]) {
        registerAt = values.text("register.at")
        address = values.text("register.address")
        name = values.text("register.name")
        zone = values.text("register.zone")
        ttlSeconds = Int(values.duration("register.ttl") / 1_000_000_000)
        caFile = values.text("discovery.caFile")
        guard registerAt != nil else { return }
        if address == nil { problems.append("register.address: missing; expected host:port, as others reach the node") }
        do throws(MemberSource.Problem) { _ = try registration() } catch {
            problems.append("register.at: \(error.description)")
        }
    }

    init() {}

    /// What `members` names when it is a source, rather than members: as it was written, before it was taken apart at
    /// its commas. nil when it lists members.
    static func source(in texts: [String]) -> String? {
        guard let first = texts.first, MemberSource.isLikely(first) else { return nil }
        return texts.joined(separator: ",")
    }

    /// What is wrong with a source; nil when nothing is.
    static func problem(ofSource text: String) -> String? {
        do throws(MemberSource.Problem) {
            _ = try MemberSource([text])
            return nil
        } catch {
            return error.description
        }
    }

    func registration() throws(MemberSource.Problem) -> EtcdRegistration.Configuration? {
        guard let registerAt, let address else { return nil }
        guard case .fixed(let members) = try MemberSource([address]), let own = members.first else {
            throw MemberSource.Problem(description: "register.address: expected host:port")
        }
        let member = Member(host: own.host, port: own.port, name: name, zone: zone, isWarming: isWarming)
        var configuration = try EtcdRegistration.Configuration(member, at: try MemberSource([registerAt]))
        configuration.ttlSeconds = ttlSeconds
        configuration.caFile = caFile
        return configuration
    }
}

/// Looks the fleet's members up, and keeps the node among them, while the node runs.
final class NodeFleet: Sendable {
    private struct State {
        var watch: MemberWatch?
        var registration: EtcdRegistration?
        /// Takes the node from among the members.
        var leaver: Thread?
    }

    private let state = Guarded(State())

    /// Starts what the settings ask for. Each new set of members goes to `onChange`.
    init(
        _ settings: FleetSettings, environment: [String: String], log: Log,
        onChange: @escaping @Sendable ([ClusterMember], [RingMember]) -> Void
    ) throws(SystemError) {
        if !settings.source.isEmpty, let source = try? MemberSource(settings.source) {
            var configuration = DiscoveryConfiguration()
            configuration.environment = environment
            configuration.caFile = settings.caFile
            let watch = try MemberWatch(
                source, configuration: configuration, log: { log.warning("members", ["what": .text($0)]) },
                onChange: { set in
                    log.info("members changed", ["count": .of(set.members.count), "epoch": .of(set.epoch)])
                    // Clients are not sent to who has nothing yet, unless nobody has.
                    let up = set.members.filter { !$0.isWarming }
                    onChange(
                        (up.isEmpty ? set.members : up).map { member in
                            ClusterMember(
                                host: member.host, address: member.address ?? "", port: UInt16(clamping: member.port))
                        }, set.members.map { RingMember($0) })
                })
            state.withLock { $0.watch = watch }
        }
        if let own = try? settings.registration() {
            let registration = try EtcdRegistration(own) { log.info("registration", ["what": .text($0)]) }
            state.withLock { $0.registration = registration }
        }
    }

    /// Says that the node may be read from.
    func finishWarming() { state.withLock { $0.registration }?.finishWarming() }

    /// Takes the node from among the members, on a thread of its own: etcd may be slow. False when there is nothing to
    /// take away, or it has begun already.
    func beginLeaving() -> Bool {
        let registration = state.withLock { state in
            defer { state.registration = nil }
            return state.registration
        }
        guard let registration else { return false }
        let leaver = try? Thread(name: "members-leave") { registration.stop() }
        if let leaver { state.withLock { $0.leaver = leaver } } else { registration.stop() }
        return true
    }

    /// Waits until the node is no member, and ends looking the members up.
    func finishLeaving() {
        let (leaver, watch) = state.withLock { state in
            defer { (state.leaver, state.watch) = (nil, nil) }
            return (state.leaver, state.watch)
        }
        leaver?.join()
        watch?.stop()
    }
}
