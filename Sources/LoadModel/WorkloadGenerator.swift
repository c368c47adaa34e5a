// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Draws a workload's operations, one after another: the same ones for the same seed. For one thread.
package struct WorkloadGenerator: Sendable {
    /// One operation to send.
    package struct Draw: Sendable, BitwiseCopyable {
        /// What is done.
        package var operation: Operation
        /// The number of the key among all that ever were.
        package var key: UInt64
        /// Seconds to live; 0 for ever.
        package var expiry: Int64
    }

    private let workload: Workload
    private var random: RandomSource
    private var picker: KeyPicker
    /// The operations' shares added up, so that one draw finds its operation.
    private let sums: [(Operation, Double)]
    private let expirySums: [(Int64, Double)]
    private let threads: Double
    private var drawn: UInt64 = 0
    private let seed: UInt64

    /// The draws of thread `thread` of `threads`.
    package init(_ workload: Workload, seed: UInt64, thread: Int = 0, threads: Int = 1) {
        self.workload = workload
        self.seed = seed
        self.threads = Double(threads)
        random = RandomSource(seed: RandomSource.mix(seed &+ UInt64(thread) &* 0x9e37_79b9))
        picker = KeyPicker(
            workload.keyDistribution, count: workload.keys,
            start: workload.keys / UInt64(threads) * UInt64(thread))
        var sum = 0.0
        sums = workload.operations.map { one in
            sum += one.share
            return (one.operation, sum)
        }
        sum = 0
        expirySums = workload.expiries.map { one in
            sum += one.share
            return (one.seconds, sum)
        }
    }

    /// The next operation.
    package mutating func next() -> Draw {
        drawn &+= 1
        var draw = Draw(operation: sums[sums.count - 1].0, key: nextKey(), expiry: 0)
        if sums.count > 1 {
            let part = random.unit()
            for (operation, sum) in sums where part < sum {
                draw.operation = operation
                break
            }
        }
        draw.expiry = nextExpiry()
        return draw
    }

    /// Another key, for an mget.
    package mutating func nextKey() -> UInt64 {
        let slot = picker.next(&random)
        guard workload.churn > 0 else { return slot }
        // By now so many keys have been replaced, slot after slot.
        let replaced = UInt64(workload.churn * Double(drawn) * threads)
        return slot &+ (replaced &+ workload.keys &- 1 &- slot) / workload.keys &* workload.keys
    }

    /// How long the next value is to live, in seconds; 0 for ever.
    package mutating func nextExpiry() -> Int64 {
        guard expirySums.count > 1 else { return expirySums[0].0 }
        let part = random.unit()
        return expirySums.first { part < $0.1 }?.0 ?? expirySums[0].0
    }

    // What follows changes nothing; mutating, it works on a generator where it lies instead of on a copy.

    /// How many bytes the value of `key` has: the same each time.
    package mutating func valueLength(_ key: UInt64) -> Int {
        if case .fixed(let size) = workload.valueSize { return min(Int(size), workload.valueLimit) }
        var own = RandomSource(seed: key ^ seed)
        return workload.valueSize.bytes(&own, least: 0, greatest: workload.valueLimit)
    }

    /// Writes the text of `key` into `target`, from its start: the prefix and the number, with zeros between, as long
    /// as the workload's sizes say or as the number needs. At most 250 bytes.
    package mutating func writeKey(_ key: UInt64, isCounter: Bool = false, into target: inout [UInt8]) {
        target.removeAll(keepingCapacity: true)
        if isCounter { target.append(contentsOf: "counter:".utf8) }
        let digits = DecimalText(key)
        var width = 12
        if let sizes = workload.keySize {
            var size: Int
            if case .fixed(let bytes) = sizes {
                size = Int(bytes)
            } else {
                var own = RandomSource(seed: key &+ 0x5bd1_e995)
                size = sizes.bytes(&own, least: 1, greatest: 250)
            }
            size -= target.count
            if size >= workload.keyPrefix.utf8.count + digits.count {
                target.append(contentsOf: workload.keyPrefix.utf8)
                size -= workload.keyPrefix.utf8.count
            }
            width = size
        } else {
            target.append(contentsOf: workload.keyPrefix.utf8)
        }
        width = min(width, 250 - target.count)
        for _ in 0..<max(0, width - digits.count) { target.append(48) }
        for index in 0..<digits.count { target.append(digits.bytes[index]) }
    }
}
