// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a place of a route tree does with a request. docs/mcrouter.md has the table of them and how each behaves.
package indirect enum RouteHandle: Sendable, Equatable {
    /// To the pool's server that the key belongs to.
    case pool(Int)
    /// To one server of a pool.
    case server(pool: Int, index: Int)
    /// To another server of the pool than the key's own, always the same: the first, second, … copy's.
    case copy(pool: Int, number: Int)
    /// To the first; a read that is not answered in the time that nearly all are, to the second as well.
    case hedge(HedgeRoute)
    /// To the child that the key belongs to.
    case hash([RouteTree.ID], names: [String], weights: [Double], HashChoice)
    /// To the child whose prefix is the longest that the key begins with.
    case prefixes(PrefixChoice)
    /// To the child of the request's operation. Nothing where there is neither one nor `otherwise`.
    case operations([RouteOperation: RouteTree.ID], otherwise: RouteTree.ID?)
    /// To all at once; the worst reply counts, of equals the first.
    case allSync([RouteTree.ID])
    /// To all at once; nobody waits.
    case allAsync([RouteTree.ID])
    /// To all at once; the first reply without error counts.
    case allFastest([RouteTree.ID])
    /// To all at once; the first child's reply counts.
    case allInitial([RouteTree.ID])
    /// To all at once; what more than half say counts, or else what most say.
    case allMajority([RouteTree.ID])
    /// To any of them.
    case random([RouteTree.ID])
    /// To the first, and after an error to others.
    case failover(FailoverRoute)
    /// To one after the other until one has the key: reads and deletes. Anything else goes to the first.
    case missFailover([RouteTree.ID], returnsBestOnError: Bool)
    /// To `cold`, and what it misses from `warm`, which is stored in `cold`. `exptime` 0: for ever; nil: as in `warm`.
    case warmUp(cold: RouteTree.ID, warm: RouteTree.ID, exptime: UInt32?)
    /// To `target`, of reads a part only while it has few hits.
    case slowWarmUp(target: RouteTree.ID, failover: RouteTree.ID, SlowWarmUp)
    /// From one to the other, key by key.
    case migrate(from: RouteTree.ID, to: RouteTree.ID, startSeconds: UInt64, intervalSeconds: UInt64)
    /// To the first, and a copy of some requests to others.
    case shadow(RouteTree.ID, [ShadowTarget])
    /// To one of several copies of the key.
    case keySplit(RouteTree.ID, replicas: Int, allSync: Bool, firstHit: Bool)
    /// To one of the parts of the key's shard.
    case shardSplit(RouteTree.ID, ShardSplits)
    /// To `target`, so many a second; the rest to `fallback`, or nowhere.
    case rateLimit(RouteTree.ID, RateLimits, fallback: RouteTree.ID?)
    /// To `target`, so many at a time; the others wait.
    case outstandingLimit(RouteTree.ID, limit: Int)
    /// Values above the threshold as several items.
    case bigValue(RouteTree.ID, BigValues)
    /// With another key.
    case modifyKey(RouteTree.ID, KeyChange)
    /// With another expiry.
    case modifyExptime(RouteTree.ID, ExptimeChange)
    /// Reads from `l1`, and what it misses from `l2`, which is stored in `l1`; the rest to `l1`.
    case l1l2(l1: RouteTree.ID, l2: RouteTree.ID, TwoLevels)
    /// Small values in `l1`, large ones in `l2`.
    case l1l2SizeSplit(l1: RouteTree.ID, l2: RouteTree.ID, SizeSplit)
    /// Later.
    case latency(RouteTree.ID, Latency)
    /// Nowhere: an error.
    case error(String, RouteResult)
    /// Nowhere: a miss, or not stored.
    case null

    /// The handles below it.
    package var children: [RouteTree.ID] {
        switch self {
        case .pool, .server, .copy, .error, .null: []
        case .hedge(let route): [route.first, route.second]
        case .hash(let children, _, _, _), .allSync(let children), .allAsync(let children), .allFastest(let children),
            .allInitial(let children), .allMajority(let children), .random(let children),
            .missFailover(let children, _):
            children
        case .prefixes(let choice): choice.children
        case .operations(let table, let otherwise): table.values.map { $0 } + [otherwise].compactMap { $0 }
        case .failover(let route): route.children
        case .warmUp(let cold, let warm, _): [cold, warm]
        case .slowWarmUp(let target, let failover, _): [target, failover]
        case .migrate(let from, let to, _, _): [from, to]
        case .shadow(let target, let shadows): [target] + shadows.map(\.target)
        case .rateLimit(let target, _, let fallback): [target] + [fallback].compactMap { $0 }
        case .keySplit(let child, _, _, _), .shardSplit(let child, _), .outstandingLimit(let child, _),
            .bigValue(let child, _),
            .modifyKey(let child, _), .modifyExptime(let child, _), .latency(let child, _):
            [child]
        case .l1l2(let first, let second, _), .l1l2SizeSplit(let first, let second, _): [first, second]
        }
    }

    /// What a read may meet here that its key's owner would not say; nil where it goes to the owner, or nowhere.
    var weakening: String? {
        switch self {
        case .hedge: "hedged reads"
        case .allFastest: "the fastest of several answers"
        case .allMajority: "the answer of most"
        case .random: "any of several"
        case .failover: "failover"
        case .missFailover: "failover after a miss"
        case .warmUp: "warming up from another pool"
        case .slowWarmUp: "warming up from another pool"
        case .keySplit, .shardSplit: "several copies of a key"
        case .l1l2: "two levels"
        default: nil
        }
    }

    /// How many children may be asked one after the other; nil where they are not.
    var tries: Int? {
        switch self {
        case .missFailover(let children, _): return children.count
        case .failover(let route):
            switch route.policy {
            case .inOrder, .rendezvous: return route.children.count
            case .deterministic(let policy): return min(policy.maximumTries, route.children.count)
            case .leastFailures(let tries): return min(tries, route.children.count)
            }
        default: return nil
        }
    }
}

/// Prefixes of keys, each with a handle, and what takes the rest.
package struct PrefixChoice: Sendable, Equatable {
    /// Prefixes and their handles.
    package var policies: [String: RouteTree.ID]
    /// What takes keys that begin with none; nil where nothing does.
    package var otherwise: RouteTree.ID?

    /// A choice.
    package init(_ policies: [String: RouteTree.ID] = [:], otherwise: RouteTree.ID?) {
        self.policies = policies
        self.otherwise = otherwise
    }

    var children: [RouteTree.ID] { policies.values.map { $0 } + [otherwise].compactMap { $0 } }
}

/// A ``RouteHandle/failover(_:)``.
package struct FailoverRoute: Sendable, Equatable {
    /// Where to go, the ordinary one first.
    package var children: [RouteTree.ID]
    /// Results after which the next one is asked.
    package var errors = FailoverErrors()
    /// In which order the others are asked.
    package var policy = FailoverPolicy.inOrder(maximumTries: nil, excluding: [])
    /// How many of all requests may be asked again.
    package var limit: FailoverLimit?
    /// Whether a lease is given back to where it came from.
    package var pairsLeases = false

    /// Failover among children.
    package init(_ children: [RouteTree.ID]) { self.children = children }
}

/// A ``RouteHandle/hedge(_:)``.
package struct HedgeRoute: Sendable, Equatable {
    /// Where to go.
    package var first: RouteTree.ID
    /// Where the same keys are.
    package var second: RouteTree.ID
    /// The part of requests that is answered in the time after which the second is asked: from 0 to 1.
    package var quantile = 0.95
    /// That time at least. Milliseconds.
    package var minimumMilliseconds = 1
    /// How many of all requests may be asked twice.
    package var limit = FailoverLimit(rate: 0.05, burst: 10)

    /// Reads from one, and now and then from another as well.
    package init(_ first: RouteTree.ID, _ second: RouteTree.ID) {
        self.first = first
        self.second = second
    }
}

/// After which results another destination is asked; nil for ``RouteResult/isFailoverError``.
package struct FailoverErrors: Sendable, Equatable {
    /// Of reads.
    package var gets: Set<RouteResult>?
    /// Of writes.
    package var updates: Set<RouteResult>?
    /// Of deletes.
    package var deletes: Set<RouteResult>?

    /// Errors by kind of request.
    package init(
        gets: Set<RouteResult>? = nil, updates: Set<RouteResult>? = nil, deletes: Set<RouteResult>? = nil
    ) {
        self.gets = gets
        self.updates = updates
        self.deletes = deletes
    }

    func contains(_ result: RouteResult, _ operation: RouteOperation) -> Bool {
        let named: Set<RouteResult>? =
            switch operation.group {
            case .get: gets
            case .update: updates
            case .delete: deletes
            case .arithmetic, .other: nil
            }
        return named?.contains(result) ?? result.isFailoverError
    }
}

/// In which order destinations are asked after an error.
package enum FailoverPolicy: Sendable, Equatable {
    /// As they are listed. Errors to exclude do not count as a try.
    case inOrder(maximumTries: Int?, excluding: Set<RouteResult>)
    /// By hashes of the key with a growing salt, as often as `tries` says.
    case deterministic(DeterministicFailover)
    /// Those that failed last come last.
    case leastFailures(maximumTries: Int)
    /// By the scores of a rendezvous hash of the tags. The first child is a pool whose servers are the others.
    case rendezvous(tags: [String], weights: [Double])
}

/// A ``FailoverPolicy/deterministic(_:)``.
package struct DeterministicFailover: Sendable, Equatable {
    /// Destinations to choose at most, the ordinary one included.
    package var maximumTries: Int
    /// Errors after which no further one is asked.
    package var maximumErrors: Int
    /// Errors that do not count.
    package var excluding: Set<RouteResult> = []
    /// WeightedCh3's weights, one for each child; empty for Ch3.
    package var weights: [Double] = []
    /// Whether destinations that fail together with a dead one are passed over.
    package var avoidsFailedDomains = false
    /// Whether the place of the ordinary destination in its pool says nothing about the children.
    package var ignoresNormalIndex = false

    /// A policy with its two limits.
    package init(maximumTries: Int, maximumErrors: Int) {
        self.maximumTries = maximumTries
        self.maximumErrors = maximumErrors
    }
}

/// How many requests may fail over: `rate` of all, `burst` beyond that.
package struct FailoverLimit: Sendable, Equatable {
    /// From 0 to 1.
    package let rate: Double
    /// At least 1.
    package let burst: Double

    /// A limit; what is out of range becomes the nearest that is allowed.
    package init(rate: Double, burst: Double = 1000) {
        self.rate = min(max(rate, 0), 1)
        self.burst = max(burst, 1)
    }
}

/// When a server that has few hits gets fewer reads.
package struct SlowWarmUp: Sendable, Equatable {
    /// Below that hit rate it does.
    package var enableThreshold = 0.7
    /// From that on no more.
    package var disableThreshold = 0.9
    /// The part of reads that it gets at no hits.
    package var start = 0.1
    /// What is added to that at a hit rate of 1.
    package var step = 1.0
    /// Reads before the hit rate counts.
    package var minimumRequests = 100

    /// mcrouter's defaults.
    package init() {}
}

/// Where copies of requests go, and of which.
package struct ShadowTarget: Sendable, Equatable {
    /// Where to.
    package var target: RouteTree.ID
    /// The part of keys, by their hash: from 0 to 1.
    package var keys: ClosedRange<Double> = 0...0
    /// These keys, whatever their hash; empty for a range.
    package var keyList: [String] = []
    /// The part of requests: from 0 to 1.
    package var requests = 1.0

    /// Copies to a target.
    package init(_ target: RouteTree.ID) { self.target = target }
}

/// Requests a second, by kind; nil where there is no limit.
package struct RateLimits: Sendable, Equatable {
    /// A rate a second and how many at once.
    package struct Rate: Sendable, Equatable {
        /// Above 0.
        package let perSecond: Double
        /// Above 0.
        package let burst: Double

        /// A rate; nil when it is not above 0.
        package init?(perSecond: Double, burst: Double? = nil) {
            guard perSecond > 0, perSecond.isFinite, burst ?? 1 > 0 else { return nil }
            self.perSecond = perSecond
            self.burst = burst ?? perSecond
        }
    }

    /// Reads.
    package var gets: Rate?
    /// Writes.
    package var sets: Rate?
    /// Deletes.
    package var deletes: Rate?

    /// No limits.
    package init() {}

    func rate(_ operation: RouteOperation) -> Rate? {
        switch operation.group {
        case .get: gets
        case .update: sets
        case .delete: deletes
        case .arithmetic, .other: nil
        }
    }
}

/// How long values are cut up.
package struct BigValues: Sendable, Equatable {
    /// Bytes of a piece, and of a value that is left alone: at least 1.
    package let thresholdBytes: Int
    /// Pieces that are asked for at a time; 0 for all.
    package let batchSize: Int
    /// Whether clients do not see the flag that marks a list of pieces.
    package let hidesFlag: Bool

    /// The flag: mcrouter's.
    package static var flag: UInt32 { 0x8000 }
    /// Pieces of a value at most: a damaged list may say anything.
    package static var maximumPieces: Int { 4096 }

    /// How to cut; nil when the threshold is not above 0.
    package init?(thresholdBytes: Int, batchSize: Int, hidesFlag: Bool = false) {
        guard thresholdBytes > 0, batchSize >= 0 else { return nil }
        self.thresholdBytes = thresholdBytes
        self.batchSize = batchSize
        self.hidesFlag = hidesFlag
    }
}

/// What becomes of keys.
package struct KeyChange: Sendable, Equatable {
    /// The routing prefix; empty for none, nil for the key's own.
    package var routingPrefix: String?
    /// What keys must begin with; it is put in front of those that do not.
    package var prefix = ""
    /// What `prefix` stands for, where the key begins with it.
    package var replacing: String?
    /// Whether `prefix` takes the place of as many bytes.
    package var isInPlace = false
    /// What is put behind.
    package var suffix = ""

    /// No change.
    package init() {}
}

/// What becomes of expiries. 0 is for ever.
package enum ExptimeChange: Sendable, Equatable {
    /// Always that one.
    case set(Int64)
    /// Not longer than that; not 0.
    case atMost(Int64)
}

/// A ``RouteHandle/l1l2(l1:l2:_:)``.
package struct TwoLevels: Sendable, Equatable {
    /// Of what is copied into the first. Seconds.
    package var upgradingExptime: UInt32
    /// Of marks that the second has nothing either. Seconds.
    package var missExptime: UInt32 = 0
    /// How many reads of such a mark pass before the second is asked again; 0 for no marks.
    package var missPeriod: Int = 0

    /// The flag of such marks: mcrouter's.
    package static var missFlag: UInt32 { 0x10000 }
    /// Their value.
    package static var missValue: [UInt8] { Array("ncache".utf8) }

    /// Without marks.
    package init(upgradingExptime: UInt32) { self.upgradingExptime = upgradingExptime }
}

/// A ``RouteHandle/l1l2SizeSplit(l1:l2:_:)``.
package struct SizeSplit: Sendable, Equatable {
    /// Shorter values are in the first only; 0 for all. Bytes.
    package var thresholdBytes: Int
    /// Values that expire sooner are, too; 0 for none. Seconds.
    package var ttlThreshold: Int64 = 0
    /// The expiry of a long value in the first, when the second is out of order. Seconds.
    package var failureTTL: Int64 = 60
    /// Whether long values are in both.
    package var storesBoth = false
    /// How often a read begins anew: 1 to 10.
    package var retries = 1

    /// The flag of what stands in the first for a long value: mcrouter's.
    package static var flag: UInt32 { 0x20 }

    /// Split by that length.
    package init(thresholdBytes: Int) { self.thresholdBytes = thresholdBytes }
}

/// A ``RouteHandle/latency(_:_:)``. Milliseconds.
package struct Latency: Sendable, Equatable {
    /// Before the request goes on.
    package var beforeMilliseconds = 0
    /// Before its reply does.
    package var afterMilliseconds = 0
    /// All in all, where it would be less; 0 for as it is.
    package var totalMilliseconds = 0
    /// All in all, by chance: of a number from 0 to 100 the first percentile above it counts, or the last.
    package var totalPercentiles: [(percentile: Double, milliseconds: Int)] = []

    /// Nothing.
    package init() {}

    /// Whether both wait alike.
    package static func == (left: Latency, right: Latency) -> Bool {
        left.beforeMilliseconds == right.beforeMilliseconds && left.afterMilliseconds == right.afterMilliseconds
            && left.totalMilliseconds == right.totalMilliseconds
            && left.totalPercentiles.map(\.percentile) == right.totalPercentiles.map(\.percentile)
            && left.totalPercentiles.map(\.milliseconds) == right.totalPercentiles.map(\.milliseconds)
    }
}
