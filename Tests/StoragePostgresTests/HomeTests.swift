// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import SimulationKit
import Storage
import StoragePostgres
import Testing

/// Which region is home, as a database has it.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct HomeTests {
    private let server: TestServer
    private let home: PostgresHome

    init() throws {
        server = try TestServer()
        let configuration = PostgresConfiguration(url: server.url)
        try PostgresBackend.createTables(configuration)
        home = PostgresHome(configuration)
    }

    private func term(_ number: Int64, _ identity: UInt64, _ region: String = "eu-west") -> HomeTerm {
        HomeTerm(epoch: HomeTerm.next(after: (number - 1) << HomeTerm.identityBits, identity: identity), region: region)
    }

    /// What an answer is to the rules of the table.
    private func answer(_ body: () throws -> HomeTerm?) -> HomeAnswer {
        do { return try body().map { .contested($0) } ?? .done } catch { return .refused("") }
    }

    private func kind(_ answer: HomeAnswer) -> HomeAnswer {
        if case .refused = answer { return .refused("") }
        return answer
    }

    /// The statements do what the simulation of promotions takes them to do.
    @Test func theTableKeepsTheRules() throws {
        let given = ProcessInfo.processInfo.environment["MARTLET_SEED"].flatMap { UInt64($0) }
        let seed = given ?? UInt64.random(in: 1...UInt64.max)
        var random = SimulationRandom(seed: seed)
        var rows = HomeRows()
        for step in 0..<250 {
            // A round of its own, so that low numbers come again.
            if step % 25 == 0 {
                try server.sql("DELETE FROM martlet_home; DELETE FROM martlet_meta WHERE name LIKE 'home_released%'")
                rows = HomeRows()
            }
            let region = ["us-east", "eu-west", "ap-south"][random.below(3)]
            let chosen = term(Int64(random.within(1...4)), UInt64(random.below(3)), region)
            let what = random.below(8)
            // Mostly the one that may.
            let likely = random.chance(700) ? rows.newest?.term ?? chosen : chosen
            let overrides = random.chance(300)
            let expected: HomeAnswer
            let found: HomeAnswer
            switch what {
            case 0...2:
                expected = rows.fence(for: chosen)
                found = answer { try home.fence(for: chosen) }
            case 3, 4:
                expected = rows.claim(likely)
                found = answer { try home.claim(likely) }
            case 5:
                expected = rows.release(likely)
                found = answer {
                    try home.release(likely)
                    return nil
                }
            case 6:
                let held = random.chance(500) ? likely : chosen
                rows.yield(to: held)
                expected = .done
                found = answer {
                    try home.yield(to: held)
                    return nil
                }
            default:
                let isContested = rows.isContested(chosen)
                // Said again, it is as it was.
                let isHome = rows.rows.contains { $0.term == chosen && !$0.isFenced }
                expected = rows.promote(to: chosen, overrides: overrides) == nil ? .done : .refused("")
                found = answer {
                    let report = try home.promote(to: chosen, isWhole: true, overrides: overrides)
                    #expect(isHome || report.isWhole == !isContested, "MARTLET_SEED=\(seed), step \(step)")
                    return nil
                }
            }
            let text: Comment = "MARTLET_SEED=\(seed), step \(step), kind \(what): \(chosen)"
            #expect(kind(found) == kind(expected), text)
            let state = try home.look()
            #expect(state.term == rows.newest?.term ?? HomeTerm(epoch: 0, region: ""), text)
            #expect(state.isFenced == rows.isFenced && state.claims == rows.claims, text)
            #expect(state.held == rows.rows.last { !$0.isFenced }?.term, text)
        }
    }

    /// The answer to a fence was lost, the promotion went on with loss accepted, and this database hears that it holds.
    @Test func aFenceThatNobodyClaimedIsInItsLastStepOnceThePromotionHolds() throws {
        let (holds, newer) = (term(1, 7), term(2, 3, "ap-south"))
        #expect(try home.fence(for: holds) == nil)
        #expect(try !home.look().isClaimed)
        try home.yield(to: holds)
        #expect(try home.look().isClaimed)
        // So the role is not given back as if nothing was lost.
        #expect(throws: StorageFailure.self) {
            try home.promote(to: term(2, 1, "us-east"), isWhole: true, overrides: false)
        }
        try server.sql("DELETE FROM martlet_home")
        // Also below a fence that came since, and is taken back later.
        #expect(try home.fence(for: holds) == nil)
        #expect(try home.fence(for: newer) == nil)
        try home.yield(to: holds)
        var state = try home.look()
        #expect(state.term == newer && state.isClaimed)
        #expect(throws: StorageFailure.self) { try home.release(newer) }
        state = try home.look()
        #expect(state.term == holds && state.isClaimed)
    }

    /// A promotion that holds was written down below the fence of another region, whose claim comes behind that.
    @Test func aClaimIsRefusedWhereAnotherRegionsPromotionIsInItsLastStepBelow() throws {
        let (holds, newer) = (term(1, 7), term(2, 3, "ap-south"))
        #expect(try home.fence(for: newer) == nil)
        try home.yield(to: holds)
        #expect(try home.claim(newer) == holds)
        #expect(try home.look().claims == [holds])
        // Nor is anything said to be whole with its row.
        #expect(throws: StorageFailure.self) { try home.promote(to: newer, isWhole: true, overrides: false) }
        #expect(try !home.promote(to: newer, isWhole: true, overrides: true).isWhole)
        try server.sql("DELETE FROM martlet_home")
        // It came behind the claim: both are in their last step, and neither region's fence is the last word.
        #expect(try home.fence(for: newer) == nil)
        #expect(try home.claim(newer) == nil)
        try home.yield(to: holds)
        #expect(try home.look().claims == [holds, newer])
        #expect(try home.fence(for: term(3, 1, "ap-south")) == holds)
        #expect(try home.fence(for: term(3, 1)) == newer)
        #expect(throws: StorageFailure.self) { try home.promote(to: newer, isWhole: true, overrides: false) }
    }

    /// Who asks a standby that is away to be promoted knows that nothing was asked of it.
    @Test func aDatabaseThatIsAwayIsAsItWas() throws {
        try server.stop("immediate")
        let failure = #expect(throws: StorageFailure.self) {
            try home.promote(to: term(1, 7), isWhole: true, overrides: false)
        }
        #expect(failure?.kind == .notSent)
    }

    @Test func aFenceThatWasTakenBackComesToNothing() throws {
        let (first, second) = (term(1, 7), term(1, 3))
        try home.release(first)
        let refusal = #expect(throws: StorageFailure.self) { try home.fence(for: first) }
        #expect(refusal?.reason == "promotion 1 of eu-west was taken back")
        #expect(try !home.look().isFenced)
        // Another one of the same number is not meant.
        #expect(try home.fence(for: second) == nil)
        #expect(try home.look().term == second)
    }

    /// Its row would be refused once it does not follow the old home any more, and it would be home of nothing.
    @Test func aStandbyThatHasARivalsClaimGoesOnFollowing() throws {
        let rival = term(1, 3, "us-east")
        #expect(try home.fence(for: rival) == nil)
        #expect(try home.claim(rival) == nil)
        try server.stop("fast")
        #expect(FileManager.default.createFile(atPath: server.directory + "/data/standby.signal", contents: nil))
        try server.start()
        for (promotion, overrides) in [(term(2, 7), false), (term(1, 1), true)] {
            let refusal = #expect(throws: StorageFailure.self) {
                try home.promote(to: promotion, isWhole: true, overrides: overrides)
            }
            #expect(refusal?.kind == .notSent && refusal?.reason.contains(rival.words) == true, "\(promotion)")
            #expect(try home.look().isStandby, "\(promotion)")
        }
        #expect(try home.promote(to: term(2, 7), isWhole: true, overrides: true).isWhole == false)
        #expect(try !home.look().isStandby)
    }

    /// Two standbys of one server are promoted: their streams have two epochs.
    @Test func streamsBehindTwoPromotionsHaveTwoEpochs() throws {
        let epoch = "SELECT number FROM martlet_meta WHERE name = 'stream_epoch'"
        let before = try server.sql(epoch)
        _ = try home.promote(to: term(1, 7 << 24), isWhole: true, overrides: false)
        let first = try server.sql(epoch)
        try server.sql(
            "DELETE FROM martlet_home; UPDATE martlet_meta SET number = \(before) WHERE name = 'stream_epoch'")
        _ = try home.promote(to: term(1, 8 << 24), isWhole: true, overrides: false)
        let second = try server.sql(epoch)
        #expect(Set([before, first, second]).count == 3)
        // The higher promotion's is the higher one, whatever its bits are.
        try server.sql(
            "DELETE FROM martlet_home; UPDATE martlet_meta SET number = \(before) WHERE name = 'stream_epoch'")
        _ = try home.promote(to: term(2, 1 << 24), isWhole: true, overrides: false)
        let higher = try #require(Int64(try server.sql(epoch).trimmingCharacters(in: .whitespacesAndNewlines)))
        let others = [first, second].compactMap { Int64($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
        #expect(others.count == 2 && others.allSatisfy { $0 < higher })
        try server.sql(
            "DELETE FROM martlet_home; UPDATE martlet_meta SET number = \(before) WHERE name = 'stream_epoch'")
        _ = try home.promote(to: term(1, 8 << 24), isWhole: true, overrides: false)
        // Said again by another node, it is as it was.
        _ = try? home.promote(to: term(1, 8 << 24), isWhole: true, overrides: false)
        #expect(try server.sql(epoch) == second)
    }

    /// What a promotion took over holds for the epoch that it began: behind a failover of the new home's server, or
    /// where its table went back, rows may be lost that nobody counts.
    @Test func anEpochThatNoPromotionBeganGoesOnBehindNone() throws {
        var configuration = PostgresConfiguration(url: server.url)
        configuration.keepsOutbox = true
        func open(_ body: (any ChangeSource) throws -> Void) throws {
            let backend = PostgresBackend(configuration)
            try backend.start(Answers())
            defer { backend.stop() }
            let changes = try #require(backend.changes)
            for _ in 0..<400 where changes.position == nil { usleep(25_000) }
            try body(changes)
        }
        let named = "SELECT number FROM martlet_meta WHERE name = 'stream_identity'"
        try open { changes in
            #expect(changes.succession == nil && changes.takeover == nil)
            let epoch = try #require(changes.position?.epoch)
            for _ in 0..<400 where try server.sql(named) != "\(epoch)" { usleep(25_000) }
            _ = try home.promote(to: term(1, 7), isWhole: true, overrides: false)
            for _ in 0..<400 where changes.position?.epoch == epoch { usleep(25_000) }
            #expect(changes.succession?.previous == epoch && changes.succession == changes.takeover)
            let begun = try #require(changes.position?.epoch)
            try server.sql("UPDATE martlet_meta SET number = number + 1 WHERE name = 'stream_epoch'")
            for _ in 0..<400 where changes.position?.epoch == begun { usleep(25_000) }
            #expect(changes.succession == nil && changes.takeover?.previous == epoch)
        }
        // Nor where an earlier version promoted it.
        try server.sql("DELETE FROM martlet_meta WHERE name = 'stream_promoted'")
        try open { changes in #expect(changes.succession == nil && changes.takeover != nil) }
    }

    /// What a home took that was overtaken by another one is counted, by its own numbering.
    @Test func whatAHomeTookThatWasOvertakenIsCounted() throws {
        try server.sql("UPDATE martlet_stream_slot SET last = 5 WHERE slot = 3")
        try server.sql("INSERT INTO martlet_meta VALUES ('stream_identity', 77)")
        _ = try home.promote(to: term(1, 7), isWhole: true, overrides: false)
        for sequence in 5...7 {
            let columns = "\(sequence), 3, \(sequence), 0, 0, 'k', 1, 0, \(1000 + sequence), 0"
            try server.sql("INSERT INTO martlet_stream VALUES (\(columns))")
        }
        // The other one took over more of the numbering before than this one had.
        var included = [Int64](repeating: 0, count: StreamSlots.count)
        included[3] = 6
        let left = try home.leftBehind(StreamSuccession(previous: 77, included: included, isWhole: true))
        #expect(left?.count == 2 && left?.first == 1006 && left?.last == 1007)
        #expect(try home.leftBehind(StreamSuccession(previous: 78, included: included, isWhole: true)) == nil)
    }
}
