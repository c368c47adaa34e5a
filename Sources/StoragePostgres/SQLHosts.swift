// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// Who takes note of whose rows a session shows, and what is done where they took the place of others.
struct LineageCheck {
    let lineage: KnownLineage
    let replaced: () -> Void
}

/// The servers that a connection string names, one behind the other, and which of them is tried first. The library
/// would try them itself, but all within one deadline of ours: one that takes connections and says nothing would leave
/// no time for the next.
final class SQLHosts: Sendable {
    /// One server at one of its addresses; what is nil is left to the connection string.
    struct Target: Sendable, Equatable {
        var host: String?
        var address: String?
        var port: String?

        /// What overrides the connection string.
        var parameters: [(String, String)] {
            [("host", host), ("hostaddr", address), ("port", port)].compactMap { name, value in
                value.map { (name, $0) }
            }
        }

        /// What tells it from the others in a message.
        var label: String { [address ?? host ?? "", port ?? ""].filter { !$0.isEmpty }.joined(separator: ":") }
    }

    let targets: [Target]
    private struct Choice {
        /// Which one is tried first.
        var first = 0
        /// The address of a name that was reached last.
        var address: String?
    }
    private let choice = Guarded(Choice())

    /// Those of a connection string; a single one without anything of its own where it names none, or cannot be read.
    init(_ url: String) {
        let options = SQLConnection.options(of: url)
        func list(_ name: String) -> [String] {
            options[name].map { $0.split(separator: ",", omittingEmptySubsequences: false).map { String($0) } } ?? []
        }
        let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"))
        let count = max(hosts.count, addresses.count)
        // The library says what is wrong with lists that do not fit. A URL whose hosts have no ports, or some, has a
        // list of ports with empty places.
        let fits =
            count > 0 && [0, count].contains(hosts.count) && [0, count].contains(addresses.count)
            && [0, 1, count].contains(ports.count) && !(hosts + addresses).contains("")
        targets =
            !fits
            ? [Target()]
            : (0..<count).map { index in
                Target(
                    host: hosts.isEmpty ? nil : hosts[index], address: addresses.isEmpty ? nil : addresses[index],
                    port: ports.isEmpty ? nil : Self.port(ports[ports.count == 1 ? 0 : index]))
            }
    }

    /// What the library takes an empty place in a list of ports for, whatever `PGPORT` says. It has to be said: the
    /// list would not fit one host.
    private static func port(_ text: String) -> String { text.isEmpty ? "5432" : text }

    /// All of them in the order in which they are to be tried, the one first that was reached last.
    var ordered: [Target] {
        let first = choice.withLock { $0.first }
        return targets.indices.map { targets[(first + $0) % targets.count] }
    }

    /// The addresses of one, each as a target; the one first that was reached last. May block on DNS.
    func addresses(of target: Target) throws(SQLFailure) -> [Target] {
        guard target.address == nil, let host = target.host, Self.isName(host) else { return [target] }
        let found: [SocketAddress]
        do throws(SystemError) { found = try ListeningSocket.resolve(host: host, port: 0, isDatagram: false) } catch {
            // The library would look it up again, for as long.
            throw .lostBefore(reason: "cannot look up \(error.subject)")
        }
        // One of a link has a scope, which its digits do not say.
        let digits = found.map(\.host).filter { !$0.isEmpty }
        guard digits.count == found.count, !digits.contains(where: { $0.hasPrefix("fe80") }) else { return [target] }
        let last = choice.withLock { $0.address }
        let ordered = digits.filter { $0 == last } + digits.filter { $0 != last }
        return ordered.map { Target(host: host, address: $0, port: target.port) }
    }

    private static func isName(_ host: String) -> Bool {
        !host.hasPrefix("/") && !host.hasPrefix("@") && !host.contains(":")
            && !host.utf8.allSatisfy { (48...57).contains($0) || $0 == 46 }
    }

    /// That one of them was reached, at an address: it is tried first from now on. Two servers that both take writes
    /// are not asked in turns.
    func noteReached(_ target: Target, at address: String?) {
        choice.withLock { $0 = Choice(first: targets.firstIndex(of: target) ?? 0, address: address) }
    }

    /// That none was: the next attempt begins with the one behind that which was tried first.
    func noteUnreached(_ target: Target) {
        choice.withLock { choice in
            guard targets[choice.first] == target else { return }
            choice.first = (choice.first + 1) % targets.count
        }
    }
}

extension SQLConnection {
    /// Connects to the first server that will do, each with its share of the time: see ``init(_:name:to:until:)``. How
    /// long names are looked up is in nobody's share. Where a standby will do, it is the second choice.
    static func open(
        _ configuration: PostgresConfiguration, name: String, _ hosts: SQLHosts, _ known: LineageCheck? = nil
    ) throws(SQLFailure) -> SQLConnection {
        if let complaint = complaint(about: configuration.url) { throw .lostBefore(reason: complaint) }
        var end = Clock.monotonicNanoseconds() + UInt64(configuration.connectTimeoutMilliseconds) * 1_000_000
        var reasons: [String] = []
        func add(_ reason: String) { if !reasons.contains(reason) { reasons.append(reason) } }
        var standby: SQLConnection?
        let ordered = hosts.ordered
        for (index, host) in ordered.enumerated() {
            let asked = Clock.monotonicNanoseconds()
            let targets: [SQLHosts.Target]
            do throws(SQLFailure) { targets = try hosts.addresses(of: host) } catch {
                end += Clock.monotonicNanoseconds() - asked
                add(error.reason)
                continue
            }
            end += Clock.monotonicNanoseconds() - asked
            let hostEnd = share(of: end, ordered.count - index)
            for (place, target) in targets.enumerated() {
                let targetEnd = share(of: hostEnd, targets.count - place)
                do throws(SQLFailure) {
                    var connection = try SQLConnection(configuration, name: name, to: target, until: targetEnd)
                    if configuration.allowsStandby, try connection.isInRecovery(until: targetEnd) {
                        if standby == nil { standby = consume connection }
                        continue
                    }
                    if let known { try connection.admit(to: known, until: targetEnd) }
                    hosts.noteReached(host, at: target.address)
                    return connection
                } catch {
                    let isOne = ordered.count * targets.count == 1 || target.label.isEmpty
                    let says = !isOne && !error.reason.contains(target.label)
                    add(says ? "\(target.label): \(error.reason)" : error.reason)
                }
            }
        }
        // Not the one that is tried first from now on: its primary may be back at once.
        if let standby = consume standby { return standby }
        hosts.noteUnreached(ordered[0])
        throw .lostBefore(reason: reasons.joined(separator: "; "))
    }

    /// When the first of `count` attempts that have until `end` is over; a tenth of a second is for each.
    private static func share(of end: UInt64, _ count: Int) -> UInt64 {
        let now = Clock.monotonicNanoseconds()
        return now + max((end > now ? end - now : 0) / UInt64(count), 100_000_000)
    }
}
