// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
internal import Platform

/// Members that are the EndpointSlices of a service: listed, and then watched.
struct KubernetesSource {
    private let service: KubernetesService
    private let configuration: DiscoveryConfiguration

    /// A watch is ended by the server after so long, and goes on where it was.
    private static var watchSeconds: Int { 290 }

    init(_ service: KubernetesService, _ configuration: DiscoveryConfiguration) {
        self.service = service
        self.configuration = configuration
    }

    func run(_ reporter: MemberReporter) {
        var pause = Backoff(milliseconds: 100...10_000)
        while !reporter.isStopped {
            do throws(HTTPCall.Failure) {
                try listAndWatch(try HTTPCall(), reporter, &pause)
            } catch {
                if reporter.isStopped { return }
                reporter.failed("Kubernetes: \(error.reason)")
            }
            reporter.wait(milliseconds: pause.next())
        }
    }

    private func base() throws(HTTPCall.Failure) -> String {
        if let base = service.base { return base }
        let environment = configuration.environment
        guard let host = environment["KUBERNETES_SERVICE_HOST"], let port = environment["KUBERNETES_SERVICE_PORT"]
        else {
            throw HTTPCall.Failure(reason: "KUBERNETES_SERVICE_HOST is not set: is this a pod?")
        }
        return "https://\(host.contains(":") ? "[\(host)]" : host):\(port)"
    }

    /// A request with the service account's token, which is read anew each time because it is replaced.
    private func request(_ query: String, seconds: Int) throws(HTTPCall.Failure) -> HTTPRequest {
        let path = "/apis/discovery.k8s.io/v1/namespaces/\(service.namespace)/endpointslices"
        let selector = "labelSelector=kubernetes.io%2Fservice-name%3D\(service.service)"
        var request = HTTPRequest(
            url: "\(try base())\(path)?\(selector)\(query)", timeoutMilliseconds: seconds * 1000)
        request.headers = ["Accept: application/json"]
        // In the clear only within the machine, as to kubectl's proxy.
        if Self.isPrivate(request.url),
            let token = try? readFile(configuration.serviceAccount + "/token", limitBytes: 1 << 16)
        {
            let text = String(decoding: token.prefix { $0 > 32 }, as: UTF8.self)
            request.headers.append("Authorization: Bearer \(text)")
        }
        let own = configuration.serviceAccount + "/ca.crt"
        request.caFile = configuration.caFile ?? (fileLength(own) == nil ? nil : own)
        return request
    }

    private static func isPrivate(_ url: String) -> Bool {
        ["https://", "http://127.0.0.1:", "http://localhost:", "http://[::1]:"].contains { url.hasPrefix($0) }
    }

    /// Returns when the slices have to be listed anew.
    private func listAndWatch(
        _ call: HTTPCall, _ reporter: MemberReporter, _ pause: inout Backoff
    ) throws(HTTPCall.Failure) {
        var slices = EndpointSlices(port: service.port)
        let answer = try call.fetch(try request("", seconds: 30), isStopped: { reporter.isStopped })
        guard answer.status == 200, slices.list(answer.body) else {
            throw HTTPCall.Failure(reason: "the slices cannot be listed (status \(answer.status))")
        }
        reporter.found(slices.members)
        pause.reset()
        // Between watches that the server ends at once.
        var between = Backoff(milliseconds: 800...10_000)
        while !reporter.isStopped {
            let began = Clock.monotonicNanoseconds()
            let query =
                "&watch=1&allowWatchBookmarks=true&timeoutSeconds=\(Self.watchSeconds)"
                + "&resourceVersion=\(slices.resourceVersion)"
            var (expired, refused): (String?, String?)
            let stream = try request(query, seconds: Self.watchSeconds + 30)
            let status = try call.lines(stream, isStopped: { reporter.isStopped }) { line in
                switch slices.event(line) {
                case .bookmark: break
                case .changed: reporter.found(slices.members)
                case .expired(let reason): expired = reason
                case .refused(let reason): refused = reason
                }
                return expired == nil && refused == nil
            }.status
            // What was missed is gone from the server's memory: a listing tells.
            if status == 410 || expired != nil { return }
            guard status == 200 else {
                throw HTTPCall.Failure(reason: "the slices cannot be watched (status \(status))")
            }
            if let refused { throw HTTPCall.Failure(reason: "the watch was ended: \(refused)") }
            if Clock.monotonicNanoseconds() - began > 1_000_000_000 {
                between.reset()
            } else {
                reporter.wait(milliseconds: between.next())
            }
        }
    }
}
