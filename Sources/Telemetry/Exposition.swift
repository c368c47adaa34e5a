// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Writes metrics as text that Prometheus reads: the text format 0.0.4, or OpenMetrics 1.0.
///
/// Call ``family(_:_:help:)`` and then its samples; each family once. The names given are those of the 0.0.4 format:
/// a counter called `x_total` becomes the OpenMetrics family `x` by itself. For a page now and then, not for a hot
/// path: it allocates. Sources: prometheus.io "Exposition formats"; OpenMetrics 1.0.
package struct Exposition: Sendable {
    /// The two formats.
    package enum Format: Sendable {
        /// The Prometheus text format 0.0.4.
        case prometheus
        /// OpenMetrics 1.0, which ends with `# EOF`.
        case openMetrics

        /// The value of the HTTP header Content-Type.
        package var contentType: String {
            switch self {
            case .prometheus: "text/plain; version=0.0.4; charset=utf-8"
            case .openMetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
        }
    }

    /// What a family's samples are.
    package enum Kind: String, Sendable {
        case counter, gauge, histogram
    }

    /// A label's name and its value, which is escaped as needed.
    package typealias Label = (name: String, value: String)

    /// The format written.
    package let format: Format
    /// The text so far, in UTF-8.
    package private(set) var bytes: [UInt8] = []

    private var current = ""
    private var kind = Kind.gauge
    private var declared: Set<String> = []
    private var isFinished = false

    /// An empty page.
    package init(format: Format) {
        self.format = format
        bytes.reserveCapacity(64 * 1024)
    }

    /// Starts the family `name`: its HELP and TYPE lines. A name that is not `[a-zA-Z_:][a-zA-Z0-9_:]*`, or that was
    /// started before, is a bug of ours.
    package mutating func family(_ name: String, _ kind: Kind, help: String) {
        precondition(!isFinished, "a family after the end")
        precondition(isMetricName(name), "not a metric name: \(name)")
        precondition(declared.insert(name).inserted, "the metric family \(name) twice")
        current = name
        self.kind = kind
        var shown = name
        var type = kind.rawValue
        if format == .openMetrics, kind == .counter {
            // A counter's samples end in _total there; one that does not, as memcached_exporter has, is unknown.
            if name.hasSuffix("_total") { shown = String(name.dropLast(6)) } else { type = "unknown" }
        }
        append("# HELP \(shown) ")
        appendEscaped(help, quotes: format == .openMetrics)
        append("\n# TYPE \(shown) \(type)\n")
    }

    /// Adds a sample with a whole number to the current family.
    package mutating func sample(_ value: UInt64, _ labels: Label...) {
        sample(String(value), suffix: "", labels: labels, bound: nil)
    }

    /// Adds a sample to the current family.
    package mutating func sample(_ value: Double, _ labels: Label...) {
        sample(expositionNumber(value), suffix: "", labels: labels, bound: nil)
    }

    /// Adds a sample to the current family, with labels made at run time.
    package mutating func sample(_ value: UInt64, labels: [Label]) {
        sample(String(value), suffix: "", labels: labels, bound: nil)
    }

    /// Adds a histogram in seconds to the current family. OpenMetrics shows the last traced event of each bucket, too.
    package mutating func sample(_ histogram: HistogramSnapshot, _ labels: Label...) {
        precondition(kind == .histogram, "\(current) is no histogram")
        var cumulative: UInt64 = 0
        for index in 0..<LatencyHistogram.boundedBucketCount {
            cumulative &+= histogram.counts[index]
            let bound = expositionNumber(Double(LatencyHistogram.boundNanoseconds(index)) / 1e9)
            sample(String(cumulative), suffix: "_bucket", labels: labels, bound: bound, histogram.exemplar(index))
        }
        let count = histogram.count
        let last = histogram.exemplar(LatencyHistogram.boundedBucketCount)
        sample(String(count), suffix: "_bucket", labels: labels, bound: "+Inf", last)
        sample(expositionNumber(Double(histogram.sumNanoseconds) / 1e9), suffix: "_sum", labels: labels, bound: nil)
        sample(String(count), suffix: "_count", labels: labels, bound: nil)
    }

    /// Ends the text, which OpenMetrics marks.
    package mutating func finish() {
        precondition(!isFinished, "finished twice")
        isFinished = true
        if format == .openMetrics { append("# EOF\n") }
    }

    private mutating func sample(
        _ value: String, suffix: String, labels: [Label], bound: String?, _ exemplar: Exemplar? = nil
    ) {
        precondition(!current.isEmpty && !isFinished, "a sample outside of a family")
        precondition(suffix.isEmpty == (kind != .histogram), "\(current) has samples of another kind")
        append(current)
        append(suffix)
        var opened = false
        for label in labels {
            precondition(isLabelName(label.name), "not a label name: \(label.name)")
            append(opened ? "," : "{")
            opened = true
            append("\(label.name)=\"")
            appendEscaped(label.value, quotes: true)
            append("\"")
        }
        if let bound {
            append(opened ? "," : "{")
            opened = true
            append("le=\"\(bound)\"")
        }
        append(opened ? "} \(value)" : " \(value)")
        if format == .openMetrics, let exemplar { append(exemplar) }
        append("\n")
    }

    private mutating func append(_ exemplar: Exemplar) {
        let trace = Hexadecimal.digits(exemplar.traceHigh) + Hexadecimal.digits(exemplar.traceLow)
        append(" # {trace_id=\"\(trace)\",span_id=\"\(Hexadecimal.digits(exemplar.span))\"} ")
        append("\(expositionNumber(Double(exemplar.nanoseconds) / 1e9)) ")
        append(expositionNumber(Double(exemplar.unixNanoseconds / 1000) / 1e6))
    }

    private mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    private mutating func appendEscaped(_ text: String, quotes: Bool) {
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\\"): append("\\\\")
            case UInt8(ascii: "\n"): append("\\n")
            case UInt8(ascii: "\"") where quotes: append("\\\"")
            default: bytes.append(byte)
            }
        }
    }
}

extension HistogramSnapshot {
    /// The last traced event of a bucket.
    fileprivate func exemplar(_ bucket: Int) -> Exemplar? { exemplars.isEmpty ? nil : exemplars[bucket] }
}

/// A number as both formats spell it.
func expositionNumber(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value < 0 ? "-Inf" : "+Inf" }
    return "\(value)"
}

/// Whether `name` is `[a-zA-Z_:][a-zA-Z0-9_:]*`.
func isMetricName(_ name: String) -> Bool {
    isName(name) { $0 == UInt8(ascii: ":") }
}

/// Whether `name` is `[a-zA-Z_][a-zA-Z0-9_]*`.
func isLabelName(_ name: String) -> Bool {
    isName(name) { _ in false }
}

private func isName(_ name: String, alsoAllowed: (UInt8) -> Bool) -> Bool {
    var isFirst = true
    for byte in name.utf8 {
        let isLetter = (byte | 0x20) >= UInt8(ascii: "a") && (byte | 0x20) <= UInt8(ascii: "z")
        let isDigit = byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")
        guard isLetter || byte == UInt8(ascii: "_") || alsoAllowed(byte) || (isDigit && !isFirst) else { return false }
        isFirst = false
    }
    return !isFirst
}
