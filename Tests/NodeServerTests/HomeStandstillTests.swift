// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

@testable import NodeServer

/// For how long a home region's database is fenced, and when that is told.
struct HomeStandstillTests {
    private static let second: UInt64 = 1_000_000_000
    private let term = HomeTerm(epoch: HomeTerm.next(after: 0, identity: 7), region: "eu-west")

    private func found(isFenced: Bool = true, isClaimed: Bool = false) -> HomeState {
        var state = HomeState()
        (state.term, state.isFenced, state.claims) = (term, isFenced, isClaimed ? [term] : [])
        return state
    }

    @Test func itIsToldAfterTenSecondsAndEachMinute() throws {
        var told: [UInt64] = []
        var standstill: HomeStandstill?
        for time in UInt64(0)..<200 {
            let now = (100 + time) * Self.second
            standstill = HomeStandstill(standstill, found(isClaimed: time > 5), isHome: true, at: now)
            if standstill?.tell(at: now) ?? false { told.append(time) }
        }
        #expect(told == [10, 70, 130, 190])
        let last = try #require(standstill)
        #expect(last.term == term && last.isClaimed && last.isTold && last.seconds(at: 300 * Self.second) == 200)
    }

    @Test func itLastsWhileTheDatabaseSaysNothing() throws {
        let first = try #require(HomeStandstill(nil, found(), isHome: true, at: 5 * Self.second))
        #expect(HomeStandstill(first, nil, isHome: true, at: 9 * Self.second) == first)
        #expect(HomeStandstill(nil, nil, isHome: true, at: 9 * Self.second) == nil)
    }

    @Test func itIsOverWhenWritesGoOnOrAnotherRegionIsHome() throws {
        let first = try #require(HomeStandstill(nil, found(), isHome: true, at: 5 * Self.second))
        #expect(HomeStandstill(first, found(isFenced: false), isHome: true, at: 9 * Self.second) == nil)
        #expect(HomeStandstill(first, found(), isHome: false, at: 9 * Self.second) == nil)
        var standby = found()
        standby.isStandby = true
        #expect(HomeStandstill(nil, standby, isHome: true, at: 9 * Self.second) == nil)
    }
}
