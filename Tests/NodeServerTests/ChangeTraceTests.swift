// Martlet
// SPDX-License-Identifier: Apache-2.0

import Invalidation
import Memory
import Storage
import Testing

@testable import NodeServer

@Suite struct ChangeTraceTests {
    private let trace = ChangeTrace()

    private func record(_ key: String, version: UInt64, sequence: Int64) -> (OutboxRecord, hash: UInt64) {
        var record = OutboxRecord()
        record.key = Array(key.utf8)
        (record.version, record.sequence) = (version, sequence)
        return (record, stableHash(record.key.span))
    }

    private func note(_ key: String, version: UInt64, sequence: Int64, _ kind: CopyEvent.Kind = .dropped) -> UInt64 {
        let (record, hash) = record(key, version: version, sequence: sequence)
        trace.note(record, kind, hash: hash)
        return hash
    }

    @Test func whatHappenedBeforeAKeyIsAskedForIsRemembered() {
        let hash = note("k", version: 5, sequence: 1)
        trace.noteFill(Array("k".utf8), version: 4)
        trace.noteFill(Array("quiet".utf8), version: 4)
        _ = note("other", version: 6, sequence: 2)
        #expect(trace.trace(hash).events.isEmpty, "of keys that nobody asks for nothing is kept apart")
        trace.watch(hash)
        let quiet = stableHash(Array("quiet".utf8).span)
        trace.watch(quiet)
        let seen = trace.trace(hash)
        #expect(seen.events.map(\.kind) == [.dropped, .filled])
        #expect(seen.events.map(\.version) == [5, 4] && seen.events.map(\.sequence) == [1, 0])
        #expect(seen.events[0].agoMicroseconds >= seen.events[1].agoMicroseconds)
        #expect(seen.reachMicroseconds >= seen.events[0].agoMicroseconds)
        #expect(trace.trace(quiet).events.isEmpty, "its key had not changed lately")
        trace.noteFill(Array("quiet".utf8), version: 4)
        #expect(trace.trace(quiet).events.map(\.kind) == [.filled])
    }

    @Test func aKeyThatIsWatchedOutlivesTheRing() {
        let hash = note("k", version: 5, sequence: 1)
        trace.watch(hash)
        for number in 0..<2 * ChangeTrace.ringLimit { _ = note("n\(number)", version: 9, sequence: Int64(number)) }
        let before = trace.trace(hash)
        #expect(before.events.map(\.version) == [5])
        // Who is asked for only now is not remembered, and it says so.
        let late = stableHash(Array("n0".utf8).span)
        trace.watch(late)
        let found = trace.trace(late)
        #expect(found.events.isEmpty && found.reachMicroseconds < before.reachMicroseconds)
        // What the ring still has comes in its order.
        let last = note("n0", version: 10, sequence: 1)
        _ = note("n0", version: 11, sequence: 2)
        #expect(trace.trace(last).events.map(\.version) == [10, 11])
    }

    @Test func whatIsRememberedOfAKeyIsBounded() {
        let hash = note("k", version: 0, sequence: 1)
        trace.watch(hash)
        for number in 1...100 { _ = note("k", version: UInt64(number), sequence: Int64(number + 1)) }
        let found = trace.trace(hash)
        #expect(found.events.map(\.version) == (69...100).map { UInt64($0) })
        #expect(found.events.count == ChangeTrace.watchEventLimit)
        #expect(found.reachMicroseconds >= found.events[0].agoMicroseconds)
        for number in 0..<2 * ChangeTrace.watchLimit { trace.watch(UInt64(number) << 32 | 7) }
        #expect(trace.trace(hash).events.count == ChangeTrace.watchEventLimit)
    }

    @Test func quarantinesOfItsSlotArePartOfAKeysStory() {
        let hash = note("k", version: 5, sequence: 1)
        trace.watch(hash)
        let mask = StreamSlots.mask(StreamSlots.slot(keyHash: hash))
        trace.note(mask, .quarantined)
        trace.note(~mask, .quarantined)
        trace.note(StreamSlots.all, .flushed)
        #expect(trace.trace(hash).events.map(\.kind) == [.dropped, .quarantined, .flushed])
    }
}
