// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
internal import Settings

/// Questions to a schema registry, one at a time, from one thread. Blocks.
///
/// Source: Confluent Schema Registry documentation, API reference.
final class RegistryClient {
    /// Why there is no answer.
    struct Problem: Error {
        let reason: String
    }

    private let registry: StreamKafkaConfiguration.Registry
    private let isStopped: () -> Bool
    private var call: HTTPCall?
    private static let kind = "application/vnd.schemaregistry.v1+json"

    /// Asks the registry; `isStopped` is looked at while an answer is waited for.
    init(_ registry: StreamKafkaConfiguration.Registry, isStopped: @escaping () -> Bool) {
        self.registry = registry
        self.isStopped = isStopped
    }

    /// What the registry answers below its address, where that is an object of at most `limit` bytes.
    func ask(_ method: String, _ path: String, body: String? = nil, limit: Int) throws(Problem) -> JSONObject {
        let base = registry.url.hasSuffix("/") ? String(registry.url.dropLast()) : registry.url
        let headers = ["Accept: \(Self.kind)"] + (body == nil ? [] : ["Content-Type: \(Self.kind)"])
        var request = HTTPRequest(
            method, url: base + path, body: body.map { Array($0.utf8) }, headers: headers,
            caFile: registry.authorityPath)
        (request.username, request.password) = (registry.username, registry.password ?? "")
        let answer: (status: Int, body: [UInt8])
        do throws(HTTPCall.Failure) {
            let call = if let known = self.call { known } else { try HTTPCall() }
            self.call = call
            answer = try call.fetch(request, limit: limit, isStopped: isStopped)
        } catch { throw Problem(reason: error.reason) }
        guard answer.status == 200 else {
            let why =
                switch answer.status {
                case 401, 403: ": stream.kafka.registryUsername and registryPassword do not open it"
                case 404: ": it has nothing at \(path)"
                case 409: ": the subject has a schema that ours is not compatible with"
                case 422: ": it does not take the schema"
                default: ""
                }
            throw Problem(reason: "the registry answers \(answer.status)\(why)")
        }
        return try Self.object(answer.body)
    }

    /// The object that an answer is.
    static func object(_ body: [UInt8]) throws(Problem) -> JSONObject {
        do throws(PlacedProblem) {
            if let object = try JSONParser.parse(body, file: "answer").object { return object }
        } catch { throw Problem(reason: "the registry's answer cannot be read: \(error.text)") }
        throw Problem(reason: "the registry's answer is no object")
    }
}
