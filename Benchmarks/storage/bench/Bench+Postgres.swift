// Martlet
// SPDX-License-Identifier: Apache-2.0

import CStorageBench
import Platform
import Storage
import StoragePostgres

extension Bench {
    /// Sets and reads through the backend against bare loops in libpq's pipeline mode that move the same rows: one
    /// connection each, 256 under way.
    func postgres(_ url: String) -> [Line] {
        let keys: UInt64 = 20_000
        let (count, depth) = (Int(keys) / 256 * 256, 256)
        var configuration = PostgresConfiguration(url: url)
        configuration.instance = "bench"
        configuration.writers = 1
        configuration.readers = 1
        configuration.readBatchLimit = depth
        let backend = PostgresBackend(configuration)
        let load = Load()
        do throws(StorageStartError) { try backend.start(load) } catch { preconditionFailure(error.description) }
        defer { backend.stop() }
        while backend.health != .ready { Parking().wait(0, timeoutNanoseconds: 10_000_000) }
        guard let bare = unsafe bare_connect(url) else { preconditionFailure("the bare connection is not made") }
        // SAFETY: the connection is there until here.
        defer { unsafe bare_disconnect(bare) }
        var (bareWrites, writes, bareReads, reads): ([Cost], [Cost], [Cost], [Cost]) = ([], [], [], [])
        // The first round inserts, and does not count.
        for round in 0...rounds {
            var seed = UInt64(round) &+ 1
            // SAFETY: the connection is there.
            let pairs = (
                Cost.measure(count) {
                    unsafe bare_upsert_loop(bare, Int32(count), Int32(depth), 0, keys, valueBytes)
                },
                Cost.measure(count) {
                    load.run(count: count, depth: depth) { tokens in
                        backend.write(tokens.map { set($0 % keys, $0) })
                    }
                },
                Cost.measure(count) { unsafe bare_lookup_loop(bare, Int32(count), Int32(depth), UInt64(count), seed) },
                Cost.measure(count) {
                    load.run(count: count, depth: depth) { tokens in
                        backend.read(
                            tokens.map { token in
                                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                                return StorageRead(token: token, key: benchKey((seed >> 33) % UInt64(count)))
                            })
                    }
                }
            )
            guard round > 0 else { continue }
            bareWrites.append(pairs.0)
            writes.append(pairs.1)
            bareReads.append(pairs.2)
            reads.append(pairs.3)
        }
        return [
            line("sets past the cache / bare libpq pipeline", writes, bareWrites),
            line("reads past the cache / bare libpq pipeline", reads, bareReads),
        ]
    }
}
