// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Platform
internal import Storage
internal import Synchronization

/// What happened lately to the copies of keys that changed: a ring of the newest changes, and of the keys that somebody
/// asked for, what happened since. It explains a copy that is older than a change. Safe to use from any thread.
///
/// A record costs a lock that hardly anybody else takes; a fill two loads where its key did not change lately; a hit
/// nothing.
final class ChangeTrace: Sendable {
    /// Changes in the ring.
    static let ringLimit = 16_384
    /// Keys that are watched at most, and what is remembered of each.
    static let watchLimit = 4_096
    static let watchEventLimit = 32
    /// For how long a key is watched that was asked for: beyond the last look of the monitor.
    private static var watchNanoseconds: UInt64 { 330_000_000_000 }
    /// Events that concern whole slots, at most.
    private static var wideLimit: Int { 64 }
    private static var tagCount: Int { 16_384 }

    private struct Entry {
        /// The key's stable hash.
        var hash: UInt64
        var kind: CopyEvent.Kind
        var version: UInt64
        var sequence: Int64
        var nanoseconds: UInt64
    }

    private struct Watch {
        /// From when on everything is remembered.
        var since: UInt64
        var until: UInt64
        var events: [Entry]
    }

    private struct State {
        var ring: [Entry] = []
        var next = 0
        /// From when on the ring has everything.
        var since: UInt64
        var watched: [UInt64: Watch] = [:]
        var wide: [(mask: UInt64, event: Entry)] = []
        var nextSweep: UInt64 = 0
    }

    private let state: Guarded<State>
    /// Of keys that changed lately and that are watched, by some bits of their hash, others of its bits.
    private let recent = FixedArray<Atomic<UInt32>>(count: ChangeTrace.tagCount) { _ in Atomic(0) }
    private let asked = FixedArray<Atomic<UInt32>>(count: ChangeTrace.tagCount) { _ in Atomic(0) }

    /// Remembers from now on.
    init() { state = Guarded(State(since: Clock.monotonicNanoseconds())) }

    private static func place(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash) & (tagCount - 1) }

    /// Never 0, which is no key's.
    private static func tag(_ hash: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hash >> 32) | 1 }

    // MARK: What happens

    /// A record about a key came.
    func note(_ record: OutboxRecord, _ kind: CopyEvent.Kind, hash: UInt64) {
        recent[Self.place(hash)].store(Self.tag(hash), ordering: .relaxed)
        note(
            Entry(
                hash: hash, kind: kind, version: record.version, sequence: record.sequence,
                nanoseconds: Clock.monotonicNanoseconds()))
    }

    /// A row was cached that was read or written here.
    func noteFill(_ key: [UInt8], version: UInt64) {
        let hash = stableHash(key.span)
        let (place, tag) = (Self.place(hash), Self.tag(hash))
        guard recent[place].load(ordering: .relaxed) == tag || asked[place].load(ordering: .relaxed) == tag else {
            return
        }
        note(
            Entry(
                hash: hash, kind: .filled, version: version, sequence: 0, nanoseconds: Clock.monotonicNanoseconds()))
    }

    private func note(_ entry: Entry) {
        state.withLock { state in
            if state.ring.count < Self.ringLimit {
                state.ring.append(entry)
            } else {
                state.since = state.ring[state.next].nanoseconds
                state.ring[state.next] = entry
                state.next = (state.next + 1) % Self.ringLimit
            }
            guard !state.watched.isEmpty, state.watched[entry.hash] != nil else { return }
            state.watched[entry.hash]?.events.append(entry)
            guard let watch = state.watched[entry.hash], watch.events.count > Self.watchEventLimit else { return }
            state.watched[entry.hash]?.since = watch.events[0].nanoseconds
            state.watched[entry.hash]?.events.removeFirst()
        }
    }

    /// Copies of the slots of a mask were given up, or all removed.
    func note(_ mask: UInt64, _ kind: CopyEvent.Kind) {
        let now = Clock.monotonicNanoseconds()
        state.withLock { state in
            if state.wide.count >= Self.wideLimit { state.wide.removeFirst() }
            state.wide.append((mask, Entry(hash: 0, kind: kind, version: 0, sequence: 0, nanoseconds: now)))
        }
    }

    // MARK: What is asked

    /// Watches a key from now on, what the ring has of it included.
    func watch(_ hash: UInt64) {
        let now = Clock.monotonicNanoseconds()
        asked[Self.place(hash)].store(Self.tag(hash), ordering: .relaxed)
        state.withLock { state in
            if now >= state.nextSweep {
                state.watched = state.watched.filter { $0.value.until > now }
                state.nextSweep = now + 10_000_000_000
            }
            if state.watched[hash] != nil {
                state.watched[hash]?.until = now + Self.watchNanoseconds
            } else if state.watched.count < Self.watchLimit {
                // Older entries behind newer ones, where the ring has gone round.
                let found = (state.ring[state.next...] + state.ring[..<state.next]).filter { $0.hash == hash }
                state.watched[hash] = Watch(
                    since: state.since, until: now + Self.watchNanoseconds,
                    events: Array(found.suffix(Self.watchEventLimit)))
            }
        }
    }

    /// What is remembered of a key that is watched.
    func trace(_ hash: UInt64) -> CopyTrace {
        let now = Clock.monotonicNanoseconds()
        let mask = StreamSlots.mask(StreamSlots.slot(keyHash: hash))
        return state.withLock { state in
            var trace = CopyTrace()
            guard let watch = state.watched[hash] else { return trace }
            let wide = state.wide.filter { $0.mask & mask != 0 && $0.event.nanoseconds >= watch.since }.map(\.event)
            trace.reachMicroseconds = (now &- watch.since) / 1000
            trace.events = (watch.events + wide).sorted { $0.nanoseconds < $1.nanoseconds }.map { entry in
                CopyEvent(
                    entry.kind, version: entry.version, sequence: entry.sequence,
                    agoMicroseconds: (now &- min(now, entry.nanoseconds)) / 1000)
            }
            return trace
        }
    }
}
