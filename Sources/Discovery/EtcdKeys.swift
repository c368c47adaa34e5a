// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
internal import Platform

/// Follows the keys below a prefix of etcd: they are listed once, and then watched.
struct EtcdKeys {
    private let endpoints: [String]
    private let prefix: String
    private let caFile: String?

    /// A watch is begun anew after so long, with a listing: what was missed unnoticed is healed.
    private static var watchSeconds: Int { 300 }

    init(_ endpoints: [String], prefix: String, caFile: String?) {
        self.endpoints = endpoints
        self.prefix = prefix
        self.caFile = caFile
    }

    /// Follows them until the reporter is stopped; `onKeys` gets all keys with their values, after each change.
    func follow(_ reporter: MemberReporter, _ onKeys: ([String: [UInt8]]) -> Void) {
        var endpoint = 0
        var pause = Backoff(milliseconds: 100...5_000)
        while !reporter.isStopped {
            let began = Clock.monotonicNanoseconds()
            do throws(HTTPCall.Failure) {
                let call = try HTTPCall()
                let base = endpoints[endpoint % endpoints.count]
                try watch(call, base, reporter, onKeys)
                // A watch that is ended at once is no watch.
                if Clock.monotonicNanoseconds() - began > 1_000_000_000 {
                    pause.reset()
                } else {
                    reporter.wait(milliseconds: pause.next())
                }
            } catch {
                if reporter.isStopped { return }
                reporter.failed("etcd: \(error.reason)")
                endpoint += 1
                if Clock.monotonicNanoseconds() - began > 60_000_000_000 { pause.reset() }
                reporter.wait(milliseconds: pause.next())
            }
        }
    }

    private func request(_ base: String, _ path: String, _ body: String, seconds: Int = 10) -> HTTPRequest {
        HTTPRequest(
            "POST", url: base + path, body: Array(body.utf8),
            // A member that lost its leader ends the watch rather than keep silent.
            headers: ["Content-Type: application/json", "Grpc-Metadata-hasleader: true"], caFile: caFile,
            timeoutMilliseconds: seconds * 1000)
    }

    private func watch(
        _ call: HTTPCall, _ base: String, _ reporter: MemberReporter, _ onKeys: ([String: [UInt8]]) -> Void
    ) throws(HTTPCall.Failure) {
        let list = request(base, "/v3/kv/range", Etcd.listRequest(prefix))
        let answer = try call.fetch(list, isStopped: { reporter.isStopped })
        guard answer.status == 200, var listing = Etcd.listing(answer.body) else {
            throw HTTPCall.Failure(reason: "the keys cannot be listed (status \(answer.status))")
        }
        onKeys(listing.values)
        var over: String?
        let body = Etcd.watchRequest(prefix, from: listing.revision + 1)
        let stream = request(base, "/v3/watch", body, seconds: Self.watchSeconds)
        let status = try call.lines(stream, isStopped: { reporter.isStopped }) { line in
            switch Etcd.notice(line) {
            case .nothing: return true
            case .over(let reason):
                over = reason
                return false
            case .changes(let changes):
                for change in changes { listing.values[change.key] = change.value }
                onKeys(listing.values)
                return true
            }
        }.status
        if let over { throw HTTPCall.Failure(reason: over) }
        guard status == 200 else { throw HTTPCall.Failure(reason: "the keys cannot be watched (status \(status))") }
    }
}
