// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a stream told of keys lately: a read that finds an older row asked a store that lags behind the stream, such as
/// a primary that another one took the place of, or a standby. What it finds is not cached.
///
/// A mark is forgotten after a while, and when there are too many: a store that lost what the stream told of would keep
/// a key out of the cache for ever.
struct ToldVersions {
    private struct Mark {
        var version: UInt64
        var isDeletion: Bool
        var untilNanoseconds: UInt64
        /// Which place in `order` is its last.
        var number: UInt64
    }

    private let limit: Int
    private let keptNanoseconds: UInt64
    private var marks: [UInt64: Mark] = [:]
    /// The hashes in the order in which they were told of, in a ring of `limit` places.
    private var order: [(hash: UInt64, number: UInt64)] = []
    private var number: UInt64 = 0
    /// All rows of versions below this are gone, as was told; and until when that is remembered.
    private var floor: (version: UInt64, untilNanoseconds: UInt64) = (0, 0)
    /// Versions are times by the clocks of several machines, in milliseconds behind 16 bits, which differ by so much.
    private static let clocksDiffer: UInt64 = 500 << 16

    /// At most `limit` marks, each for so long.
    init(limit: Int, keptMilliseconds: UInt64) {
        self.limit = max(1, limit)
        keptNanoseconds = keptMilliseconds &* 1_000_000
    }

    /// How many there are.
    var count: Int { marks.count }

    /// The stream told of a version of a key.
    mutating func note(_ hash: UInt64, version: UInt64, isDeletion: Bool, atNanoseconds now: UInt64) {
        if let known = marks[hash], known.version >= version { return }
        let place = Int(truncatingIfNeeded: number % UInt64(limit))
        if place < order.count {
            let oldest = order[place]
            if marks[oldest.hash]?.number == oldest.number { marks[oldest.hash] = nil }
            order[place] = (hash, number)
        } else {
            order.append((hash, number))
        }
        marks[hash] = Mark(
            version: version, isDeletion: isDeletion, untilNanoseconds: now &+ keptNanoseconds, number: number)
        number &+= 1
    }

    /// The stream told that there is no row any more that is not newer than a version.
    mutating func noteEmptied(version: UInt64, atNanoseconds now: UInt64) {
        let (sum, isOverflow) = version.addingReportingOverflow(Self.clocksDiffer)
        floor = (max(floor.version, isOverflow ? version : sum), now &+ keptNanoseconds)
    }

    /// Whether what a read found is older than what was told: a row of an older version, or none where a row was told
    /// of.
    func isAhead(of outcome: ReadOutcome, _ hash: UInt64, atNanoseconds now: UInt64) -> Bool {
        if case .found(let row) = outcome, row.version < floor.version, now < floor.untilNanoseconds { return true }
        guard !marks.isEmpty, let mark = marks[hash], now < mark.untilNanoseconds else { return false }
        return switch outcome {
        case .found(let row): row.version < mark.version
        case .absent: !mark.isDeletion
        case .failed: false
        }
    }
}
