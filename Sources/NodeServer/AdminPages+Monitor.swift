// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Admin
internal import Invalidation
internal import Memory

/// What the consistency monitor has found, on the admin port.
extension Node {
    func monitorRoutes() -> [AdminRoute] {
        guard configuration.regions.monitor != nil, storage != nil else { return [] }
        return [
            AdminRoute(
                "/stream/inconsistencies",
                "copies that were older than a change, the newest last, a line of JSON each with what explains it",
                access: .guarded
            ) { [self] _ in
                guard let figures = monitorFigures else {
                    return .failure("this node has no stream of its own: ask a node of the home region", status: 409)
                }
                let lines = figures.findings.map { InconsistencyLine.json($0.seen, at: $0.unixMilliseconds) }
                return AdminResponse(contentType: "application/x-ndjson", body: Array(lines.joined().utf8))
            }
        ]
    }
}

/// An inconsistency as a line of JSON.
enum InconsistencyLine {
    /// The key percent-encoded: it may have any bytes.
    static func json(_ found: Inconsistency, at unixMilliseconds: Int64) -> String {
        let stored = found.stored.map { "\($0)" } ?? "null"
        return "{\"ts_ms\":\(unixMilliseconds),\"node\":\(JSONString.quoted(found.replica)),"
            + "\"key\":\"\(PercentEncoding.encoded(found.key.span))\",\"after_s\":\(found.seconds),"
            + "\"version\":\(found.version),\"shown\":\(found.shown),\"stored\":\(stored),"
            + "\"slot\":\(found.slot),\"seq\":\(found.sequence),\"cause\":\"\(found.cause)\","
            + "\"meaning\":\(JSONString.quoted(found.cause.meaning)),\"trace\":\(trace(found))}\n"
    }

    /// What the node remembered, in milliseconds behind the change as the monitor saw it; earlier is negative.
    private static func trace(_ found: Inconsistency) -> String {
        guard let trace = found.trace else { return "null" }
        let events = trace.events.map { event in
            let after = (Int64(clamping: found.askedMicroseconds) - Int64(clamping: event.agoMicroseconds)) / 1000
            return "{\"at_ms\":\(after),\"what\":\"\(event.kind)\",\"version\":\(event.version),"
                + "\"seq\":\(event.sequence)}"
        }
        return "{\(StreamPage.epoch(trace.epoch)),\"position\":\(trace.position),"
            + "\"reach_ms\":\(trace.reachMicroseconds / 1000),\"events\":[\(events.joined(separator: ","))]}"
    }
}
