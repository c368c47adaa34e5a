// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a virtual user without script asks for.
package enum Operation: UInt8, Sendable, CaseIterable, BitwiseCopyable {
    case get, gets, set, add, replace, append, prepend, cas, delete, incr, decr, touch, gat, mget
    // Of scripts only.
    case meta, version, flush

    /// What workloads may consist of.
    package static let ofWorkloads = allCases.filter { $0.rawValue < Operation.meta.rawValue }

    /// As it is written.
    package var name: String { "\(self)" }

    /// Whether it stores a value of the workload's.
    package var storesValue: Bool {
        switch self {
        case .set, .add, .replace, .append, .prepend, .cas: true
        default: false
        }
    }

    /// Whether it reads, so that it hits or misses.
    package var reads: Bool {
        switch self {
        case .get, .gets, .gat, .mget, .cas: true
        default: false
        }
    }
}

/// How the requests are written.
package enum WireProtocol: String, Sendable, CaseIterable {
    case classic, meta
}

/// What a scenario without script does: which operations on which keys, with which values.
package struct Workload: Sendable, Equatable {
    /// Operations and their shares, which add up to 1.
    package var operations: [(operation: Operation, share: Double)] = [(.get, 0.9), (.set, 0.1)]
    /// How many different keys there are at a time.
    package var keys: UInt64 = 100_000
    /// Which of them are asked for how often.
    package var keyDistribution = KeyDistribution.uniform
    /// What every key begins with.
    package var keyPrefix = "key:"
    /// Bytes of a key; nil: the prefix and twelve digits.
    package var keySize: SizeDistribution?
    /// Bytes of a value; the same for a key each time.
    package var valueSize = SizeDistribution.fixed(100)
    /// Bytes of a value at most.
    package var valueLimit = 1 << 20
    /// Seconds to live, with shares that add up to 1; 0 is for ever.
    package var expiries: [(seconds: Int64, share: Double)] = [(0, 1)]
    /// The share of operations that bring a key which was never asked for before, in the place of an old one.
    package var churn = 0.0
    /// Requests of one virtual user that may be under way at once.
    package var pipeline = 1
    /// Keys in an `mget`.
    package var keysPerGet = 10
    /// How requests are written.
    package var wire = WireProtocol.classic
    /// Whether a miss is followed by a set of the key, as a look-aside cache is filled.
    package var fillsMisses = false
    /// Whether all keys are stored before the start.
    package var preloads = false
    /// Whether values are stamped, and checked when they are read.
    package var verifies = false
    /// The path of a trace to replay instead of random operations.
    package var trace: String?

    /// The defaults.
    package init() {}

    /// Why a workload with these options cannot have `operation`; nil when it can.
    package func refusal(of operation: Operation) -> String? {
        if verifies, operation == .append || operation == .prepend {
            return "verify: \(operation.name) changes values so that they cannot be verified"
        }
        return nil
    }

    /// Pipelined requests of a virtual user at most.
    package static let pipelineLimit = 10_000
    /// Keys at most.
    package static let keyLimit: UInt64 = 1 << 40

    /// Whether both are the same workload.
    package static func == (left: Workload, right: Workload) -> Bool { "\(left)" == "\(right)" }
}
