// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Storage

/// The table of promotions as the statements on it have it: what they do in a database is held against this, and the
/// simulation of promotions rests on it.
package struct HomeRows: Sendable, Equatable {
    /// A promotion that a database knows of.
    package struct Row: Sendable, Equatable {
        /// Which one it is.
        package var term: HomeTerm
        /// Whether it fences the database.
        package var isFenced: Bool
        /// Of a fence: whether the promotion is in its last step.
        package var isClaimed: Bool
    }

    /// By their promotions, the newest last.
    package private(set) var rows: [Row] = []
    private var released: Set<Int64> = []
    /// Which of the rules hold.
    package var guards: PromotionGuards

    /// A table without rows.
    package init(_ guards: PromotionGuards = .all) { self.guards = guards }

    /// The newest promotion.
    package var newest: Row? { rows.last }
    /// The fences in their last step, the newest last: each stays one whatever comes above it, but for a home.
    package var claims: [HomeTerm] {
        let behind = (rows.lastIndex { !$0.isFenced } ?? -1) + 1
        return rows[behind...].filter(\.isClaimed).map(\.term)
    }
    /// Another region's promotion that is in its last step.
    private func rival(of term: HomeTerm) -> HomeTerm? {
        term.rival(among: guards.contains(.rivals) ? claims : claims.suffix(1))
    }
    /// Whether no write is taken.
    package var isFenced: Bool { newest?.isFenced ?? false }

    private mutating func put(_ row: Row) {
        rows.removeAll { $0.term.epoch == row.term.epoch }
        rows.insert(row, at: rows.firstIndex { $0.term.epoch > row.term.epoch } ?? rows.count)
    }

    /// Fences for a promotion that is to hold.
    package mutating func fence(for term: HomeTerm) -> HomeAnswer {
        let isReleased = guards.contains(.marks) && released.contains(term.epoch)
        if let newest, newest.term == term, newest.isFenced { return .done }
        if isReleased { return .refused("\(term.words) was taken back") }
        if let newest {
            let rival = guards.contains(.contests) ? rival(of: term) : nil
            let isHeld = newest.isFenced && (newest.term.number >= term.number || rival != nil)
            if newest.term.epoch >= term.epoch || isHeld { return .contested(rival ?? newest.term) }
        }
        put(Row(term: term, isFenced: true, isClaimed: false))
        return .done
    }

    /// Goes on to the last step of a promotion.
    package mutating func claim(_ term: HomeTerm) -> HomeAnswer {
        guard let newest, newest.term.epoch >= term.epoch else { return .refused("its fence is not there any more") }
        guard newest.term == term else { return .contested(newest.term) }
        guard newest.isFenced else { return .refused("its fence is not there any more") }
        if guards.contains(.precedence), let rival = term.rival(among: claims) { return .contested(rival) }
        rows[rows.count - 1].isClaimed = true
        return .done
    }

    /// Takes a fence back.
    package mutating func release(_ term: HomeTerm) -> HomeAnswer {
        rows.removeAll { $0.term == term && $0.isFenced }
        released.insert(term.epoch)
        return isFenced ? .refused("it is fenced, too") : .done
    }

    /// Fences for a promotion that holds, unless the region has been home since.
    package mutating func yield(to term: HomeTerm) {
        if !guards.contains(.yields), newest?.term.epoch ?? 0 >= term.epoch { return }
        if rows.contains(where: { !$0.isFenced && $0.term.epoch >= term.epoch }) { return }
        if rows.contains(where: { $0.term.epoch == term.epoch && $0.term.region != term.region }) { return }
        put(Row(term: term, isFenced: true, isClaimed: true))
    }

    /// Whether another region than that of `term` may be home: its promotion is in its last step. Nothing is said to be
    /// whole then, whatever who began the promotion knew.
    package func isContested(_ term: HomeTerm) -> Bool {
        rival(of: term) != nil && guards.contains(.returns)
    }

    /// Says that a region is home; what stands against that.
    package mutating func promote(to term: HomeTerm, overrides: Bool) -> HomeTerm? {
        if let newest {
            if newest.term.epoch > term.epoch { return newest.term }
            if isContested(term), !overrides { return newest.term }
            if newest.term.epoch == term.epoch, newest.term.region != term.region { return newest.term }
        }
        put(Row(term: term, isFenced: false, isClaimed: false))
        return nil
    }
}
