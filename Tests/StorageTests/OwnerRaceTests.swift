// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// Every key belongs to the first member.
private struct FirstMember: KeyPlacement {
    func owner(of key: Span<UInt8>) -> Int { 0 }
}

/// One of two nodes on one store: its tier with its copies, and what it knows of the ring. It does what a node does
/// with both.
private struct Owner {
    let bed: TierBed
    private var machine: OwnershipStateMachine
    private let guards: OwnershipGuards

    init(_ name: String, _ rows: SharedRows, _ guards: WriteThroughGuards, _ ownership: OwnershipGuards) throws {
        bed = try TierBed(guards, rows: rows)
        self.guards = ownership
        machine = OwnershipStateMachine(
            name: name, token: 7, configuration: OwnershipConfiguration(), guards: ownership
        ) { members in members.isEmpty ? nil : FirstMember() }
    }

    /// Hears of all rings up to that of an epoch; the first is a's, the next one b's, and so on. Both have heard of it.
    mutating func adopt(_ epoch: UInt64) {
        let members = ["a", "b"].map { RingMember(name: $0, host: $0, port: 1) }
        let known = max(machine.epoch, 1)
        let rings = (known...epoch).map { (epoch: $0, members: [members[$0 % 2 == 1 ? 0 : 1]]) }
        let nodes = ["a", "b"].map { (name: $0, adopted: epoch, ageMilliseconds: Int64(0)) }
        let change = machine.replied(LeaseReply(isHolder: true, rings: rings, nodes: nodes), at: epoch * 1_000_000_000)
        if change.ring, guards.contains(.fills) { bed.tier.noteFlush() }
    }

    /// Whether the key is the node's.
    var isOwner: Bool { machine.view.verdict(of: Array("k".utf8).span) == .own }

    /// What a client is shown.
    func get() -> String? {
        let key = Array("k".utf8)
        if !machine.view.isClean(key.span) { bed.tier.noteInvalidation(key: key, hash: bed.hash("k")) }
        if let copy = bed.cached("k") { return copy }
        let token = bed.read("k")
        bed.store.answerRead()
        return bed.answer(token)
    }

    /// A client's write, up to its answer.
    func set(_ value: String) {
        let token = bed.write(.set, "k", value)
        bed.store.answerWrite()
        guard case .stored? = bed.answers.writes[token] else {
            Issue.record("\(value) was not stored")
            return
        }
    }
}

/// R4: a key goes from one owner to another, which writes it, and back. Each test shows that the race does not happen,
/// and that it does once its guard is taken out.
struct OwnerRaceTests {
    private func pair(_ guards: WriteThroughGuards, _ ownership: OwnershipGuards) throws -> (a: Owner, b: Owner) {
        let rows = SharedRows()
        return (try Owner("a", rows, guards, ownership), try Owner("b", rows, guards, ownership))
    }

    /// A fill that the first owner began arrives when the key is its own again.
    private func fillRace(_ guards: WriteThroughGuards, _ ownership: OwnershipGuards) throws -> Bool {
        var (a, b) = try pair(guards, ownership)
        a.adopt(1)
        b.adopt(1)
        #expect(a.isOwner && !b.isOwner)
        a.bed.seed("k", "old")
        a.bed.read("k")
        let seen = a.bed.store.look(Array("k".utf8))
        b.adopt(2)
        a.adopt(2)
        #expect(!a.isOwner && b.isOwner)
        #expect(b.get() == "old")
        b.set("new")
        #expect(b.get() == "new")
        a.adopt(3)
        b.adopt(3)
        #expect(a.isOwner && !b.isOwner)
        a.bed.store.answerRead(seen)
        return a.bed.cached("k") == "old"
    }

    @Test func aFillDoesNotOutliveItsOwnership() throws {
        #expect(try !fillRace(.all, .all), "the race happens")
        #expect(try fillRace(.all.subtracting(.flushes), .all), "without its guard the race does not happen")
        #expect(try fillRace(.all, .all.subtracting(.fills)), "without its guard the race does not happen")
    }

    /// A copy that the first owner made is still there when the key is its own again.
    private func copyRace(_ ownership: OwnershipGuards) throws -> Bool {
        var (a, b) = try pair(.all, ownership)
        a.adopt(1)
        b.adopt(1)
        a.set("old")
        #expect(a.get() == "old")
        a.adopt(2)
        b.adopt(2)
        b.set("new")
        b.adopt(3)
        a.adopt(3)
        #expect(a.isOwner && !b.isOwner)
        return a.get() == "old"
    }

    @Test func aCopyDoesNotOutliveItsOwnership() throws {
        #expect(try !copyRace(.all), "the race happens")
        #expect(try copyRace(.all.subtracting(.regained)), "without its guard the race does not happen")
    }
}
