// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

extension LoadOptions {
    /// k6's options, in the order of its documentation of `exec.test.options`.
    private static let names = [
        "paused", "vus", "duration", "iterations", "stages", "scenarios", "executionSegment",
        "executionSegmentSequence", "noSetup", "setupTimeout", "noTeardown", "teardownTimeout", "rps", "dns",
        "maxRedirects", "userAgent", "batch", "batchPerHost", "httpDebug", "insecureSkipTLSVerify", "tlsCipherSuites",
        "tlsVersion", "tlsAuth", "throw", "thresholds", "blacklistIPs", "blockHostnames", "hosts", "noConnectionReuse",
        "noVUConnectionReuse", "minIterationDuration", "ext", "summaryTrendStats", "summaryTimeUnit", "systemTags",
        "tags", "noCookiesReset", "discardResponseBodies", "cloud", "localIPs",
    ]

    /// These options as JSON, as `exec.test.options` has them: what no place says is null. `own` are the script's own,
    /// each as JSON, of which those stand that no other place can change.
    package func json(_ own: [String: String]) -> String {
        var fields = own
        func put(_ name: String, _ value: String?) { fields[name] = value ?? "null" }
        func time(_ nanoseconds: UInt64?) -> String? { nanoseconds.map { JSONString.quoted(NumberText.span($0)) } }
        func texts(_ list: [String]?) -> String? {
            list.map { "[\($0.map { JSONString.quoted($0) }.joined(separator: ","))]" }
        }
        put("vus", vus.map { "\($0)" })
        put("duration", time(duration))
        put("iterations", iterations.map { "\($0)" })
        put("stages", stages.map { "[\($0.map(\.json).joined(separator: ","))]" })
        put("thresholds", thresholds.map(Self.json))
        put("tags", tags.map { JSONText.object($0) })
        put("setupTimeout", time(setupTimeout))
        put("teardownTimeout", time(teardownTimeout))
        put("minIterationDuration", time(minIterationDuration))
        put("summaryTrendStats", texts(summaryTrendStats))
        put("summaryTimeUnit", summaryTimeUnit.map { JSONString.quoted($0) })
        put("noSetup", noSetup.map { "\($0)" })
        put("noTeardown", noTeardown.map { "\($0)" })
        put("rps", requestsPerSecond.map { "\($0)" })
        put("throw", throwsErrors.map { "\($0)" })
        put("insecureSkipTLSVerify", skipsTLSVerification.map { "\($0)" })
        put("executionSegment", segment.map { JSONString.quoted($0.text) })
        let sequence = segment.map { part in
            (0...part.count).map { ExecutionSegment.fraction($0, part.count) }.joined(separator: ",")
        }
        put("executionSegmentSequence", sequence.map { JSONString.quoted($0) })
        put("systemTags", texts(systemTags.map { tags in SystemTags.known.filter { tags.has($0) } }))
        for name in Self.names where fields[name] == nil { fields[name] = "null" }
        let order = Self.names + fields.keys.filter { !Self.names.contains($0) }.sorted()
        return "{" + order.map { "\(JSONString.quoted($0)):\(fields[$0] ?? "null")" }.joined(separator: ",") + "}"
    }

    private static func json(_ thresholds: [MetricThresholds]) -> String {
        let fields = thresholds.map { one in
            let list = one.thresholds.map { threshold in
                guard threshold.abortsOnFail else { return JSONString.quoted(threshold.source) }
                let span = NumberText.span(threshold.delayNanoseconds)
                let delay = threshold.delayNanoseconds == 0 ? "null" : JSONString.quoted(span)
                return "{\"threshold\":\(JSONString.quoted(threshold.source)),\"abortOnFail\":true,"
                    + "\"delayAbortEval\":\(delay)}"
            }
            return "\(JSONString.quoted(one.metric)):[\(list.joined(separator: ","))]"
        }
        return "{\(fields.joined(separator: ","))}"
    }
}

extension Stage {
    /// The stage as k6's options have it.
    var json: String {
        "{\"duration\":\(JSONString.quoted(NumberText.span(duration)))"
            + ",\"target\":\(NumberText.json(target))}"
    }
}

extension ExecutionSegment {
    /// As k6 writes it: `1/4:1/2`.
    package var text: String { "\(Self.fraction(index, count)):\(Self.fraction(index + 1, count))" }

    /// `above` / `below` in lowest terms: `0`, `1/2`, `1`.
    static func fraction(_ above: Int, _ below: Int) -> String {
        var (one, other) = (above, below)
        while other != 0 { (one, other) = (other, one % other) }
        let divisor = max(1, one)
        return below / divisor == 1 ? "\(above / divisor)" : "\(above / divisor)/\(below / divisor)"
    }
}
