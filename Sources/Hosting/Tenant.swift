// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Telemetry

/// What one reactor counts of a tenant: requests by class, and those that were denied, in the order of
/// ``CommandClasses/named``; and those that were shed.
package enum TenantCounter: Int, CounterIndex {
    case read, write, delete, flush, admin
    case deniedRead, deniedWrite, deniedDelete, deniedFlush, deniedAdmin
    case shed
    /// Refused because a quota was used up, in the order of ``TenantQuota``; and bytes that counted.
    case overOperations, overBytes, overConnections
    case bytes
}

/// One reactor's counters of a tenant.
package final class TenantCounters: Sendable {
    let set = CounterSet<TenantCounter>()
}

/// A tenant as connections know it: what it may do, and what is counted of it. Safe to use from any thread; counters
/// are written by their reactors only.
package final class Tenant: Sendable {
    /// What metrics, statistics and log lines call it.
    package let name: String
    /// What it may do.
    package let permissions: TenantPermissions
    /// What it may use up, and how far it did.
    package let meters: TenantMeters
    /// What overload control tells it from others by: its lowest byte is no other tenant's.
    package let share: UInt64
    private let counters: [TenantCounters]

    /// The tenant of a number from 1 on; it goes on counting where `before` was.
    init(
        _ name: String, _ permissions: TenantPermissions, _ quotas: TenantQuotas = TenantQuotas(), number: Int,
        reactors: Int, before: Tenant?
    ) {
        self.name = name
        self.permissions = permissions
        meters = TenantMeters(quotas, before: before?.meters)
        share = stableHash(Array(name.utf8).span) & ~0xff | UInt64(number & 0xff)
        counters = before?.counters ?? (0..<reactors).map { _ in TenantCounters() }
    }

    /// Whether it may do this, and counts it where it may not, or where it `isWhole`: a request whose value is still to
    /// come is asked about again.
    package func admits(_ classes: CommandClasses, key: Span<UInt8>, reactor: Int, isWhole: Bool) -> Bool {
        guard let counted = classes.counted else { return true }
        let isAllowed = permissions.allows(classes, key: key)
        let place = isAllowed ? counted : counted + CommandClasses.count
        if isWhole || !isAllowed, let counter = TenantCounter(rawValue: place) { counters[reactor].set.add(counter) }
        return isAllowed
    }

    /// Counts a request that overload control refused. Only on the reactor's thread.
    package func noteShed(reactor: Int) { counters[reactor].set.add(.shed) }

    /// Counts a request or a connection that is refused because a quota is used up. Only on the reactor's thread.
    package func noteOver(_ quota: TenantQuota, reactor: Int) { counters[reactor].set.add(.over(quota)) }

    /// Counts bytes of requests and replies, and charges them where that has a bound. Only on the reactor's thread.
    package func charge(bytes: Int, at now: UInt64, reactor: Int) {
        guard let meter = meters.bytes, bytes > 0 else { return }
        counters[reactor].set.add(.bytes, UInt64(bytes))
        meter.charge(bytes, at: now)
    }

    /// The sums of all reactors.
    package var totals: CounterTotals<TenantCounter> {
        var totals = CounterTotals<TenantCounter>()
        for reactor in counters { totals.add(reactor.set) }
        return totals
    }
}

extension TenantCounter {
    /// What is refused because this quota is used up.
    static func over(_ quota: TenantQuota) -> TenantCounter {
        switch quota {
        case .operations: .overOperations
        case .bytes: .overBytes
        case .connections: .overConnections
        }
    }
}

extension CounterTotals<TenantCounter> {
    /// What was refused because a quota was used up.
    package func over(_ quota: TenantQuota) -> UInt64 { self[.over(quota)] }

    /// The same of all quotas.
    package var over: UInt64 { TenantQuota.allCases.reduce(0) { $0 + over($1) } }

    /// Requests of a class, by its place in ``CommandClasses/named``: those that were let through, or denied.
    package func requests(_ place: Int, isDenied: Bool) -> UInt64 {
        TenantCounter(rawValue: isDenied ? place + CommandClasses.count : place).map { self[$0] } ?? 0
    }

    /// All requests that were denied.
    package var denied: UInt64 {
        (0..<CommandClasses.count).reduce(0) { $0 + requests($1, isDenied: true) }
    }
}
