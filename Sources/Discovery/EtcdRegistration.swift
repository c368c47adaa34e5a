// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
package import Platform

/// Keeps a server among the members in etcd while it runs: a key under a lease, which ends with the server.
package final class EtcdRegistration: Sendable {
    /// How a server is registered.
    package struct Configuration: Sendable {
        /// The member to write.
        package let member: Member
        /// Where it is written: the prefix with the member's name behind it.
        package let address: EtcdAddress
        /// How long the key stays when the server no longer says anything. Seconds, 2 to 3600.
        package var ttlSeconds = 10
        /// Certificates that etcd's is checked by; nil for the system's.
        package var caFile: String?

        /// A registration. Throws when `source` names no keys of etcd.
        package init(_ member: Member, at source: MemberSource) throws(MemberSource.Problem) {
            guard case .etcd(let address) = source else {
                throw MemberSource.Problem(description: "servers register in etcd://HOST:PORT/PREFIX only")
            }
            self.member = member
            self.address = address
        }
    }

    private let reporter: MemberReporter
    private let thread: Guarded<Thread?>
    /// The member as it is to be written.
    private let member: Guarded<Member>

    /// Registers, on a thread of its own, and keeps the key there. `log` gets a line when that begins to fail, and when
    /// it works (again).
    package init(_ configuration: Configuration, log: @escaping @Sendable (String) -> Void) throws(SystemError) {
        let reporter = MemberReporter(
            MemberReporter.Words(
                works: "registered in etcd as \(configuration.member.identity)", fails: "not registered in etcd",
                tellsTheFirst: true), log: log)
        self.reporter = reporter
        thread = Guarded(nil)
        let member = Guarded(configuration.member)
        self.member = member
        let made = try Thread(name: "members-register") { Keeper(configuration, member, reporter).run() }
        thread.withLock { $0 = made }
    }

    /// Says that the member serves all that is its own. Soon, and as often as it takes.
    package func finishWarming() {
        member.withLock { $0.isWarming = false }
        reporter.hurry()
    }

    /// Takes the key away, and waits until that is done.
    package func stop() {
        reporter.stop()
        thread.exchange(nil)?.join()
    }

    /// Grants a lease, writes the key, and keeps the lease.
    private struct Keeper {
        private let configuration: Configuration
        private let member: Guarded<Member>
        private let reporter: MemberReporter

        init(_ configuration: Configuration, _ member: Guarded<Member>, _ reporter: MemberReporter) {
            self.configuration = configuration
            self.member = member
            self.reporter = reporter
        }

        func run() {
            var endpoint = 0
            var pause = Backoff(milliseconds: 100...UInt64(configuration.ttlSeconds) * 500)
            var lease: Int64?
            // The last one, which our key may have: the answer to what wrote it may not have come.
            var granted: Int64?
            var written: Member?
            while !reporter.isStopped {
                let endpoints = configuration.address.endpoints
                let base = endpoints[endpoint % endpoints.count]
                do throws(HTTPCall.Failure) {
                    let call = try HTTPCall()
                    let wanted = member.withLock { $0 }
                    if let kept = lease {
                        if try !keep(call, base, kept, wanted, isNew: written != wanted) { lease = nil }
                    } else {
                        lease = try register(call, base, wanted, &granted)
                    }
                    guard lease != nil else { continue }
                    written = wanted
                    reporter.found()
                    pause.reset()
                    guard member.withLock({ $0 }) == wanted else { continue }
                    reporter.wait(milliseconds: UInt64(configuration.ttlSeconds) * 1_000 / 3)
                } catch {
                    if reporter.isStopped { break }
                    reporter.failed(error.reason)
                    endpoint += 1
                    // The lease does not wait: the others are asked at once.
                    if endpoint % endpoints.count == 0 { reporter.wait(milliseconds: pause.next()) }
                }
            }
            guard let lease = granted, let call = try? HTTPCall() else { return }
            let endpoints = configuration.address.endpoints
            _ = try? send(
                call, endpoints[endpoint % endpoints.count], "/v3/lease/revoke", "{\"ID\":\"\(lease)\"}", isLast: true)
        }

        private func send(
            _ call: HTTPCall, _ base: String, _ path: String, _ body: String, isLast: Bool = false
        ) throws(HTTPCall.Failure) -> [UInt8] {
            let request = HTTPRequest(
                "POST", url: base + path, body: Array(body.utf8), headers: ["Content-Type: application/json"],
                // So that there is time for another endpoint before the lease is over.
                caFile: configuration.caFile,
                timeoutMilliseconds: 1000 * (isLast ? 2 : min(max(configuration.ttlSeconds / 4, 1), 5)))
            let answer = try call.fetch(request, isStopped: { !isLast && reporter.isStopped })
            guard answer.status == 200 else { throw HTTPCall.Failure(reason: "etcd says \(answer.status) to \(path)") }
            return answer.body
        }

        private func register(
            _ call: HTTPCall, _ base: String, _ member: Member, _ granted: inout Int64?
        ) throws(HTTPCall.Failure) -> Int64 {
            let answered = try send(call, base, "/v3/lease/grant", "{\"TTL\":\"\(configuration.ttlSeconds)\"}")
            guard let lease = Etcd.lease(answered) else { throw HTTPCall.Failure(reason: "etcd grants no lease") }
            granted = lease.id
            let value = Etcd.value(of: member)
            let answer = try send(call, base, "/v3/kv/txn", Etcd.restoreRequest(key, value, lease: lease.id))
            guard let holder = Etcd.holder(answer), holder != lease.id else { return lease.id }
            let held = Etcd.heldValue(answer) ?? []
            // A process that was started in the place of the one before has its key at once. What holds no member is
            // nobody's, and so is what has no lease: it would never go.
            guard holder == 0 || Etcd.isAlike(held, configuration.member) else {
                _ = try send(call, base, "/v3/lease/revoke", "{\"ID\":\"\(lease.id)\"}")
                throw HTTPCall.Failure(
                    reason: "the key \(key) in etcd is a living server's elsewhere, "
                        + "\(String(decoding: held, as: UTF8.self)): each needs a register.name of its own")
            }
            _ = try send(call, base, "/v3/kv/put", Etcd.putRequest(key, value, lease: lease.id))
            return lease.id
        }

        private var key: String { configuration.address.prefix + configuration.member.identity }

        /// Whether the lease is still there; writes the key again if it is not.
        private func keep(
            _ call: HTTPCall, _ base: String, _ lease: Int64, _ member: Member, isNew: Bool
        ) throws(HTTPCall.Failure) -> Bool {
            let kept = try send(call, base, "/v3/lease/keepalive", "{\"ID\":\"\(lease)\"}")
            guard let seconds = Etcd.lease(kept)?.seconds, seconds > 0 else { return false }
            let request = Etcd.restoreRequest(key, Etcd.value(of: member), lease: lease)
            let holder = Etcd.holder(try send(call, base, "/v3/kv/txn", request))
            let isOurs = holder == nil || holder == lease
            if holder == lease, isNew {
                _ = try send(
                    call, base, "/v3/kv/put", Etcd.putRequest(key, Etcd.value(of: member), lease: lease))
            }
            reporter.remark(isOurs ? nil : "the key \(key) in etcd is another server's: two have one register.name")
            return true
        }
    }
}
