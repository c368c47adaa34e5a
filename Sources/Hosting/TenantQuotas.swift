// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Settings
internal import Synchronization

/// What of a tenant's may be used up.
package enum TenantQuota: Int, Sendable, CaseIterable {
    case operations, bytes, connections

    /// Its name in metrics and statistics.
    package var label: String {
        switch self {
        case .operations: "operations"
        case .bytes: "bytes"
        case .connections: "connections"
        }
    }
}

/// How much a tenant may have, as configured; nil where there is no bound.
package struct TenantQuotas: Sendable, Equatable {
    /// Commands on keys; of a get of several keys each is one.
    package var operations: CellRate?
    /// Bytes of keys and values that come in, and of replies.
    package var bytes: CellRate?
    /// Connections at once.
    package var connections: Int?

    /// No bounds.
    package init() {}

    /// The bound of a quota: operations and bytes a second, connections at once. nil where there is none.
    package func limit(of quota: TenantQuota) -> UInt64? {
        switch quota {
        case .operations: operations?.rate
        case .bytes: bytes?.rate
        case .connections: connections.map { UInt64($0) }
        }
    }

    /// Fields of a tenant in the settings.
    static let fields: [Setting] = [
        Setting(
            "operationsPerSecond", .integer(1...1_000_000_000),
            "Commands on keys that it may send in a second; each key of a get is one."),
        Setting("operationsBurst", .integer(1...1_000_000_000), "How many of them at once; a second's without it."),
        Setting(
            "bytesPerSecond", .size(1024...1 << 40),
            "Bytes of keys, values and replies that it may have in a second."),
        Setting("bytesBurst", .size(1024...1 << 40), "How many of them at once; a second's without it."),
        Setting("connections", .integer(1...10_000_000), "Connections that it may have at once."),
    ]

    /// Reads a tenant's; adds what is wrong.
    init(_ values: SettingsValues, problems: inout [String]) {
        operations = Self.rate(values, "operations", problems: &problems) { UInt64(values.integer($0)) }
        bytes = Self.rate(values, "bytes", problems: &problems) { values.size($0) }
        if values.isSet("connections") { connections = values.integer("connections") }
    }

    private static func rate(
        _ values: SettingsValues, _ name: String, problems: inout [String], _ value: (String) -> UInt64
    ) -> CellRate? {
        guard values.isSet("\(name)PerSecond") else {
            if values.isSet("\(name)Burst") { problems.append("\(name)Burst: there is no \(name)PerSecond") }
            return nil
        }
        let rate = value("\(name)PerSecond")
        return CellRate(rate: rate, burst: values.isSet("\(name)Burst") ? value("\(name)Burst") : rate)
    }
}

/// What a tenant uses of its quotas, on all reactors together. Safe to use from any thread; takes no locks.
package final class TenantMeters: Sendable {
    /// Connections of one tenant, whatever its quotas become.
    private final class OpenConnections: Sendable {
        let count = Atomic<Int>(0)
    }

    /// The bounds.
    package let quotas: TenantQuotas
    let operations: RateMeter?
    let bytes: RateMeter?
    private let open: OpenConnections

    /// How far ahead of the rate, in seconds, what makes data disappear may be.
    static let deletesAheadSeconds: UInt64 = 1

    /// Meters of these quotas, which go on from those `before`.
    init(_ quotas: TenantQuotas, before: TenantMeters? = nil, now: UInt64 = Clock.monotonicNanoseconds()) {
        self.quotas = quotas
        operations = Self.meter(quotas.operations, before?.operations, now)
        bytes = Self.meter(quotas.bytes, before?.bytes, now)
        open = before?.open ?? OpenConnections()
    }

    private static func meter(_ rate: CellRate?, _ before: RateMeter?, _ now: UInt64) -> RateMeter? {
        guard let rate else { return nil }
        if let before, before.rate == rate { return before }
        return RateMeter(rate, before: before, now: now)
    }

    /// Whether requests have to be counted.
    package var isOn: Bool { operations != nil || bytes != nil }

    /// Connections that are open.
    package var connections: Int { open.count.load(ordering: .relaxed) }

    /// Whether both count the same connections.
    func countsWith(_ other: TenantMeters) -> Bool { open === other.open }

    /// Counts a connection. False, and it is not counted, where there are as many as there may be, unless it is there
    /// `already`.
    func enter(already: Bool) -> Bool {
        let before = open.count.add(1, ordering: .relaxed).oldValue
        guard let limit = quotas.connections, !already, before >= limit else { return true }
        leave()
        return false
    }

    /// A connection is gone.
    func leave() { open.count.subtract(1, ordering: .relaxed) }
}
