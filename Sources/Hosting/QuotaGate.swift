// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A turn's requests against the quotas of their tenant. One belongs to each reactor.
///
/// A pipeline takes operations in growing numbers, so that sixty-four of them cost one atomic step, and gives back what
/// it did not use when the turn ends. Bytes are looked at when the turn begins, and charged when it ends: a request
/// that is let through may have a reply of any size, and what that is too much is owed.
package struct QuotaGate: Sendable {
    /// Operations that are taken at once at most.
    private static let chunkLimit = 64

    private var tenant: Tenant?
    private var now: UInt64 = 0
    private var prepaid = 0
    private var chunk = 1
    private var bytesLeft = Int.max
    private var bytesTaken = 0

    /// A gate that nobody stands at.
    package init() {}

    /// Whether the requests of the turn have to be counted.
    package var isOn: Bool { tenant != nil }

    /// A tenant's requests come next; nil where there are none. `now` is in monotonic nanoseconds.
    @inline(__always)
    package mutating func begin(_ tenant: Tenant?, at now: UInt64) {
        guard let tenant else {
            if isOn { self.tenant = nil }
            return
        }
        beginCounting(tenant, at: now)
    }

    @inline(never)
    private mutating func beginCounting(_ tenant: Tenant, at now: UInt64) {
        let meters = tenant.meters
        self.tenant = meters.isOn ? tenant : nil
        self.now = now
        (prepaid, chunk, bytesTaken) = (0, 1, 0)
        bytesLeft = meters.bytes?.available(at: now) ?? .max
    }

    /// Which quota a request of so many bytes is over, after `sent` bytes of replies in this turn; nil where it is
    /// within them. What makes data disappear may run a second ahead of them.
    package mutating func admit(bytes: Int, sent: Int, isInvalidation: Bool) -> TenantQuota? {
        guard let meters = tenant?.meters else { return nil }
        let ahead = isInvalidation ? TenantMeters.deletesAheadSeconds : 0
        if let refusal = refusesBytes(meters, sent: sent, ahead: ahead) { return refusal }
        if let operations = meters.operations {
            if prepaid == 0 {
                prepaid = operations.take(upTo: chunk, at: now)
                chunk = min(2 * chunk, Self.chunkLimit)
            }
            if prepaid == 0, ahead > 0 { prepaid = operations.take(upTo: 1, at: now, ahead: ahead) }
            guard prepaid > 0 else { return .operations }
            prepaid -= 1
        }
        bytesTaken += bytes
        return nil
    }

    /// The same of a request whose value is still to come; takes nothing.
    package func look(sent: Int) -> TenantQuota? {
        guard let meters = tenant?.meters else { return nil }
        if let refusal = refusesBytes(meters, sent: sent, ahead: 0) { return refusal }
        return prepaid > 0 || meters.operations.map { $0.available(at: now) > 0 } ?? true ? nil : .operations
    }

    /// Takes a request's operation and bytes whether they are there or not: it was let through.
    package mutating func charge(bytes: Int) {
        guard let meters = tenant?.meters else { return }
        if prepaid > 0 { prepaid -= 1 } else { meters.operations?.charge(1, at: now) }
        bytesTaken += bytes
    }

    /// A request that was let through is not done after all.
    package mutating func giveBack(bytes: Int) {
        guard let meters = tenant?.meters else { return }
        if meters.operations != nil { prepaid += 1 }
        bytesTaken -= bytes
    }

    /// Leaves bytes of replies out that will be among those sent: refusals.
    package mutating func exclude(_ bytes: Int) { bytesTaken -= bytes }

    /// The turn is over, in which `sent` bytes of replies were written.
    package mutating func end(sent: Int, reactor: Int) {
        guard let tenant else { return }
        if prepaid > 0 { tenant.meters.operations?.giveBack(prepaid) }
        tenant.charge(bytes: max(bytesTaken + sent, 0), at: now, reactor: reactor)
        self.tenant = nil
    }

    private func refusesBytes(_ meters: TenantMeters, sent: Int, ahead: UInt64) -> TenantQuota? {
        guard let bytes = meters.bytes, bytesTaken + sent >= bytesLeft else { return nil }
        return ahead > 0 && bytesTaken + sent < bytes.available(at: now, ahead: ahead) ? nil : .bytes
    }
}
