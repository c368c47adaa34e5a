// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
package import Storage

/// A region's own PostgreSQL, as what it is to be home with: see `HomeSchema`. Each call has a connection of its own,
/// also to a standby. Safe to use from any thread.
package final class PostgresHome: HomeDatabase {
    private let configuration: PostgresConfiguration
    private let hosts: SQLHosts

    /// The database of `configuration`. Nothing is connected yet.
    package init(_ configuration: PostgresConfiguration) {
        var own = configuration
        own.allowsStandby = true
        own.statementTimeoutMilliseconds = 3_000
        own.connectTimeoutMilliseconds = 2_000
        self.configuration = own
        hosts = SQLHosts(own.url)
    }

    private func connected<R>(
        timeoutMilliseconds: Int? = nil, _ body: (borrowing SQLConnection) throws(SQLFailure) -> R
    ) throws(StorageFailure) -> R {
        var own = configuration
        if let timeoutMilliseconds { own.statementTimeoutMilliseconds = timeoutMilliseconds }
        do throws(SQLFailure) {
            let connection = try SQLConnection.open(own, name: "martlet home", hosts)
            _ = try connection.run(texts: [PostgresSchema.session(own)])
            return try body(connection)
        } catch {
            switch error {
            case .refused(state: "42P01", _):
                throw StorageFailure(.refused, "it has no tables of ours, or those of an earlier version")
            case .lostAfter(let reason): throw StorageFailure(.unknownOutcome, reason)
            case .refused, .lostBefore: throw StorageFailure(.refused, error.reason)
            }
        }
    }

    /// Asks it, whether it is a primary or a standby. Blocks.
    package func look() throws(StorageFailure) -> HomeState {
        try connected { connection throws(SQLFailure) in try Self.look(connection) }
    }

    private static func look(_ connection: borrowing SQLConnection) throws(SQLFailure) -> HomeState {
        let answers = try connection.run(texts: HomeSchema.look)
        var state = HomeState()
        state.isStandby = text(answers[0].first?.first ?? nil) == "t"
        if let found = term(answers[1].first) {
            (state.term, state.isFenced) = (found.term, found.isFenced)
        }
        state.held = term(answers[2].first)?.term
        state.claims = terms(answers[3])
        for row in answers[4] where row.count == 2 {
            switch text(row[0]) {
            case "stream_source": state.source = number(row[1]).map { String(UInt64(bitPattern: $0), radix: 16) } ?? ""
            case "home_seen": state.seenMilliseconds = number(row[1]) ?? 0
            default: break
            }
        }
        return state
    }

    /// How often the lock is tried: writes that are under way hold it up.
    private static let lockTries = 8

    /// Runs statements that begin with taking the lock alone.
    private func locked(_ texts: [String]) throws(StorageFailure) -> [SQLRows] {
        for _ in 1..<Self.lockTries {
            do throws(StorageFailure) {
                return try connected { connection throws(SQLFailure) in try connection.run(texts: texts) }
            } catch {
                // Lock not available.
                guard error.reason.contains("55P03") else { throw error }
            }
        }
        return try connected { connection throws(SQLFailure) in try connection.run(texts: texts) }
    }

    /// Adds the fence once no write is under way. Blocks.
    package func fence(for term: HomeTerm) throws(StorageFailure) -> HomeTerm? {
        let answers = try locked(HomeSchema.fence(for: term))
        let found = Self.term(answers[answers.count - 3].first)
        if let found, found.term == term, found.isFenced { return nil }
        if Self.number(answers.last?.first?.first ?? nil) != 0 {
            throw StorageFailure(.refused, "\(term.words) was taken back")
        }
        guard let found else { throw StorageFailure(.refused, "the fence was not added") }
        return term.rival(among: Self.terms(answers[answers.count - 2])) ?? found.term
    }

    /// Marks the fence. Blocks.
    package func claim(_ term: HomeTerm) throws(StorageFailure) -> HomeTerm? {
        let answers = try locked(HomeSchema.claim(term))
        let missing = StorageFailure(.refused, "its fence is not there any more")
        guard let found = Self.term(answers[answers.count - 2].first), found.term.epoch >= term.epoch else {
            throw missing
        }
        guard found.term == term else { return found.term }
        guard found.isFenced else { throw missing }
        let claims = Self.terms(answers[answers.count - 1])
        if let rival = term.rival(among: claims) { return rival }
        guard claims.contains(term) else { throw missing }
        return nil
    }

    /// Removes the fence; fails where that of another promotion is left. Blocks.
    package func release(_ term: HomeTerm) throws(StorageFailure) {
        let found = Self.term(try locked(HomeSchema.release(term)).last?.first)
        if let found, found.isFenced {
            throw StorageFailure(.refused, "it is fenced by \(found.term.words), too")
        }
    }

    /// Adds the fence of a promotion that holds. Blocks.
    package func yield(to term: HomeTerm) throws(StorageFailure) {
        let found = Self.term(try locked(HomeSchema.yield(to: term)).last?.first)
        guard let found, found.term.epoch >= term.epoch else {
            throw StorageFailure(.refused, "the fence was not added")
        }
    }

    /// Ends a standby's recovery, and says in it that a region is home. Blocks for a minute at most.
    package func promote(
        to term: HomeTerm, isWhole: Bool, overrides: Bool
    ) throws(StorageFailure) -> PromotionReport {
        var isAsked = false
        do throws(StorageFailure) {
            return try promote(to: term, isWhole: isWhole, overrides: overrides) { isAsked = true }
        } catch {
            if isAsked { throw error }
            throw StorageFailure(.notSent, error.reason)
        }
    }

    /// Calls `asking` before it asks for anything that changes the database.
    private func promote(
        to term: HomeTerm, isWhole: Bool, overrides: Bool, asking: () -> Void
    ) throws(StorageFailure) -> PromotionReport {
        try connected(timeoutMilliseconds: 65_000) { connection throws(SQLFailure) in
            let found = try Self.look(connection)
            if found.isStandby { try Self.refuse(term, by: found, overrides: overrides) }
            asking()
            if found.isStandby {
                let answer = try connection.run(texts: [HomeSchema.endRecovery]).first?.first?.first ?? nil
                guard Self.text(answer) == "t" else {
                    // It is asked to all the same, and may end it yet.
                    throw .lostAfter(reason: "the standby did not end its recovery within a minute")
                }
            }
            var last: SQLFailure?
            let texts = HomeSchema.promote(to: term, isWhole: isWhole, overrides: overrides)
            for _ in 0..<Self.lockTries {
                do throws(SQLFailure) {
                    let row = try connection.run(texts: texts).last?.first
                    guard let found = Self.term(row), found.term == term, !found.isFenced else {
                        throw .refused(state: "XX000", reason: Self.faster(Self.term(row), than: term))
                    }
                    let (isWhole, seen) = (Self.text(row?[3]) == "t", Self.number(row?.last ?? nil) ?? 0)
                    return PromotionReport(term: term, isWhole: isWhole, safeUntilMilliseconds: seen)
                } catch {
                    guard case .refused(state: "55P03", _) = error else { throw error }
                    last = error
                }
            }
            throw last ?? .lostBefore(reason: "not tried")
        }
    }

    /// A standby whose row would be refused by what it has already goes on following.
    private static func refuse(_ term: HomeTerm, by found: HomeState, overrides: Bool) throws(SQLFailure) {
        if !overrides, let rival = term.rival(among: found.claims) {
            throw .refused(state: "XX000", reason: rival.mayBeHome)
        }
        guard found.term.epoch > term.epoch else { return }
        throw .refused(state: "XX000", reason: faster((found.term, found.isFenced), than: term))
    }

    private static func faster(
        _ found: (term: HomeTerm, isFenced: Bool)?, than term: HomeTerm
    ) -> String {
        guard let found else { return "its row was not added" }
        if found.isFenced, found.term.region == term.region { return "\(found.term.words) was begun since" }
        return found.isFenced ? found.term.mayBeHome : "\(found.term.words) was faster"
    }

    /// Counts the records beyond a succession, and those without a number. Blocks.
    package func leftBehind(
        _ succession: StreamSuccession
    ) throws(StorageFailure) -> (count: Int64, first: Int64, last: Int64)? {
        try connected { connection throws(SQLFailure) in
            let row = try connection.run(texts: [HomeSchema.leftBehind(succession)]).first?.first ?? []
            let numbers = row.compactMap { Self.number($0) }
            // It was home by that numbering, or by its own behind it, which nobody took over.
            let isOvertaken = numbers.count == 5 && numbers[4] > 0
            let isBefore = numbers.count == 5 && numbers[3] == succession.previous && !succession.isWhole
            guard isOvertaken || isBefore, numbers[0] > 0 else { return nil }
            return (numbers[0], numbers[1], numbers[2])
        }
    }

    private static func term(_ row: [[UInt8]?]?) -> (term: HomeTerm, isFenced: Bool)? {
        guard let row, row.count >= 3, let epoch = number(row[0]) else { return nil }
        return (HomeTerm(epoch: epoch, region: text(row[1])), text(row[2]) == "t")
    }

    private static func terms(_ rows: SQLRows) -> [HomeTerm] {
        rows.compactMap { row in
            row.count == 2 ? number(row[0]).map { HomeTerm(epoch: $0, region: text(row[1])) } : nil
        }
    }

    private static func text(_ column: [UInt8]?) -> String { column.map { String(decoding: $0, as: UTF8.self) } ?? "" }

    private static func number(_ column: [UInt8]?) -> Int64? { Int64(text(column)) }
}
