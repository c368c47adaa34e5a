// Martlet
// SPDX-License-Identifier: Apache-2.0

/// A command that waits for the value of a key, until a time.
struct WaitingRead {
    var waiter: StorageWaiter
    var deadlineNanoseconds: UInt64
    /// Unix time of its arrival, in milliseconds: what had expired by then must not be shown to it.
    var arrivedMilliseconds: Int64
}

/// A read that storage has not answered.
struct ReadFlight {
    var token: UInt64
    /// What the bucket had counted when the read was sent.
    var arrivals: UInt64
    var deadlineNanoseconds: UInt64
    /// Who gets its answer: whoever arrived before anything else did for the bucket.
    var waiters: [WaitingRead]
}

/// A write that storage has not answered.
struct WriteFlight {
    var token: UInt64
    var operation: StorageWrite.Operation
    var compares: Bool
    var waiter: StorageWaiter
    var deadlineNanoseconds: UInt64
    /// Its time ran out: the waiter was told that the outcome is unknown.
    var isLate = false
    /// The newest version that something outside gave the key while it was under way: an older row of its own is not
    /// the key's any more. The greatest number where the version is not known, or the cache was flushed.
    var supersededBy: UInt64 = 0
    /// Reads that arrived while it was the last write in flight.
    var readers: [WaitingRead] = []

    /// Whether something from outside is newer than what it did.
    func isSuperseded(_ outcome: WriteOutcome) -> Bool {
        switch outcome {
        case .stored(let row): supersededBy > row.version
        case .deleted(let version): supersededBy > version
        default: supersededBy > 0
        }
    }
}

/// What the tier remembers of a key while it has something under way or an unknown outcome.
struct KeyState {
    var key: [UInt8]
    var hash: UInt64
    var pool: Int
    /// The next slot whose key has the same hash; -1 is none.
    var next = -1
    /// At most one read at a time, but for those that were given up.
    var read: ReadFlight?
    /// Who waits for a read that is yet to be sent, because the one in flight began before something else arrived.
    var waiting: [WaitingRead] = []
    /// In the order in which they were submitted, and will be answered.
    var writes = WriteQueue()
    /// Of `writes`, those whose time ran out.
    var lateWrites = 0
    /// Reads that wait, in all of the lists.
    var waiterCount = 0
    /// A write was answered with an unknown outcome that is not settled.
    var isUnsettled = false
    /// A read has shown what one of the writes in flight did: rows of earlier ones must not be installed any more.
    var isAhead = false

    var isIdle: Bool { read == nil && waiting.isEmpty && writes.isEmpty && !isUnsettled }

    /// The last write that somebody still waits for.
    var lastWrite: Int? {
        guard writes.count > lateWrites else { return nil }
        return writes.count - 1
    }
}

/// The keys that have something under way, by hash and key. One stripe's, so not shared.
struct KeyTable: ~Copyable {
    private var slots: [KeyState] = []
    private var free: [Int] = []
    private var heads: [UInt64: Int] = [:]

    /// Keys in the table.
    var count: Int { slots.count - free.count }

    subscript(slot: Int) -> KeyState {
        _read { yield slots[slot] }
        _modify { yield &slots[slot] }
    }

    func find(_ hash: UInt64, _ key: Span<UInt8>) -> Int? {
        guard var slot = heads[hash] else { return nil }
        while slot >= 0 {
            if Self.equal(slots[slot].key, key) { return slot }
            slot = slots[slot].next
        }
        return nil
    }

    mutating func findOrInsert(_ hash: UInt64, _ key: [UInt8], pool: Int) -> Int {
        if let slot = find(hash, key.span) { return slot }
        var state = KeyState(key: key, hash: hash, pool: pool)
        state.next = heads[hash] ?? -1
        let slot: Int
        if let reused = free.popLast() {
            slot = reused
            slots[slot] = state
        } else {
            slot = slots.count
            slots.append(state)
        }
        heads[hash] = slot
        return slot
    }

    /// Forgets an idle key; others stay.
    mutating func removeIfIdle(_ slot: Int) {
        guard slots[slot].isIdle else { return }
        let (hash, next) = (slots[slot].hash, slots[slot].next)
        if heads[hash] == slot {
            heads[hash] = next >= 0 ? next : nil
        } else {
            var previous = heads[hash] ?? -1
            while previous >= 0, slots[previous].next != slot { previous = slots[previous].next }
            precondition(previous >= 0, "a key is not in its chain")
            slots[previous].next = next
        }
        slots[slot] = KeyState(key: [], hash: 0, pool: 0)
        free.append(slot)
    }

    /// The slots that hold a key, in no particular order.
    var used: [Int] { slots.indices.filter { !slots[$0].key.isEmpty } }

    private static func equal(_ left: [UInt8], _ right: Span<UInt8>) -> Bool {
        guard left.count == right.count else { return false }
        for index in right.indices where left[index] != right[index] { return false }
        return true
    }
}
