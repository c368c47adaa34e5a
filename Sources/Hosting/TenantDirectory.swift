// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization
package import Telemetry

/// Which tenant a connection is of, changeable while the program runs. Safe to use from any thread.
///
/// Connections keep the tenant with the ``epoch`` that they learnt it in, and ask again when that has changed: one load
/// a turn. Without tenants, and as long as there never were any, the epoch is 0.
package final class TenantDirectory: Sendable {
    /// Whom a connection is of.
    package struct Membership {
        /// nil where there are no tenants: everybody may do everything.
        package var tenant: Tenant?
        /// When that was true.
        package var epoch: UInt64
    }

    private struct State {
        var settings: [TenantSettings] = []
        /// In the order of the settings; then whoever is no tenant.
        var tenants: [Tenant] = []
        var users: [[UInt8]: Tenant] = [:]
        var certificates: [[UInt8]: Tenant] = [:]
        var others: Tenant?
        var epoch: UInt64 = 0
        /// Denials and refusals that were logged, by tenant, and when.
        var logged: [String: (denied: UInt64, over: UInt64, nanoseconds: UInt64)] = [:]
    }

    /// How often a tenant's denials are logged at most, in nanoseconds.
    private static let logInterval: UInt64 = 10_000_000_000

    private let reactors: Int
    private let state = Guarded(State())
    private let current = Atomic<UInt64>(0)

    /// The tenants of a program with so many reactors.
    package init(_ settings: [TenantSettings], reactors: Int) {
        self.reactors = reactors
        replace(settings)
    }

    /// Changes when tenants do; 0 until there are some.
    package var epoch: UInt64 { current.load(ordering: .acquiring) }

    /// All tenants, and last whoever is none; empty without tenants.
    package var all: [Tenant] { state.withLock { $0.tenants } }

    /// Takes other tenants; those whose names stay go on counting.
    package func replace(_ settings: [TenantSettings]) {
        let reactors = self.reactors
        let epoch: UInt64? = state.withLock { state in
            guard state.settings != settings else { return nil }
            let before = Dictionary(state.tenants.map { ($0.name, $0) }) { first, _ in first }
            var fresh = State(settings: settings, epoch: state.epoch + 1, logged: state.logged)
            for (index, one) in settings.enumerated() {
                let tenant = Tenant(
                    one.name, one.permissions, one.quotas, number: index + 1, reactors: reactors,
                    before: before[one.name])
                fresh.tenants.append(tenant)
                for user in one.users { fresh.users[Array(user.utf8)] = tenant }
                for certificate in one.certificates { fresh.certificates[Array(certificate.utf8)] = tenant }
                if one.includesOthers { fresh.others = tenant }
            }
            if !settings.isEmpty {
                let name = TenantSettings.unknown
                let unknown = Tenant(name, .none, number: 0, reactors: reactors, before: before[name])
                fresh.tenants.append(unknown)
                if fresh.others == nil { fresh.others = unknown }
            }
            let names = Set(fresh.tenants.map(\.name))
            fresh.logged = fresh.logged.filter { names.contains($0.key) }
            state = fresh
            return fresh.epoch
        }
        if let epoch { current.store(epoch, ordering: .releasing) }
    }

    /// Whom a connection is of: by the user that logged in, else by the first name of its certificate that is known.
    package func membership(user: [UInt8]?, certificates: [[UInt8]]) -> Membership {
        state.withLock { state in
            var tenant = user.flatMap { state.users[$0] }
            for name in certificates where tenant == nil { tenant = state.certificates[name] }
            return Membership(tenant: tenant ?? state.others, epoch: state.epoch)
        }
    }

    /// Logs what was denied, and what was refused because a quota was used up, since the last line: a line of each for
    /// a tenant in ten seconds, and never a key.
    package func logDenials(_ log: Log, nanoseconds now: UInt64) {
        guard epoch > 0 else { return }
        let lines: [(name: String, denied: UInt64, over: UInt64)] = state.withLock { state in
            var lines: [(name: String, denied: UInt64, over: UInt64)] = []
            for tenant in state.tenants {
                let totals = tenant.totals
                let (denied, over) = (totals.denied, totals.over)
                let last = state.logged[tenant.name]
                guard denied > last?.denied ?? 0 || over > last?.over ?? 0,
                    last.map({ now &- $0.nanoseconds >= Self.logInterval }) ?? true
                else { continue }
                lines.append((tenant.name, denied - (last?.denied ?? 0), over - (last?.over ?? 0)))
                state.logged[tenant.name] = (denied, over, now)
            }
            return lines
        }
        for line in lines {
            if line.denied > 0 {
                log.warning("access denied", ["tenant": .text(line.name), "requests": .count(line.denied)])
            }
            if line.over > 0 { log.warning("over quota", ["tenant": .text(line.name), "refused": .count(line.over)]) }
        }
    }

    /// Appends the tenants' families, whose names begin with `prefix`; without samples where there are no tenants.
    package func appendMetrics(to page: inout Exposition, prefix: String) {
        let all = self.all
        let tenants = all.map { (name: $0.name, totals: $0.totals) }
        page.family("\(prefix)_requests_total", .counter, help: "Requests that a tenant was allowed, by class.")
        appendClasses(of: tenants, isDenied: false, to: &page)
        page.family("\(prefix)_denied_total", .counter, help: "Requests that a tenant was denied, by class.")
        appendClasses(of: tenants, isDenied: true, to: &page)
        appendQuotas(of: all, to: &page, prefix: prefix)
        page.family("\(prefix)_shed_total", .counter, help: "A tenant's requests that were refused under overload.")
        for tenant in tenants { page.sample(tenant.totals[.shed], ("tenant", tenant.name)) }
    }

    private func appendQuotas(of tenants: [Tenant], to page: inout Exposition, prefix: String) {
        page.family(
            "\(prefix)_over_quota_total", .counter,
            help: "A tenant's requests and connections that were refused because a quota was used up, by quota.")
        for tenant in tenants {
            let totals = tenant.totals
            for quota in TenantQuota.allCases {
                page.sample(totals.over(quota), ("tenant", tenant.name), ("quota", quota.label))
            }
        }
        page.family(
            "\(prefix)_quota", .gauge,
            help: "What a tenant may have: operations and bytes a second, connections at once.")
        for tenant in tenants {
            for quota in TenantQuota.allCases {
                guard let limit = tenant.meters.quotas.limit(of: quota) else { continue }
                page.sample(limit, ("tenant", tenant.name), ("quota", quota.label))
            }
        }
        page.family("\(prefix)_connections", .gauge, help: "A tenant's connections.")
        for tenant in tenants { page.sample(UInt64(clamping: tenant.meters.connections), ("tenant", tenant.name)) }
        page.family(
            "\(prefix)_bytes_total", .counter,
            help: "Bytes of keys, values and replies of tenants with a quota of bytes.")
        for tenant in tenants where tenant.meters.quotas.bytes != nil {
            page.sample(tenant.totals[.bytes], ("tenant", tenant.name))
        }
    }

    /// `stats tenants`: a line for each.
    package var statistics: StatisticsList {
        var list = StatisticsList()
        for tenant in all {
            let totals = tenant.totals
            let requests = (0..<CommandClasses.count).reduce(0) { $0 + totals.requests($1, isDenied: false) }
            let over = TenantQuota.allCases.map { " over_\($0.label):\(totals.over($0))" }.joined()
            list.add(
                tenant.name,
                "requests:\(requests) denied:\(totals.denied) shed:\(totals[.shed])\(over) "
                    + "connections:\(tenant.meters.connections) bytes:\(totals[.bytes])")
        }
        return list
    }

    private func appendClasses(
        of tenants: [(name: String, totals: CounterTotals<TenantCounter>)], isDenied: Bool, to page: inout Exposition
    ) {
        for tenant in tenants {
            for (place, known) in CommandClasses.named.enumerated() {
                page.sample(
                    tenant.totals.requests(place, isDenied: isDenied), ("tenant", tenant.name), ("class", known.name))
            }
        }
    }
}
