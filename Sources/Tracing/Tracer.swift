// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// What one thread needs to trace: it decides what is recorded, makes numbers, and hands finished spans to the
/// exporter. Takes no lock and allocates nothing.
package struct Tracer: ~Copyable {
    /// Whether anything is traced at all.
    package let isOn: Bool
    /// From how long on a request is slow, in nanoseconds; the greatest number for never.
    package let slowNanoseconds: UInt64
    /// Whether requests that fail are recorded though nobody samples them.
    package let recordsFailed: Bool
    /// Whether keys are shown as they are.
    package let showsKeys: Bool
    private let tracing: Tracing
    private let ring: SpanRing
    private let sampler: TraceSampler
    /// From how many waiting spans on the exporter is woken.
    private let wakeCount: Int
    private var state: UInt64
    /// How many slow and failed requests may be recorded yet in the second that began at `secondStart`.
    private let perSecond: Int
    private var left: Int
    private var secondStart: UInt64 = 0

    init(_ tracing: Tracing, _ ring: SpanRing, seed: UInt64) {
        let configuration = tracing.configuration
        self.tracing = tracing
        self.ring = ring
        isOn = configuration.isOn
        slowNanoseconds =
            configuration.isOn && configuration.slowNanoseconds > 0 ? configuration.slowNanoseconds : .max
        recordsFailed = configuration.isOn && configuration.recordsFailed
        showsKeys = configuration.showsKeys
        sampler = configuration.sampler
        wakeCount = configuration.batchLimit
        perSecond = configuration.unsampledPerSecond
        left = configuration.unsampledPerSecond
        state = seed
    }

    // MARK: Numbers

    /// The next random number. Source: Steele, Lea, Flood (2014), SplitMix64.
    private mutating func random() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
        return mixed ^ mixed >> 31
    }

    /// A number for a span.
    package mutating func spanNumber() -> UInt64 {
        while true {
            let number = random()
            if number != 0 { return number }
        }
    }

    // MARK: Deciding

    /// The span of a request that begins a trace, if that is sampled; none otherwise.
    package mutating func root() -> SpanSeed {
        let low = random()
        guard sampler.samplesRoot(low) else { return SpanSeed() }
        return SpanSeed(
            SpanContext(traceHigh: spanNumber(), traceLow: low, span: spanNumber(), flags: 1), parent: 0)
    }

    /// The span of a request that carries a context. It is there also where it is not sampled: the request may turn out
    /// to be slow.
    package mutating func seed(below parent: SpanContext) -> SpanSeed {
        var context = parent.with(span: spanNumber())
        context.flags = sampler.samples(parent) ? parent.flags | 1 : parent.flags & ~1
        return SpanSeed(context, parent: parent.span)
    }

    /// A span below another one here.
    package mutating func child(of parent: SpanContext) -> SpanSeed {
        SpanSeed(parent.with(span: spanNumber()), parent: parent.span)
    }

    /// The span of a request that nobody sampled and that was slow or failed: below `seed` if the request carried a
    /// context. None when there were too many of those in this second.
    package mutating func late(_ seed: SpanSeed, now: UInt64) -> SpanSeed {
        guard isOn else { return SpanSeed() }
        if now &- secondStart >= 1_000_000_000 {
            secondStart = now
            left = perSecond
        }
        guard left > 0 else { return SpanSeed() }
        left -= 1
        var seed = seed
        if !seed.isThere {
            seed.context = SpanContext(traceHigh: spanNumber(), traceLow: spanNumber(), span: spanNumber(), flags: 0)
        }
        seed.context.flags |= 1
        return seed
    }

    // MARK: Recording

    /// Hands a finished span over.
    package func record(_ record: SpanRecord) {
        guard let waiting = ring.offer(record), waiting == wakeCount else { return }
        tracing.wake()
    }
}
