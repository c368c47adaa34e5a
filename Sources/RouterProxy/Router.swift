// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Platform
internal import Reactor
internal import Routing
package import Tracing

/// What the reactors of a router share: limits, what they count, and the plan of the moment.
package final class Router: Sendable {
    let limits: RouterLimits
    let health: HealthConfiguration
    /// Who is in pools whose servers are looked up.
    let members: RouterMembers
    /// Deletes that servers missed, and servers that are not read from.
    let spool: RouterSpool
    /// How hot keys are found; and writes that the router knows of, for what is kept of such keys.
    let hotKeys: HotKeySettings
    /// The file that the configuration came from; nil where flags said it all.
    let configurationPath: String?
    let writes = WriteVersions()
    let copies = HotCopies()
    let reportedKeys = ReportedKeys()
    /// Users and passwords; nil when nobody must log in.
    let users: AuthenticationStore?
    /// Who may do what; without tenants, everybody everything.
    let tenants: TenantDirectory
    /// What is traced of requests.
    package let tracing: Tracing
    /// What it was told in short, and what it was told since.
    let configurationRecord: ConfigurationRecord
    /// By reactor.
    let meters: [RouterMeter]
    /// When the router started, in monotonic nanoseconds.
    let startedNanoseconds = Clock.monotonicNanoseconds()
    private let current: Guarded<RouterPlan>
    private let network = Guarded<ReactorGroup?>(nil)

    init(
        _ configuration: RouterConfiguration, users: AuthenticationStore?, members: RouterMembers, spool: RouterSpool,
        plan: RouterPlan
    ) {
        self.users = users
        tenants = TenantDirectory(configuration.tenants, reactors: configuration.threads)
        configurationRecord = ConfigurationRecord(configuration.summary)
        tracing = Tracing(configuration.tracing, threads: configuration.threads)
        limits = configuration.limits
        health = configuration.health
        hotKeys = configuration.hotKeys
        configurationPath = configuration.filePath
        self.members = members
        self.spool = spool
        meters = (0..<configuration.threads).map { _ in RouterMeter() }
        current = Guarded(plan)
    }

    /// Where requests go. Reactors look at it at each of their ticks.
    var plan: RouterPlan {
        get { current.withLock { $0 } }
        set { current.withLock { $0 = newValue } }
    }

    /// The reactors and listeners; nil before the start.
    var group: ReactorGroup? { network.withLock { $0 } }

    func attach(_ group: ReactorGroup) { network.withLock { $0 = group } }
}

/// Routes, and the servers that they lead to; never changes.
final class RouterPlan: Sendable {
    let routes: RoutePlan
    /// By destination of the routes.
    let backends: [Backend]
    /// Counts the plans of a router, from 1 on.
    let epoch: UInt64
    /// When it was made, in seconds since 1970; more than of the plan before it.
    let madeSeconds: UInt64
    /// By source of members: the epoch of those that it was made with.
    let memberEpochs: [String: UInt64]
    /// By handle of the routes that requests enter by and that is more than one server: what its requests take.
    let routeMeters: [Int: RouteMeter]
    private let sampled = Guarded<[Double]?>(nil)

    /// By server, the part of all keys that it has, from 0 to 1.
    var shares: [Double] {
        sampled.withLock { sampled in
            let shares = sampled ?? sampledShares()
            sampled = shares
            return shares
        }
    }

    init(
        _ routes: RoutePlan, _ backends: [Backend], epoch: UInt64, madeSeconds: UInt64,
        memberEpochs: [String: UInt64], routeMeters: [Int: RouteMeter]
    ) {
        self.madeSeconds = madeSeconds
        self.routes = routes
        self.backends = backends
        self.epoch = epoch
        self.memberEpochs = memberEpochs
        self.routeMeters = routeMeters
    }
}
