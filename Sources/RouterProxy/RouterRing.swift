// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Routing

extension Router {
    /// `/ring`: the plan of the moment. The share of a server is its part of all keys, by a sample.
    var ringJSON: String {
        let plan = self.plan
        let shares = plan.shares
        let pools = plan.routes.pools.map { pool in
            let servers = pool.destinations.map { JSONString.quoted(plan.backends[$0].name) }
            let warming = pool.warming.map { JSONString.quoted(plan.backends[$0].name) }
            let source = pool.members.map { ",\"source\":\(JSONString.quoted($0))" } ?? ""
            return "{\"name\":\(JSONString.quoted(pool.name)),\"servers\":[\(servers.joined(separator: ","))],"
                + "\"warming\":[\(warming.joined(separator: ","))]\(source)}"
        }
        let members = plan.backends.enumerated().map { index, backend in
            "{\"name\":\(JSONString.quoted(backend.name)),\"state\":\"\(backend.state.text)\","
                + "\"share\":\(shares[index])}"
        }
        return "{\"role\":\"router\",\"epoch\":\(plan.epoch),\"pools\":[\(pools.joined(separator: ","))],"
            + "\"members\":[\(members.joined(separator: ","))]}\n"
    }
}
