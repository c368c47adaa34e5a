// Martlet
// SPDX-License-Identifier: Apache-2.0

import Storage
import Testing

/// The steps of a promotion, and which region is home for a node.
struct PromotionTests {
    private let term = HomeTerm(epoch: HomeTerm.next(after: 0, identity: 7), region: "eu-west")
    private let other = HomeTerm(epoch: HomeTerm.next(after: 0, identity: 9), region: "ap-south")

    private func course(acceptsLoss: Bool = false) -> PromotionCourse {
        PromotionCourse(term, fences: true, isWhole: false, acceptsLoss: acceptsLoss)
    }

    private func state(_ term: HomeTerm, isFenced: Bool, isClaimed: Bool = false) -> HomeState {
        var state = HomeState()
        (state.term, state.isFenced, state.claims) = (term, isFenced, isClaimed ? [term] : [])
        return state
    }

    @Test func numbersGrowAndIdentitiesTellThemApart() {
        #expect(term.number == 1 && other.number == 1 && term.epoch != other.epoch)
        let next = HomeTerm.next(after: other.epoch, identity: 0)
        #expect(HomeTerm.number(next) == 2 && next > other.epoch && next > term.epoch)
        #expect(HomeTerm.next(after: 0, identity: .max) < HomeTerm.next(after: term.epoch, identity: 0))
        #expect(HomeTerm.number(HomeTerm.next(after: .max, identity: .max)) == HomeTerm.numberMax)
        #expect(HomeTerm.next(after: .max, identity: .max) > 0)
        #expect(term.words == "promotion 1 of eu-west")
    }

    @Test func theStandbyIsPromotedOnceItShowsThisFenceAndTheOldHomeHasSaidYes() {
        var course = course()
        #expect(course.first == .fence)
        #expect(course.fenced(.done) == .wait)
        #expect(course.looked(nil) == .wait)
        // That of another promotion of the region, with the same number.
        var earlier = state(HomeTerm(epoch: term.epoch - 1, region: "eu-west"), isFenced: true)
        #expect(course.looked(earlier) == .wait)
        earlier.term = term
        earlier.isFenced = false
        #expect(course.looked(earlier) == .wait)
        #expect(course.looked(state(term, isFenced: true)) == .claim)
        #expect(course.claimed(.done) == .promote(isWhole: true))
    }

    @Test func whoLosesIsToldToWhom() {
        var course = course(acceptsLoss: true)
        #expect(course.fenced(.contested(other)) == .fail(.contested(other), releases: false))
        #expect(course.looked(state(other, isFenced: true)) == .fail(.contested(other), releases: true))
        _ = course.looked(state(term, isFenced: true))
        // Its own fence is below the other's, and would stay when that is taken back.
        #expect(course.claimed(.contested(other)) == .fail(.contested(other), releases: true))
        #expect(course.overtaken(by: other) == .fail(.contested(other), releases: true))
        #expect(course.overtaken(by: term) == nil)
    }

    @Test func withoutLossAcceptedNothingIsLeft() {
        let course = course()
        #expect(course.fenced(.refused("no")) == .fail(.notFenced("no"), releases: false))
        #expect(course.fenced(.unknown("?")) == .fail(.notFenced("?"), releases: true))
        #expect(course.waitedOut() == .fail(.notFollowing, releases: true))
        #expect(course.claimed(.unknown("?")) == .fail(.notClaimed("?"), releases: true))
        for isUntouched in [true, false, nil] as [Bool?] {
            // Only one that is nobody's for certain gives the old home back what it was.
            let failure = PromotionFailure.notPromoted("no", isUntouched: isUntouched)
            let step = course.notPromoted("no", isUntouched: isUntouched)
            #expect(step == .fail(failure, releases: isUntouched == true))
        }
    }

    @Test func withLossAcceptedAnOldHomeThatIsNotThereIsPassedOver() {
        let course = course(acceptsLoss: true)
        #expect(course.fenced(.refused("no")) == .promote(isWhole: false))
        #expect(course.fenced(.unknown("?")) == .promote(isWhole: false))
        // Others are to know of it.
        #expect(course.waitedOut() == .claim)
        #expect(course.claimed(.done) == .promote(isWhole: false))
        #expect(course.claimed(.unknown("?")) == .promote(isWhole: false))
    }

    /// A home whose node begins anew while its database is fenced is home yet: the fence may come to nothing.
    @Test func aFenceSaysOfNoRegionThatItIsHome() {
        var known = HomeKnowledge(HomeTerm(epoch: 0, region: "us-east"))
        var found = state(other, isFenced: true)
        known.database = found
        #expect(known.newest(in: "eu-west").epoch == 0)
        found.held = term
        known.database = found
        #expect(known.newest(in: "eu-west") == term)
        known.heard = other
        #expect(known.newest(in: "eu-west") == other)
        // That the own region is home, only its own primary can say.
        known.database?.isStandby = true
        known.heard = term
        #expect(known.newest(in: "eu-west").epoch == 0)
    }

    /// An old home that was fenced, and whose node never heard the claim, learns that the promotion holds.
    @Test func aFenceThatNobodyClaimedIsToYieldToThePromotionThatHolds() {
        #expect(state(term, isFenced: true).isToYield(to: term))
        #expect(!state(term, isFenced: true, isClaimed: true).isToYield(to: term))
        #expect(state(HomeTerm(epoch: 0, region: ""), isFenced: false).isToYield(to: term))
        // Another one came since, and may be taken back.
        let newer = HomeTerm(epoch: HomeTerm.next(after: term.epoch, identity: 1), region: "ap-south")
        #expect(state(newer, isFenced: true).isToYield(to: term))
        #expect(!state(newer, isFenced: false).isToYield(to: term))
        // Also where that is in its last step.
        #expect(state(newer, isFenced: true, isClaimed: true).isToYield(to: term))
        var found = state(newer, isFenced: true)
        found.claims = [term]
        #expect(!found.isToYield(to: term), "it is written down")
        found.claims = []
        found.held = HomeTerm(epoch: HomeTerm.next(after: term.epoch, identity: 0), region: "us-east")
        #expect(!found.isToYield(to: term), "it was home since")
        found.held = nil
        found.isStandby = true
        #expect(!found.isToYield(to: term))
    }

    @Test func whoAsksIsToldOfAHomeThatItHasNotHeardOf() {
        var known = HomeKnowledge(HomeTerm(epoch: 0, region: "us-east"))
        #expect(known.objection(to: term, in: "us-east") == nil)
        known.term = other
        #expect(known.objection(to: term, in: "us-east") == other, "another region is home")
        known.term = HomeTerm(epoch: term.epoch, region: "us-east")
        #expect(known.objection(to: term, in: "us-east") == known.term, "it is home by one as new")
        known.term.epoch -= 1
        #expect(known.objection(to: term, in: "us-east") == nil)
    }

    @Test func theRoleIsNotGivenBackAsIfNothingWasLostWhereAnotherRegionMayBeHome() throws {
        var known = HomeKnowledge(HomeTerm(epoch: 0, region: "eu-west"))
        func plan(_ found: HomeState) throws -> PromotionPlan {
            known.database = found
            return try PromotionPlan(
                "eu-west", known, found, isShared: false, told: 0, identity: 3, acceptsLoss: true, peers: [])
        }
        #expect(try plan(state(other, isFenced: true)).course.first == .promote(isWhole: true))
        let claimed = try plan(state(other, isFenced: true, isClaimed: true))
        #expect(claimed.course.first == .promote(isWhole: false) && claimed.old == "ap-south")
        #expect(claimed.term.number == 2)
        let refusal = #expect(throws: StorageFailure.self) {
            try PromotionPlan(
                "eu-west", known, state(other, isFenced: true, isClaimed: true), isShared: false, told: 0, identity: 3,
                acceptsLoss: false, peers: [])
        }
        #expect(refusal?.reason.hasPrefix("promotion 1 of ap-south is ahead, and may be home by now") == true)
        // Also below a fence of the region's own, or one that nobody claimed.
        for newest in [term, HomeTerm(epoch: term.epoch + 1, region: "us-east")] {
            var found = state(newest, isFenced: true)
            found.claims = [other]
            let below = try plan(found)
            #expect(below.course.first == .promote(isWhole: false) && below.old == "ap-south")
        }
        #expect(throws: StorageFailure.self) { try plan(state(term, isFenced: false)) }
    }
}
