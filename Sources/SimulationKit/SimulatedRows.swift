// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// The rows of a simulated store, each commit at one moment of virtual time.
struct SimulatedRows {
    private struct Entry {
        var row: StoredRow?
        var version: UInt64
    }

    private let world: VirtualWorld
    private var entries: [[UInt8]: Entry] = [:]
    private var clock = HybridLogicalClock(persistedMark: 0)
    private var durableMark: UInt64 = 0
    /// How far the clock that gives versions is off, in milliseconds.
    private var clockStep: Int64 = 0

    init(_ world: VirtualWorld) { self.world = world }

    func read(_ key: [UInt8]) -> ReadOutcome { live(key).map { .found($0) } ?? .absent }

    func live(_ key: [UInt8]) -> StoredRow? {
        guard let row = entries[key]?.row, row.isLive(at: world.unixMilliseconds) else { return nil }
        return row
    }

    mutating func commit(_ write: StorageWrite) -> WriteOutcome {
        let stored = entries[write.key]
        let decision = WriteEvaluation.decide(write, live: live(write.key))
        if case .refuse(let outcome) = decision { return outcome }
        let version = clock.next(
            after: stored?.version ?? 0, unixMilliseconds: world.unixMilliseconds + clockStep)
        if let mark = clock.mustPersistBefore(version) {
            durableMark = mark
            clock.notePersisted(mark)
        }
        guard case .put(var row) = decision else {
            entries[write.key] = Entry(row: nil, version: version)
            return .deleted(version: version)
        }
        row.version = version
        entries[write.key] = Entry(row: row, version: version)
        return .stored(row)
    }

    /// Another process gives versions from now on, whose clock is behind by so many milliseconds more.
    mutating func restart(behind milliseconds: Int64) {
        clockStep -= milliseconds
        clock = HybridLogicalClock(persistedMark: durableMark)
    }
}
