// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import StoragePostgres
import Testing

/// Who holds a name in a fleet's database.
@Suite(.serialized, .enabled(if: TestServer.isInstalled, "Debian's postgresql-15 is not installed"))
struct LeaseTests {
    private func join(_ token: UInt64, silence: Int64 = 0) -> LeaseRequest {
        LeaseRequest(name: "a", token: token, joins: true, silenceMilliseconds: silence, adopted: 0)
    }

    private func say(_ token: UInt64) -> LeaseRequest {
        LeaseRequest(name: "a", token: token, joins: false, adopted: 0)
    }

    @Test func whoComesLastHasTheName() throws {
        let bed = try SQLBed { $0.isShared = true }
        let authority = bed.backend.authority
        let first = try authority.exchange(join(1))
        #expect(first.isHolder && !first.hadPredecessor)
        let second = try authority.exchange(join(2))
        #expect(second.isHolder && second.hadPredecessor)
        #expect(try !authority.exchange(say(1)).isHolder)
        #expect(try authority.exchange(say(2)).isHolder)
    }

    /// The answer to a request to join was lost, and with it who had the name before: that one counts all the same.
    @Test func whoAsksAgainHadAPredecessor() throws {
        let bed = try SQLBed { $0.isShared = true }
        let authority = bed.backend.authority
        _ = try authority.exchange(join(1))
        _ = try authority.exchange(join(2))
        let again = try authority.exchange(join(2))
        #expect(again.isHolder && again.hadPredecessor)
    }

    @Test func aSecondProcessThatLivesElsewhereIsRefused() throws {
        let bed = try SQLBed { $0.isShared = true }
        let authority = bed.backend.authority
        let (here, elsewhere): (UInt64, UInt64) = (7 << 32, 0xffff_fff0 << 32)
        func first(_ token: UInt64) -> LeaseRequest {
            var request = join(token, silence: 1_050)
            request.isRestart = true
            return request
        }
        #expect(try authority.exchange(first(here | 1)).isHolder)
        let refused = try authority.exchange(first(elsewhere | 2))
        #expect(!refused.isHolder && refused.nodes.contains { $0.name == "a" && $0.ageMilliseconds < 1_050 })
        #expect(try authority.exchange(say(here | 1)).isHolder)
        // What was started in its place has it at once, also where the place is a number below 0 to the database.
        let restarted = try authority.exchange(first(here | 3))
        #expect(restarted.isHolder && restarted.hadPredecessor)
        #expect(try !authority.exchange(say(here | 1)).isHolder)
        try bed.server.sql("UPDATE martlet_lease SET seen = clock_timestamp() - interval '2 seconds'")
        #expect(try authority.exchange(first(elsewhere | 4)).isHolder)
        #expect(try authority.exchange(first(elsewhere | 5)).isHolder)
        #expect(try !authority.exchange(first(here | 6)).isHolder)
    }

    @Test func aNameIsTakenBackFromOneThatIsSilentOnly() throws {
        let bed = try SQLBed { $0.isShared = true }
        let authority = bed.backend.authority
        _ = try authority.exchange(join(1))
        _ = try authority.exchange(join(2))
        let early = try authority.exchange(join(3, silence: 60_000))
        #expect(!early.isHolder)
        #expect(try authority.exchange(say(2)).isHolder)
        try bed.server.sql("UPDATE martlet_lease SET seen = clock_timestamp() - interval '61 seconds'")
        let late = try authority.exchange(join(3, silence: 60_000))
        #expect(late.isHolder && late.hadPredecessor)
        #expect(try authority.exchange(join(3, silence: 60_000)).isHolder, "it has it, and asks again")
        #expect(try !authority.exchange(say(2)).isHolder)
        // Given back.
        try bed.server.sql("UPDATE martlet_lease SET token = 0")
        let free = try authority.exchange(join(4, silence: 60_000))
        #expect(free.isHolder && !free.hadPredecessor)
    }
}
