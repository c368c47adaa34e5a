// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

extension Scenario {
    /// The scenario as k6's options have it.
    package var json: String {
        var fields = [("executor", JSONString.quoted(plan.name)), ("exec", JSONString.quoted(function))]
        func add(_ name: String, _ value: UInt64) { fields.append((name, "\(value)")) }
        func add(_ name: String, _ value: Double) { fields.append((name, NumberText.json(value))) }
        func time(_ name: String, _ nanoseconds: UInt64) {
            fields.append((name, JSONString.quoted(NumberText.span(nanoseconds))))
        }
        func add(_ stages: [Stage]) {
            fields.append(("stages", "[\(stages.map(\.json).joined(separator: ","))]"))
        }
        switch plan {
        case .sharedIterations(let users, let iterations, let limit),
            .perUserIterations(let users, let iterations, let limit):
            add("vus", UInt64(users))
            add("iterations", iterations)
            time("maxDuration", limit)
        case .constantUsers(let users, let duration):
            add("vus", UInt64(users))
            time("duration", duration)
        case .rampingUsers(let start, let stages, let graceful):
            add("startVUs", UInt64(start))
            add(stages)
            time("gracefulRampDown", graceful)
        case .constantArrivals(let rate, let duration, _):
            add("rate", rate)
            time("duration", duration)
        case .rampingArrivals(let start, let stages, _):
            add("startRate", start)
            add(stages)
        case .trace(let speed, _, _): add("speed", speed)
        }
        if let users = plan.arrivalUsers {
            time("timeUnit", 1_000_000_000)
            add("preAllocatedVUs", UInt64(users.preallocated))
            add("maxVUs", UInt64(users.maximum))
        }
        time("startTime", startTime)
        time("gracefulStop", gracefulStop)
        fields.append(("tags", JSONText.object(tags)))
        fields.append(("env", JSONText.object(environment)))
        return "{" + fields.map { "\"\($0.0)\":\($0.1)" }.joined(separator: ",") + "}"
    }
}
