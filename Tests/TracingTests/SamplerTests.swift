// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Tracing

/// What is recorded: the standard samplers, slow and failed requests, and no more than there is room for.
struct SamplerTests {
    private static func tracing(_ sampler: TraceSampler, perSecond: Int = 100, queue: Int = 2048) -> Tracing {
        var configuration = TracingConfiguration()
        configuration.url = "http://127.0.0.1:1/v1/traces"
        configuration.sampler = sampler
        configuration.unsampledPerSecond = perSecond
        configuration.queueLimit = queue
        return Tracing(configuration, threads: 1)
    }

    private static func parent(low: UInt64 = 1, flags: UInt8) -> SpanContext {
        SpanContext(traceHigh: 7, traceLow: low, span: 9, flags: flags)
    }

    @Test(arguments: TraceSampler.Rule.allCases)
    func decidesAsTheStandardSays(_ rule: TraceSampler.Rule) {
        let tracing = Self.tracing(TraceSampler(rule, ratio: 0.25))
        var tracer = tracing.tracer(0)
        var roots = 0
        for _ in 0..<20_000 where tracer.root().isThere { roots += 1 }
        switch rule {
        case .alwaysOn, .parentOrOn: #expect(roots == 20_000)
        case .alwaysOff, .parentOrOff: #expect(roots == 0)
        case .ratio, .parentOrRatio: #expect((4_600...5_400).contains(roots), "\(roots)")
        }
        let (yes, no) = (tracer.seed(below: Self.parent(flags: 1)), tracer.seed(below: Self.parent(flags: 0)))
        let beyond = tracer.seed(below: Self.parent(low: .max, flags: 1))
        switch rule {
        case .alwaysOn: #expect(yes.isSampled && no.isSampled)
        case .alwaysOff: #expect(!yes.isSampled && !no.isSampled)
        case .ratio: #expect(yes.isSampled && no.isSampled && !beyond.isSampled)
        case .parentOrOn, .parentOrOff, .parentOrRatio: #expect(yes.isSampled && !no.isSampled)
        }
        // Whether or not it is recorded, a request that is slow goes below who asked.
        for seed in [yes, no] {
            #expect(seed.isThere && seed.parent == 9 && seed.context.traceHigh == 7 && seed.context.span != 9)
        }
    }

    @Test(arguments: [(0.0, 0), (1.0, 1000), (-3.0, 0), (7.0, 1000)])
    func takesRatiosToTheirEnds(_ ratio: Double, _ expected: Int) {
        let tracing = Self.tracing(TraceSampler(.ratio, ratio: ratio))
        var tracer = tracing.tracer(0)
        var roots = 0
        for _ in 0..<1000 where tracer.root().isThere { roots += 1 }
        #expect(roots == expected)
    }

    @Test func recordsSoManySlowRequestsASecondAndNoMore() {
        let tracing = Self.tracing(TraceSampler(.alwaysOff, ratio: 0), perSecond: 3)
        var tracer = tracing.tracer(0)
        let second: UInt64 = 1_000_000_000
        for now in [10 * second, 20 * second] {
            var recorded = 0
            for step in 0..<10 {
                let seed = tracer.late(SpanSeed(), now: now + UInt64(step))
                if seed.isThere {
                    recorded += 1
                    #expect(seed.isSampled && seed.context.isValid && seed.parent == 0)
                }
            }
            #expect(recorded == 3)
        }
        let known = tracer.seed(below: Self.parent(flags: 0))
        let late = tracer.late(known, now: 30 * second)
        #expect(late.isSampled && late.context.with(span: 1) == Self.parent(flags: 1).with(span: 1) && late.parent == 9)
    }

    @Test func recordsNothingWhereItIsOff() {
        let tracing = Tracing(TracingConfiguration(), threads: 1)
        var tracer = tracing.tracer(0)
        let (isOn, slow, recordsFailed) = (tracer.isOn, tracer.slowNanoseconds, tracer.recordsFailed)
        #expect(!isOn && slow == .max && !recordsFailed)
        let seed = tracer.late(SpanSeed(), now: 1)
        #expect(!seed.isThere)
    }

    @Test func dropsAndCountsWhatFindsNoRoom() {
        let ring = SpanRing(capacity: 5)
        for number in 1...20 as ClosedRange<UInt64> {
            var record = SpanRecord()
            record.start = number
            _ = ring.offer(record)
        }
        #expect(ring.dropped == 12 && ring.count == 8)
        var taken: [SpanRecord] = []
        ring.take(into: &taken, limit: 3)
        ring.take(into: &taken, limit: 100)
        #expect(taken.map(\.start) == Array(1...8))
        #expect(ring.offer(SpanRecord()) == 1)
    }
}
