// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// What somebody hears who waits for a value that another task of the process gets.
enum FlightNews: Sendable {
    /// The value, or why there is none.
    case landed(Result<CacheValue, any Error>)
    /// The leader gave up: it is this task's turn.
    case lead
    /// More wait already than may.
    case refused
    /// The time is over.
    case late
    case cancelled
}

/// Brings those together who want the same key: the shell around ``FlightTable``.
final class FlightDesk: Sendable {
    private struct Waiter {
        var key: String
        var deadline: UInt64
        var continuation: CheckedContinuation<FlightNews, Never>
    }

    private struct State {
        var table: FlightTable
        var waiters: [UInt64: Waiter] = [:]
        /// When somebody's time is over at the earliest.
        var nextDeadline = UInt64.max
    }

    private let state: Guarded<State>

    init(followerLimit: Int) { state = Guarded(State(table: FlightTable(followerLimit: followerLimit))) }

    /// Leads, or waits until there is news. `alarm` is called with a time at which ``expire(nowNanoseconds:)`` is due.
    func join(
        _ key: String, _ id: UInt64, deadline: UInt64, alarm: @Sendable (UInt64) -> Void
    ) async -> FlightNews {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let (role, isEarlier) = state.withLock { state in
                    let role = state.table.join(key, id)
                    guard role == .follow else { return (role, false) }
                    state.waiters[id] = Waiter(key: key, deadline: deadline, continuation: continuation)
                    let isEarlier = deadline < state.nextDeadline
                    if isEarlier { state.nextDeadline = deadline }
                    return (role, isEarlier)
                }
                switch role {
                case .lead: continuation.resume(returning: .lead)
                case .refuse: continuation.resume(returning: .refused)
                case .follow:
                    if isEarlier { alarm(deadline) }
                    // The handler may have run before there was anything to cancel.
                    if Task.isCancelled { leave(id, .cancelled) }
                }
            }
        } onCancel: {
            leave(id, .cancelled)
        }
    }

    private func leave(_ id: UInt64, _ news: FlightNews) {
        let waiter = state.withLock { state -> Waiter? in
            guard let waiter = state.waiters.removeValue(forKey: id) else { return nil }
            _ = state.table.leave(waiter.key, id)
            return waiter
        }
        waiter?.continuation.resume(returning: news)
    }

    /// Tells everybody who waits what came of it.
    func land(_ key: String, _ id: UInt64, _ result: Result<CacheValue, any Error>) {
        let waiters = state.withLock { state in
            state.table.finish(key, id).compactMap { state.waiters.removeValue(forKey: $0) }
        }
        for waiter in waiters { waiter.continuation.resume(returning: .landed(result)) }
    }

    /// The leader gives up; somebody else leads.
    func resign(_ key: String, _ id: UInt64) {
        let next = state.withLock { state in
            state.table.resign(key, id).flatMap { state.waiters.removeValue(forKey: $0) }
        }
        next?.continuation.resume(returning: .lead)
    }

    /// Ends the waits whose time is over; returns when this is due next, .max for not.
    func expire(nowNanoseconds now: UInt64) -> UInt64 {
        let (late, next) = state.withLock { state -> ([Waiter], UInt64) in
            guard state.nextDeadline <= now else { return ([], state.nextDeadline) }
            let ids = state.waiters.filter { $0.value.deadline <= now }.map(\.key)
            var late: [Waiter] = []
            for id in ids {
                guard let waiter = state.waiters.removeValue(forKey: id) else { continue }
                _ = state.table.leave(waiter.key, id)
                late.append(waiter)
            }
            state.nextDeadline = state.waiters.values.lazy.map(\.deadline).min() ?? .max
            return (late, state.nextDeadline)
        }
        for waiter in late { waiter.continuation.resume(returning: .late) }
        return next
    }

    /// Keys that are under way.
    var count: Int { state.withLock { $0.table.count } }
}
