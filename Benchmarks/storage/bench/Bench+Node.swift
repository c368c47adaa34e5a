// Martlet
// SPDX-License-Identifier: Apache-2.0

import CStorageBench
import Platform

/// What clients see of a node with an embedded store: over sockets, and with the cache in front.
extension Bench {
    /// A connection's, or several connections', loop; nil where nobody listens.
    private func client(_ port: Int32, connections: Int32) -> OpaquePointer {
        guard let client = unsafe bare_client_connect(port, connections) else {
            preconditionFailure("nobody listens on port \(port)")
        }
        return unsafe client
    }

    /// Acknowledged sets of a node that syncs: one connection against write and fdatasync of as many bytes, and 64
    /// against one.
    func durableNode(_ port: Int32) -> [Line] {
        // SAFETY: both are open until here.
        let (single, many) = unsafe (client(port, connections: 1), client(port, connections: 64))
        defer {
            unsafe bare_client_close(single)
            unsafe bare_client_close(many)
        }
        let (few, count, keys): (Int32, Int32, UInt64) = (25, 1_600, 100_000)
        var (bare, one, all): ([Cost], [Cost], [Cost]) = ([], [], [])
        for round in 0..<20 * rounds {
            bare.append(
                Cost.measure(Int(few)) { unsafe bare_append_loop(directory + "/appended", durableBytes, few) })
            one.append(
                Cost.measure(Int(few)) {
                    unsafe bare_client_sets(single, few, 1, UInt64(round) * 25, keys, valueBytes)
                })
            all.append(
                Cost.measure(Int(count)) {
                    unsafe bare_client_sets(many, count, 1, UInt64(round) * 1_600, keys, valueBytes)
                })
        }
        let gain = Cost.ratio(one, all).wall
        let (oneMiddle, bareMiddle) = (Cost.middle(one).wall, Cost.middle(bare).wall)
        return [
            Line(
                name: "node: durable set, one connection / write+fdatasync",
                value: round(Cost.ratio(one, bare).wall),
                detail: "\(round(oneMiddle / 1e3, 10)) us / \(round(bareMiddle / 1e3, 10)) us, over a socket"),
            Line(
                name: "node: durable sets, 64 connections / one", value: round(gain), reach: ">= 8",
                isReached: gain >= 8, detail: "\(Int(1e9 / Cost.middle(all).wall)) acknowledged sets/s"),
        ]
    }

    /// Sets and misses of a node that does not sync, 256 under way on 8 connections, against the bare loop.
    func node(_ port: Int32) -> [Line] {
        let (keys, count, depth): (UInt64, Int32, Int32) = (200_000, 200_000, 32)
        guard let bare = unsafe bare_open(directory + "/bare-node", 256 << 20, 64 << 20) else {
            preconditionFailure("the bare store does not open")
        }
        let client = unsafe client(port, connections: 8)
        // SAFETY: both are open until here.
        defer {
            unsafe bare_client_close(client)
            unsafe bare_close(bare)
        }
        var (bareWrites, writes, bareReads, reads): ([Cost], [Cost], [Cost], [Cost]) = ([], [], [], [])
        for round in 0..<rounds {
            bareWrites.append(
                Cost.measure(Int(count)) {
                    unsafe bare_write_loop(bare, count, 64, 0, 0, keys, valueBytes, recordBytes)
                })
            writes.append(
                Cost.measure(Int(count)) { unsafe bare_client_sets(client, count, depth, 0, keys, valueBytes) })
            unsafe bare_flush(bare)
            bareReads.append(
                Cost.measure(Int(count)) { unsafe bare_read_loop(bare, count, 64, keys, UInt64(round) + 1) })
            precondition(unsafe bare_client_flush(client) == 1, "the cache is not emptied")
            reads.append(
                Cost.measure(Int(count)) { unsafe bare_client_gets(client, count, depth, 0, keys, valueBytes) })
        }
        return [
            line("node: sets / bare RocksDB", writes, bareWrites, "sets/s"),
            line("node: misses / bare RocksDB", reads, bareReads, "misses/s"),
        ]
    }

    /// What no target is set for: the bare loop has no sockets. The client's processor time says nothing of the server's.
    private func line(_ name: String, _ ours: [Cost], _ bare: [Cost], _ unit: String) -> Line {
        let ratio = Cost.ratio(ours, bare).wall
        let (ours, bare) = (Cost.middle(ours).wall, Cost.middle(bare).wall)
        return Line(
            name: name, value: round(ratio),
            detail: "wall \(round(ours / 1e3)) us / \(round(bare / 1e3)) us, over sockets; \(Int(1e9 / ours)) \(unit)")
    }
}
