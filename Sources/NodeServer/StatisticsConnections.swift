// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Reactor

/// `stats conns`.
extension Node {
    func connectionStatistics() -> StatisticsList {
        var list = StatisticsList()
        for connection in (group?.describeConnections() ?? []).sorted(by: { $0.fd < $1.fd }) {
            add(connection, to: &list)
        }
        return list
    }

    private func add(_ connection: ConnectionDescription, to list: inout StatisticsList) {
        let start = "\(connection.fd):"
        if connection.transport == .udp { list.add(start + "UDP", "UDP") }
        list.add(start + "addr", connection.address)
        if connection.state != .listening, connection.transport != .udp {
            list.add(start + "listen_addr", connection.listenAddress)
        }
        list.add(start + "state", memcachedState(connection))
        list.add(start + "secs_since_last_cmd", connection.idleSeconds)
    }

    /// The name of memcached's state that is most like ours.
    private func memcachedState(_ connection: ConnectionDescription) -> String {
        switch connection.state {
        case .listening: "conn_listening"
        // Whoever executed something in this second counts as still at it; the one that asks is among them.
        case .reading: connection.transport != .udp && connection.idleSeconds == 0 ? "conn_parse_cmd" : "conn_read"
        case .handshaking: "conn_read"
        case .filling: "conn_nread"
        case .swallowing: "conn_swallow"
        case .writing: "conn_mwrite"
        case .paused: "conn_io_queue"
        case .streaming: "conn_watch"
        case .closing: "conn_closing"
        }
    }
}
