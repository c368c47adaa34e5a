// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Memory
internal import Platform
internal import Routing

/// `martletctl members`: who is in a fleet, by whoever knows it.
struct MembersCommand {
    private let source: MemberSource
    private let configuration: DiscoveryConfiguration
    private let isJSON: Bool

    init(_ texts: [String], _ options: ControlOptions, environment: [String: String]) throws(ControlError) {
        do throws(MemberSource.Problem) { source = try MemberSource(texts) } catch {
            throw ControlError(.usage, error.description)
        }
        var configuration = DiscoveryConfiguration()
        configuration.environment = environment
        configuration.dnsServers = options["dns"]
        configuration.caFile = options["ca"]
        if let directory = environment["MARTLET_SERVICE_ACCOUNT"] { configuration.serviceAccount = directory }
        self.configuration = configuration
        isJSON = options.has("json")
    }

    /// Waits for the members: ten seconds at most, and three while nobody can be asked.
    func once() throws(ControlError) -> String {
        let parking = Parking()
        let ticket = parking.ticket
        let first = Guarded<MemberSet?>(nil)
        let watch = try system { () throws(SystemError) in
            try MemberWatch(source, configuration: configuration) { set in
                first.withLock { $0 = $0 ?? set }
                parking.announce()
            }
        }
        defer { watch.stop() }
        let begin = Clock.monotonicNanoseconds()
        while first.withLock({ $0 }) == nil {
            let patience: UInt64 = watch.state.failure == nil ? 10_000_000_000 : 3_000_000_000
            guard Clock.monotonicNanoseconds() - begin < patience else { break }
            parking.wait(ticket, timeoutNanoseconds: 50_000_000)
        }
        guard let set = first.withLock({ $0 }) else {
            throw ControlError(.unavailable, watch.state.failure ?? "no members were found")
        }
        return text(set)
    }

    /// Prints each set as it comes, until the process is ended.
    func forEver() throws(ControlError) -> String {
        let watch = try system { () throws(SystemError) in
            try MemberWatch(
                source, configuration: configuration, log: { writeWhole(Array("\($0)\n".utf8), to: 2) },
                onChange: { set in writeWhole(Array(text(set).utf8), to: 1) })
        }
        let parking = Parking()
        while true { parking.wait(parking.ticket, timeoutNanoseconds: 3_600_000_000_000) }
        withExtendedLifetime(watch) {}
    }

    private func text(_ set: MemberSet) -> String {
        let lines = set.members.map { member in
            let server = member.server
            return (name: member.name ?? "\(server.host):\(server.port)", server: server, zone: member.zone ?? "")
        }
        guard isJSON else {
            let cells = lines.map { ($0.name, "\($0.server.host):\($0.server.port)", "\($0.server.weight)", $0.zone) }
            let (names, addresses) = (cells.map(\.0.count).max() ?? 0, cells.map(\.1.count).max() ?? 0)
            func padded(_ text: String, _ width: Int) -> String {
                text + String(repeating: " ", count: width - text.count)
            }
            return cells.map { name, address, weight, zone in
                "\(padded(name, names)) \(padded(address, addresses)) \(weight)\(zone.isEmpty ? "" : " " + zone)\n"
            }.joined()
        }
        let members = lines.map { line in
            let texts = [("name", line.name), ("host", line.server.host), ("zone", line.zone)]
            let fields = texts.map { "\"\($0.0)\":\(JSONString.quoted($0.1))" }
            return "{\(fields.joined(separator: ",")),\"port\":\(line.server.port),"
                + "\"weight\":\(line.server.weight)}"
        }
        return "{\"epoch\":\(set.epoch),\"members\":[\(members.joined(separator: ","))]}\n"
    }
}
