// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

extension Node {
    /// `/ring`: who is in the fleet, as this node knows it; and where nodes share a store, the epoch that they agreed
    /// on, and whether this one may show copies.
    var ringJSON: String {
        var fields: [String] = []
        if let ownership {
            let view = ownership.view
            let members = view.members.map { member in
                "{\"name\":\(JSONString.quoted(member.name)),\"host\":\(JSONString.quoted(member.host)),"
                    + "\"port\":\(member.port),\"weight\":\(member.weight)}"
            }
            fields.append("\"epoch\":\(view.epoch)")
            fields.append("\"isMember\":\(view.isMember)")
            fields.append("\"leased\":\(ownership.isLeased)")
            fields.append("\"members\":[\(members.joined(separator: ","))]")
        } else {
            let members = clusterMembers.map { member in
                "{\"host\":\(JSONString.quoted(member.host)),\"port\":\(member.port)}"
            }
            fields.append("\"members\":[\(members.joined(separator: ","))]")
        }
        return "{\"role\":\"node\",\(fields.joined(separator: ","))}\n"
    }
}
