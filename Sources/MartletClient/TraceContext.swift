// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which trace a call belongs to, and below which span: what W3C calls a `traceparent`. It goes to the server with the
/// request, in the meta protocol's `L` token, which servers and proxies pass over unless they trace themselves.
public struct TraceContext: Sendable, Equatable {
    /// `00-` and the trace's 32, the parent span's 16 and the flags' 2 hexadecimal digits, with `-` between.
    public let traceparent: String

    /// The context that a request's header `traceparent` spells; nil when it spells none. Of versions that are not
    /// known yet, what a later version may put behind is left out. Source: W3C Trace Context, 3.2.
    public init?(_ traceparent: String) {
        let fields = traceparent.split(separator: "-", omittingEmptySubsequences: false)
        let lengths = [2, 32, 16, 2]
        guard fields.count >= lengths.count,
            zip(fields, lengths).allSatisfy({ $0.utf8.count == $1 && $0.utf8.allSatisfy(Self.isDigit) }),
            fields[0] != "ff", fields[0] != "00" || fields.count == lengths.count,
            fields[1].contains(where: { $0 != "0" }), fields[2].contains(where: { $0 != "0" })
        else { return nil }
        self.traceparent = fields.prefix(lengths.count).joined(separator: "-")
    }

    /// Whether whoever began the trace records it.
    public var isSampled: Bool { (traceparent.utf8.last.map { Self.value($0) } ?? 0) & 1 == 1 }

    private static func isDigit(_ byte: UInt8) -> Bool {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains(byte)
    }

    private static func value(_ digit: UInt8) -> UInt8 {
        digit >= UInt8(ascii: "a") ? digit - UInt8(ascii: "a") + 10 : digit - UInt8(ascii: "0")
    }
}
