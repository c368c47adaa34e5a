// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Settings

/// What is said to etcd and what it says, through its JSON gateway. Source: etcd's API reference, v3.
enum Etcd {
    /// A fleet's keys, as they are at a revision.
    struct Listing: Equatable {
        var values: [String: [UInt8]]
        let revision: Int64
    }

    /// What a watch tells.
    enum Notice: Equatable {
        /// Keys with their new values; nil for one that is gone.
        case changes([(key: String, value: [UInt8]?)])
        /// Nothing that matters.
        case nothing
        /// The watch is over: what was missed has to be listed.
        case over(String)

        static func == (left: Notice, right: Notice) -> Bool {
            switch (left, right) {
            case (.changes(let left), .changes(let right)):
                left.map(\.key) == right.map(\.key) && left.map(\.value) == right.map(\.value)
            case (.nothing, .nothing), (.over, .over): true
            default: false
            }
        }
    }

    /// Where the keys that begin with a prefix end.
    static func end(of prefix: String) -> [UInt8] {
        var bytes = Array(prefix.utf8)
        while let last = bytes.popLast() { if last < 255 { return bytes + [last + 1] } }
        return [0]
    }

    private static func range(_ prefix: String) -> String {
        "\"key\":\"\(Base64.encoded(Array(prefix.utf8)))\",\"range_end\":\"\(Base64.encoded(end(of: prefix)))\""
    }

    static func listRequest(_ prefix: String) -> String { "{\(range(prefix))}" }

    static func watchRequest(_ prefix: String, from revision: Int64) -> String {
        "{\"create_request\":{\(range(prefix)),\"start_revision\":\"\(revision)\"}}"
    }

    static func putRequest(_ key: String, _ value: String, lease: Int64) -> String {
        let (key, value) = (Base64.encoded(Array(key.utf8)), Base64.encoded(Array(value.utf8)))
        return "{\"key\":\"\(key)\",\"value\":\"\(value)\",\"lease\":\"\(lease)\"}"
    }

    static func deleteRequest(_ key: String) -> String { "{\"key\":\"\(Base64.encoded(Array(key.utf8)))\"}" }

    /// Writes the key if nobody has it, and otherwise tells who does.
    static func restoreRequest(_ key: String, _ value: String, lease: Int64) -> String {
        let name = Base64.encoded(Array(key.utf8))
        return "{\"compare\":[{\"key\":\"\(name)\",\"target\":\"VERSION\",\"version\":\"0\"}],"
            + "\"success\":[{\"request_put\":\(putRequest(key, value, lease: lease))}],"
            + "\"failure\":[{\"request_range\":{\"key\":\"\(name)\"}}]}"
    }

    /// The lease of the key that somebody has, by the answer to ``restoreRequest(_:_:lease:)``; nil if it was written.
    static func holder(_ bytes: [UInt8]) -> Int64? {
        guard let object = parse(bytes), object["succeeded"]?.boolean != true else { return nil }
        let range = object["responses"]?.array?.first?.object?["response_range"]?.object
        return number(range?["kvs"]?.array?.first?.object?["lease"]) ?? 0
    }

    /// The value of the key that somebody has, by the same answer; nil if it was written.
    static func heldValue(_ bytes: [UInt8]) -> [UInt8]? {
        guard let object = parse(bytes), object["succeeded"]?.boolean != true else { return nil }
        let range = object["responses"]?.array?.first?.object?["response_range"]?.object
        return range?["kvs"]?.array?.first?.object?["value"]?.text.flatMap { Base64.decoded($0) }
    }

    /// Whether a member's value says that it is where `member` is.
    static func isAlike(_ value: [UInt8], _ member: Member) -> Bool {
        guard let object = parse(value) else { return false }
        return object["host"]?.text == member.host && object["port"]?.integer == Int64(member.port)
    }

    /// A whole number, which the gateway writes as a text.
    private static func number(_ node: JSONNode?) -> Int64? { node?.integer ?? node?.text.flatMap { Int64($0) } }

    private static func parse(_ bytes: [UInt8]) -> JSONObject? {
        (try? JSONParser.parse(bytes, file: "etcd"))?.object
    }

    static func listing(_ bytes: [UInt8]) -> Listing? {
        guard let object = parse(bytes), let revision = number(object["header"]?.object?["revision"]) else {
            return nil
        }
        var listing = Listing(values: [:], revision: revision)
        for entry in object["kvs"]?.array ?? [] {
            guard let pair = entry.object, let key = pair["key"]?.text.flatMap({ Base64.decoded($0) }) else {
                return nil
            }
            listing.values[String(decoding: key, as: UTF8.self)] =
                pair["value"]?.text.flatMap { Base64.decoded($0) } ?? []
        }
        return listing
    }

    static func notice(_ line: [UInt8]) -> Notice {
        guard let object = parse(line) else { return .over("a line that cannot be read") }
        if let error = object["error"]?.object { return .over(error["message"]?.text ?? "an error") }
        guard let result = object["result"]?.object else { return .nothing }
        if result["canceled"]?.boolean == true { return .over(result["cancel_reason"]?.text ?? "the watch was ended") }
        var changes: [(key: String, value: [UInt8]?)] = []
        for event in result["events"]?.array ?? [] {
            guard let pair = event.object?["kv"]?.object, let key = pair["key"]?.text.flatMap({ Base64.decoded($0) })
            else {
                return .over("an event that cannot be read")
            }
            let isGone = event.object?["type"]?.text == "DELETE"
            let value = isGone ? nil : pair["value"]?.text.flatMap { Base64.decoded($0) } ?? []
            changes.append((String(decoding: key, as: UTF8.self), value))
        }
        return changes.isEmpty ? .nothing : .changes(changes)
    }

    /// The lease that was granted or kept: its number, and its seconds; 0 when it is over.
    static func lease(_ bytes: [UInt8]) -> (id: Int64, seconds: Int64)? {
        guard let object = parse(bytes) else { return nil }
        let fields = object["result"]?.object ?? object
        guard let id = number(fields["ID"]) else { return nil }
        return (id, number(fields["TTL"]) ?? 0)
    }

    // MARK: Members

    /// A member as its key's value.
    static func value(of member: Member) -> String {
        var fields = ["\"host\":\(JSONString.quoted(member.host))", "\"port\":\(member.port)"]
        if let address = member.address { fields.append("\"address\":\(JSONString.quoted(address))") }
        if member.weight != 1 { fields.append("\"weight\":\(member.weight)") }
        if let name = member.name { fields.append("\"name\":\(JSONString.quoted(name))") }
        if let zone = member.zone { fields.append("\"zone\":\(JSONString.quoted(zone))") }
        if member.isWarming { fields.append("\"state\":\"warming\"") }
        return "{\(fields.joined(separator: ","))}"
    }

    /// The members that keys describe, and what is wrong with others.
    static func members(_ values: [String: [UInt8]], prefix: String) -> (members: [Member], problems: [String]) {
        var members: [Member] = []
        var problems: [String] = []
        for (key, value) in values.sorted(by: { $0.key < $1.key }) {
            let texts = ["host", "address", "name", "zone"]
            guard let object = parse(value), let host = object["host"]?.text, !host.isEmpty,
                let port = object["port"]?.integer, 1...65_535 ~= port,
                // What stands in lines and lists for clients.
                texts.allSatisfy({ object[$0]?.text?.utf8.allSatisfy { 33...126 ~= $0 && $0 != 0x7c } ?? true })
            else {
                problems.append(
                    "the key \(key) holds no member: {\"host\":…,\"port\":…} is expected, without blanks and bars")
                continue
            }
            let weight = object["weight"]?.number ?? 1
            members.append(
                Member(
                    host: host, address: object["address"]?.text, port: Int(port), weight: weight > 0 ? weight : 1,
                    name: object["name"]?.text ?? String(key.dropFirst(prefix.count)), zone: object["zone"]?.text,
                    isWarming: object["state"]?.text == "warming"))
        }
        return (members, problems)
    }
}
