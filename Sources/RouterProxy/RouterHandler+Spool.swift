// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Routing
internal import Synchronization
internal import Telemetry

/// Deletes that servers missed: they are handed over to be kept, and repeated; and servers that are not read from.
extension RouterHandler {
    /// Learns which servers are not read from, where that may have changed: before requests are looked at that came
    /// after it did.
    @inline(__always)
    func mindSpool() {
        let epoch = spool.epoch.load(ordering: .acquiring)
        if epoch != spoolEpoch { readWithheld(epoch) }
    }

    @inline(never)
    private func readWithheld(_ epoch: UInt64) {
        spoolEpoch = epoch
        let withheld = spool.withheld
        for lane in 0..<laneCount {
            lanes[lane].withholdsReads = !withheld.isEmpty && withheld.contains(lanes[lane].backend.name)
        }
    }

    /// Whether deletes of a pool that fail are kept.
    @inline(__always)
    func keepsDeletes(pool: Int) -> Bool { spool.keeps && plan.routes.pools[pool].spool != nil }

    /// Hands a delete over to be kept that failed; false when it is none that is kept, or there is no room.
    func keep(routed index: Int, _ token: Int) -> Bool {
        let routed = routedRequests[index]
        guard let key = routed.parts[token].spoolKey, let context = routed.context else { return false }
        let server = context.plan.backends[routed.parts[token].destination].name
        let missed = RouterSpool.Missed(
            server: server, key: key, reactor: reactor.index, routed: index, generation: routed.generation,
            token: token)
        return spool.add(missed)
    }

    /// Hears what became of deletes that were handed over, and has servers repeat what they missed.
    func takeSpool() {
        for outcome in spool.takeOutcomes(reactor: reactor.index) {
            let missed = outcome.missed
            guard routedRequests[missed.routed].generation == missed.generation else { continue }
            routedRequests[missed.routed].parts[missed.token].isKept = outcome.isKept
            routedEvents.append(RoutedEvent(routed: missed.routed, token: missed.token))
        }
        settleRouted()
        guard reactor.index == 0 else { return }
        for replay in spool.takeReplays() { begin(replay) }
    }

    // MARK: Repeating

    private func begin(_ replay: RouterSpool.Replay) {
        let destination = plan.backends.firstIndex { $0.name == replay.server }
        guard let destination else { return spool.replayed(replay, succeeded: false) }
        let textLane = laneOfDestination[destination]
        let run = replays.firstIndex { $0 == nil } ?? replays.count
        if run == replays.count { replays.append(nil) }
        replays[run] = ReplayRun(replay: replay, left: replay.keys.count)
        for bytes in replay.keys {
            let key = CommandKey(made: bytes)
            let (lane, shape) = key.spelling == .packet ? (textLane + 1, ReplyShape.binary) : (textLane, .line)
            let (call, _) = makeCall(lane, shape, isOwn: true)
            guard let call else {
                finish(replay: run, succeeded: false)
                continue
            }
            calls[call].isReplay = true
            calls[call].isPartOfBroadcast = true
            calls[call].token = Int32(truncatingIfNeeded: run)
            lanes[lane].pending.appendDelete(key)
        }
    }

    /// One delete of a replay was answered, or not.
    func finish(replay run: Int, succeeded: Bool) {
        guard var state = replays[run] else { return }
        state.left -= 1
        if !succeeded { state.hasFailed = true }
        replays[run] = state.left == 0 ? nil : state
        if state.left == 0 { spool.replayed(state.replay, succeeded: !state.hasFailed) }
    }

    /// Whether the reply at `start` to a delete says that the key is gone.
    static func isGone(_ input: Span<UInt8>, at start: Int, _ shape: ReplyShape) -> Bool {
        guard shape == .binary else {
            return input.holds("DELETED\r", at: start) || input.holds("NOT_FOUND\r", at: start)
                || input.holds("HD\r", at: start) || input.holds("NF\r", at: start)
        }
        let status = BinaryStatus(rawValue: input.bigEndian(at: start + 6, as: UInt16.self))
        return status == .success || status == .notFound
    }
}

/// Deletes that a server is repeating.
struct ReplayRun {
    let replay: RouterSpool.Replay
    /// How many are not answered yet, and whether any failed.
    var left: Int
    var hasFailed = false
}

extension RouteResult {
    /// Whether a server that said this did not do what it was asked, and may do it later.
    var isMissed: Bool { isFailoverError || self == .overloaded }
}

extension RouteOperation {
    /// Whether its reply shows what the server has.
    var readsValue: Bool { group == .get || group == .arithmetic }
}
