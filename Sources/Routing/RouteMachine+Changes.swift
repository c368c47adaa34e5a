// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// How a key is split into copies.
struct Split: Sendable {
    let replicas: Int
    let allSync: Bool
    let firstHit: Bool
}

extension RouteMachine {
    // MARK: Another key or expiry

    mutating func beginModifyKey(_ child: Int, _ change: KeyChange, _ form: Int, _ place: Place, _ turn: inout Turn) {
        guard let key = change.applied(to: key(of: form)) else { return begin(child, form, place, &turn) }
        let bare = key.count - RoutingPrefix.length(in: key.span)
        guard 1...Self.maximumKeyBytes ~= bare else {
            let reason = bare == 0 ? "empty" : "longer than \(Self.maximumKeyBytes) bytes"
            return deliver(.made(.localError, "the modified key is \(reason)"), to: place, &turn)
        }
        var changed = forms[form]
        changed.key = key
        begin(child, add(changed), place, &turn)
    }

    /// What the protocols allow.
    static var maximumKeyBytes: Int { 250 }

    mutating func beginModifyExptime(
        _ child: Int, _ change: ExptimeChange, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        let own = forms[form].exptime ?? request.exptime
        let wanted: Int64
        switch change {
        case .set(let exptime): wanted = turn.clock.exptime(inSeconds: exptime)
        case .atMost(let limit): wanted = turn.clock.exptime(own, atMostSeconds: limit)
        }
        guard wanted != own else { return begin(child, form, place, &turn) }
        var changed = forms[form]
        changed.exptime = wanted
        begin(child, add(changed), place, &turn)
    }

    // MARK: Migration

    mutating func beginMigrate(
        _ handle: Int, _ from: Int, _ to: Int, _ start: UInt64, _ interval: UInt64, _ form: Int, _ place: Place,
        _ turn: inout Turn
    ) {
        let now = turn.clock.unixSeconds
        let operation = forms[form].operation
        let hash = spooky32(routingKey(of: form).span, seed: 0)
        let moved = start &+ interval &+ UInt64(hash) % max(interval, 1)
        guard operation == .delete else {
            guard now >= moved else { return begin(from, form, place, &turn) }
            let isLease = operation == .leaseSet && now < moved &+ Self.leaseLifetimeSeconds
            guard isLease else { return begin(to, form, place, &turn) }
            let frame = open(handle, form, place)
            return begin(to, form, child(of: frame), &turn)
        }
        if now < start { return begin(from, form, place, &turn) }
        if now >= start &+ 2 * interval { return begin(to, form, place, &turn) }
        let frame = open(handle, form, place)
        frames[frame].pending = 2
        begin(from, form, child(of: frame), &turn)
        begin(to, form, child(of: frame), &turn)
    }

    /// How long leases of the old pool may still be out.
    private static var leaseLifetimeSeconds: UInt64 { 10 }

    mutating func continueMigrate(_ frame: Int, _ from: Int, _ outcome: Outcome, _ turn: inout Turn) {
        if forms[frames[frame].form].operation == .leaseSet {
            // The lease may be the old pool's: an expired value gives it back.
            if outcome.result != .stored {
                var gone = forms[frames[frame].form]
                (gone.exptime, gone.value, gone.isSame) = (-1, .bytes([]), false)
                begin(from, add(gone), frames[frame].place.nobody, &turn)
            }
            return finish(frame, outcome, &turn)
        }
        frames[frame].pending -= 1
        if frames[frame].best.map({ outcome.result.isWorse(than: $0.result) }) ?? true { frames[frame].best = outcome }
        if frames[frame].pending == 0, let best = frames[frame].best { finish(frame, best, &turn) }
    }

    // MARK: Copies

    mutating func beginKeySplit(
        _ handle: Int, _ next: Int, _ split: Split, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        let own = Int(turn.plan.defaults.hostID % UInt64(split.replicas))
        let operation = forms[form].operation
        let isSplit = [.get, .leaseGet, .leaseSet, .set, .delete].contains(operation)
        // The longest number has three digits.
        if isSplit, key(of: form).count + 5 > Self.maximumKeyBytes { return begin(next, form, place, &turn) }
        if split.firstHit, [.get, .leaseGet, .leaseSet].contains(operation) {
            let frame = open(handle, form, place)
            frames[frame].pending = split.replicas
            for number in 0..<split.replicas {
                begin(next, copy(form, number), child(of: frame, number), &turn)
            }
            return
        }
        if operation == .delete || (operation == .set && split.allSync) {
            for number in 0..<split.replicas where number != own {
                begin(next, copy(form, number), place.nobody, &turn)
            }
        }
        begin(next, copy(form, own), place, &turn)
    }

    /// The form for one of the copies of its key: the first has the key itself.
    private mutating func copy(_ form: Int, _ number: Int) -> Int {
        guard number > 0 else { return form }
        let key = key(of: form)
        let start = RoutingPrefix.length(in: key.span)
        let length = RoutePlan.routingKey(key.span.extracting(start..<key.count)).count
        var copy = forms[form]
        copy.key = Array(key[..<(start + length)]) + Array("::\(number)".utf8) + Array(key[(start + length)...])
        return add(copy)
    }

    /// To the part of its shard that is this router's; deletes perhaps to all of them.
    mutating func beginShardSplit(_ next: Int, _ splits: ShardSplits, _ form: Int, _ place: Place, _ turn: inout Turn) {
        let keys = splits.keys(
            of: key(of: form), isDelete: forms[form].operation == .delete, hostID: turn.plan.defaults.hostID,
            unixSeconds: turn.clock.unixSeconds, longest: Self.maximumKeyBytes)
        guard let keys, let first = keys.first else { return begin(next, form, place, &turn) }
        for key in keys.dropFirst() { begin(next, renamed(form, key), place.nobody, &turn) }
        begin(next, renamed(form, first), place, &turn)
    }

    private mutating func renamed(_ form: Int, _ key: [UInt8]) -> Int {
        guard key != self.key(of: form) else { return form }
        var copy = forms[form]
        copy.key = key
        return add(copy)
    }

    mutating func beginShadow(
        _ handle: Int, _ next: Int, _ shadows: [ShadowTarget], _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        let chosen = shadows.indices.filter { isShadowed(form, shadows[$0], turn.engine) }
        guard !chosen.isEmpty else { return begin(next, form, place, &turn) }
        var elsewhere = place.nobody
        elsewhere.kind = .shadow
        switch forms[form].operation {
        case .leaseGet:
            // The shadow's lease belongs to the ordinary one: that comes first.
            let frame = open(handle, form, place)
            frames[frame].best = .made(.ok)
            frames[frame].work = .counts(chosen.map { UInt8(truncatingIfNeeded: $0) })
            begin(next, form, child(of: frame), &turn)
        case .leaseSet, .cas:
            var copy = forms[form]
            copy.casToken = turn.engine.shadowLease(for: copy.casToken ?? request.casToken) ?? copy.casToken
            if forms[form].operation == .leaseSet, copy.casToken == nil { copy.casToken = 0 }
            let copied = add(copy)
            for index in chosen { begin(shadows[index].target.index, copied, elsewhere, &turn) }
            begin(next, form, place, &turn)
        default:
            for index in chosen { begin(shadows[index].target.index, form, elsewhere, &turn) }
            begin(next, form, place, &turn)
        }
    }

    private func isShadowed(_ form: Int, _ shadow: ShadowTarget, _ engine: RouteEngine) -> Bool {
        let key = routingKey(of: form)
        if shadow.keyList.isEmpty {
            let hash = Double(spooky32(key.span, seed: 0))
            let (low, high) = (shadow.keys.lowerBound, shadow.keys.upperBound)
            guard (low * 0xffff_ffff).rounded(.down)...(high * 0xffff_ffff).rounded(.down) ~= hash else { return false }
        } else if !shadow.keyList.contains(where: { $0.utf8.elementsEqual(key) }) {
            return false
        }
        return shadow.requests >= 0.99999 || engine.random.fraction() < shadow.requests
    }

    mutating func continueShadow(_ frame: Int, _ shadows: [ShadowTarget], _ outcome: Outcome, _ turn: inout Turn) {
        guard case .counts(let chosen) = frames[frame].work else { return }
        let form = frames[frame].form
        var elsewhere = frames[frame].place.nobody
        elsewhere.kind = .shadow
        finish(frame, outcome, &turn)
        for index in chosen {
            let target = shadows[Int(index)].target.index
            guard outcome.hasLease else {
                begin(target, form, elsewhere, &turn)
                continue
            }
            let chain = open(frames[frame].handle, form, elsewhere, .chain(.shadowLease(outcome.casToken)))
            begin(target, form, child(of: chain), &turn)
        }
    }

    // MARK: Waiting

    mutating func beginOutstanding(
        _ handle: Int, _ next: Int, _ limit: Int, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        let frame = open(handle, form, place)
        let ticket = RouteTicket(request: request.id, frame: frame)
        switch turn.engine.admit(handle, limit: limit, sender: request.sender, ticket) {
        case .granted: begin(next, form, child(of: frame), &turn)
        case .waits: hold()
        case .refused: finish(frame, .made(.busy, "too many requests wait"), &turn)
        }
    }

    /// A request that waited for others goes on.
    mutating func admitted(_ frame: Int, _ turn: inout Turn) {
        guard case .outstandingLimit(let next, _) = turn.plan.tree.handles[frames[frame].handle] else { return }
        // Nobody reads the answer any more.
        if isCancelled, !frames[frame].place.isDetached {
            turn.engine.release(frames[frame].handle)
            return finish(frame, .made(.aborted), &turn)
        }
        begin(next.index, frames[frame].form, child(of: frame), &turn)
    }

    mutating func beginLatency(
        _ handle: Int, _ next: Int, _ latency: Latency, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        let now = turn.clock.nowNanoseconds
        var total = latency.totalMilliseconds
        if total == 0, let last = latency.totalPercentiles.last {
            let chance = turn.engine.random.fraction() * 100
            total = (latency.totalPercentiles.first { chance < $0.percentile } ?? last).milliseconds
        }
        let frame = open(handle, form, place, .times(start: now, total: UInt64(total) * 1_000_000))
        guard latency.beforeMilliseconds > 0 else { return begin(next, form, child(of: frame), &turn) }
        wait(frame, until: now + UInt64(latency.beforeMilliseconds) * 1_000_000, &turn)
    }

    mutating func continueLatency(_ frame: Int, _ latency: Latency, _ outcome: Outcome, _ turn: inout Turn) {
        guard case .times(let start, let total) = frames[frame].work else { return }
        let now = turn.clock.nowNanoseconds
        let end = max(now + UInt64(latency.afterMilliseconds) * 1_000_000, start + total)
        guard end > now else { return finish(frame, outcome, &turn) }
        frames[frame].best = outcome
        wait(frame, until: end, &turn)
    }

    /// A time that a frame waited for has come.
    mutating func woken(_ frame: Int, _ turn: inout Turn) {
        if let outcome = frames[frame].best { return finish(frame, outcome, &turn) }
        if case .hedge = frames[frame].work { return hedge(frame, &turn) }
        guard case .latency(let next, _) = turn.plan.tree.handles[frames[frame].handle] else { return }
        begin(next.index, frames[frame].form, child(of: frame), &turn)
    }
}

extension KeyChange {
    /// A key as it becomes; nil when it stays.
    func applied(to key: [UInt8]) -> [UInt8]? {
        let length = RoutingPrefix.length(in: key.span)
        let own = Array(key[..<length])
        let front = routingPrefix.map { Array($0.utf8) } ?? own
        let bare = key[length...]
        let (start, end) = (Array(prefix.utf8), Array(suffix.utf8))
        if let replacing, bare.starts(with: replacing.utf8) {
            return front + start + bare.dropFirst(replacing.utf8.count) + end
        }
        if !bare.starts(with: start) {
            let rest = isInPlace && bare.count >= start.count ? bare.dropFirst(start.count) : bare
            return front + start + rest + end
        }
        if front != own { return front + bare + end }
        return end.isEmpty ? nil : key + end
    }
}
