// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Storage

/// What the threads of one backend share.
final class BackendCore: Sendable {
    /// How often the health is looked at, and how long a thread sleeps at most.
    static let checkNanoseconds: UInt64 = 1_000_000_000
    /// The reason for a row whose checksum is wrong.
    static let damaged = "the stored row is damaged: its checksum is wrong; write the key again, or restore a backup"

    let configuration: RocksDBConfiguration
    let reads: SubmissionQueue<Waiting<StorageRead>>
    let writes: SubmissionQueue<Waiting<SubmittedWrite>>
    let counters = StorageCounters()
    let cursors = TrimCursors()
    /// For those who follow the outbox; nil where nobody does.
    let changes: RocksDBChanges?
    let rules: ReapingRules
    /// The first sequence number of each slot that consumers still need.
    let trimRequests = Guarded([UInt64](repeating: 0, count: OutboxKey.slots))
    /// What the threads that use the disk are at.
    let work: WorkUnderWay
    /// Where the thread sleeps that refuses what waits in vain.
    let door = StoreDoor()
    private let receiver = Guarded<(any StorageSink)?>(nil)
    private let status = Guarded(StorageHealth.unavailable("the store is not open"))

    init(_ configuration: RocksDBConfiguration) {
        self.configuration = configuration
        changes =
            configuration.keepsOutbox
            ? RocksDBChanges(configuration, cursors: cursors, needed: trimRequests) : nil
        rules = ReapingRules(tombstoneMilliseconds: configuration.tombstoneMilliseconds, now: configuration.now)
        let limit = QueueLimit.Configuration(
            target: configuration.queueTargetNanoseconds, waitingMilliseconds: configuration.waitingMilliseconds)
        reads = SubmissionQueue(
            countLimit: configuration.waitingReadLimit, byteLimit: .max, pace: QueuePace(limit)
        ) { _ in 0 }
        writes = SubmissionQueue(
            countLimit: configuration.waitingWriteLimit, byteLimit: configuration.waitingWriteBytes,
            pace: QueuePace(limit) { $0.write.operation.makesDataDisappear }
        ) { waiting in
            let write = waiting.element.write
            return write.operation.makesDataDisappear ? 0 : write.key.count + write.value.count
        }
        work = WorkUnderWay(readers: configuration.readerThreads)
    }

    /// Where answers go.
    var sink: (any StorageSink)? { receiver.withLock { $0 } }

    /// Sets where answers go; before the threads start, and to nothing after they ended.
    func setSink(_ sink: (any StorageSink)?) { receiver.withLock { $0 = sink } }

    // MARK: Health

    /// What the disk's slowness makes of the store's health: a disk that has not answered for long may never do.
    var healthNow: StorageHealth {
        let now = Clock.monotonicNanoseconds()
        let health = self.health
        if case .unavailable = health { return health }
        if let reason = work.outageOfReaders(now, outageNanoseconds) { return .unavailable(reason) }
        if health == .ready, let reason = work.outageOfCommitter(now, outageNanoseconds) { return .readOnly(reason) }
        return health
    }

    /// How long anything may wait for the disk, in nanoseconds.
    var limitNanoseconds: UInt64 { UInt64(configuration.waitingMilliseconds) * 1_000_000 }

    /// After how long at one thing the disk counts as not answering: no disk is quick all the time.
    var outageNanoseconds: UInt64 { max(limitNanoseconds, 500_000_000) }

    /// What is known of the store.
    var health: StorageHealth {
        get { status.withLock { $0 } }
        set { status.withLock { $0 = newValue } }
    }

    /// Why writes are refused; nil when they are not.
    var refusesWrites: String? {
        switch health {
        case .ready, .impaired: nil
        case .readOnly(let reason), .unavailable(let reason): reason
        }
    }

    /// Refuses writes from here on, until the process ends. The first reason stays.
    func refuseWrites(_ reason: String) {
        status.withLock { if $0 == .ready { $0 = .readOnly(reason) } }
    }

    /// Notes why a read failed. A damaged block costs its rows. Everything else is the disk's failure, and one that
    /// cannot be read is not trusted with writes, nor with what RocksDB would write by itself.
    func noteFailedRead(_ failure: RocksDatabase.Failure, _ database: RocksDatabase) {
        if failure.isDamage || refusesWrites != nil { return }
        database.endBackgroundWork()
        refuseWrites("a read failed, and writes are refused until the node is started again: \(failure.reason)")
    }

    /// Looks whether RocksDB failed in the background. RocksDB would try again by itself; a disk that failed once is
    /// not trusted with more.
    func check(_ database: RocksDatabase) {
        let errors = database.backgroundErrors
        if errors > 0 {
            database.endBackgroundWork()
            refuseWrites(
                "writing files failed in the background \(errors) times, and writes are refused until the node is "
                    + "started again: see the file LOG in \(configuration.path)")
        }
    }
}
