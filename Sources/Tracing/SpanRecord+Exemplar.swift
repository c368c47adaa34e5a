// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
package import Telemetry

extension SpanRecord {
    /// The span as what a histogram shows of one of its events, over at this moment.
    package var exemplar: Exemplar {
        Exemplar(
            traceHigh: context.traceHigh, traceLow: context.traceLow, span: context.span, nanoseconds: end &- start,
            unixNanoseconds: Clock.realtimeNanoseconds())
    }
}
