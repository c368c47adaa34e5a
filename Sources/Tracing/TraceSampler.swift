// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which traces are recorded from their beginning. Pure. Source: OpenTelemetry's specification, Trace SDK, Sampling,
/// and the values of OTEL_TRACES_SAMPLER.
package struct TraceSampler: Sendable, Equatable {
    /// The samplers by their standard names.
    package enum Rule: String, CaseIterable, Sendable {
        case alwaysOn = "always_on"
        case alwaysOff = "always_off"
        case ratio = "traceidratio"
        case parentOrOn = "parentbased_always_on"
        case parentOrOff = "parentbased_always_off"
        case parentOrRatio = "parentbased_traceidratio"
    }

    /// Which it is.
    package let rule: Rule
    /// The part of traces that samplers by ratio record, from 0 to 1.
    package let ratio: Double
    /// Traces whose number, the last eight bytes without the lowest bit, is below it are among that part: whoever else
    /// samples by a ratio decides alike.
    private let threshold: UInt64

    /// A sampler. Of `ratio`, what is outside of 0 to 1 counts as the nearer end.
    package init(_ rule: Rule, ratio: Double) {
        self.rule = rule
        self.ratio = min(max(ratio, 0), 1)
        threshold = UInt64(self.ratio * 9_223_372_036_854_775_808)
    }

    /// Whether a trace that begins here, with this number in its last eight bytes, is recorded.
    func samplesRoot(_ traceLow: UInt64) -> Bool {
        switch rule {
        case .alwaysOn, .parentOrOn: true
        case .alwaysOff, .parentOrOff: false
        case .ratio, .parentOrRatio: traceLow >> 1 < threshold
        }
    }

    /// Whether a trace that somebody else began is recorded here.
    func samples(_ parent: SpanContext) -> Bool {
        switch rule {
        case .parentOrOn, .parentOrOff, .parentOrRatio: parent.isSampled
        case .alwaysOn: true
        case .alwaysOff: false
        case .ratio: traceIsIncluded(parent)
        }
    }

    private func traceIsIncluded(_ parent: SpanContext) -> Bool { parent.traceLow >> 1 < threshold }
}
