// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The places of the metrics that every test has: k6's own, and those of memcached's requests in the place of k6's
/// `http_req_…`.
package struct BuiltInMetrics: Sendable {
    /// k6's own: see its documentation of built-in metrics.
    package let vus, vusMax, iterations, iterationDuration, droppedIterations, checks, groupDuration: Int
    /// Bytes.
    package let dataSent, dataReceived: Int
    /// From a request's intended start to its reply.
    package let requestDuration: Int
    /// From when a request was sent to its reply: what a closed loop would have seen.
    package let requestService: Int
    /// What the probe's connection measured beside the load, and which of its requests failed.
    package let probeDuration, probeFailed: Int
    /// Requests that were answered or given up; which of them failed; which reads hit; and so on.
    package let requests, requestFailed, hits, connecting, connectFailed, sheds, wrongValues: Int

    /// Registers them.
    package init(_ registry: inout MetricRegistry) {
        func place(_ name: String, _ kind: MetricKind, _ content: MetricContent = .plain) -> Int {
            guard let place = registry.register(MetricDefinition(name, kind, content)) else {
                preconditionFailure("a built-in metric is registered twice")
            }
            return place
        }
        vus = place("vus", .gauge)
        vusMax = place("vus_max", .gauge)
        iterations = place("iterations", .counter)
        iterationDuration = place("iteration_duration", .trend, .time)
        droppedIterations = place("dropped_iterations", .counter)
        checks = place("checks", .rate)
        groupDuration = place("group_duration", .trend, .time)
        dataSent = place("data_sent", .counter, .data)
        dataReceived = place("data_received", .counter, .data)
        requestDuration = place("memcached_req_duration", .trend, .time)
        requestService = place("memcached_req_service", .trend, .time)
        requests = place("memcached_reqs", .counter)
        requestFailed = place("memcached_req_failed", .rate)
        hits = place("memcached_hits", .rate)
        connecting = place("memcached_connecting", .trend, .time)
        connectFailed = place("memcached_connect_failed", .counter)
        sheds = place("memcached_sheds", .counter)
        wrongValues = place("memcached_wrong_values", .counter)
        probeDuration = place("memcached_probe_duration", .trend, .time)
        probeFailed = place("memcached_probe_failed", .rate)
    }
}
