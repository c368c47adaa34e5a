// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Overload
internal import Reactor
internal import Routing
internal import Telemetry

/// Keys that are read so often that one reply of their server is given to several clients.
extension RouterHandler {
    /// Answers a get of one key from memory, if it is hot and somebody read it a moment ago, or has a copy of it read.
    /// Otherwise says whether the reply is to be kept.
    @inline(never)
    func answerHot(
        _ slot: Int, _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) -> (isAnswered: Bool, hash: UInt64) {
        let hash = stableHash(key)
        let index = hotCache[0].note(hash, key)
        guard index >= 0 else { return (false, 0) }
        if servesHotKeys {
            if hotCache[0].isFresh(index, key, router.writes, now: now) {
                meter.counters.add(.hotHits)
                let before = output.count
                reply(slot, request, &output) { output in
                    hotCache[0].append(index, to: &output)
                    output.append("END\r\n")
                }
                // What went out at once is no reply that is counted when it is sent.
                if quota.isOn { quota.exclude(before - output.count) }
                return (true, 0)
            }
            if hotCache[0].ask(index, key, router.writes) { return (false, hash) }
        }
        guard spreadsHotKeys, let copy = chooseCopy(key, hash) else { return (false, 0) }
        meter.counters.add(.hotSpread)
        route(slot, request, key: key, input, .get, copy: copy)
        return (true, 0)
    }

    /// A request that changes a key is sent: what was read before does not count any more, nor what is read until the
    /// reply comes, however late.
    @inline(__always)
    func noteWrite(_ call: Int, _ key: Span<UInt8>) {
        let hash = stableHash(key)
        router.writes.begin(hash)
        calls[call].hash = hash
    }

    /// A call of a hot key or of a write is over, however that went.
    @inline(never)
    func hotDone(_ call: Call) {
        if call.isHotRead {
            hotCache[0].answered(call.hash, Span(), router.writes, now: now)
        } else {
            router.writes.end(call.hash)
        }
    }

    /// The whole reply to a read of a hot key.
    @inline(never)
    func keepHot(_ call: Int, _ reply: Span<UInt8>) {
        hotCache[0].answered(calls[call].hash, reply, router.writes, now: now)
        (calls[call].hash, calls[call].isHotRead) = (0, false)
    }
}

/// A read that goes to a copy of a hot key.
struct HotCopyRead {
    let hash: UInt64
    /// What ``WriteVersions`` says of it.
    let version: UInt64
    /// From 1 on.
    let number: Int
}

/// Copies of hot keys on other servers of their pool.
extension RouterHandler {
    /// Which copy is read, of a key of a look-aside pool that nobody writes now; nil for the owner's.
    private func chooseCopy(_ key: Span<UInt8>, _ hash: UInt64) -> HotCopyRead? {
        let number = hotCache[0].choose(of: router.hotKeys.copies)
        guard number > 0, spreadingPool(key) != nil, router.copies.isTrusted(hash, now: now),
            let version = router.writes.quiet(hash)
        else { return nil }
        return HotCopyRead(hash: hash, version: version, number: number)
    }

    /// The pool that gets of a key go to, where copies of it may be made: they are written by the router, which must
    /// not write to a store.
    private func spreadingPool(_ key: Span<UInt8>) -> Int? {
        let target = plan.routes.target(of: key, for: .get)
        guard target.destination >= 0, target.keyOffset == 0,
            plan.routes.tree.pools[Int(target.pool)].consistency == .lookAside
        else { return nil }
        return Int(target.pool)
    }

    /// Until when a copy that is made now may be there: a second more than its expiry says, which is what servers'
    /// clocks count, and another on its way.
    var copyEnd: UInt64 { now &+ UInt64(router.hotKeys.copySeconds + 2) * 1_000_000_000 }

    /// A copy is about to be made of what was read; false when the key was written since that was asked for.
    func beginFill(_ routed: RoutedRequest, _ token: Int) -> Bool {
        let limit = UInt64(plan.routes.defaults.requestTimeoutMilliseconds) * 1_000_000
        router.copies.beginFill(routed.copyHash, until: copyEnd &+ limit)
        guard router.writes.quiet(routed.copyHash) == routed.copyVersion else {
            router.copies.endFill(routed.copyHash, until: 0, isKnown: true)
            return false
        }
        meter.counters.add(.hotFills)
        routed.parts[token].isFill = true
        return true
    }

    /// That is over. A server that did not answer may yet store it.
    func endFill(_ routed: RoutedRequest, isKnown: Bool) {
        router.copies.endFill(routed.copyHash, until: copyEnd &+ limits.stuckNanoseconds, isKnown: isKnown)
    }

    /// A key is being written: its copies are deleted. Until they are, and where that fails for as long as they may
    /// live, its owner is asked only.
    @inline(__always)
    func dropCopies(_ key: Span<UInt8>, _ hash: UInt64) {
        if router.copies.written(hash, now: now, until: copyEnd) { deleteCopies(key, hash) }
    }

    @inline(never)
    private func deleteCopies(_ key: Span<UInt8>, _ hash: UInt64) {
        guard let pool = spreadingPool(key) else { return router.copies.distrust(hash, until: copyEnd) }
        let places = plan.routes.copies(router.hotKeys.copies, ofKey: [UInt8](copying: key), pool: pool)
        let said = CommandKey(made: [UInt8](copying: key))
        let isBinary = said.spelling == .packet
        for place in places.dropFirst() {
            let lane = laneOfDestination[plan.routes.pools[pool].destinations[place]] + (isBinary ? 1 : 0)
            guard let call = makeCall(lane, isBinary ? .binary : .line, .invalidation, isOwn: true).0 else {
                router.copies.distrust(hash, until: copyEnd)
                continue
            }
            router.writes.begin(hash)
            calls[call].hash = hash
            calls[call].isInvalidation = true
            calls[call].isPartOfBroadcast = true
            lanes[lane].pending.appendDelete(said)
        }
    }

    /// A copy was deleted, or not.
    func invalidated(_ call: Call, succeeded: Bool) {
        if !succeeded { router.copies.distrust(call.hash, until: copyEnd &+ limits.stuckNanoseconds) }
        router.writes.end(call.hash)
    }
}

/// Keys that are hot for a server, by what all of its routers and clients ask for together.
extension RouterHandler {
    /// Takes over what servers said. The first reactor asks them, once a second: each that is connected and tells.
    func learnHotKeys() {
        let epoch = router.reportedKeys.epoch
        if epoch != reportedEpoch {
            reportedEpoch = epoch
            hotCache[0].setReported(router.reportedKeys.hashes)
        }
        guard reactor.index == 0, now >= nextHotReport else { return }
        router.reportedKeys.note(hotReport, until: now &+ Self.reportNanoseconds, now: now)
        hotReport.removeAll(keepingCapacity: true)
        nextHotReport = now &+ 1_000_000_000
        for lane in laneOfDestination
        where lanes[lane].state == .open && !lanes[lane].tellsNoRates && !lanes[lane].awaitsRates {
            guard let call = makeCall(lane, .statistics, isOwn: true).0 else { continue }
            calls[call].isHotReport = true
            calls[call].isPartOfBroadcast = true
            lanes[lane].awaitsRates = true
            lanes[lane].pending.append("stats hotrates\r\n")
        }
    }

    /// How long a key stays hot that a server called so: as its reads come from memory then, the server will not for a
    /// while.
    private static var reportNanoseconds: UInt64 { 10_000_000_000 }

    /// Lines of a server's answer: hashes, and reads a second.
    func noteHotRates(_ lines: Span<UInt8>) {
        let text = String(decoding: [UInt8](copying: lines), as: UTF8.self)
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split(separator: " ")
            guard words.count == 3, words[1].utf8.count == 16, let hash = UInt64(words[1], radix: 16),
                let rate = Int(words[2]), rate >= router.hotKeys.threshold, hotReport.count < Self.reportedMax
            else { continue }
            hotReport.insert(hash)
        }
    }

    private static var reportedMax: Int { 4096 }
}
