// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Storage

/// How a fleet's rings and names stand in etcd, and the steps on them. Pure.
///
/// Beside the members' prefix, `….owners/`:
/// - `epoch` is the newest ring's, and `ring/EPOCH` has its members;
/// - `name/NAME` has the number of the process that holds the name, 0 for one that was given back;
/// - `said/NAME` has the epoch that it answers by;
/// - `alive/NAME` is there while that process keeps its lease in etcd;
/// - `settings` tells what all nodes must have alike.
struct LeaseKeys: Sendable {
    private let prefix: String

    /// Rings that are kept.
    static var ringsMax: UInt64 { 64 }
    /// How old a process counts as that does not keep its lease, and as old as one that gave its name back.
    static var silentMilliseconds: Int64 { 3_600_000 }

    init(_ address: EtcdAddress) { prefix = address.prefix.dropLast() + ".owners/" }

    var settings: String { prefix + "settings" }
    var epoch: String { prefix + "epoch" }
    var rings: String { prefix + "ring/" }
    func ring(_ epoch: UInt64) -> String {
        let digits = String(epoch)
        return rings + String(repeating: "0", count: 20 - digits.count) + digits
    }
    func name(_ name: String) -> String { prefix + "name/" + name }
    func said(_ name: String) -> String { prefix + "said/" + name }
    func alive(_ name: String) -> String { prefix + "alive/" + name }

    static func text(_ number: UInt64) -> [UInt8] { Array(String(number).utf8) }
    static func number(_ value: [UInt8]) -> UInt64? { UInt64(String(decoding: value, as: UTF8.self)) }

    // MARK: Steps

    /// Reads all that a process needs to know that takes a name.
    var survey: [EtcdTable.Step] {
        [.read(settings), .list(prefix: name(""), first: nil), .list(prefix: alive(""), first: nil)]
    }

    /// Reads what an exchange answers: the rings from `epoch` on, and who says what.
    func look(from epoch: UInt64) -> [EtcdTable.Step] {
        [.list(prefix: rings, first: ring(epoch))]
            + [name(""), said(""), alive("")].map { .list(prefix: $0, first: nil) }
    }

    /// Takes the name, as the survey said that it may be: what is to hold for it, and what is done. nil where it may
    /// not. Throws where nodes with other settings are there.
    func join(
        _ request: LeaseRequest, _ found: [EtcdTable.Entry], lease: Int64
    ) throws(EtcdTable.Failure) -> Join? {
        let table = Table(self, found)
        let own = name(request.name)
        var conditions = [table.unchanged(own), table.unchanged(settings)]
        var steps: [EtcdTable.Step] = []
        if table.number(settings) != request.settings {
            // One that is not there any more has no lease: it would have kept that first.
            guard !table.names.contains(where: { table.isAlive($0) }) else {
                throw EtcdTable.Failure(reason: "other nodes have another ownership.hash, tag or lease")
            }
            conditions += table.names.map { EtcdTable.Condition.absent(alive($0)) }
            steps.append(.put(settings, Self.text(request.settings), lease: 0))
        }
        let holder = table.number(own) ?? 0
        let age = table.isAlive(request.name) ? 0 : Self.silentMilliseconds
        guard request.takesName(from: holder, ageMilliseconds: age) else { return nil }
        if holder != 0, holder != request.token, age > 0, !conditions.contains(.absent(alive(request.name))) {
            conditions.append(.absent(alive(request.name)))
        }
        steps += [
            .put(own, Self.text(request.token), lease: 0), .put(said(request.name), Self.text(0), lease: 0),
            .put(alive(request.name), Self.text(request.token), lease: lease),
        ]
        return Join(conditions: conditions, steps: steps, hadPredecessor: holder != 0)
    }

    /// What a process that may take its name does.
    struct Join: Equatable {
        var conditions: [EtcdTable.Condition]
        var steps: [EtcdTable.Step]
        var hadPredecessor: Bool
    }

    /// That a process holds its name.
    func holds(_ request: LeaseRequest) -> EtcdTable.Condition {
        .value(name(request.name), Self.text(request.token))
    }

    /// Puts a ring behind the one of an epoch, if that is the newest.
    func change(_ request: LeaseRequest, to members: [RingMember]) -> (EtcdTable.Condition, [EtcdTable.Step]) {
        let (old, new) = (request.adopted, request.adopted + 1)
        var steps: [EtcdTable.Step] = [
            .put(epoch, Self.text(new), lease: 0), .put(ring(new), RingText.write(members), lease: 0),
        ]
        if new > Self.ringsMax { steps.append(.delete(ring(new - Self.ringsMax))) }
        return (old == 0 ? .absent(epoch) : .value(epoch, Self.text(old)), steps)
    }

    /// Gives the name back.
    func release(_ name: String) -> [EtcdTable.Step] {
        [.put(self.name(name), Self.text(0), lease: 0), .delete(said(name)), .delete(alive(name))]
    }

    /// Forgets names, each as it was found.
    func forget(_ entries: [EtcdTable.Entry]) -> ([EtcdTable.Condition], [EtcdTable.Step]) {
        let names = entries.map { String($0.key.dropFirst(name("").count)) }
        return (
            entries.map { EtcdTable.Condition.revision($0.key, $0.revision) }
                + names.map { EtcdTable.Condition.absent(alive($0)) },
            names.flatMap { [EtcdTable.Step.delete(name($0)), .delete(said($0))] }
        )
    }

    // MARK: Answers

    /// What was read, as an exchange answers it; nil where it cannot be read.
    func reply(isHolder: Bool, _ found: [EtcdTable.Entry]) -> LeaseReply? {
        let table = Table(self, found)
        var reply = LeaseReply(isHolder: isHolder)
        for entry in found where entry.key.hasPrefix(rings) {
            guard let epoch = UInt64(entry.key.dropFirst(rings.count)), let members = RingText.read(entry.value) else {
                return nil
            }
            reply.rings.append((epoch, members))
        }
        for name in table.names {
            guard let token = table.number(self.name(name)) else { return nil }
            let adopted = token == 0 ? UInt64(Int64.max) : table.number(said(name)) ?? 0
            reply.nodes.append((name, adopted, token != 0 && table.isAlive(name) ? 0 : Self.silentMilliseconds))
        }
        return reply
    }

    /// Whether what was read has all rings from `epoch` on: not where that one is not there any more.
    func hasRings(from epoch: UInt64, _ found: [EtcdTable.Entry]) -> Bool {
        epoch == 0 || found.contains { $0.key == ring(epoch) }
    }

    /// Names whose process does not keep its lease, or that were given back.
    func silent(_ found: [EtcdTable.Entry]) -> [EtcdTable.Entry] {
        let table = Table(self, found)
        return found.filter { entry in
            entry.key.hasPrefix(name("")) && !table.isAlive(String(entry.key.dropFirst(name("").count)))
        }
    }

    /// What was read, by key.
    private struct Table {
        let keys: LeaseKeys
        let entries: [String: EtcdTable.Entry]
        /// All names, in order.
        let names: [String]

        init(_ keys: LeaseKeys, _ found: [EtcdTable.Entry]) {
            self.keys = keys
            entries = Dictionary(found.map { ($0.key, $0) }) { $1 }
            let start = keys.name("")
            names = found.filter { $0.key.hasPrefix(start) }.map { String($0.key.dropFirst(start.count)) }
        }

        func number(_ key: String) -> UInt64? { entries[key].flatMap { LeaseKeys.number($0.value) } }

        /// Whether the process that holds a name keeps its lease in etcd.
        func isAlive(_ name: String) -> Bool {
            guard let token = number(keys.name(name)), token != 0 else { return false }
            return number(keys.alive(name)) == token
        }

        func unchanged(_ key: String) -> EtcdTable.Condition {
            entries[key].map { .revision(key, $0.revision) } ?? .absent(key)
        }
    }
}
