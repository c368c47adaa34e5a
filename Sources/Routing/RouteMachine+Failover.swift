// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// How far a failover has come.
struct FailoverProgress {
    /// The child that was asked last.
    var child = 0
    /// Children that were chosen, the first included.
    var chosen = 1
    /// Errors that count.
    var errors = 0
    /// The order, where it is settled at the first error.
    var order: [Int] = []
    var isUsed: [Bool] = []
    var salt = 1
    var failedDomains: Set<UInt32> = []
    /// What the first child's hash chose; -1 for nothing.
    var normalIndex = -1
}

extension RouteMachine {
    mutating func beginFailover(
        _ handle: Int, _ route: FailoverRoute, _ form: Int, _ place: Place, _ turn: inout Turn
    ) {
        guard let first = route.children.first else {
            return deliver(.made(forms[form].operation.defaultResult), to: place, &turn)
        }
        let operation = forms[form].operation
        if route.pairsLeases, operation == .leaseSet || operation == .cas {
            let token = forms[form].casToken ?? request.casToken
            if let lease = turn.engine.lease(token, of: handle, turn.clock) {
                var change = forms[form]
                change.casToken = lease.token
                return begin(route.children[lease.child].index, add(change), place, &turn)
            }
            // A lease goes nowhere but to where it came from.
            if operation == .leaseSet { return begin(first.index, form, place, &turn) }
        }
        let frame = open(handle, form, place)
        selected = -1
        frames[frame].work = .failover(FailoverProgress())
        begin(first.index, form, child(of: frame), &turn)
        if !frames[frame].isDone, case .failover(var progress) = frames[frame].work, progress.chosen == 1 {
            progress.normalIndex = selected
            frames[frame].work = .failover(progress)
        }
    }

    mutating func continueFailover(_ frame: Int, _ route: FailoverRoute, _ outcome: Outcome, _ turn: inout Turn) {
        guard case .failover(var progress) = frames[frame].work else { return }
        let handle = frames[frame].handle
        if progress.chosen == 1, progress.normalIndex < 0 { progress.normalIndex = selected }
        if case .leastFailures = route.policy {
            turn.engine.note(handle, route, child: progress.child, failed: outcome.result.isError)
        }
        if progress.chosen == 1 { turn.engine.countRequest(handle, route) }
        let isLast = progress.chosen > 1 && progress.chosen >= end(of: route, progress)
        if isLast || isSettled(frame, route, outcome, &progress, turn) {
            return finishFailover(frame, route, progress, outcome, &turn)
        }
        settleOrder(&progress, route, frame, turn)
        let isLeft = progress.chosen < end(of: route, progress) && progress.errors < maximumErrors(of: route)
        guard isLeft else { return finishFailover(frame, route, progress, outcome, &turn) }
        advance(&progress, route, frame, turn)
        frames[frame].work = .failover(progress)
        let kind: SubRequest.Kind = frames[frame].place.kind == .shadow ? .shadow : .failover
        begin(
            route.children[progress.child].index, frames[frame].form, child(of: frame, progress.chosen, kind: kind),
            &turn)
    }

    private mutating func finishFailover(
        _ frame: Int, _ route: FailoverRoute, _ progress: FailoverProgress, _ outcome: Outcome, _ turn: inout Turn
    ) {
        var outcome = outcome
        let isLease = forms[frames[frame].form].operation == .leaseGet && outcome.hasLease
        if route.pairsLeases, isLease, progress.child > 0 || LeaseMap.isOurs(outcome.casToken) {
            outcome.casToken = turn.engine.remember(
                lease: outcome.casToken, of: frames[frame].handle, child: progress.child, turn.clock)
            outcome.newToken = outcome.casToken
        }
        finish(frame, outcome, &turn)
    }

    /// Whether a reply is the one to give. Counts it otherwise.
    private func isSettled(
        _ frame: Int, _ route: FailoverRoute, _ outcome: Outcome, _ progress: inout FailoverProgress, _ turn: Turn
    ) -> Bool {
        let result = outcome.result
        guard route.errors.contains(result, forms[frames[frame].form].operation) else { return true }
        if result.isUnreachable {
            // Nothing was done: that is no try. What fails together with it is not asked.
            if outcome.failureDomain != 0 { progress.failedDomains.insert(outcome.failureDomain) }
            return false
        }
        guard turn.engine.mayFailOver(frames[frame].handle, route) else { return true }
        if !excluded(by: route).contains(result) { progress.errors += 1 }
        return false
    }

    private func excluded(by route: FailoverRoute) -> Set<RouteResult> {
        switch route.policy {
        case .inOrder(_, let errors): errors
        case .deterministic(let policy): policy.excluding
        case .leastFailures, .rendezvous: []
        }
    }

    private func maximumErrors(of route: FailoverRoute) -> Int {
        switch route.policy {
        case .inOrder(let tries, _): min(tries ?? .max, route.children.count)
        case .deterministic(let policy): min(policy.maximumErrors, policy.maximumTries)
        case .leastFailures, .rendezvous: .max
        }
    }

    /// How many children are asked at most.
    private func end(of route: FailoverRoute, _ progress: FailoverProgress) -> Int {
        switch route.policy {
        case .inOrder: route.children.count
        // One of the others is the ordinary one.
        case .rendezvous: progress.order.isEmpty ? route.children.count : progress.order.count
        case .deterministic(let policy): min(policy.maximumTries, route.children.count)
        case .leastFailures(let tries): min(tries, route.children.count)
        }
    }

    /// Orders the children, where the policy does so once.
    private func settleOrder(
        _ progress: inout FailoverProgress, _ route: FailoverRoute, _ frame: Int, _ turn: Turn
    ) {
        guard progress.order.isEmpty else { return }
        switch route.policy {
        case .leastFailures: progress.order = turn.engine.leastFailing(frames[frame].handle, route)
        case .rendezvous(let tags, let weights):
            let key = routingKey(of: frames[frame].form)
            let passed = max(progress.normalIndex, 0)
            let ranking = Rendezvous(names: tags, weights: weights).ranking(of: key.span)
            progress.order = [0] + ranking.filter { $0 != passed }.map { $0 + 1 }
        case .inOrder, .deterministic: break
        }
    }

    /// Chooses the next child.
    private func advance(_ progress: inout FailoverProgress, _ route: FailoverRoute, _ frame: Int, _ turn: Turn) {
        switch route.policy {
        case .inOrder: progress.child = progress.chosen
        case .leastFailures, .rendezvous: progress.child = progress.order[progress.chosen]
        case .deterministic(let policy):
            turn.plan.advance(
                &progress, policy, route.children, key: key(of: frames[frame].form),
                forms[frames[frame].form].operation)
        }
        progress.chosen += 1
    }
}

extension RoutePlan {
    /// Hashes that are tried for one child that was not asked yet, and of those how many heed failed domains.
    private static var maximumAttempts: Int { 100 }
    private static var domainAttempts: Int { 75 }

    /// Chooses the next child by hashes of the key and a number.
    func advance(
        _ progress: inout FailoverProgress, _ policy: DeterministicFailover, _ children: [RouteTree.ID],
        key: [UInt8], _ operation: RouteOperation
    ) {
        if progress.isUsed.isEmpty {
            progress.isUsed = Array(repeating: false, count: children.count)
            progress.isUsed[0] = true
            let normal = progress.normalIndex + 1
            if !policy.ignoresNormalIndex, normal < children.count { progress.isUsed[normal] = true }
        }
        let bare = key.span.extracting(RoutingPrefix.length(in: key.span)..<key.count)
        let hashed = Array(copying: Self.routingKey(bare))
        for attempt in 0...Self.maximumAttempts {
            progress.salt += 1
            let salted = hashed + Array(String(progress.salt).utf8)
            progress.child =
                policy.weights.isEmpty
                ? Ch3(count: children.count).owner(of: salted.span)
                : WeightedCh3(weights: policy.weights).owner(of: salted.span)
            var isFailed = false
            if policy.avoidsFailedDomains, attempt <= Self.domainAttempts, !progress.failedDomains.isEmpty {
                let domain = failureDomain(of: children[progress.child], key: key, operation)
                isFailed = progress.failedDomains.contains(domain)
            }
            if !progress.isUsed[progress.child], !isFailed { break }
        }
        progress.isUsed[progress.child] = true
    }

    /// What fails together with the first destination below a handle; 0 when it is not known.
    private func failureDomain(of handle: RouteTree.ID, key: [UInt8], _ operation: RouteOperation) -> UInt32 {
        var walk = RouteWalk(plan: self, operation: operation, isFirstOnly: true)
        walk.visit(handle.index, key: key, depth: 0)
        return walk.destinations.first.map { destinations[$0].failureDomain } ?? 0
    }
}
