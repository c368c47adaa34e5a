// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Reactor
internal import Storage

/// What a node of another region wants of this one's database.
struct HomeErrand: Sendable {
    /// Who wants it.
    let connection: ConnectionID
    let wish: HomeWish
    /// The promotion that it is about.
    let term: HomeTerm
}

/// Does what other regions want of this one's database: that may take seconds, by writes that are under way, and the
/// stream's thread serves everybody who follows meanwhile.
///
/// One after the other, in the order in which they came: what takes a fence back comes behind the fence. A thread of
/// its own is there as long as there is something to do. Safe to use from any thread.
final class HomeClerk: Sendable {
    private struct State {
        var waiting: ArraySlice<HomeErrand> = []
        var answers: [(errand: HomeErrand, answer: HomeAnswer)] = []
        var isBusy = false
        var isStopped = false
        var thread: Thread?
    }

    private let state = Guarded(State())
    private let parking = Parking()
    private let limit: Int

    /// One for whom up to `limit` errands wait.
    init(limit: Int) { self.limit = limit }

    /// Takes something to do; why it cannot, where it does not. Does not block. `ready` is called on another thread
    /// when there is an answer.
    func take(
        _ errand: HomeErrand, _ keeper: any HomeKeeper, ready: @escaping @Sendable () -> Void
    ) -> String? {
        let (isTaken, isFirst) = state.withLock { state in
            guard !state.isStopped, state.waiting.count < limit else { return (false, false) }
            state.waiting.append(errand)
            defer { state.isBusy = true }
            return (true, !state.isBusy)
        }
        guard isTaken else { return "too much is asked of this node at once" }
        guard isFirst else { return nil }
        do throws(SystemError) {
            let thread = try Thread(name: "martlet-errand") { [self] in run(keeper, ready) }
            state.withLock { $0.thread = thread }
            return nil
        } catch {
            // Nobody else gives it anything to do meanwhile: those are of one thread.
            state.withLock { ($0.waiting, $0.isBusy) = ([], false) }
            return error.description
        }
    }

    /// What was answered since the last call.
    func takeAnswers() -> [(errand: HomeErrand, answer: HomeAnswer)] {
        state.withLock { state in
            defer { state.answers = [] }
            return state.answers
        }
    }

    /// Drops what waits, and waits for what is under way, for so many milliseconds at most. Whether that has ended.
    /// Blocks. Nothing is taken from now on.
    func stop(milliseconds: UInt64) -> Bool {
        state.withLock { ($0.waiting, $0.isStopped) = ([], true) }
        let end = Clock.monotonicNanoseconds() &+ milliseconds * 1_000_000
        while true {
            let ticket = parking.ticket
            let now = Clock.monotonicNanoseconds()
            if !state.withLock({ $0.isBusy }) { break }
            guard now < end else { return false }
            parking.wait(ticket, timeoutNanoseconds: end - now)
        }
        // It has nothing to do any more but to end.
        state.withLock { state in
            defer { state.thread = nil }
            return state.thread
        }?.join()
        return true
    }

    private func run(_ keeper: any HomeKeeper, _ ready: () -> Void) {
        while let errand = next() {
            let answer = Self.answer(errand, keeper)
            state.withLock { $0.answers.append((errand, answer)) }
            ready()
        }
        parking.announce()
    }

    private func next() -> HomeErrand? {
        state.withLock { state in
            let errand = state.waiting.popFirst()
            state.isBusy = errand != nil
            return errand
        }
    }

    private static func answer(_ errand: HomeErrand, _ keeper: any HomeKeeper) -> HomeAnswer {
        do throws(StorageFailure) {
            var other: HomeTerm?
            switch errand.wish {
            case .fence: other = try keeper.fence(for: errand.term)
            case .claim: other = try keeper.claim(errand.term)
            case .release: try keeper.release(errand.term)
            }
            return other.map { .contested($0) } ?? .done
        } catch {
            return error.kind == .unknownOutcome ? .unknown(error.reason) : .refused(error.reason)
        }
    }
}
