// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Storage

/// What is looked at in the topic of states, and why. Pure.
struct StateReading {
    /// What a message is to who publishes.
    enum Sight: Equatable {
        /// Nothing has to be put behind it.
        case passed
        /// The row of its key is to be put behind it.
        case wanted
        /// So it is, if the stream is still ours: it is another store's.
        case strange
        /// The store is in this later epoch by now.
        case superseded(Int64)
    }

    /// By partition, what is left of it.
    var ranges: [Int: Range<Int64>]
    /// Only states behind which newer ones stand before them count: those of the last messages, which need not be
    /// another publisher's.
    var wantsLateOnly: Bool
    /// By partition, the place that nothing met so far is behind.
    private var greatest: [Int: KafkaPlace] = [:]
    /// When it began, in monotonic nanoseconds.
    var since: UInt64 = 0

    /// A look at `ranges`.
    init(ranges: [Int: Range<Int64>], wantsLateOnly: Bool) {
        (self.ranges, self.wantsLateOnly) = (ranges, wantsLateOnly)
    }

    /// A message was met, whose `place` is nil where it is none of a stream; what it is to the publisher of the store
    /// and epoch of `own`.
    mutating func met(_ slot: Int, offset: Int64, place: KafkaPlace?, own: StreamPosition) -> Sight {
        guard let range = ranges[slot] else { return .passed }
        let rest = max(range.lowerBound, offset + 1)
        ranges[slot] = rest < range.upperBound ? rest..<range.upperBound : nil
        guard offset < range.upperBound else { return .passed }
        guard let place else { return wantsLateOnly && greatest[slot] == nil ? .passed : .wanted }
        if place.source == own.source, place.epoch > own.epoch { return .superseded(place.epoch) }
        let isLate = greatest[slot].map { Self.isBehind(place, $0, own) } ?? false
        if !isLate { greatest[slot] = place }
        guard isLate || !wantsLateOnly else { return .passed }
        return place.source == own.source ? .wanted : .strange
    }

    /// Whether what stands at `place` is older than what was met before it. Other stores' among each other are not
    /// known to be.
    private static func isBehind(_ place: KafkaPlace, _ before: KafkaPlace, _ own: StreamPosition) -> Bool {
        guard place.source == before.source else { return before.source == own.source }
        return (place.epoch, place.sequence) < (before.epoch, before.sequence)
    }
}
