// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Reactor
import Storage
import Testing

@testable import StreamDirect

/// What other regions want of a database is done in order, and nobody waits for it who asks for nothing.
struct HomeClerkTests {
    /// A keeper whose database takes its time until it is opened.
    private final class SlowKeeper: HomeKeeper {
        let term = HomeTerm(epoch: 0, region: "us-east")
        private let parking = Parking()
        private let done = Guarded<(isOpen: Bool, wishes: [HomeWish])>((false, []))

        var wishes: [HomeWish] { done.withLock { $0.wishes } }

        func open() {
            done.withLock { $0.isOpen = true }
            parking.announce()
        }

        private func take(_ wish: HomeWish) {
            while true {
                let ticket = parking.ticket
                if done.withLock({ $0.isOpen }) { break }
                parking.wait(ticket, timeoutNanoseconds: 10_000_000_000)
            }
            done.withLock { $0.wishes.append(wish) }
        }

        func fence(for term: HomeTerm) throws(StorageFailure) -> HomeTerm? {
            take(.fence)
            return nil
        }

        func claim(_ term: HomeTerm) throws(StorageFailure) -> HomeTerm? {
            take(.claim)
            return HomeTerm(epoch: 9, region: "ap-south")
        }

        func release(_ term: HomeTerm) throws(StorageFailure) {
            take(.release)
            throw StorageFailure(term.epoch == 1 ? .unknownOutcome : .refused, "no")
        }
    }

    private func errand(_ wish: HomeWish, _ epoch: Int64 = 1) -> HomeErrand {
        HomeErrand(
            connection: ConnectionID(rawValue: 0), wish: wish, term: HomeTerm(epoch: epoch, region: "eu-west"))
    }

    private func answers(_ clerk: HomeClerk, _ count: Int) -> [HomeAnswer] {
        var found: [HomeAnswer] = []
        for _ in 0..<1000 where found.count < count {
            found += clerk.takeAnswers().map(\.answer)
            Thread.sleep(microseconds: 10_000)
        }
        return found
    }

    @Test func errandsAreDoneInOrderAndNobodyWaitsForThem() {
        let (clerk, keeper) = (HomeClerk(limit: 3), SlowKeeper())
        let ready = Guarded(0)
        let begun = Clock.monotonicNanoseconds()
        for wish in [errand(.fence), errand(.claim), errand(.release)] {
            #expect(clerk.take(wish, keeper) { ready.withLock { $0 += 1 } } == nil)
        }
        #expect(Clock.monotonicNanoseconds() - begun < 1_000_000_000, "it waited for the database")
        #expect(clerk.takeAnswers().isEmpty && keeper.wishes.isEmpty)
        keeper.open()
        #expect(answers(clerk, 3) == [.done, .contested(HomeTerm(epoch: 9, region: "ap-south")), .unknown("no")])
        #expect(keeper.wishes == [.fence, .claim, .release])
        // The last answer is there a moment before it is said to be.
        for _ in 0..<1000 where ready.withLock({ $0 }) < 3 { Thread.sleep(microseconds: 10_000) }
        #expect(ready.withLock { $0 } == 3)
        // The thread has ended, and another one takes what comes.
        #expect(clerk.take(errand(.release, 2), keeper) {} == nil)
        #expect(answers(clerk, 1) == [.refused("no")])
    }

    @Test func theEndWaitsForWhatIsUnderWayAndDropsTheRest() throws {
        let (clerk, keeper) = (HomeClerk(limit: 3), SlowKeeper())
        for wish in [errand(.fence), errand(.claim)] { #expect(clerk.take(wish, keeper, ready: {}) == nil) }
        Thread.sleep(microseconds: 100_000)
        // A database that does not answer is not waited for longer than that.
        let begun = Clock.monotonicNanoseconds()
        #expect(!clerk.stop(milliseconds: 100))
        #expect(Clock.monotonicNanoseconds() - begun < 2_000_000_000)
        #expect(clerk.take(errand(.release), keeper, ready: {}) != nil, "nothing is taken behind the end")
        let opener = try Thread(name: "opener") {
            Thread.sleep(microseconds: 100_000)
            keeper.open()
        }
        #expect(clerk.stop(milliseconds: 10_000))
        opener.join()
        #expect(keeper.wishes == [.fence], "what waited was dropped, and what was under way has ended")
        #expect(clerk.stop(milliseconds: 0), "there is nothing to end any more")
    }

    @Test func noMoreWaitThanTheLimit() {
        let (clerk, keeper) = (HomeClerk(limit: 2), SlowKeeper())
        var refused = 0
        // One is under way, or about to be.
        for _ in 0..<5 where clerk.take(errand(.fence), keeper, ready: {}) != nil { refused += 1 }
        #expect(refused == 2 || refused == 3)
        keeper.open()
        #expect(answers(clerk, 5 - refused).count == 5 - refused)
    }
}
