// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Invalidation
internal import Memory
internal import Storage

/// The home region: rows, their history, an outbox of some records a slot, and the nodes that give its stream: one with
/// a store of its own, or two that share a database.
final class StreamHome {
    private let world: VirtualWorld
    private let guards: StreamGuards
    private let keepsMax: Int
    let keys: [(key: [UInt8], hash: UInt64, slot: Int)]
    /// By key, when each version was committed.
    private(set) var history: [[UInt64]]
    /// By key, versions that promotions have lost, each with when.
    private(set) var lost: [[UInt64: UInt64]]
    /// By key, the version that is stored.
    private var stored: [UInt64]
    /// By key, the versions that are no row: everything was removed.
    private var absent: [Set<UInt64>]
    private var truncations: UInt64 = 0
    /// The last commits, by key, version, slot and number.
    private var recent: [(key: Int, version: UInt64, slot: Int, sequence: Int64)] = []
    /// What the epoch has of the one before, where a promotion lies between.
    private(set) var succession: StreamSuccession?
    private(set) var commits = 0
    private(set) var position: StreamPosition
    /// By slot: the number that the first kept record follows, and the kept records.
    private(set) var kept = [Int64](repeating: 0, count: StreamSlots.count)
    private var records = [[ChangeTail.Entry]](repeating: [], count: StreamSlots.count)
    /// All records of the epoch that are kept, in the order of their commits, each with its place.
    private var log: [(place: Int, entry: ChangeTail.Entry)] = []
    private var logEnd = 0
    /// Between commits at most, in microseconds.
    private let pace: Int
    private(set) var nodes: [StreamNode] = []

    init(_ world: VirtualWorld, _ guards: StreamGuards) {
        self.world = world
        self.guards = guards
        keepsMax = world.random.within(2...40)
        pace = world.random.within(20_000...150_000)
        keys = Self.keys(world.random.within(3...8))
        history = keys.map { _ in [0] }
        lost = keys.map { _ in [:] }
        absent = keys.map { _ in [] }
        stored = keys.map { _ in 1 }
        position = StreamPosition(
            source: "home", epoch: 1, sequences: [Int64](repeating: 0, count: StreamSlots.count))
        let isShared = world.random.chance(500)
        nodes = (0..<(isShared ? 2 : 1)).map { _ in StreamNode(world, self, isShared: isShared) }
    }

    /// Keys of which two and two share a slot: what is lost of one must not be hidden by what comes of the other.
    private static func keys(_ count: Int) -> [(key: [UInt8], hash: UInt64, slot: Int)] {
        var found: [(key: [UInt8], hash: UInt64, slot: Int)] = []
        var number = 0
        while found.count < count {
            let key = Array("stream-key-\(number)".utf8)
            let hash = stableHash(key.span)
            let slot = StreamSlots.slot(keyHash: hash)
            number += 1
            if found.count % 2 == 0 || found[found.count - 1].slot == slot { found.append((key, hash, slot)) }
        }
        return found
    }

    /// Begins to commit, and the nodes' rounds.
    func schedule() {
        commitSoon()
        for node in nodes { node.schedule() }
    }

    private func commitSoon() {
        // Bursts, and pauses in which nothing but probes tells of a lost tail.
        let delay = world.random.chance(30) ? world.random.within(300_000...2_500_000) : world.random.below(pace)
        world.after(delay) { [self] in
            commit()
            commitSoon()
        }
    }

    /// The version of a key now; versions count from 1.
    func version(_ key: Int) -> UInt64 { stored[key] }

    /// When a version was not the key's any more; nil while it is.
    func end(of version: UInt64, _ key: Int) -> UInt64? {
        if let time = lost[key][version] { return time }
        let next = (Int(version)..<history[key].count).first { lost[key][UInt64($0 + 1)] == nil }
        return next.map { history[key][$0] }
    }

    private func commit() {
        // Some keys are written seldom: of them nothing newer comes soon.
        let number = min(world.random.below(keys.count), world.random.below(keys.count))
        let (key, hash, slot) = keys[number]
        history[number].append(world.microseconds)
        stored[number] = UInt64(history[number].count)
        commits += 1
        var record = OutboxRecord()
        (record.key, record.keyHash, record.version) = (key, hash, version(number))
        publish(record, slot)
        recent.append((number, stored[number], slot, position.sequences[slot]))
        if recent.count > 24 { recent.removeFirst() }
    }

    private func publish(_ record: OutboxRecord, _ slot: Int) {
        var record = record
        position.sequences[slot] += 1
        (record.source, record.epoch, record.slot) = (position.source, position.epoch, Int32(slot))
        (record.firstSequence, record.sequence) = (position.sequences[slot], position.sequences[slot])
        var entry = ChangeTail.Entry(slot: slot, sequence: record.sequence, bytes: [])
        record.encodeObject(into: &entry.bytes)
        records[slot].append(entry)
        logEnd += 1
        log.append((logEnd, entry))
        for node in nodes { node.noteCommitted(entry) }
        if records[slot].count > keepsMax { drop(slot, 1) }
    }

    /// All rows are removed at once, which a record of each slot with keys tells of; without the guard, that of one.
    func truncate() {
        truncations += 1
        for key in keys.indices {
            history[key].append(world.microseconds)
            stored[key] = UInt64(history[key].count)
            absent[key].insert(stored[key])
        }
        // Promotions lose nothing of what came before it.
        recent = []
        var record = OutboxRecord()
        (record.operation, record.version) = (.flush, truncations)
        let slots = Set(keys.map(\.slot)).sorted()
        for slot in guards.contains(.flushes) ? slots : [0] { publish(record, slot) }
    }

    /// Whether there is a row of a key at a version.
    func isThere(_ key: Int, _ version: UInt64) -> Bool { !absent[key].contains(version) }

    private func drop(_ slot: Int, _ count: Int) {
        let gone = min(count, records[slot].count)
        records[slot].removeFirst(gone)
        kept[slot] += Int64(gone)
        log.removeAll { $0.entry.slot == slot && $0.entry.sequence <= kept[slot] }
    }

    /// Drops what is old, as an outbox at its cap does.
    func trim() {
        for slot in 0..<StreamSlots.count { drop(slot, records[slot].count - min(records[slot].count, 1)) }
    }

    /// Another region becomes home, which lacks some of the last commits; its numbering goes on where it has it.
    func promote() {
        let gone = world.random.chance(300) ? 0 : world.random.below(recent.count + 1)
        let previous = position.epoch
        for commit in recent.suffix(gone) {
            lost[commit.key][commit.version] = world.microseconds
            records[commit.slot].removeAll { $0.sequence >= commit.sequence }
            log.removeAll { $0.entry.slot == commit.slot && $0.entry.sequence >= commit.sequence }
            position.sequences[commit.slot] = min(position.sequences[commit.slot], commit.sequence - 1)
            kept[commit.slot] = min(kept[commit.slot], position.sequences[commit.slot])
        }
        for key in keys.indices {
            let kept = (1...UInt64(history[key].count)).last { lost[key][$0] == nil }
            stored[key] = kept ?? 1
        }
        recent = []
        position.epoch += 1
        succession = StreamSuccession(previous: previous, included: position.sequences, isWhole: gone == 0)
        for node in nodes { node.reconnect() }
    }

    /// The outbox is lost, and another numbering begins.
    func beginEpoch() {
        position.epoch += 1
        recent = []
        succession = nil
        log = []
        for slot in 0..<StreamSlots.count {
            records[slot] = []
            position.sequences[slot] = 0
            kept[slot] = 0
        }
        for node in nodes { node.reconnect() }
    }

    /// Records behind a place that are still kept, and the place behind them.
    func read(after place: Int) -> (entries: [ChangeTail.Entry], place: Int) {
        (log.filter { $0.place > place }.map(\.entry), logEnd)
    }

    /// Kept records of a slot behind `sequence`.
    func read(_ slot: Int, after sequence: Int64, limit: Int) -> (entries: [ChangeTail.Entry], isLast: Bool) {
        let found = records[slot].filter { $0.sequence > sequence }
        return (Array(found.prefix(limit)), found.count <= limit)
    }

    /// The row of a key; every version has the same value.
    func row(_ key: [UInt8]) -> StoredRow? {
        keys.firstIndex { $0.key == key }.flatMap {
            guard isThere($0, version($0)) else { return nil }
            return StoredRow(version: version($0), expiryMilliseconds: 0, clientFlags: 0, value: [1])
        }
    }
}

/// A node of the home region as a source: it knows of each commit at once, or, where the database is shared, of what
/// its rounds find.
final class StreamNode: ChangeSource, @unchecked Sendable {
    // SAFETY (Sendable): it stays on the thread that runs its world.
    let tail: ChangeTail
    private let world: VirtualWorld
    private unowned let home: StreamHome
    private let isShared: Bool
    private(set) var position: StreamPosition?
    private var kept: [Int64]
    private var place: Int
    private var rounds: UInt64 = 0
    private var proven: [Int64]?
    private var pausedUntil: UInt64 = 0

    init(_ world: VirtualWorld, _ home: StreamHome, isShared: Bool) {
        self.world = world
        self.home = home
        self.isShared = isShared
        tail = ChangeTail(limitBytes: world.random.within(400...20_000))
        position = home.position
        kept = home.kept
        place = home.read(after: 0).place
        tail.begin(home.position)
    }

    func schedule() { if isShared { roundSoon() } }

    private func roundSoon() {
        world.after(world.random.within(4_000...25_000)) { [self] in
            if world.microseconds >= pausedUntil { round() }
            roundSoon()
        }
    }

    /// Reads what was published: what was let go meanwhile is not among it, its numbers are.
    private func round() {
        guard position?.epoch == home.position.epoch else { return reconnect() }
        rounds += 1
        let (entries, end) = home.read(after: place)
        place = end
        (position, kept) = (home.position, home.kept)
        tail.append(entries)
        proven = home.position.sequences
    }

    func noteCommitted(_ entry: ChangeTail.Entry) {
        guard !isShared else { return }
        position = home.position
        tail.append([entry])
    }

    /// The process stands still.
    func pause(for time: Int) {
        guard isShared else { return }
        world.noteFault("pause")
        pausedUntil = world.microseconds + UInt64(time)
    }

    /// The connection to the database was lost: what came meanwhile is in the table only.
    func reconnect() {
        tail.begin(home.position)
        (position, kept) = (home.position, home.kept)
        place = home.read(after: 0).place
    }

    var isPaused: Bool { world.microseconds < pausedUntil }

    // MARK: ChangeSource

    var succession: StreamSuccession? { home.succession }
    var keptSequences: [Int64] { isShared ? kept : home.kept }

    func beginProof() -> UInt64 { rounds + 1 }

    func proof(_ ticket: UInt64) -> [Int64]? {
        guard isShared else { return position?.sequences }
        return rounds >= ticket ? proven : nil
    }

    func records(slot: Int, after sequence: Int64, limitBytes: Int) throws(StorageFailure) -> ChangeSlice {
        let (entries, isLast) = home.read(slot, after: sequence, limit: max(1, limitBytes / 100))
        return ChangeSlice(records: entries, isLast: isLast)
    }

    func rows(_ keys: [[UInt8]], limitBytes: Int, valueMax: Int) throws(StorageFailure) -> [StoredRow?] {
        // A few at a time, as with large values.
        keys.prefix(max(1, world.random.below(4))).map { home.row($0) }
    }

    func release(through sequences: [Int64]) {}
}
