// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// How far a read has come that may be asked twice.
struct HedgeProgress {
    var isSentTwice = false
    /// Answers that are not good enough while the other may come.
    var first: RouteMachine.Outcome?
    var isSecondOver = false
}

extension RouteOperation {
    /// Whether it may be asked twice, and answered by either: a read that changes nothing, and that shows nothing which
    /// two servers number by themselves, as they do versions.
    var isHedged: Bool { self == .get || self == .metaGet }
}

/// Reads that are asked twice when the first answer dawdles. Source: Dean and Barroso, "The Tail at Scale", 2013.
extension RouteMachine {
    mutating func beginHedge(
        _ handle: Int, _ route: HedgeRoute, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        guard !place.isDetached, place.kind != .shadow else { return begin(route.first.index, form, place, &turn) }
        let frame = open(handle, form, place, .hedge(HedgeProgress()))
        let token = sends.count
        begin(route.first.index, form, child(of: frame), &turn)
        guard token < sends.count else { return }
        let now = turn.clock.nowNanoseconds
        (sends[token].timedBy, sends[token].started) = (handle, now)
        let destination = sends[token].destination
        guard let delay = turn.engine.hedging.delay(handle, destination, route), !frames[frame].isDone else { return }
        let timeout = UInt64(turn.plan.destinations[destination].requestTimeoutMilliseconds) * 1_000_000
        guard delay < timeout else { return }
        turn.actions.append(.wait(token: frame, untilNanoseconds: now &+ delay))
    }

    /// Notes how long a request took that was asked first.
    func time(_ send: Send, _ result: RouteResult, _ engine: RouteEngine, _ clock: RouteClock) {
        guard case .hedge(let route) = engine.plan.tree.handles[send.timedBy] else { return }
        if result == .busy || result == .overloaded { return engine.noteBusy(nowNanoseconds: clock.nowNanoseconds) }
        guard !result.isUnreachable else { return }
        engine.hedging.note(
            send.timedBy, send.destination, quantile: route.quantile,
            nanoseconds: clock.nowNanoseconds &- send.started)
    }

    /// The time is over in which nearly all requests are answered.
    mutating func hedge(_ frame: Int, _ turn: inout Turn) {
        guard !frames[frame].isDone, !isCancelled, case .hedge(var progress) = frames[frame].work,
            case .hedge(let route) = turn.plan.tree.handles[frames[frame].handle], !progress.isSentTwice,
            progress.first == nil
        else { return }
        guard turn.engine.hedging.take(frames[frame].handle, route, now: turn.clock.nowNanoseconds) else { return }
        progress.isSentTwice = true
        frames[frame].work = .hedge(progress)
        begin(route.second.index, frames[frame].form, child(of: frame, 1, kind: .hedge), &turn)
    }

    /// The first good answer counts: any of the first's but an error that another server may not have; of the second's
    /// a value, or that there is none where its pool has a store behind it. Otherwise it is what the first says.
    mutating func continueHedge(_ frame: Int, _ slot: Int, _ outcome: Outcome, _ turn: inout Turn) {
        guard case .hedge(var progress) = frames[frame].work else { return }
        let isGood = slot == 0 ? !outcome.result.isFailoverError : isGoodCopy(outcome, turn)
        if isGood { return finish(frame, outcome, &turn) }
        if slot == 0 { progress.first = outcome } else { progress.isSecondOver = true }
        frames[frame].work = .hedge(progress)
        guard let first = progress.first, !progress.isSentTwice || progress.isSecondOver else { return }
        finish(frame, first, &turn)
    }

    private func isGoodCopy(_ outcome: Outcome, _ turn: Turn) -> Bool {
        if outcome.result == .found { return true }
        guard outcome.result == .notFound, let token = outcome.token else { return false }
        return turn.plan.tree.pools[sends[token].pool].consistency != .lookAside
    }

    // MARK: Copies of a key

    /// Sends a form to another server than the key's own.
    mutating func beginCopy(_ number: Int, _ pool: Int, _ form: Int, _ place: Place, _ turn: inout Turn) {
        guard let index = turn.plan.copy(number, ofKey: key(of: form), pool: pool) else {
            return deliver(
                .made(.localError, "the pool \(turn.plan.pools[pool].name) has too few servers for copies"), to: place,
                &turn)
        }
        send(form, to: turn.plan.pools[pool].destinations[index], pool: pool, place, &turn)
    }
}

extension RoutePlan {
    /// Hashes that are tried for one copy more.
    private static var copyAttempts: Int { 32 }

    /// Servers of a pool that copies of a key are on, as places in the pool: its own first, then others, always in the
    /// same order. They are found by the pool's own hash, of what is hashed of the key with a number behind it, so
    /// every router finds the same ones, and few change when servers come or go. There may be fewer than asked for.
    /// Allocates.
    ///
    /// `key` is as the client wrote it, with its routing prefix.
    package func copies(_ count: Int, ofKey key: [UInt8], pool: Int) -> [Int] {
        let choice = Int(poolChoice[pool])
        guard choice >= 0 else { return pools[pool].destinations.isEmpty ? [] : [0] }
        let bare = key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count)
        var found = [choices[choice].index(of: bare)]
        let hashed = Array(copying: choices[choice].selector.hashedPart(of: bare))
        var number = 1
        while found.count < min(count, choices[choice].count), number <= Self.copyAttempts * count {
            let salted = hashed + Array("#\(number)".utf8)
            number += 1
            let index = choices[choice].selector.owner(of: salted.span)
            let destination = pools[pool].destinations[index]
            if !found.contains(where: { pools[pool].destinations[$0] == destination }) { found.append(index) }
        }
        return found
    }

    /// The place in its pool of the server with one of those copies; nil when there are too few servers.
    func copy(_ number: Int, ofKey key: [UInt8], pool: Int) -> Int? {
        let found = copies(number + 1, ofKey: key, pool: pool)
        return number < found.count ? found[number] : nil
    }
}
