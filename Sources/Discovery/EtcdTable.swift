// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
internal import Memory
internal import Platform
internal import Settings

/// Keys of etcd that are compared, changed and read in one step, through its JSON gateway. Blocks. Source: etcd's API
/// reference, v3: KV.Txn and Lease.
package final class EtcdTable: Sendable {
    /// Why there was no answer, or none that can be read. What was asked may have been done.
    package struct Failure: Error, Sendable {
        /// In words.
        package let reason: String

        /// A failure with its reason.
        package init(reason: String) { self.reason = reason }
    }

    /// A key as it is.
    package struct Entry: Sendable, Equatable {
        /// The key.
        package var key: String
        /// What stands there.
        package var value: [UInt8]
        /// Grows whenever the key is written.
        package var revision: Int64

        /// A key with its value.
        package init(key: String, value: [UInt8], revision: Int64) {
            self.key = key
            self.value = value
            self.revision = revision
        }
    }

    /// What must be so.
    package enum Condition: Sendable, Equatable {
        case absent(String)
        case value(String, [UInt8])
        case revision(String, Int64)
    }

    /// What is done, one after the other, all or nothing.
    package enum Step: Sendable, Equatable {
        /// Writes a key; with a lease that is not 0, for as long as that lasts.
        case put(String, [UInt8], lease: Int64)
        case delete(String)
        /// Reads a key.
        case read(String)
        /// Reads all keys that begin with `prefix`, from `first` on where that is given.
        case list(prefix: String, first: String?)
    }

    private let endpoints: [String]
    private let caFile: String?
    private let timeoutMilliseconds: Int
    private let state = Guarded(State())

    private struct State {
        /// A call that nobody makes now, with its connection.
        var call: HTTPCall?
        /// Which member is asked.
        var endpoint = 0
    }

    /// A table at an address, whose prefix says nothing here. A call takes `timeoutMilliseconds` at most.
    package init(_ address: EtcdAddress, caFile: String?, timeoutMilliseconds: Int) {
        endpoints = address.endpoints
        self.caFile = caFile
        self.timeoutMilliseconds = timeoutMilliseconds
    }

    /// Does the steps of `then` where all conditions hold, and those of `otherwise` where not. What they read comes in
    /// their order.
    package func run(
        _ conditions: [Condition], then: [Step], otherwise: [Step] = []
    ) throws(Failure) -> (succeeded: Bool, entries: [Entry]) {
        let body = try send("/v3/kv/txn", Self.transaction(conditions, then, otherwise))
        guard let answer = Self.answer(body) else { throw Failure(reason: "an answer of etcd cannot be read") }
        return answer
    }

    /// Begins a lease of so many seconds, 2 at least, and gives its number.
    package func grant(seconds: Int) throws(Failure) -> Int64 {
        guard let lease = Etcd.lease(try send("/v3/lease/grant", "{\"TTL\":\"\(seconds)\"}")) else {
            throw Failure(reason: "etcd grants no lease")
        }
        return lease.id
    }

    /// Has a lease begin anew. False when it is over.
    package func keep(_ lease: Int64) throws(Failure) -> Bool {
        (Etcd.lease(try send("/v3/lease/keepalive", "{\"ID\":\"\(lease)\"}"))?.seconds ?? 0) > 0
    }

    /// Ends a lease, and the keys that are under it.
    package func revoke(_ lease: Int64) throws(Failure) { _ = try send("/v3/lease/revoke", "{\"ID\":\"\(lease)\"}") }

    private func send(_ path: String, _ body: String) throws(Failure) -> [UInt8] {
        let (kept, endpoint) = state.withLock { state in
            defer { state.call = nil }
            return (state.call, state.endpoint)
        }
        let request = HTTPRequest(
            "POST", url: endpoints[endpoint % endpoints.count] + path, body: Array(body.utf8),
            headers: ["Content-Type: application/json"], caFile: caFile, timeoutMilliseconds: timeoutMilliseconds)
        do throws(HTTPCall.Failure) {
            let call = try Self.call(kept)
            let answer = try call.fetch(request)
            state.withLock { $0.call = call }
            guard answer.status == 200 else {
                throw HTTPCall.Failure(reason: "etcd says \(answer.status) to \(path)")
            }
            return answer.body
        } catch {
            // Another member may answer.
            state.withLock { $0.endpoint = endpoint + 1 }
            throw Failure(reason: error.reason)
        }
    }

    private static func call(_ kept: HTTPCall?) throws(HTTPCall.Failure) -> HTTPCall {
        if let kept { return kept }
        return try HTTPCall()
    }

    // MARK: The gateway's JSON

    private static func text(_ bytes: some Sequence<UInt8>) -> String { "\"\(Base64.encoded(Array(bytes)))\"" }

    static func transaction(_ conditions: [Condition], _ then: [Step], _ otherwise: [Step]) -> String {
        let compared = conditions.map { condition in
            switch condition {
            case .absent(let key): "{\"key\":\(text(key.utf8)),\"target\":\"VERSION\",\"version\":\"0\"}"
            case .value(let key, let value): "{\"key\":\(text(key.utf8)),\"target\":\"VALUE\",\"value\":\(text(value))}"
            case .revision(let key, let revision):
                "{\"key\":\(text(key.utf8)),\"target\":\"MOD\",\"mod_revision\":\"\(revision)\"}"
            }
        }
        func list(_ steps: [Step]) -> String { "[\(steps.map(spelled).joined(separator: ","))]" }
        return "{\"compare\":[\(compared.joined(separator: ","))],"
            + "\"success\":\(list(then)),\"failure\":\(list(otherwise))}"
    }

    private static func spelled(_ step: Step) -> String {
        switch step {
        case .put(let key, let value, let lease):
            "{\"request_put\":{\"key\":\(text(key.utf8)),\"value\":\(text(value)),\"lease\":\"\(lease)\"}}"
        case .delete(let key): "{\"request_delete_range\":{\"key\":\(text(key.utf8))}}"
        case .read(let key): "{\"request_range\":{\"key\":\(text(key.utf8))}}"
        case .list(let prefix, let first):
            "{\"request_range\":{\"key\":\(text((first ?? prefix).utf8)),"
                + "\"range_end\":\(text(Etcd.end(of: prefix)))}}"
        }
    }

    static func answer(_ bytes: [UInt8]) -> (succeeded: Bool, entries: [Entry])? {
        guard let object = (try? JSONParser.parse(bytes, file: "etcd"))?.object, object["header"] != nil else {
            return nil
        }
        var entries: [Entry] = []
        for response in object["responses"]?.array ?? [] {
            for pair in response.object?["response_range"]?.object?["kvs"]?.array ?? [] {
                guard let fields = pair.object, let key = fields["key"]?.text.flatMap({ Base64.decoded($0) }) else {
                    return nil
                }
                let revision = fields["mod_revision"]
                entries.append(
                    Entry(
                        key: String(decoding: key, as: UTF8.self),
                        value: fields["value"]?.text.flatMap { Base64.decoded($0) } ?? [],
                        revision: revision?.integer ?? revision?.text.flatMap { Int64($0) } ?? 0))
            }
        }
        return (object["succeeded"]?.boolean ?? false, entries)
    }
}
