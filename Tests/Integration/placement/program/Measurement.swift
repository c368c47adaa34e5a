// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Routing

/// Balance, times and allocations of every scheme with one set of servers.
struct Measurement {
    let servers: [Server]
    private let keys: Int

    private static let schemes: [(name: String, scheme: HashScheme)] = [
        ("multiprobe", .multiProbe),
        ("rendezvous", .rendezvous),
        ("weighted-rendezvous", .weightedRendezvous),
        ("pymemcache", .pymemcacheRendezvous),
        ("ch3", .ch3),
        ("weighted-ch3", .weightedCh3),
        ("jump", .jump),
        ("ketama libmemcached md5", .ketama(.libmemcached, .md5)),
        ("ketama libmemcached-weighted", .ketama(.libmemcachedWeighted, .md5)),
        ("ketama twemproxy fnv1a_64", .ketama(.twemproxy, .fnv1aLower64)),
        ("ketama uhashring", .ketama(.uhashring, .md5)),
        ("modulo crc32_positive", .modulo(.crc32Positive)),
    ]

    /// Servers as a large fleet has them, and how many keys are looked up for each scheme's counts.
    init(servers: Int, keys: Int) {
        self.servers = (0..<servers).map { Server(host: "10.\($0 / 65536).\($0 / 256 % 256).\($0 % 256)", port: 11211) }
        self.keys = keys
    }

    /// The schemes' ways that plain servers and keys do not take.
    private static let detours: [(name: String, scheme: HashScheme, weight: Double, salt: String)] = [
        ("half weighted-ch3", .weightedCh3, 0.5, ""),
        ("heavy multiprobe", .multiProbe, 1.3, ""),
        ("salted ch3", .ch3, 1, "pepper"),
    ]

    /// Measures the schemes whose name starts with `prefix`.
    func run(_ prefix: String) {
        for (name, scheme) in Self.schemes where name.hasPrefix(prefix) {
            do throws(SelectorError) {
                let selector = { () throws(SelectorError) in try ServerSelector(servers, scheme: scheme) }
                writeWhole(Array((try line(name, selector) + "\n").utf8), to: 1)
            } catch {
                end("\(name): \(error)")
            }
        }
        for (name, scheme, weight, salt) in Self.detours where name.hasPrefix(prefix) {
            let weighted = servers.map { Server(host: $0.host, port: $0.port, weight: weight) }
            do throws(SelectorError) {
                let selector = { () throws(SelectorError) in
                    try ServerSelector(weighted, scheme: scheme, part: .beforeHashStop, salt: Array(salt.utf8))
                }
                writeWhole(Array((try line(name, selector) + "\n").utf8), to: 1)
            } catch {
                end("\(name): \(error)")
            }
        }
    }

    private func line(
        _ name: String, _ make: () throws(SelectorError) -> ServerSelector
    ) throws(SelectorError) -> String {
        // Processor time, which what else runs on the machine changes little.
        let began = ProcessUsage.current().userMicroseconds
        let selector = try make()
        let built = ProcessUsage.current().userMicroseconds
        // Schemes that look at every server get fewer keys: their balance is that of the hash alone.
        let isLinear = name.contains("rendezvous") || name == "pymemcache"
        let trials = isLinear && servers.count > 500 ? max(1, keys / 200) : keys
        var counts = [Int](repeating: 0, count: servers.count)
        var key: [UInt8] = Array("user:0000000000".utf8)
        let start = ProcessUsage.current().userMicroseconds
        let allocated = threadAllocatedBytes()
        for _ in 0..<trials {
            Self.increment(&key)
            counts[selector.owner(of: key.span)] += 1
        }
        let bytes = threadAllocatedBytes() - allocated
        let nanoseconds = Double(ProcessUsage.current().userMicroseconds - start) * 1000 / Double(trials)
        let mean = Double(trials) / Double(servers.count)
        let counted = Double(counts.max() ?? 0) / mean
        let exact = selector.shares.map { ($0.max() ?? 0) * Double(servers.count) }
        return "\(name)\tmax/mean \(Self.rounded(counted)) counted (mean \(Int(mean)))"
            + (exact.map { ", \(Self.rounded($0)) exact" } ?? "")
            + "\tbuild \(built - began) us\tlookup \(Self.rounded(nanoseconds)) ns\tallocated \(bytes)"
    }

    private static func rounded(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }

    /// Counts a key's last ten digits up by one.
    private static func increment(_ key: inout [UInt8]) {
        var index = key.count - 1
        while index >= 5 {
            if key[index] < UInt8(ascii: "9") {
                key[index] += 1
                return
            }
            key[index] = UInt8(ascii: "0")
            index -= 1
        }
    }
}
