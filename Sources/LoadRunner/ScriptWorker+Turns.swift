// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import ScriptEngine

/// What a script is told of a request, as the prelude's `settle` takes it.
struct ScriptAnswer {
    /// In the order of the prelude's numbers.
    enum Kind: Int {
        case nothing, no, yes, text, versioned, number, error, part, endOfParts, word, meta, bytes
    }

    let kind: Kind
    /// What begins the values, out of ``ScriptWorker/answers``.
    let slice: ScriptEvent.Slice
    let values: [ScriptValue]

    init(_ kind: Kind, slice: ScriptEvent.Slice = .none, _ values: [ScriptValue] = []) {
        self.kind = kind
        self.slice = slice
        self.values = values
    }
}

/// What a script is to be told of a request.
struct ScriptSettlement {
    var request: ScriptRequest
    var answer: ScriptAnswer
    var isLast: Bool
}

/// Something for a script to run.
enum ScriptTask {
    /// An iteration that has begun.
    case run(user: Int, iteration: Double)
    case settle(ScriptSettlement)
    /// A timer that is due.
    case fire(ScriptTimer)

    var user: Int {
        switch self {
        case .run(let user, _): user
        case .settle(let one): one.request.user
        case .fire(let timer): timer.user
        }
    }
}

extension ScriptWorker {
    /// Tells the script of `one`, soon.
    func settle(_ one: ScriptSettlement) { queue.append(.settle(one)) }

    /// Runs what is queued, of many users at once: entering the machine costs more than most of what scripts do in
    /// between. Of each user one event is dispatched at a time, so that what follows from it runs before the next.
    /// Does nothing while a script runs. Returns whether iterations ended, whose users may start others.
    @discardableResult
    func deliver() -> Bool {
        // While a script sleeps, what arrives waits for it.
        guard !queue.isEmpty, !isDelivering, !isAsleep else { return false }
        isDelivering = true
        let before = endedIterations
        var next = 0
        while next < queue.count {
            next = gather(from: next)
            var first = 0
            while first < events.count, let machine {
                firstDispatched = first
                let (handled, problem) = machine.dispatch(events[first...], answers)
                first += max(1, handled)
                guard let problem, users[events[first - 1].context].isRunning else { continue }
                endIteration(events[first - 1].context, error: problem)
                forget(events[first - 1].context)
            }
            for user in dispatched {
                users[user].isDispatched = false
                endIfOver(user)
            }
            events.removeAll(keepingCapacity: true)
            dispatched.removeAll(keepingCapacity: true)
        }
        queue.removeAll(keepingCapacity: true)
        answers.removeAll(keepingCapacity: answers.capacity < 1 << 20)
        isDelivering = false
        return endedIterations != before
    }

    /// Makes events of what is queued from `start` on, as many as are dispatched at once. Returns where the rest is.
    private func gather(from start: Int) -> Int {
        var next = start
        while next < queue.count, events.count < ScriptEvent.limit {
            let task = queue[next]
            let user = task.user
            if users.indices.contains(user), users[user].isDispatched { return next }
            next += 1
            guard users.indices.contains(user), users[user].isRunning else { continue }
            switch task {
            case .run(_, let iteration): events.append(ScriptEvent(.run, user, id: iteration))
            case .fire(let timer):
                guard users[user].epoch == timer.epoch else { continue }
                users[user].openTimers -= 1
                events.append(ScriptEvent(.fire, user, id: timer.id))
            case .settle(let one):
                guard users[user].epoch == one.request.epoch else { continue }
                if one.isLast { users[user].openRequests -= 1 }
                events.append(
                    ScriptEvent(
                        .settle, user, id: one.request.id, answer: one.answer.kind.rawValue, slice: one.answer.slice,
                        values: one.answer.values))
                if !one.isLast {
                    dispatched.append(user)
                    continue
                }
            }
            users[user].isDispatched = true
            dispatched.append(user)
        }
        return next
    }
}
