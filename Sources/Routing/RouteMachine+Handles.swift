// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

extension RouteMachine {
    /// The whole tree: one handle, or several of which the first one's reply counts.
    mutating func beginRoot(_ form: Int, _ place: Place, _ turn: inout Turn) {
        let key = key(of: form)
        let targets = turn.plan.clusters.handles(of: key.span, prefixLength: RoutingPrefix.length(in: key.span))
        guard let first = targets.first else {
            return deliver(.made(.localError, "no route for this key"), to: place, &turn)
        }
        for target in targets.dropFirst() { begin(Int(target), form, place.nobody, &turn) }
        begin(Int(first), form, place, &turn)
    }

    /// Has a handle handle a form.
    mutating func begin(_ handle: Int, _ form: Int, _ place: Place, _ turn: inout Turn) {
        guard handle >= 0 else { return beginRoot(form, place, &turn) }
        let operation = forms[form].operation
        let route = turn.plan.tree.handles[handle]
        if let child = route.transparentChild(for: operation, hostID: turn.plan.defaults.hostID) {
            return begin(child.index, form, place, &turn)
        }
        switch route {
        case .pool(let pool): beginPool(pool, form, place, &turn)
        case .server(let pool, let index):
            send(form, to: turn.plan.pools[pool].servers[index], pool: pool, place, &turn)
        case .copy(let pool, let number): beginCopy(number, pool, form, place, &turn)
        case .hash(let children, _, _, _): beginHash(handle, children, form, place, &turn)
        case .prefixes:
            let key = key(of: form)
            let bare = key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count)
            let next = turn.plan.prefixes[Int(turn.plan.prefixIndex[handle])].value(of: RoutePlan.routingKey(bare))
            guard next >= 0 else { return deliver(.made(.localError, "no route for this key"), to: place, &turn) }
            begin(Int(next), form, place, &turn)
        case .operations(let table, let otherwise):
            guard let next = table[operation] ?? otherwise else {
                return deliver(.made(.unknown, "no route for \(operation.name)"), to: place, &turn)
            }
            begin(next.index, form, place, &turn)
        case .error(let text, let result): deliver(.made(result, text), to: place, &turn)
        case .null: deliver(.made(operation.defaultResult), to: place, &turn)
        case .random(let children):
            guard !children.isEmpty else { return deliver(.made(operation.defaultResult), to: place, &turn) }
            let index = Int(turn.engine.random.next() % UInt64(children.count))
            begin(children[index].index, form, place, &turn)
        case .rateLimit(let target, let limits, let fallback):
            if turn.engine.mayPass(handle, limits, operation, turn.clock) {
                begin(target.index, form, place, &turn)
            } else if let fallback {
                begin(fallback.index, form, place, &turn)
            } else {
                deliver(.made(operation.defaultResult), to: place, &turn)
            }
        case .modifyKey(let child, let change): beginModifyKey(child.index, change, form, place, &turn)
        case .modifyExptime(let child, let change): beginModifyExptime(child.index, change, form, place, &turn)
        case .migrate(let from, let to, let start, let interval):
            beginMigrate(handle, from.index, to.index, start, interval, form, place, &turn)
        case .outstandingLimit(let child, let limit):
            beginOutstanding(handle, child.index, limit, form, place, &turn)
        case .latency(let child, let latency): beginLatency(handle, child.index, latency, form, place, &turn)
        default: beginComposite(handle, route, form, place, &turn)
        }
    }

    private mutating func beginComposite(
        _ handle: Int, _ route: RouteHandle, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        switch route {
        case .allSync(let children), .allFastest(let children), .allMajority(let children):
            guard !children.isEmpty else {
                return deliver(.made(forms[form].operation.defaultResult), to: place, &turn)
            }
            let counts = [UInt8](repeating: 0, count: RouteResult.allCases.count)
            let frame = open(handle, form, place, .counts(counts))
            frames[frame].pending = children.count
            // A child that answers at once may end the frame: the others are asked all the same.
            for (slot, next) in children.enumerated() { begin(next.index, form, child(of: frame, slot), &turn) }
        case .allAsync(let children):
            for next in children { begin(next.index, form, place.nobody, &turn) }
            deliver(.made(forms[form].operation.defaultResult), to: place, &turn)
        case .allInitial(let children):
            guard let first = children.first else {
                return deliver(.made(forms[form].operation.defaultResult), to: place, &turn)
            }
            for next in children.dropFirst() { begin(next.index, form, place.nobody, &turn) }
            begin(first.index, form, place, &turn)
        case .failover(let route): beginFailover(handle, route, form, place, &turn)
        case .hedge(let route): beginHedge(handle, route, form, place, &turn)
        case .missFailover(let children, _):
            guard let first = children.first else {
                return deliver(.made(forms[form].operation.defaultResult), to: place, &turn)
            }
            let frame = open(handle, form, place)
            begin(first.index, form, child(of: frame), &turn)
        case .keySplit(let next, let replicas, let allSync, let firstHit):
            beginKeySplit(
                handle, next.index, Split(replicas: replicas, allSync: allSync, firstHit: firstHit), form, place, &turn)
        case .shardSplit(let next, let splits): beginShardSplit(next.index, splits, form, place, &turn)
        case .shadow(let next, let shadows): beginShadow(handle, next.index, shadows, form, place, &turn)
        case .slowWarmUp(let target, let failover, let settings):
            if forms[form].operation.group == .get, !turn.engine.takesRead(handle, settings) {
                var elsewhere = place
                if elsewhere.kind == .normal { elsewhere.kind = .failover }
                return begin(failover.index, form, elsewhere, &turn)
            }
            let frame = open(handle, form, place)
            begin(target.index, form, child(of: frame), &turn)
        case .warmUp(let cold, _, _):
            let frame = open(handle, form, place)
            begin(cold.index, form, child(of: frame), &turn)
        case .l1l2(let first, _, _):
            let frame = open(handle, form, place)
            begin(first.index, form, child(of: frame), &turn)
        case .l1l2SizeSplit(let first, let second, let split):
            beginSizeSplit(handle, first.index, second.index, split, form, place, &turn)
        case .bigValue(_, let values): beginBigValue(handle: handle, values, form, place, &turn)
        default: preconditionFailure("a handle that nobody handles")
        }
    }

    /// A child of a frame that waits has answered.
    mutating func childDone(_ frame: Int, _ slot: Int, _ outcome: Outcome, _ turn: inout Turn) {
        let handle = frames[frame].handle
        if case .chain(let chain) = frames[frame].work { return continueChain(frame, chain, slot, outcome, &turn) }
        if case .spread = frames[frame].work { return continueSpread(frame, slot, outcome, &turn) }
        if case .pieces = frames[frame].work { return continuePieces(frame, slot, outcome, &turn) }
        switch turn.plan.tree.handles[handle] {
        case .allSync: gatherWorst(frame, outcome, &turn)
        case .allFastest: gatherFirst(frame, outcome, isGood: !outcome.result.isFailoverError, &turn)
        case .allMajority(let children): gatherMajority(frame, of: children.count, outcome, &turn)
        case .failover(let route): continueFailover(frame, route, outcome, &turn)
        case .hedge: continueHedge(frame, slot, outcome, &turn)
        case .missFailover(let children, let returnsBest):
            continueMissFailover(frame, children, returnsBest, outcome, &turn)
        case .keySplit:
            let operation = forms[frames[frame].form].operation
            let isGood = operation.group == .get ? outcome.result.isHit : outcome.result.isStored
            gatherFirst(frame, outcome, isGood: isGood, &turn)
        case .shadow(_, let shadows): continueShadow(frame, shadows, outcome, &turn)
        case .slowWarmUp:
            turn.engine.note(handle, outcome.result)
            finish(frame, outcome, &turn)
        case .warmUp(let cold, let warm, let exptime):
            continueWarmUp(frame, cold.index, warm.index, exptime, outcome, &turn)
        case .l1l2(let first, let second, let levels):
            continueTwoLevels(frame, first.index, second.index, levels, outcome, &turn)
        case .l1l2SizeSplit(let first, let second, let split):
            continueSizeSplit(frame, first.index, second.index, split, outcome, &turn)
        case .migrate(let from, _, _, _): continueMigrate(frame, from.index, outcome, &turn)
        case .outstandingLimit:
            turn.engine.release(handle)
            finish(frame, outcome, &turn)
        case .latency(_, let latency): continueLatency(frame, latency, outcome, &turn)
        default: preconditionFailure("a handle that waits for nobody")
        }
    }

    private mutating func beginPool(_ pool: Int, _ form: Int, _ place: Place, _ turn: inout Turn) {
        let plan = turn.plan
        if !plan.pools[pool].warming.isEmpty { deleteAhead(pool, form, place, &turn) }
        if request.copy > 0, forms[form].operation == .get, beginSpread(pool, form, place, &turn) { return }
        let choice = Int(plan.poolChoice[pool])
        if choice >= 0 {
            let index = chosen(plan.choices[choice], form)
            selected = index
            return send(
                form, to: Int(plan.choosable[plan.choices[choice].first + index]), pool: pool, place, &turn)
        }
        if let only = plan.pools[pool].destinations.first { return send(form, to: only, pool: pool, place, &turn) }
        guard plan.tree.pools[pool].isErrorWhenEmpty else {
            return deliver(.made(forms[form].operation.defaultResult), to: place, &turn)
        }
        deliver(.made(.localError, "the pool \(plan.pools[pool].name) has no servers"), to: place, &turn)
    }

    private mutating func beginHash(
        _ handle: Int, _ children: [RouteTree.ID], _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        let choice = Int(turn.plan.handleChoice[handle])
        if choice >= 0 {
            let index = chosen(turn.plan.choices[choice], form)
            selected = index
            return begin(children[index].index, form, place, &turn)
        }
        guard let only = children.first else {
            return deliver(.made(.localError, "a hash of no routes"), to: place, &turn)
        }
        begin(only.index, form, place, &turn)
    }

    /// The choice for a form's key.
    private func chosen(_ choice: RoutePlan.Choice, _ form: Int) -> Int {
        let key = key(of: form)
        return choice.index(of: key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count))
    }

    /// What routes hash and compare of a form's key.
    func routingKey(of form: Int) -> [UInt8] {
        let key = key(of: form)
        let bare = key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count)
        return Array(copying: RoutePlan.routingKey(bare))
    }

    // MARK: Several at once

    private mutating func gatherWorst(_ frame: Int, _ outcome: Outcome, _ turn: inout Turn) {
        frames[frame].pending -= 1
        if frames[frame].best.map({ outcome.result.isWorse(than: $0.result) }) ?? true { frames[frame].best = outcome }
        if frames[frame].pending == 0, let best = frames[frame].best { finish(frame, best, &turn) }
    }

    /// The first good reply, or the last.
    private mutating func gatherFirst(_ frame: Int, _ outcome: Outcome, isGood: Bool, _ turn: inout Turn) {
        frames[frame].pending -= 1
        if isGood || frames[frame].pending == 0 { finish(frame, outcome, &turn) }
    }

    private mutating func gatherMajority(_ frame: Int, of count: Int, _ outcome: Outcome, _ turn: inout Turn) {
        guard case .counts(var counts) = frames[frame].work else { return }
        let place = Int(outcome.result.rawValue)
        counts[place] += counts[place] < .max ? 1 : 0
        frames[frame].work = .counts(counts)
        frames[frame].pending -= 1
        let (leading, own) = (frames[frame].phase, Int(counts[place]))
        let isWorse = frames[frame].best.map { outcome.result.isWorse(than: $0.result) } ?? true
        if own > leading || (own == leading && isWorse) {
            frames[frame].best = outcome
            frames[frame].phase = own
        }
        let isDecided = frames[frame].phase >= count / 2 + 1 || frames[frame].pending == 0
        if isDecided, let best = frames[frame].best { finish(frame, best, &turn) }
    }

    private mutating func continueMissFailover(
        _ frame: Int, _ children: [RouteTree.ID], _ returnsBest: Bool, _ outcome: Outcome, _ turn: inout Turn
    ) {
        if outcome.result.isHit || outcome.result == .ok { return finish(frame, outcome, &turn) }
        let best = frames[frame].best
        // A lease is the first's to give, as it is stored to.
        let isLeased = best?.hasLease ?? false
        let isWorse = returnsBest && best.map { outcome.result.isWorse(than: $0.result) } ?? false
        if !isWorse, !isLeased { frames[frame].best = outcome }
        frames[frame].phase += 1
        guard frames[frame].phase < children.count else { return finish(frame, frames[frame].best ?? outcome, &turn) }
        let kind: SubRequest.Kind = frames[frame].place.kind == .shadow ? .shadow : .failover
        begin(
            children[frames[frame].phase].index, frames[frame].form, child(of: frame, frames[frame].phase, kind: kind),
            &turn)
    }
}
