// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Telemetry

/// One thing that is looked at when a program says whether it is ready.
package struct HealthCheck: Sendable {
    /// What it is called in the answer.
    package let name: String
    /// Why it does not hold; nil when it does.
    package let failure: String?
    /// Whether the program is ready without it as well: what others could do no better is told, and takes no traffic
    /// away.
    package let isAdvisory: Bool

    /// A check and its outcome.
    package init(_ name: String, failure: String? = nil, isAdvisory: Bool = false) {
        self.name = name
        self.failure = failure
        self.isAdvisory = isAdvisory
    }
}

/// The pages that every program of ours has. The program says what is in them.
package enum AdminPages {
    /// `/metrics`: the families that `fill` writes, in the format that the reader prefers.
    package static func metrics(_ fill: @escaping @Sendable (inout Exposition) -> Void) -> AdminRoute {
        AdminRoute("/metrics", "metrics for Prometheus: text format 0.0.4, or OpenMetrics 1.0 if asked for") {
            request in
            var exposition = Exposition(format: preferredFormat(accept: request.accept))
            fill(&exposition)
            exposition.finish()
            return AdminResponse(contentType: exposition.format.contentType, body: exposition.bytes)
        }
    }

    /// `/livez` and `/healthz`: whether the process goes on. It answers, so it does.
    package static func liveness() -> [AdminRoute] {
        ["/livez", "/healthz"].map { path in
            AdminRoute(path, "whether the process is alive") { _ in .text("ok\n") }
        }
    }

    /// `/readyz`: 200 when every check holds that is not advisory, 503 otherwise; with `?verbose`, or when one fails,
    /// each check's result.
    package static func readiness(_ checks: @escaping @Sendable () -> [HealthCheck]) -> AdminRoute {
        AdminRoute("/readyz", "whether it can serve; ?verbose shows each check", queryNames: ["verbose"]) { request in
            let results = checks()
            let isReady = results.allSatisfy { $0.failure == nil || $0.isAdvisory }
            if isReady, request.query["verbose"] == nil { return .text("ok\n") }
            var text = ""
            for check in results {
                text +=
                    check.failure.map { failure in
                        check.isAdvisory
                            ? "[!]\(check.name) degraded: \(failure)\n" : "[-]\(check.name) failed: \(failure)\n"
                    } ?? "[+]\(check.name) ok\n"
            }
            text += isReady ? "readyz check passed\n" : "readyz check failed\n"
            return .text(text, status: isReady ? 200 : 503)
        }
    }

    /// `/events`: what happened lately, the oldest first.
    package static func events(_ log: EventLog) -> AdminRoute {
        AdminRoute("/events", "what happened lately: members, epochs, shedding, servers, configurations") { _ in
            .json("{\"total\":\(log.total),\"events\":[\(log.last().joined(separator: ","))]}\n")
        }
    }

    /// `/stats.json`: a document that `make` writes.
    package static func statistics(_ make: @escaping @Sendable () -> String) -> AdminRoute {
        AdminRoute("/stats.json", "statistics as JSON") { _ in .json(make()) }
    }
}

/// The format that an Accept header prefers: OpenMetrics only if it is named, in a version that we write, and not liked
/// less than the text format. Source: RFC 9110, 12.5.1; Prometheus sends a list with weights.
func preferredFormat(accept: String) -> Exposition.Format {
    var openMetrics = 0.0
    var text = 0.0
    for entry in accept.split(separator: ",") {
        var parts = entry.split(separator: ";").map { part in
            String(part.filter { !$0.isWhitespace }).lowercased()
        }
        guard !parts.isEmpty else { continue }
        let type = parts.removeFirst()
        let weight = parts.first { $0.hasPrefix("q=") }.map { Double($0.dropFirst(2)) ?? 0 } ?? 1
        switch type {
        case "application/openmetrics-text":
            let version = parts.first { $0.hasPrefix("version=") }?.dropFirst(8)
            if version == nil || version == "1.0.0" { openMetrics = max(openMetrics, weight) }
        case "text/plain", "text/*", "*/*": text = max(text, weight)
        default: break
        }
    }
    return openMetrics > 0 && openMetrics >= text ? .openMetrics : .prometheus
}
