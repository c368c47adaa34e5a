// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// What clients asked of the keys of a simulation, and were answered: the histories that are checked at the end.
final class HistoryRecorder {
    private let world: VirtualWorld
    /// What was asked of all keys, in order, and of which.
    private(set) var operations: [RecordedOperation] = []
    private var places: [Int] = []
    /// Whose write a tag is: its place among the operations.
    private var tagged: [UInt32: Int] = [:]
    /// What became of writes that clients had not been told of by then, by their numbers: see ``noteSealed(_:_:)``.
    private var sealed: [Int: (result: RecordedOperation.Result, stamp: UInt64, milliseconds: Int64)] = [:]

    init(_ world: VirtualWorld) { self.world = world }

    /// A tag that no command has had.
    var nextTag: Int { operations.count + 1 }

    /// A client asks something of the key at `place`. Returns the operation's number.
    func begin(_ client: Int, _ place: Int, _ action: RecordedOperation.Action) -> Int {
        places.append(place)
        operations.append(
            RecordedOperation(
                client: client, action, .unknown, invoked: world.stamp(), returned: .max,
                invokedMilliseconds: world.unixMilliseconds, returnedMilliseconds: .max))
        if case .write(let write) = action { tagged[write.clientFlags] = operations.count - 1 }
        return operations.count - 1
    }

    /// The client was answered. That nobody knows the outcome of a write is no answer.
    func end(_ number: Int, _ result: RecordedOperation.Result) {
        if result == .unknown { return }
        if case .write(.failed(let failure)) = result, failure.kind == .unknownOutcome { return }
        operations[number].result = result
        operations[number].returned = world.stamp()
        operations[number].returnedMilliseconds = world.unixMilliseconds
    }

    /// The store knows what became of a write, nil for nothing, and nothing more of it will happen: what the client is
    /// never told, the checker may know. That is more than a client could demand, so whatever is impossible then is a
    /// fault.
    func noteSealed(_ tag: UInt32, _ outcome: WriteOutcome?) {
        guard let number = tagged[tag], operations[number].returned == .max, sealed[number] == nil else { return }
        let result = outcome ?? .failed(StorageFailure(.refused, "never happened"))
        sealed[number] = (.write(result), world.stamp(), world.unixMilliseconds)
    }

    /// The clock that rows expire by is set.
    func noteStep() {
        for number in operations.indices where operations[number].returned == .max && sealed[number] == nil {
            operations[number].spansStep = true
        }
    }

    /// Puts what became of writes in the place of answers that never came.
    private func close() {
        for (number, end) in sealed where operations[number].returned == .max {
            operations[number].isLate = true
            operations[number].result = end.result
            operations[number].returned = end.stamp
            operations[number].returnedMilliseconds = end.milliseconds
        }
        sealed = [:]
    }

    // MARK: The end

    /// Checks every key's history, and notes in `report` what was found.
    func check(_ keys: [[UInt8]], by checker: LinearizabilityChecker, into report: inout SimulationReport) {
        close()
        report.operations = operations.count
        for (place, key) in keys.enumerated() {
            let history = operations.indices.filter { places[$0] == place && says(operations[$0]) }
                .map { operations[$0] }
            let name = String(decoding: key, as: UTF8.self)
            switch checker.check(history) {
            case .linearizable: break
            case .undecided:
                report.undecided.append(name)
                report.uncheckedOperations += history.count
            case .violation(let operation): report.violations.append("\(name): \(operation)")
            }
        }
        report.digest = digest
    }

    /// Looks for reads that show what is older than a write that was answered before they were asked, and notes them in
    /// `report`. `commits` is what the store did, in order, nil for deletions.
    func checkAnswered(
        _ keys: [[UInt8]], _ commits: [[UInt8]: [(version: UInt64, row: StoredRow?)]],
        into report: inout SimulationReport
    ) {
        report.operations = operations.count
        for (place, key) in keys.enumerated() {
            let history = operations.indices.filter { places[$0] == place }.map { operations[$0] }
            for read in history {
                let answered = history.lazy.filter { $0.returned < read.invoked }.compactMap(Self.version).max() ?? 0
                guard Self.isOlder(read, than: answered, commits[key] ?? []) else { continue }
                report.violations.append("\(String(decoding: key, as: UTF8.self)): \(read)")
                break
            }
        }
        report.digest = digest
    }

    /// The version that a write was answered with.
    private static func version(_ operation: RecordedOperation) -> UInt64? {
        switch operation.result {
        case .write(.stored(let row)): row.version
        case .write(.deleted(let version)): version
        default: nil
        }
    }

    /// Whether a read shows what was there before a version only.
    private static func isOlder(
        _ read: RecordedOperation, than version: UInt64, _ commits: [(version: UInt64, row: StoredRow?)]
    ) -> Bool {
        switch read.result {
        case .read(.found(let row)): return row.version < version
        case .read(.absent):
            // Somebody deleted it since, or it expired.
            return version > 0
                && !commits.contains { commit in
                    guard commit.version >= version else { return false }
                    return commit.row.map { !$0.isLive(at: read.returnedMilliseconds) } ?? true
                }
        default: return false
        }
    }

    /// Whether an operation says anything about its key: not if it failed, having done nothing.
    private func says(_ operation: RecordedOperation) -> Bool {
        switch operation.result {
        case .read(.failed), .write(.failed): false
        case .read, .write: true
        case .unknown: operation.action != .read
        }
    }

    /// Of everything that clients saw.
    private var digest: UInt64 {
        var digest: UInt64 = 0xCBF2_9CE4_8422_2325
        func mix(_ number: UInt64) { digest = (digest ^ number) &* 0x100_0000_01B3 }
        for operation in operations {
            mix(operation.invoked)
            mix(operation.returned)
            switch operation.result {
            case .read(.found(let row)), .write(.stored(let row)):
                mix(row.version)
                mix(stableHash(row.value.span))
            case .read, .write: mix(1)
            case .unknown: mix(2)
            }
        }
        return digest
    }

    /// What happened to one key, for whoever looks into a violation.
    func log(of place: Int) -> [String] {
        operations.indices.filter { places[$0] == place }.map { "\(operations[$0])" }
    }
}
