// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Platform
internal import Storage

/// The authority of a region's nodes that share no database: rings and names in etcd, see ``LeaseKeys``.
///
/// A lease is renewed by a read that sees every change before it (a transaction that only reads, answered by a
/// majority): etcd writes nothing for it, and keeps no history. That a process lives is told by a lease of etcd's own,
/// which is kept as often, and only says who may propose rings and whose name is free. What a node may show goes by its
/// own clock.
final class EtcdLeases: LeaseAuthority {
    private let table: EtcdTable
    private let keys: LeaseKeys
    /// How long etcd waits for a process until it counts as gone, in seconds: three leases of ours at least, so that
    /// who counts as gone has none.
    private let lifeSeconds: Int
    private let state = Guarded(State())
    private let leaving = Guarded<(name: String, token: UInt64)?>(nil)

    private struct State {
        /// The process's lease in etcd, and when it was kept last.
        var life: (lease: Int64, kept: UInt64)?
        /// What stands in etcd of this process, as far as it was told.
        var shown: (token: UInt64, adopted: UInt64, lease: Int64)?
        /// Since when others' processes are silent, by name.
        var silentSince: [String: UInt64] = [:]
    }

    /// How long a process must be silent until its name is forgotten, in nanoseconds.
    private static var forgetNanoseconds: UInt64 { 600_000_000_000 }
    /// Names that are forgotten at once, at most.
    private static var forgetMax: Int { 16 }

    /// The authority at an address. `leaseMilliseconds` is how long leases last.
    init(_ address: EtcdAddress, caFile: String?, leaseMilliseconds: Int) {
        keys = LeaseKeys(address)
        // What comes later than a lease lasts is of no use.
        table = EtcdTable(address, caFile: caFile, timeoutMilliseconds: min(max(leaseMilliseconds, 250), 2_000))
        lifeSeconds = max(2, (3 * leaseMilliseconds + 999) / 1_000)
    }

    func exchange(_ request: LeaseRequest) throws(StorageFailure) -> LeaseReply {
        do throws(EtcdTable.Failure) {
            let lease = try keepAlive()
            var hadPredecessor = false
            if request.joins { hadPredecessor = try join(request, lease) }
            if let members = request.proposal { try change(request, to: members) }
            var reply = try look(request, lease)
            reply.hadPredecessor = hadPredecessor
            return reply
        } catch {
            // Nobody knows what was done.
            state.withLock { $0.shown = nil }
            throw StorageFailure(.refused, "etcd: \(error.reason)")
        }
    }

    func releaseAtEnd(name: String, token: UInt64) { leaving.withLock { $0 = (name, token) } }

    /// Gives the name back, where that was asked for, behind the last write.
    func release() {
        guard let (name, token) = leaving.exchange(nil) else { return }
        let held = EtcdTable.Condition.value(keys.name(name), LeaseKeys.text(token))
        _ = try? table.run([held], then: keys.release(name))
        if let life = state.withLock({ $0.life }) { try? table.revoke(life.lease) }
    }

    /// Keeps the process's lease in etcd, or begins one.
    private func keepAlive() throws(EtcdTable.Failure) -> Int64 {
        let now = Clock.bootNanoseconds()
        if let life = state.withLock({ $0.life }) {
            if now &- life.kept < UInt64(lifeSeconds) * 1_000_000_000 / 3 { return life.lease }
            if try table.keep(life.lease) {
                state.withLock { $0.life = (life.lease, now) }
                return life.lease
            }
        }
        let lease = try table.grant(seconds: lifeSeconds)
        state.withLock { $0.life = (lease, now) }
        return lease
    }

    /// Takes the name, where it may be taken; whoever was faster, the look behind this tells. Whether somebody had it
    /// and did not give it back.
    private func join(_ request: LeaseRequest, _ lease: Int64) throws(EtcdTable.Failure) -> Bool {
        let found = try table.run([], then: keys.survey).entries
        guard let join = try keys.join(request, found, lease: lease) else { return false }
        guard try table.run(join.conditions, then: join.steps).succeeded else { return false }
        state.withLock { $0.shown = (request.token, 0, lease) }
        return join.hadPredecessor
    }

    private func change(_ request: LeaseRequest, to members: [RingMember]) throws(EtcdTable.Failure) {
        let (isNewest, steps) = keys.change(request, to: members)
        // Where it is not, somebody else proposed as well.
        _ = try table.run([keys.holds(request), isNewest], then: steps)
    }

    /// Says what the node adopted, where that is not there yet, and reads what holds.
    private func look(_ request: LeaseRequest, _ lease: Int64) throws(EtcdTable.Failure) -> LeaseReply {
        let reads = keys.look(from: request.adopted)
        var steps: [EtcdTable.Step] = []
        let isShown = state.withLock { $0.shown.map { $0 == (request.token, request.adopted, lease) } ?? false }
        if !isShown {
            steps = [
                .put(keys.said(request.name), LeaseKeys.text(request.adopted), lease: 0),
                .put(keys.alive(request.name), LeaseKeys.text(request.token), lease: lease),
            ]
        }
        let answer = try table.run([keys.holds(request)], then: steps + reads, otherwise: reads)
        let isHolder = answer.succeeded
        var found = answer.entries
        state.withLock { $0.shown = isHolder ? (request.token, request.adopted, lease) : nil }
        if !keys.hasRings(from: request.adopted, found) {
            // It is kept no more; or the authority was set back. What is read later is newer, which does no harm.
            found += try table.run([], then: [.list(prefix: keys.rings, first: nil)]).entries
        }
        guard let reply = keys.reply(isHolder: isHolder, found) else {
            throw EtcdTable.Failure(reason: "what stands below \(keys.rings) is not ours")
        }
        if isHolder { try forget(keys.silent(found).filter { $0.key != keys.name(request.name) }) }
        return reply
    }

    /// Forgets names whose processes have been silent for long.
    private func forget(_ silent: [EtcdTable.Entry]) throws(EtcdTable.Failure) {
        let now = Clock.bootNanoseconds()
        let since = state.withLock { state in
            let known = state.silentSince
            state.silentSince = [:]
            for entry in silent { state.silentSince[entry.key] = known[entry.key] ?? now }
            return state.silentSince
        }
        let old = silent.filter { now &- (since[$0.key] ?? now) >= Self.forgetNanoseconds }
        guard !old.isEmpty else { return }
        let (conditions, steps) = keys.forget(Array(old.prefix(Self.forgetMax)))
        _ = try table.run(conditions, then: steps)
    }
}
