// Martlet
// SPDX-License-Identifier: Apache-2.0

/// When the iterations of an arrival-rate executor start: nanoseconds from the scenario's start, in rising order, one
/// at a time.
///
/// The number of arrivals up to a time is the area under the rate; arrival k is where that area reaches k, or, with
/// random spacing, the k-th point of a Poisson process of rate 1.
package struct ArrivalSchedule: Sendable {
    private struct Piece {
        var start: Double
        var length: Double
        /// Arrivals a second at the start and the end of the piece.
        var from: Double
        var to: Double
    }

    private let pieces: [Piece]
    private let spacing: ArrivalSpacing
    private let end: UInt64
    private let times: [UInt64]?
    /// Only every so many-th arrival is there.
    private let stride: Int
    private var random: RandomSource
    private var piece = 0
    /// The area before the current piece.
    private var areaBefore = 0.0
    private var area: Double
    private var row = 0
    /// The next arrival; nil when there is none any more.
    package private(set) var next: UInt64?

    /// The arrivals of `plan`, which has some, that are `segment`'s; `times` are those of a trace, in nanoseconds,
    /// rising.
    package init(
        _ plan: ExecutorPlan, seed: UInt64, times: [UInt64]? = nil, segment: ExecutionSegment = .whole
    ) {
        stride = segment.count
        spacing = plan.arrivalUsers?.spacing ?? .even
        end = plan.regularDuration
        random = RandomSource(seed: seed)
        var pieces: [Piece] = []
        var speed = 1.0
        switch plan {
        case .constantArrivals(let rate, let duration, _):
            pieces = [Piece(start: 0, length: Double(duration) / 1e9, from: rate, to: rate)]
        case .rampingArrivals(let start, let stages, _):
            var (at, from) = (0.0, start)
            for stage in stages {
                let length = Double(stage.duration) / 1e9
                if length > 0 { pieces.append(Piece(start: at, length: length, from: from, to: stage.target)) }
                at += length
                from = stage.target
            }
        case .trace(let factor, _, _): speed = factor
        default: break
        }
        self.pieces = pieces
        self.times = times.map { times in times.map { Self.nanoseconds($0, speed: speed) } }
        // Evenly spaced at a constant rate, the first is at once; on a ramp, when the area is 1.
        if case .rampingArrivals = plan { area = 1 } else { area = 0 }
        if spacing == .poisson { area = random.exponential() }
        skip(segment.index)
        if self.times != nil { next = timeOfRow() } else { next = timeOfArea() }
    }

    /// When a trace's row that was `time` nanoseconds after its first is due at `speed`: a century at most.
    package static func nanoseconds(_ time: UInt64, speed: Double) -> UInt64 {
        UInt64(min(Double(time) / speed, Double(longestDuration)))
    }

    /// Goes on to the next arrival.
    package mutating func advance() {
        skip(stride)
        if times != nil { next = timeOfRow() } else { next = timeOfArea() }
    }

    private mutating func skip(_ count: Int) {
        guard times == nil else {
            row += count
            return
        }
        guard spacing == .poisson else {
            area += Double(count)
            return
        }
        for _ in 0..<count { area += random.exponential() }
    }

    private func timeOfRow() -> UInt64? {
        guard let times, row < times.count, times[row] < end else { return nil }
        return times[row]
    }

    private mutating func timeOfArea() -> UInt64? {
        while piece < pieces.count {
            let one = pieces[piece]
            let whole = (one.from + one.to) / 2 * one.length
            let wanted = area - areaBefore
            if wanted < whole {
                let slope = (one.to - one.from) / one.length
                // The stable form of the quadratic's solution; the plain quotient when the rate is constant.
                let root = max(0, one.from * one.from + 2 * slope * wanted).squareRoot()
                let offset = wanted <= 0 ? 0 : 2 * wanted / (one.from + root)
                let time = UInt64(((one.start + min(offset, one.length)) * 1e9).rounded())
                return time < end ? time : nil
            }
            areaBefore += whole
            piece += 1
        }
        return nil
    }
}
