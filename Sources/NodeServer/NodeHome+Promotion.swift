// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import StreamDirect
internal import Telemetry

/// How the last promotion that was asked for here goes.
struct PromotionStatus {
    var number = 0
    var isRunning = false
    /// What it is at.
    var phase = "none"
    var failure: String?
    var outcome: Outcome?
    var thread: Thread?

    /// What it came to.
    struct Outcome {
        var report: PromotionReport
        /// Who was home before.
        var old: String
        /// When that was given up: from then on it did not count what it acknowledged. Milliseconds of Unix time.
        var givenUpMilliseconds: Int64
        /// From the command until the region served as home.
        var tookMilliseconds: Int64

        /// How long the time is within which acknowledged writes may be lost, in milliseconds.
        var lossMilliseconds: Int64 {
            report.isWhole ? 0 : max(0, givenUpMilliseconds - report.safeUntilMilliseconds)
        }
    }
}

/// Promotion of this region to home.
extension NodeHome {
    /// Begins it on a thread of its own; its number, or why it cannot be. `acceptsLoss` goes on where the old home
    /// cannot be fenced, or the standby does not have all that it has.
    func beginPromotion(
        _ region: String, acceptsLoss: Bool, timeoutSeconds: Int
    ) -> Result<Int, StorageFailure> {
        let plan: PromotionPlan
        do throws(StorageFailure) { plan = try planned(region, acceptsLoss: acceptsLoss) } catch {
            return .failure(error)
        }
        let began = Clock.monotonicNanoseconds()
        let number = state.withLock { state -> Int? in
            if state.promotion.isRunning { return nil }
            let number = state.promotion.number + 1
            state.promotion = PromotionStatus(number: number, isRunning: true, phase: "beginning")
            return number
        }
        guard let number else { return .failure(StorageFailure(.refused, "a promotion is under way")) }
        do throws(SystemError) {
            let thread = try Thread(name: "martlet-promote") { [self] in
                let failure: String?
                do throws(StorageFailure) {
                    try promote(plan, timeoutSeconds: timeoutSeconds, began: began)
                    failure = nil
                } catch { failure = error.reason }
                state.withLock { ($0.promotion.isRunning, $0.promotion.failure) = (false, failure) }
            }
            state.withLock { $0.promotion.thread = thread }
            return .success(number)
        } catch {
            state.withLock { ($0.promotion.isRunning, $0.promotion.failure) = (false, error.description) }
            return .failure(StorageFailure(.refused, error.description))
        }
    }

    /// What is to be done; throws what is wrong with the wish.
    private func planned(_ region: String, acceptsLoss: Bool) throws(StorageFailure) -> PromotionPlan {
        let names = settings.regions.map(\.name)
        guard names.contains(region) else {
            throw StorageFailure(
                .refused, "no region is called \(region); there are: \(names.joined(separator: ", "))")
        }
        guard region == own else {
            throw StorageFailure(.refused, "this node is of the region \(own): ask a node of \(region)")
        }
        guard let database else {
            throw StorageFailure(
                .refused, "\(own) has no database that could take over: storage.standbyURL names a standby of home's")
        }
        let found: HomeState
        do throws(StorageFailure) { found = try database.look() } catch {
            throw StorageFailure(.refused, "the database of \(own) cannot be reached: \(error.reason)")
        }
        if let source = source, !found.source.isEmpty, found.source != source {
            throw StorageFailure(
                .refused,
                "storage.standbyURL is no standby of home's database: its stream is \(found.source), and "
                    + "home's is \(source)")
        }
        let (known, told) = state.withLock { ($0.known, $0.fenced) }
        return try PromotionPlan(
            own, known, found, isShared: isEngine, told: told, identity: UInt64.random(in: 0...UInt64.max),
            acceptsLoss: acceptsLoss, peers: peers.compactMap { peer in peer.term.map { (peer.region, $0) } })
    }

    /// Whether the database is one of all regions: it is written to from here though another one is home.
    private var isEngine: Bool { isOfDatabase && backend?.chosen.choice == .own }

    /// What the stream is called that is followed; nil before that is known.
    private var source: String? {
        guard let name = followedSource, !name.isEmpty else { return nil }
        return name
    }

    private func say(_ phase: String) {
        state.withLock { $0.promotion.phase = phase }
        log?.info("promotion", ["phase": .text(phase)])
    }

    private func promote(_ plan: PromotionPlan, timeoutSeconds: Int, began: UInt64) throws(StorageFailure) {
        guard let database else { return }
        let end = began + UInt64(timeoutSeconds) * 1_000_000_000
        var (course, step) = (plan.course, plan.course.first)
        var done: (report: PromotionReport, givenUp: Int64)?
        while done == nil {
            switch step {
            case .fence:
                say("fencing \(plan.old)")
                let answer = tell(plan, .fence)
                note(answer, plan.term)
                step = course.fenced(answer)
                if step == .wait { say("waiting for the standby") }
            case .wait:
                step = course.looked(try? database.look())
                guard step == .wait else { break }
                if Clock.monotonicNanoseconds() >= end {
                    step = course.waitedOut()
                } else {
                    Parking().wait(0, timeoutNanoseconds: 20_000_000)
                }
            case .claim:
                let answer = tell(plan, .claim)
                note(answer, plan.term)
                step = course.claimed(answer)
            case .promote(let isWhole):
                if let instead = course.overtaken(by: state.withLock({ $0.known.newest(in: own) })) {
                    step = instead
                    break
                }
                let givenUp = Int64(Clock.realtimeNanoseconds() / 1_000_000)
                say("promoting the database")
                do throws(StorageFailure) {
                    let report = try database.promote(
                        to: plan.term, isWhole: isWhole, overrides: plan.acceptsLoss)
                    done = (report, givenUp)
                } catch {
                    step = course.notPromoted(error.reason, isUntouched: isUntouched(database, by: error))
                }
            case .fail(let failure, let releases):
                throw StorageFailure(.refused, words(failure, plan, releases ? releaseOld(plan) : nil, database))
            }
        }
        if let done { try serve(plan, done.report, givenUp: done.givenUp, began: began) }
    }

    /// Whether a database that was not promoted follows the old home yet; nil where nobody knows, or where it was asked
    /// to end its recovery without an answer: it may do so when it has been looked at.
    private func isUntouched(_ database: any HomeDatabase, by failure: StorageFailure) -> Bool? {
        if failure.kind == .notSent { return true }
        guard let isStandby = (try? database.look())?.isStandby else { return nil }
        return isStandby && failure.kind == .unknownOutcome ? nil : isStandby
    }

    /// Remembers which promotions there may be at the old home.
    private func note(_ answer: HomeAnswer, _ term: HomeTerm) {
        let epoch =
            switch answer {
            case .done, .unknown: term.epoch
            case .contested(let other): other.epoch
            case .refused: Int64(0)
            }
        state.withLock { $0.fenced = max($0.fenced, epoch) }
    }

    /// Why a promotion came to nothing, in words; `released` says what came of taking the fence back.
    private func words(
        _ failure: PromotionFailure, _ plan: PromotionPlan, _ released: String?, _ database: any HomeDatabase
    ) -> String {
        let rest = released ?? "nothing was changed"
        switch failure {
        case .contested(let other) where other.region == own:
            return "\(other.words) is under way, begun at another node or before: see whether \(own) becomes home by "
                + "it, before you say it again; \(rest)"
        case .contested(let other):
            return "\(other.words) is ahead of this one: see whether \(other.region) is home, or "
                + "becomes it, before you say it again; \(rest)"
        case .notFenced(let reason):
            return "\(plan.old) cannot be fenced: \(reason); \(rest). Where it is down, and stays so, "
                + "--accept-loss goes on without: \(exposure(database))"
        case .notFollowing:
            return "the standby does not follow \(plan.old); \(rest); \(exposure(database))"
        case .notClaimed(let reason):
            return "\(plan.old) does not say that no other promotion came in between: \(reason); \(rest)"
        case .notPromoted(let reason, let isUntouched):
            let reason = "the database cannot be promoted: \(reason)"
            if let released { return "\(reason); \(released)" }
            if !plan.course.fences { return reason }
            if let found = try? database.look(), !found.isStandby, !found.isFenced, found.term.region == own {
                return "\(reason): \(own) is home by \(found.term.words)"
            }
            let old = plan.old
            let fenced = plan.acceptsLoss ? "may be fenced, and take no writes" : "is fenced, and takes no writes"
            if isUntouched == false {
                return "\(reason); \(old) \(fenced), and the database does not follow it any more: say it again, with "
                    + "--accept-loss"
            }
            return "\(reason); \(old) \(fenced), as nobody knows whether the database is promoted: see that it "
                + "runs, and say it again. Where it never will, \(old) gets its role back at a node of its own: region "
                + "promote \(old) --accept-loss"
        }
    }

    /// Waits until this node serves as home.
    private func serve(
        _ plan: PromotionPlan, _ report: PromotionReport, givenUp: Int64, began: UInt64
    ) throws(StorageFailure) {
        say("turning")
        parking.announce()
        let serving = Clock.monotonicNanoseconds() + 15_000_000_000
        while !(term == plan.term && state.withLock({ $0.isTurned })) {
            // With loss accepted at two regions at once, one of them is home in the end.
            let term = self.term
            if term.epoch > plan.term.epoch {
                let words =
                    term.region == own
                    ? "\(own) is home by \(term.words), begun at another node: nothing that it acknowledged is lost"
                    : "\(term.words) is ahead of this one: what \(own) acknowledged as home since is lost"
                throw StorageFailure(.refused, words)
            }
            guard Clock.monotonicNanoseconds() < serving else {
                throw StorageFailure(
                    .refused, "the database is promoted, and this node does not serve as home yet: look at its log")
            }
            Parking().wait(0, timeoutNanoseconds: 10_000_000)
        }
        let took = Int64((Clock.monotonicNanoseconds() - began) / 1_000_000)
        let outcome = PromotionStatus.Outcome(
            report: report, old: plan.old, givenUpMilliseconds: givenUp, tookMilliseconds: took)
        state.withLock { ($0.promotion.outcome, $0.promotion.phase) = (outcome, "done") }
        log?.warning(
            "this region is home",
            [
                "promotion": .count(Int(plan.term.number)), "ms": .count(Int(took)),
                "loss_window_ms": .count(Int(outcome.lossMilliseconds)),
            ])
    }

    private func tell(_ plan: PromotionPlan, _ wish: HomeWish) -> HomeAnswer {
        watch?.command(plan.old, wish, plan.term, timeoutNanoseconds: 6_000_000_000) ?? .refused("it is not asked")
    }

    /// Takes the fence of the old home back; what came of it, in words.
    private func releaseOld(_ plan: PromotionPlan) -> String {
        switch tell(plan, .release) {
        case .done: "\(plan.old) takes writes again"
        case .contested(let other): "\(plan.old) is fenced by \(other.words)"
        case .refused(let reason), .unknown(let reason):
            "\(plan.old) may be fenced, and take no writes, as \(reason)"
        }
    }

    /// What a promotion would lose now, in words.
    private func exposure(_ database: any HomeDatabase) -> String {
        guard let found = try? database.look(), found.seenMilliseconds > 0 else {
            return "it is not known what the standby lacks"
        }
        let behind = max(0, Int64(Clock.realtimeNanoseconds() / 1_000_000) - found.seenMilliseconds)
        return "the standby has everything that was acknowledged until \(behind) ms ago"
    }
}
