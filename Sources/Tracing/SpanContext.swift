// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Which trace something belongs to, and the span that it is: what W3C calls a `traceparent`, as numbers. All zeros is
/// none. Source: W3C Trace Context, 3.2.
package struct SpanContext: BitwiseCopyable, Sendable, Equatable {
    /// The trace's 16 bytes, the first eight in front.
    package var traceHigh: UInt64
    /// The last eight.
    package var traceLow: UInt64
    /// The span's eight bytes.
    package var span: UInt64
    /// The trace's flags; the lowest bit says that it is recorded.
    package var flags: UInt8

    /// No trace.
    package static var none: SpanContext { SpanContext(traceHigh: 0, traceLow: 0, span: 0, flags: 0) }

    /// Bytes of its text.
    package static var textBytes: Int { 55 }

    /// A span of a trace.
    package init(traceHigh: UInt64, traceLow: UInt64, span: UInt64, flags: UInt8) {
        self.traceHigh = traceHigh
        self.traceLow = traceLow
        self.span = span
        self.flags = flags
    }

    /// Whether it names a trace and a span.
    package var isValid: Bool { traceHigh | traceLow != 0 && span != 0 }

    /// Whether somebody records the trace.
    package var isSampled: Bool { flags & 1 == 1 }

    /// The same trace with another span.
    package func with(span: UInt64) -> SpanContext {
        SpanContext(traceHigh: traceHigh, traceLow: traceLow, span: span, flags: flags)
    }

    /// The context that exactly these bytes spell; nil when they spell none. Of versions that are not known yet, what
    /// stands behind the flags is passed over. Allocates nothing.
    package init?(_ text: Span<UInt8>) {
        let length = Self.textBytes
        guard text.count >= length, text[2] == Self.dash, text[35] == Self.dash, text[52] == Self.dash,
            let version = Self.number(text, 0, 2), version != 0xff,
            text.count == length || (version != 0 && text[length] == Self.dash),
            let high = Self.number(text, 3, 16), let low = Self.number(text, 19, 16),
            let span = Self.number(text, 36, 16), let flags = Self.number(text, 53, 2)
        else { return nil }
        self.init(traceHigh: high, traceLow: low, span: span, flags: UInt8(truncatingIfNeeded: flags))
        guard isValid else { return nil }
    }

    private static var dash: UInt8 { UInt8(ascii: "-") }

    /// Lower-case hexadecimal digits as a number; nil where another byte stands among them.
    private static func number(_ text: Span<UInt8>, _ start: Int, _ count: Int) -> UInt64? {
        var number: UInt64 = 0
        for index in start..<start + count {
            let byte = text[index]
            let digit: UInt8
            switch byte {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte &- 48
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit = byte &- 87
            default: return nil
            }
            number = number << 4 | UInt64(digit)
        }
        return number
    }

    /// The trace as 32 digits. Allocates.
    package var traceText: String { Hexadecimal.digits(traceHigh) + Hexadecimal.digits(traceLow) }

    /// The span as 16 digits. Allocates.
    package var spanText: String { Hexadecimal.digits(span) }

    /// The context as a `traceparent`. Allocates.
    package var traceparent: String {
        "00-\(traceText)-\(spanText)-\(flags < 16 ? "0" : "")\(String(flags, radix: 16))"
    }

    /// The context that a text spells. Allocates.
    package init?(traceparent: String) {
        let bytes = Array(traceparent.utf8)
        self.init(bytes.span)
    }
}
