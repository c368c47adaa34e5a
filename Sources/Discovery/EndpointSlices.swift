// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Settings

/// The EndpointSlices of a service, and the members that they are together: without I/O.
///
/// Source: Kubernetes's API reference, discovery.k8s.io/v1; and its page on watches, for bookmarks and status 410.
struct EndpointSlices {
    private let port: String?
    private var slices: [String: [Endpoint]] = [:]
    /// Where a watch goes on.
    private(set) var resourceVersion = ""

    private struct Endpoint {
        let member: Member
        let isIPv6: Bool
    }

    /// What a line of a watch means.
    enum Event: Equatable {
        case changed
        case bookmark
        /// The watch has to begin with a listing.
        case expired(String)
        /// The server does not go on with it.
        case refused(String)
    }

    init(port: String?) { self.port = port }

    /// The members: ready ones, each once.
    ///
    /// A service of both families has slices of both: those of IPv4 count, unless there are none.
    var members: [Member] {
        let all = slices.sorted { $0.key < $1.key }.flatMap(\.value)
        let old = all.filter { !$0.isIPv6 }
        return (old.isEmpty ? all : old).map(\.member)
    }

    /// Takes a listing in. Returns whether it was one.
    mutating func list(_ bytes: [UInt8]) -> Bool {
        guard let root = (try? JSONParser.parse(bytes, file: "kubernetes"))?.object, let items = root["items"]?.array,
            let version = root["metadata"]?.object?["resourceVersion"]?.text
        else { return false }
        slices = [:]
        for item in items { take(item) }
        resourceVersion = version
        return true
    }

    /// Takes a line of a watch in.
    mutating func event(_ line: [UInt8]) -> Event {
        guard let root = (try? JSONParser.parse(line, file: "kubernetes"))?.object, let type = root["type"]?.text,
            let object = root["object"]
        else { return .expired("a line that cannot be read") }
        if type == "ERROR" {
            let code = object.object?["code"]?.integer ?? 0
            let message = object.object?["message"]?.text ?? "status \(code)"
            return code == 410 ? .expired(message) : .refused(message)
        }
        guard let metadata = object.object?["metadata"]?.object, let version = metadata["resourceVersion"]?.text else {
            return .expired("an event without a version")
        }
        resourceVersion = version
        switch type {
        case "BOOKMARK": return .bookmark
        case "DELETED":
            if let name = metadata["name"]?.text { slices[name] = nil }
            return .changed
        default:
            take(object)
            return .changed
        }
    }

    private mutating func take(_ node: JSONNode) {
        guard let slice = node.object, let name = slice["metadata"]?.object?["name"]?.text else { return }
        var endpoints: [Endpoint] = []
        let number = Self.port(slice["ports"]?.array ?? [], named: port)
        for entry in slice["endpoints"]?.array ?? [] {
            guard let number, let endpoint = entry.object, Self.isReady(endpoint),
                let address = endpoint["addresses"]?.array?.first?.text
            else { continue }
            // A pod of a StatefulSet keeps its name wherever it runs, and so its keys.
            let host = endpoint["hostname"]?.text
            endpoints.append(
                Endpoint(
                    member: Member(
                        host: host ?? address, address: address, port: number, name: host,
                        zone: endpoint["zone"]?.text), isIPv6: slice["addressType"]?.text == "IPv6"))
        }
        slices[name] = endpoints
    }

    private static func isReady(_ endpoint: JSONObject) -> Bool {
        let conditions = endpoint["conditions"]?.object
        // What is not said is true, but for terminating.
        return conditions?["ready"]?.boolean != false && conditions?["terminating"]?.boolean != true
    }

    private static func port(_ ports: [JSONNode], named wanted: String?) -> Int? {
        if let number = wanted.flatMap({ Int($0) }) { return number }
        for port in ports {
            guard let fields = port.object, let number = fields["port"]?.integer, 1...65_535 ~= number else { continue }
            if wanted == nil || fields["name"]?.text == wanted { return Int(number) }
        }
        return nil
    }
}
