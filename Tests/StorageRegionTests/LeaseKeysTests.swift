// Martlet
// SPDX-License-Identifier: Apache-2.0

import Discovery
import Storage
import Testing

@testable import StorageRegion

/// How rings and names stand in etcd, on a table that does what etcd's transactions do.
struct LeaseKeysTests {
    private let keys: LeaseKeys
    private let members = [
        RingMember(name: nil, host: "10.0.0.1", port: 1), RingMember(name: "two", host: "::1", port: 2, weight: 0.5),
    ]

    init() throws {
        guard case .etcd(let address) = try MemberSource(["etcd://127.0.0.1:2379/martlet/west"]) else {
            throw StorageFailure(.refused, "no address")
        }
        keys = LeaseKeys(address)
    }

    /// A store of keys whose writes have numbers.
    private struct Table {
        var entries: [String: EtcdTable.Entry] = [:]
        var leases: [String: Int64] = [:]
        var revision: Int64 = 1

        private func holds(_ condition: EtcdTable.Condition) -> Bool {
            switch condition {
            case .absent(let key): entries[key] == nil
            case .value(let key, let value): entries[key]?.value == value
            case .revision(let key, let revision): entries[key]?.revision == revision
            }
        }

        mutating func run(
            _ conditions: [EtcdTable.Condition], _ steps: [EtcdTable.Step], _ otherwise: [EtcdTable.Step] = []
        ) -> (succeeded: Bool, entries: [EtcdTable.Entry]) {
            let succeeded = conditions.allSatisfy { holds($0) }
            var found: [EtcdTable.Entry] = []
            revision += 1
            for step in succeeded ? steps : otherwise {
                switch step {
                case .put(let key, let value, let lease):
                    entries[key] = EtcdTable.Entry(key: key, value: value, revision: revision)
                    leases[key] = lease
                case .delete(let key): entries[key] = nil
                case .read(let key): found += entries[key].map { [$0] } ?? []
                case .list(let prefix, let first):
                    found += entries.keys.sorted().filter { $0.hasPrefix(prefix) && $0 >= first ?? prefix }
                        .compactMap { entries[$0] }
                }
            }
            return (succeeded, found)
        }

        /// A lease is over.
        mutating func end(_ lease: Int64) {
            for (key, own) in leases where own == lease && lease != 0 { entries[key] = nil }
        }
    }

    private func request(_ name: String, _ token: UInt64, joins: Bool = false, adopted: UInt64 = 0) -> LeaseRequest {
        var request = LeaseRequest(
            name: name, token: token, joins: joins, silenceMilliseconds: 1_050, adopted: adopted)
        request.isRestart = true
        request.settings = 5
        return request
    }

    private func join(_ request: LeaseRequest, _ table: inout Table, lease: Int64) throws -> LeaseKeys.Join? {
        let found = table.run([], keys.survey).entries
        let join = try keys.join(request, found, lease: lease)
        if let join { #expect(table.run(join.conditions, join.steps).succeeded) }
        return join
    }

    private func look(_ request: LeaseRequest, _ table: inout Table) -> LeaseReply? {
        let reads = keys.look(from: request.adopted)
        let (isHolder, found) = table.run([keys.holds(request)], reads, reads)
        return keys.reply(isHolder: isHolder, found)
    }

    @Test func whoJoinsHoldsItsName() throws {
        var table = Table()
        #expect(try join(request("a", 7, joins: true), &table, lease: 1)?.hadPredecessor == false)
        let reply = try #require(look(request("a", 7), &table))
        #expect(reply.isHolder && reply.rings.isEmpty)
        #expect(reply.nodes.map(\.name) == ["a"] && reply.nodes[0].ageMilliseconds == 0)
        #expect(look(request("a", 8), &table)?.isHolder == false)
        #expect(table.entries.keys.allSatisfy { $0.hasPrefix("/martlet/west.owners/") })
    }

    @Test func aNameIsTakenFromTheSilentOnly() throws {
        var table = Table()
        // Of another place: no restart of the same.
        _ = try join(request("a", 7 << 32 | 1, joins: true), &table, lease: 1)
        let other = request("a", 8 << 32 | 1, joins: true)
        #expect(try join(other, &table, lease: 2) == nil)
        #expect(try keys.join(other, table.run([], keys.survey).entries, lease: 2) == nil)
        table.end(1)
        #expect(try join(other, &table, lease: 2)?.hadPredecessor == true)
        #expect(look(request("a", 7 << 32 | 1), &table)?.isHolder == false)
        // Of the same place: at once.
        #expect(try join(request("a", 8 << 32 | 2, joins: true), &table, lease: 3)?.hadPredecessor == true)
    }

    /// Between the survey and the step somebody else was there, or the one that was silent spoke.
    @Test func whoWasSlowerTakesNothing() throws {
        var table = Table()
        _ = try join(request("a", 7 << 32, joins: true), &table, lease: 1)
        table.end(1)
        let found = table.run([], keys.survey).entries
        let late = try #require(try keys.join(request("a", 8 << 32, joins: true), found, lease: 2))
        var spoke = table
        _ = spoke.run([], [.put(keys.alive("a"), LeaseKeys.text(7 << 32), lease: 3)])
        #expect(!spoke.run(late.conditions, late.steps).succeeded)
        _ = try join(request("a", 9 << 32, joins: true), &table, lease: 4)
        #expect(!table.run(late.conditions, late.steps).succeeded)
    }

    @Test func ringsFollowEachOther() throws {
        var table = Table()
        let one = request("a", 7, joins: true)
        _ = try join(one, &table, lease: 1)
        for epoch in UInt64(0)..<70 {
            let (isNewest, steps) = keys.change(request("a", 7, adopted: epoch), to: members)
            #expect(table.run([keys.holds(one), isNewest], steps).succeeded)
            #expect(!table.run([keys.holds(one), isNewest], steps).succeeded, "another one was faster")
        }
        let reply = try #require(look(request("a", 7, adopted: 68), &table))
        #expect(reply.rings.map(\.epoch) == [68, 69, 70] && reply.rings[2].members == members)
        // Rings that are long past are forgotten.
        let rest = try #require(look(request("a", 7, adopted: 3), &table))
        #expect(rest.rings.map(\.epoch) == Array(7...70))
        let found = table.run([], keys.look(from: 3)).entries
        #expect(!keys.hasRings(from: 3, found) && keys.hasRings(from: 7, found) && keys.hasRings(from: 0, found))
    }

    @Test func whatOthersAdoptedIsTold() throws {
        var table = Table()
        _ = try join(request("a", 7, joins: true), &table, lease: 1)
        _ = try join(request("b", 9, joins: true), &table, lease: 2)
        _ = table.run([], [.put(keys.said("b"), LeaseKeys.text(12), lease: 0)])
        table.end(1)
        let reply = try #require(look(request("b", 9), &table))
        #expect(reply.nodes.map(\.adopted) == [0, 12])
        #expect(reply.nodes.map(\.ageMilliseconds) == [LeaseKeys.silentMilliseconds, 0])
        _ = table.run([], keys.release("b"))
        let released = try #require(look(request("a", 7), &table))
        #expect(released.nodes[1].adopted == UInt64(Int64.max))
        #expect(try join(request("b", 10, joins: true), &table, lease: 3)?.hadPredecessor == false)
    }

    @Test func nodesWithOtherSettingsAreNotLetIn() throws {
        var table = Table()
        _ = try join(request("a", 7, joins: true), &table, lease: 1)
        var other = request("b", 9, joins: true)
        other.settings = 6
        #expect(throws: EtcdTable.Failure.self) { try join(other, &table, lease: 2) }
        table.end(1)
        #expect(try join(other, &table, lease: 2) != nil)
        #expect(throws: EtcdTable.Failure.self) { try join(request("a", 8, joins: true), &table, lease: 3) }
    }

    @Test func namesOfTheSilentAreForgotten() throws {
        var table = Table()
        _ = try join(request("a", 7, joins: true), &table, lease: 1)
        _ = try join(request("b", 9, joins: true), &table, lease: 2)
        table.end(2)
        let silent = keys.silent(table.run([], keys.look(from: 0)).entries)
        #expect(silent.map(\.key) == [keys.name("b")])
        let (conditions, steps) = keys.forget(silent)
        var back = table
        _ = try join(request("b", 10, joins: true), &back, lease: 3)
        #expect(!back.run(conditions, steps).succeeded, "it is back")
        #expect(table.run(conditions, steps).succeeded)
        #expect(look(request("a", 7), &table)?.nodes.map(\.name) == ["a"])
    }

    @Test func whatIsNotOursCannotBeRead() throws {
        var table = Table()
        _ = try join(request("a", 7, joins: true), &table, lease: 1)
        var strange = table
        _ = strange.run([], [.put(keys.ring(1), Array("x".utf8), lease: 0)])
        #expect(look(request("a", 7), &strange) == nil)
        _ = table.run([], [.put(keys.name("c"), Array("x".utf8), lease: 0)])
        #expect(look(request("a", 7), &table) == nil)
    }
}
