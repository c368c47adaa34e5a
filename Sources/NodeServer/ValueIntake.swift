// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Synchronization

/// Memory for values of pools with storage that arrive piece by piece. It is no part of the cache, which only gets a
/// copy once the store has the value: a cache without room for it takes no write away, and an upload evicts nothing.
///
/// It has a bound in bytes, of values as they were announced, on the whole node. Where there is no room, new ones are
/// refused, and those that stand still give way: see ``Uploads``. Safe to use from any thread.
final class ValueIntake: Sendable {
    /// Bytes at most; one value of the largest size always fits when there is no other.
    let limitBytes: Int
    private let arena = Arena(decayMilliseconds: 1000)
    private let current = Atomic<Int>(0)
    private let refusedCount = Atomic<UInt64>(0)
    private let givenUpCount = Atomic<UInt64>(0)
    /// When one was refused last, in monotonic nanoseconds.
    private let refusal = Atomic<UInt64>(0)

    init(limitBytes: Int) { self.limitBytes = limitBytes }

    /// Bytes of the values that are on their way.
    var bytes: Int { current.load(ordering: .relaxed) }
    /// Values for which there was no room.
    var refused: UInt64 { refusedCount.load(ordering: .relaxed) }
    /// Values that were given up because they stood still while others were refused.
    var givenUp: UInt64 { givenUpCount.load(ordering: .relaxed) }

    /// Room for a value; nil where there is none. `now` is in monotonic nanoseconds.
    func take(_ count: Int, at now: UInt64) -> IncomingValue? {
        if current.wrappingAdd(count, ordering: .relaxed).newValue <= limitBytes, let block = arena.allocate(count) {
            return IncomingValue(block, of: self)
        }
        current.wrappingSubtract(count, ordering: .relaxed)
        refusedCount.wrappingAdd(1, ordering: .relaxed)
        refusal.store(now, ordering: .relaxed)
        return nil
    }

    /// Whether there was no room for somebody in the last second.
    func isFull(at now: UInt64) -> Bool {
        let refusal = refusal.load(ordering: .relaxed)
        return refusal != 0 && now < refusal &+ 1_000_000_000
    }

    func noteGivenUp() { givenUpCount.wrappingAdd(1, ordering: .relaxed) }

    fileprivate func free(_ block: MemoryBlock) {
        current.wrappingSubtract(block.count, ordering: .relaxed)
        arena.free(block)
    }
}

/// A value on its way into the store. Its memory goes with the last reference.
final class IncomingValue {
    /// Where the bytes go: all of them, without a line end.
    let block: MemoryBlock
    private let intake: ValueIntake

    fileprivate init(_ block: MemoryBlock, of intake: ValueIntake) {
        self.block = block
        self.intake = intake
    }

    deinit { intake.free(block) }
}

/// How far a reactor's uploads into pools with storage have come: those that stand still give way where others find no
/// room. One stands still that got less than ``paceBytes`` in the time that a client waits for the store.
struct Uploads<ID: Hashable> {
    /// What one has to get in that time to go on.
    static var paceBytes: Int { 64 << 10 }

    private struct Upload {
        /// When it had got so many bytes, in monotonic nanoseconds.
        var since: UInt64
        var bytes: Int
    }

    private let limitNanoseconds: UInt64
    private var all: [ID: Upload] = [:]

    init(limitNanoseconds: UInt64) { self.limitNanoseconds = limitNanoseconds }

    var isEmpty: Bool { all.isEmpty }

    /// One begins, on a connection that has no other.
    mutating func begin(_ id: ID, at now: UInt64) { all[id] = Upload(since: now, bytes: 0) }

    /// Looks at all of them, and gives those that stand still. `look` says how many bytes one has, and whether it is
    /// us who do not take more; nil when it is over.
    mutating func standing(at now: UInt64, _ look: (ID) -> (bytes: Int, isKeptWaiting: Bool)?) -> [ID] {
        var standing: [ID] = []
        for (id, upload) in all {
            guard let (bytes, isKeptWaiting) = look(id) else {
                all[id] = nil
                continue
            }
            if isKeptWaiting || bytes - upload.bytes >= Self.paceBytes {
                all[id] = Upload(since: now, bytes: bytes)
            } else if now >= upload.since &+ limitNanoseconds {
                standing.append(id)
            }
        }
        return standing
    }
}
