// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage
internal import Telemetry

/// A home region whose database is fenced, while no other region is known to be home: nobody takes writes. A promotion
/// takes some seconds of it; where it lasts, the promotion was cut short, and people are to go on with it, or to give
/// the region its role back.
struct HomeStandstill: Equatable {
    /// The promotion whose fence it is.
    let term: HomeTerm
    /// Whether that is in its last step: its region may be home, and nobody here has heard of it.
    let isClaimed: Bool
    private let since: UInt64
    private var told: UInt64

    /// What follows `before` where the database says `found`, at a monotonic time in nanoseconds. A database that does
    /// not answer is as it was. Nil where it is not fenced, or another region is home.
    init?(_ before: HomeStandstill?, _ found: HomeState?, isHome: Bool, at now: UInt64) {
        guard isHome else { return nil }
        guard let found else {
            guard let before else { return nil }
            self = before
            return
        }
        guard found.isFenced, !found.isStandby else { return nil }
        (term, isClaimed) = (found.fence, found.isClaimed)
        (since, told) = (before?.since ?? now, before?.told ?? 0)
    }

    /// For how long it has lasted.
    func seconds(at now: UInt64) -> Int { Int((now - min(since, now)) / 1_000_000_000) }

    /// Whether it was told.
    var isTold: Bool { told != 0 }

    /// Whether it is to be told now: after ten seconds, and each minute from then on.
    mutating func tell(at now: UInt64) -> Bool {
        let due = told == 0 ? since + 10_000_000_000 : told + 60_000_000_000
        guard now >= due else { return false }
        told = now
        return true
    }
}

/// What a fence leaves that nothing comes of.
extension NodeHome {
    /// The fence that keeps this region from taking writes, while it is home by all that is known, and for how long by
    /// now; nil where there is none.
    var standstill: (fence: HomeStandstill, seconds: Int)? {
        let now = Clock.monotonicNanoseconds()
        return state.withLock { $0.standstill }.map { ($0, $0.seconds(at: now)) }
    }

    /// Says that no region is home, where that lasts: who promotes another one may be gone.
    func tellOfStandstill() {
        let now = Clock.monotonicNanoseconds()
        let (before, after, isDue) = state.withLock { state in
            let before = state.standstill
            state.standstill = HomeStandstill(before, state.database, isHome: state.term.region == own, at: now)
            let isDue = state.standstill?.tell(at: now) ?? false
            return (before, state.standstill, isDue)
        }
        if let after, isDue {
            log?.error(
                "the database is fenced, and no region is home: see the runbook promote-a-region",
                [
                    "region": .text(after.term.region), "promotion": .count(Int(after.term.number)),
                    "last_step": .text(after.isClaimed ? "yes" : "no"), "seconds": .count(after.seconds(at: now)),
                ])
        } else if after == nil, let before, before.isTold {
            log?.info("the standstill is over", ["seconds": .count(before.seconds(at: now))])
        }
    }
}
