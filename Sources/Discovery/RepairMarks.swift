// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
internal import Memory
package import Platform

/// Which servers of a fleet in etcd are being repaired: a key for each server and each router that has deletes of it to
/// repeat, beside the members' prefix. Nobody reads from a server that has one.
///
/// A mark has no lease. It stays until the router that set it has repeated what the server missed, however long that
/// router is away.
package final class RepairMarks: Sendable {
    private let address: EtcdAddress
    private let prefix: String
    private let owner: String
    private let caFile: String?
    private let reporter: MemberReporter
    private let thread: Guarded<Thread?>
    private let isKnown: Guarded<Bool>
    private let parking: Parking

    /// Begins to follow the marks beside `address`. `owner` names this router, the same whenever it runs, without a
    /// slash. `onChange` gets the servers that others marked and those that we did, from one thread, whenever they
    /// change; `log` a line when marks can no longer be read, and when they can again.
    package init(
        _ address: EtcdAddress, owner: String, caFile: String?, log: @escaping @Sendable (String) -> Void,
        onChange: @escaping @Sendable (_ others: Set<String>, _ own: Set<String>) -> Void
    ) throws(SystemError) {
        self.address = address
        self.owner = owner
        self.caFile = caFile
        let prefix = Self.prefix(of: address)
        self.prefix = prefix
        let reporter = MemberReporter(
            MemberReporter.Words(
                works: "marks of repair can be read again",
                fails: "marks of repair cannot be read, and stay as they are"), log: log)
        self.reporter = reporter
        thread = Guarded(nil)
        let (isKnown, parking) = (Guarded(false), Parking())
        self.isKnown = isKnown
        self.parking = parking
        let keys = EtcdKeys(address.endpoints, prefix: prefix, caFile: caFile)
        let following = try Thread(name: "repair-marks") {
            keys.follow(reporter) { values in
                reporter.found()
                let (others, own) = Self.servers(values.keys, prefix: prefix, owner: owner)
                onChange(others, own)
                isKnown.withLock { $0 = true }
                parking.announce()
            }
        }
        thread.withLock { $0 = following }
    }

    /// What keys of marks begin with.
    static func prefix(of address: EtcdAddress) -> String { address.prefix.dropLast() + ".repairing/" }

    /// The servers that keys mark, and of those the ones that `owner` marked.
    static func servers(
        _ keys: some Sequence<String>, prefix: String, owner: String
    ) -> (others: Set<String>, own: Set<String>) {
        var (others, own): (Set<String>, Set<String>) = ([], [])
        for key in keys where key.hasPrefix(prefix) {
            let rest = key.dropFirst(prefix.count)
            guard let slash = rest.lastIndex(of: "/"), slash > rest.startIndex else { continue }
            let server = String(rest[..<slash])
            if rest[rest.index(after: slash)...] == owner { own.insert(server) } else { others.insert(server) }
        }
        return (others, own)
    }

    /// Waits until marks were read once, or until a time of the monotonic clock. Whether they were.
    package func awaitKnown(until end: UInt64) -> Bool {
        while true {
            let ticket = parking.ticket
            if isKnown.withLock({ $0 }) { return true }
            let now = Clock.monotonicNanoseconds()
            guard now < end else { return false }
            parking.wait(ticket, timeoutNanoseconds: end - now)
        }
    }

    /// Marks a server for every router. Whether that was done; blocks for some seconds at most.
    package func set(_ server: String) -> Bool {
        send("/v3/kv/put", Etcd.putRequest(key(server), "{\"server\":\(JSONString.quoted(server))}", lease: 0))
    }

    /// Takes our mark of a server away. As ``set(_:)``.
    package func clear(_ server: String) -> Bool { send("/v3/kv/deleterange", Etcd.deleteRequest(key(server))) }

    private func key(_ server: String) -> String { "\(prefix)\(server)/\(owner)" }

    private func send(_ path: String, _ body: String) -> Bool {
        for base in address.endpoints {
            let request = HTTPRequest(
                "POST", url: base + path, body: Array(body.utf8), headers: ["Content-Type: application/json"],
                caFile: caFile, timeoutMilliseconds: 2000)
            guard let call = try? HTTPCall(), let answer = try? call.fetch(request) else {
                continue
            }
            if answer.status == 200 { return true }
        }
        return false
    }

    /// Ends following; waits until that is so. Marks stay.
    package func stop() {
        reporter.stop()
        thread.exchange(nil)?.join()
    }
}
