// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// A client with up to `depth` commands under way on one connection.
final class SimulatedClient {
    let number: Int
    let depth: Int
    /// Commands under way, by key: those that only read, and all. Nothing is asked of a key behind a read of it that is
    /// not answered: the read could show what came after it.
    private(set) var reading: [[UInt8]: Int] = [:]
    private(set) var underWay: [[UInt8]: Int] = [:]
    private(set) var count = 0
    /// The newest version that it saw of a key, to compare with.
    private var versions: [[UInt8]: UInt64] = [:]

    init(number: Int, depth: Int) {
        self.number = number
        self.depth = depth
    }

    func begin(_ action: RecordedOperation.Action, _ key: [UInt8]) {
        count += 1
        underWay[key, default: 0] += 1
        if action == .read { reading[key, default: 0] += 1 }
    }

    func end(_ action: RecordedOperation.Action, _ key: [UInt8], _ result: RecordedOperation.Result) {
        count -= 1
        underWay[key, default: 1] -= 1
        if action == .read { reading[key, default: 1] -= 1 }
        switch result {
        case .read(.found(let row)), .write(.stored(let row)): versions[key] = row.version
        default: break
        }
    }

    /// The connection broke.
    func forget() {
        reading = [:]
        underWay = [:]
        count = 0
    }

    /// Something to do with a key. `tag` is unlike any other command's, and goes into what it stores.
    func choose(_ key: [UInt8], isCounter: Bool, tag: Int, _ world: VirtualWorld) -> RecordedOperation.Action {
        if world.random.chance(450) { return .read }
        let operations: [StorageWrite.Operation] =
            isCounter
            ? [.increment, .increment, .increment, .decrement, .set, .delete, .touch, .add]
            : [
                .set, .set, .set, .set, .add, .add, .replace, .append, .prepend, .appendOrCreate, .delete, .delete,
                .touch,
            ]
        var write = StorageWrite(operations[world.random.below(operations.count)], key: key)
        // Beside its use as the client's flags, the store tells by it whose write it is.
        write.clientFlags = UInt32(tag)
        write.value = Array((isCounter ? "\(tag % 1000)" : "v\(tag)").utf8)
        write.delta = UInt64(world.random.below(200))
        if isCounter, world.random.chance(300) { write.initial = UInt64(world.random.below(1000)) }
        write.setsExpiry = world.random.chance(200)
        switch world.random.below(10) {
        case 0, 1: write.expiryMilliseconds = world.unixMilliseconds + Int64(world.random.within(1...400))
        case 2: write.expiryMilliseconds = world.unixMilliseconds + 100_000
        case 3: write.expiryMilliseconds = world.unixMilliseconds - Int64(world.random.within(0...5))
        default: break
        }
        if world.random.chance(250), let version = versions[key] { write.compare = version }
        return .write(write)
    }
}
