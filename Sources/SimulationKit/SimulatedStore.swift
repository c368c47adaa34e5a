// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// A store with faults, in virtual time. It keeps what it promises as a ``StorageBackend`` and nothing more: keys
/// overtake each other, answers come late, writes of unknown outcome happen later or never.
final class SimulatedStore: StorageBackend, @unchecked Sendable {
    // SAFETY (Sendable): as VirtualWorld.
    /// How often what goes wrong, in a thousand; times in microseconds.
    struct Faults {
        var notSent = 0
        var refused = 0
        var unknown = 0
        var slowWrite = 0
        var readError = 0
        var slowRead = 0
        var delayMax = 3000
        var slowMax = 300_000
        var settleMax = 150_000
    }

    private struct Answer {
        var write: SubmittedWrite
        var outcome: WriteOutcome?
        /// It has travelled.
        var isDue = false
    }

    let world: VirtualWorld
    var faults: Faults
    /// Told of every write whose fate is sealed, with what became of it, nil for nothing: it will not happen any more,
    /// and what it did is in every answer.
    var noteSealed: (StorageWrite, WriteOutcome?) -> Void = { _, _ in }
    private var rows: SimulatedRows
    private var sink: (any StorageSink)?
    private var incarnation = 0
    private var lastCommit: [[UInt8]: UInt64] = [:]
    /// The writes of each key that are not answered, in their order, with their outcomes where there are any.
    private var answers: [[UInt8]: [Answer]] = [:]
    /// Unknown outcomes among those.
    private var unknownAnswers = 0
    /// Submitted and neither committed nor given up, by a number of its own.
    private var inFlight: [Int: SubmittedWrite] = [:]
    /// May be committed until the sessions that they belong to are gone.
    private var loose: [Int: SubmittedWrite] = [:]
    /// No longer loose, but perhaps not yet answered: the cache may still show what was before.
    private var resolved: [(write: StorageWrite, outcome: WriteOutcome?)] = []
    private var numbers = 0
    private var willSettle = false

    init(_ world: VirtualWorld, _ faults: Faults) {
        self.world = world
        self.faults = faults
        rows = SimulatedRows(world)
    }

    func start(_ sink: any StorageSink) throws(StorageStartError) { self.sink = sink }

    var mayHaveEarlierWrites: Bool { !loose.isEmpty }
    var health: StorageHealth { .ready }
    func statistics() -> [StorageStatistic] { [] }
    func stop() { sink = nil }

    func scan(
        prefix: [UInt8], after key: [UInt8], _ bounds: ScanBounds
    ) throws(StorageFailure) -> ScanPage { ScanPage() }

    // MARK: Reads

    func read(_ reads: [StorageRead]) {
        for read in reads {
            let slow = world.random.chance(faults.slowRead)
            if slow { world.noteFault("slow read") }
            let looks = delay() + (slow && world.random.chance(500) ? world.random.below(faults.slowMax) : 0)
            let travels = delay() + (slow ? world.random.below(faults.slowMax) : 0)
            let fails = world.random.chance(faults.readError)
            if fails { world.noteFault("read error") }
            let incarnation = self.incarnation
            world.after(looks) { [self] in
                let outcome = fails ? .failed(StorageFailure(.refused, "simulated")) : rows.read(read.key)
                world.after(travels) { [self] in
                    guard incarnation == self.incarnation else { return }
                    sink?.readsCompleted([(read.token, outcome)])
                }
            }
        }
    }

    private func delay() -> Int { world.random.below(world.random.chance(100) ? faults.delayMax * 4 : faults.delayMax) }

    // MARK: Writes

    func write(_ writes: [SubmittedWrite]) {
        for write in writes { submit(write) }
    }

    private func submit(_ submitted: SubmittedWrite) {
        let key = submitted.write.key
        answers[key, default: []].append(Answer(write: submitted))
        if world.random.chance(faults.notSent) { return refuse(submitted, .notSent) }
        if world.random.chance(faults.refused) { return refuse(submitted, .refused) }
        if world.random.chance(faults.unknown) { return loseTrack(of: submitted) }
        var pause = delay()
        if world.random.chance(faults.slowWrite) {
            world.noteFault("slow write")
            pause += world.random.below(faults.slowMax)
        }
        let number = add(submitted, to: \.inFlight)
        let commitAt = max(lastCommit[key] ?? 0, world.microseconds + UInt64(pause))
        lastCommit[key] = commitAt
        world.at(commitAt) { [self] in
            guard let write = inFlight.removeValue(forKey: number) else { return }
            answer(write, rows.commit(write.write))
        }
    }

    private func refuse(_ submitted: SubmittedWrite, _ kind: StorageFailure.Kind) {
        world.noteFault(kind == .notSent ? "not sent" : "refused")
        answer(submitted, .failed(StorageFailure(kind, "simulated")))
    }

    /// Answers some time from now, behind the earlier writes of the key.
    private func answer(_ submitted: SubmittedWrite, _ outcome: WriteOutcome) {
        let key = submitted.write.key
        guard let place = place(of: submitted) else { return }
        answers[key]?[place].outcome = outcome
        let incarnation = self.incarnation
        world.after(delay()) { [self] in
            guard incarnation == self.incarnation, let place = self.place(of: submitted) else { return }
            answers[key]?[place].isDue = true
            var due: [(token: UInt64, outcome: WriteOutcome)] = []
            var sealed: [(StorageWrite, WriteOutcome)] = []
            while let first = answers[key]?.first, first.isDue, let outcome = first.outcome {
                answers[key]?.removeFirst()
                if case .failed(let failure) = outcome, failure.kind == .unknownOutcome {
                    unknownAnswers -= 1
                } else {
                    sealed.append((first.write.write, outcome))
                }
                due.append((first.write.token, outcome))
            }
            if !due.isEmpty { sink?.writesCompleted(due) }
            for (write, outcome) in sealed { noteSealed(write, outcome) }
        }
    }

    private func place(of submitted: SubmittedWrite) -> Int? {
        answers[submitted.write.key]?.firstIndex { $0.write.token == submitted.token }
    }

    /// A write whose answer is lost: done already, done later, or never.
    private func loseTrack(of submitted: SubmittedWrite) {
        world.noteFault("unknown outcome")
        unknownAnswers += 1
        let number = add(submitted, to: \.loose)
        commitLater(number)
        answer(submitted, .failed(StorageFailure(.unknownOutcome, "simulated")))
    }

    private func commitLater(_ number: Int) {
        if world.random.chance(750) {
            // Late, but not before the earlier writes of its key.
            let earlier = loose[number].flatMap { lastCommit[$0.write.key] } ?? 0
            world.at(max(earlier, world.microseconds + UInt64(world.random.below(faults.settleMax)))) { [self] in
                guard let write = loose[number] else { return }
                loose[number] = nil
                world.noteFault("late commit")
                resolved.append((write.write, rows.commit(write.write)))
            }
        }
        settleLater()
    }

    /// Some time from now the sessions of all loose writes are gone.
    private func settleLater() {
        if willSettle { return }
        willSettle = true
        world.after(faults.settleMax / 4 + world.random.below(faults.settleMax)) { [self] in
            willSettle = false
            for number in loose.keys.sorted() {
                if let write = loose.removeValue(forKey: number) { resolved.append((write.write, nil)) }
            }
            // An unknown outcome that is still to be answered belongs to a session that is gone later.
            guard unknownAnswers == 0 else { return settleLater() }
            sink?.unknownOutcomesSettled()
            sealResolved()
        }
    }

    private func sealResolved() {
        for (write, outcome) in resolved { noteSealed(write, outcome) }
        resolved = []
    }

    private func add(
        _ write: SubmittedWrite, to list: ReferenceWritableKeyPath<SimulatedStore, [Int: SubmittedWrite]>
    )
        -> Int
    {
        numbers += 1
        self[keyPath: list][numbers] = write
        return numbers
    }

    // MARK: Nemesis

    /// The process that used the store died: nothing is answered any more; what was not committed is lost, or is done
    /// by a session that has not noticed yet. The next process's clock is set back.
    func crash() {
        incarnation += 1
        sink = nil
        for number in inFlight.keys.sorted() {
            guard let write = inFlight.removeValue(forKey: number) else { continue }
            if world.random.chance(400) {
                loose[number] = write
                commitLater(number)
            } else {
                noteSealed(write.write, nil)
            }
        }
        // What was done and not answered: the cache that did not show it is gone.
        for key in answers.keys.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
            for answer in answers[key] ?? [] {
                guard let outcome = answer.outcome else { continue }
                if case .failed(let failure) = outcome, failure.kind == .unknownOutcome { continue }
                noteSealed(answer.write.write, outcome)
            }
        }
        sealResolved()
        if !loose.isEmpty { settleLater() }
        lastCommit = [:]
        answers = [:]
        unknownAnswers = 0
        rows.restart(behind: Int64(world.random.below(5000)))
    }

    /// Another node reads or writes.
    func directly(_ action: RecordedOperation.Action, _ key: [UInt8]) -> RecordedOperation.Result {
        switch action {
        case .read: .read(rows.read(key))
        case .write(let write): .write(rows.commit(write))
        }
    }
}
