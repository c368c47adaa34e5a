// Martlet
// SPDX-License-Identifier: Apache-2.0

import CStorageBench
import Platform
import Storage
import StorageRocksDB

/// What one operation took: wall time and processor time in nanoseconds.
struct Cost {
    var wall: Double
    var processor: Double

    /// Measures `count` operations that `body` does; it gives nanoseconds of wall time.
    static func measure(_ count: Int, _ body: () -> UInt64) -> Cost {
        let before = bare_processor_time()
        let wall = body()
        precondition(wall > 0, "a loop failed")
        return Cost(
            wall: Double(wall) / Double(count), processor: Double(bare_processor_time() - before) / Double(count))
    }

    /// The middle one by wall time.
    static func middle(_ costs: [Cost]) -> Cost { costs.sorted { $0.wall < $1.wall }[costs.count / 2] }

    /// The middle one of the ratios of pairs, by wall time and by processor time: what changes on the machine from one
    /// pair to the next falls out.
    static func ratio(_ ours: [Cost], _ bare: [Cost]) -> Cost {
        let walls = zip(ours, bare).map { $0.wall / $1.wall }.sorted()
        let processors = zip(ours, bare).map { $0.processor / $1.processor }.sorted()
        return Cost(wall: walls[walls.count / 2], processor: processors[processors.count / 2])
    }
}

/// One line of the result.
struct Line {
    var name: String
    var value: Double
    /// What it should be; empty where nothing is set.
    var reach = ""
    var isReached = true
    var detail: String

    var json: String {
        #"{"name":"\#(name)","value":\#(value),"reach":"\#(reach)","reached":\#(isReached),"detail":"\#(detail)"}"#
    }
}

/// The parts of the benchmark, all in directories below `directory`.
struct Bench {
    let directory: String
    let rounds: Int
    let valueBytes = 200
    /// Bytes of a record of the outbox for keys of the benchmark.
    let recordBytes = 104

    /// Bytes that a set of a key appends to the log: two entries, and what RocksDB puts around them and their batch.
    var durableBytes: Int { 24 + 25 + valueBytes + 9 + recordBytes + 12 + 2 * 6 + 7 }

    func round(_ value: Double, _ places: Double = 100) -> Double { (value * places).rounded() / places }

    private func opened(_ name: String, _ durability: RocksDBConfiguration.Durability) -> (RocksDBBackend, Load) {
        var configuration = RocksDBConfiguration(path: directory + "/" + name)
        configuration.durability = durability
        configuration.blockCacheBytes = 256 << 20
        let backend = RocksDBBackend(configuration)
        let load = Load()
        do throws(StorageStartError) { try backend.start(load) } catch { preconditionFailure(error.description) }
        return (backend, load)
    }

    func set(_ number: UInt64, _ token: UInt64) -> SubmittedWrite {
        var write = StorageWrite(.set, key: benchKey(number))
        write.value = [UInt8](repeating: UInt8(ascii: "v"), count: valueBytes)
        return SubmittedWrite(token: token, write: write)
    }

    private func figure(_ backend: RocksDBBackend, _ name: String) -> Double {
        backend.statistics().first { $0.name == "rocksdb_" + name }?.value ?? 0
    }

    /// Synced sets: one connection against write and fdatasync, and 64 against one.
    func durable() -> [Line] {
        let (backend, load) = opened("durable", .sync)
        defer { backend.stop() }
        let (single, many) = (25, 1_600)
        let bytes = durableBytes
        var (bare, one, all): ([Cost], [Cost], [Cost]) = ([], [], [])
        // Short, so that one pair meets one state of the disk.
        for _ in 0..<20 * rounds {
            bare.append(Cost.measure(single) { unsafe bare_append_loop(directory + "/appended", bytes, Int32(single)) })
            one.append(
                Cost.measure(single) {
                    load.run(count: single, depth: 1) { tokens in backend.write(tokens.map { set($0, $0) }) }
                })
            all.append(
                Cost.measure(many) {
                    load.run(count: many, depth: 64) { tokens in
                        for token in tokens { backend.write([set(token, token)]) }
                    }
                })
        }
        let written = figure(backend, "committed_bytes") / figure(backend, "committed_writes")
        let (took, left) = (figure(backend, "synced_writes"), figure(backend, "sync_left_waiting"))
        let (bareMiddle, oneMiddle, allMiddle) = (Cost.middle(bare), Cost.middle(one), Cost.middle(all))
        let ratio = Cost.ratio(one, bare).wall
        let gain = Cost.ratio(one, all).wall
        let share = took / (took + left)
        let sets = Int(1e9 / allMiddle.wall)
        return [
            Line(
                name: "durable set, one connection / write+fdatasync", value: round(ratio), reach: "<= 1.3",
                isReached: ratio <= 1.3,
                detail:
                    "\(round(oneMiddle.wall / 1e3, 10)) us / \(round(bareMiddle.wall / 1e3, 10)) us, \(bytes) bytes "
                    + "(\(Int(written)) of them ours)"),
            Line(
                name: "durable sets, 64 connections / one", value: round(gain), reach: ">= 8", isReached: gain >= 8,
                detail: "\(sets) sets/s"),
            Line(
                name: "share of waiting writes in each fsync", value: round(share, 1_000), reach: ">= 0.8",
                isReached: share >= 0.8, detail: "\(Int(took)) taken, \(Int(left)) left waiting"),
        ]
    }

    /// Unsynced sets and reads against the bare loop moving the same bytes, by processor time and by wall time.
    func engine() -> [Line] {
        let keys: UInt64 = 200_000
        let (backend, load) = opened("engine", .async)
        defer { backend.stop() }
        guard let bare = unsafe bare_open(directory + "/bare", 256 << 20, 64 << 20) else {
            preconditionFailure("the bare store does not open")
        }
        // SAFETY: the store is open until here.
        defer { unsafe bare_close(bare) }
        let (count, batch) = (Int(keys), 64)
        var (bareWrites, writes, bareReads, reads): ([Cost], [Cost], [Cost], [Cost]) = ([], [], [], [])
        for _ in 0..<rounds {
            bareWrites.append(
                Cost.measure(count) {
                    // SAFETY: the store is open.
                    unsafe bare_write_loop(bare, Int32(count), Int32(batch), 0, 0, keys, valueBytes, recordBytes)
                })
            writes.append(
                Cost.measure(count) {
                    load.run(count: count, depth: 256) { tokens in backend.write(tokens.map { set($0 % keys, $0) }) }
                })
        }
        // Reads come from files, as they do when the store is larger than its buffers.
        do throws(StorageFailure) { try backend.compact() } catch { preconditionFailure(error.reason) }
        unsafe bare_flush(bare)
        for round in 0..<rounds {
            var seed = UInt64(round) &+ 1
            bareReads.append(
                Cost.measure(count) { unsafe bare_read_loop(bare, Int32(count), Int32(batch), keys, seed) })
            reads.append(
                Cost.measure(count) {
                    load.run(count: count, depth: 256) { tokens in
                        backend.read(
                            tokens.map { token in
                                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                                return StorageRead(token: token, key: benchKey((seed >> 33) % keys))
                            })
                    }
                })
        }
        return [
            line("sets past the cache / bare RocksDB", writes, bareWrites),
            line("reads past the cache / bare RocksDB", reads, bareReads),
        ]
    }

    func line(_ name: String, _ ours: [Cost], _ bare: [Cost]) -> Line {
        let ratio = Cost.ratio(ours, bare)
        let (ours, bare) = (Cost.middle(ours), Cost.middle(bare))
        return Line(
            name: name, value: round(ratio.wall), reach: "<= 1.3", isReached: ratio.wall <= 1.3,
            detail: "wall \(round(ours.wall / 1e3)) us / \(round(bare.wall / 1e3)) us; processor "
                + "\(round(ours.processor / 1e3)) us / \(round(bare.processor / 1e3)) us = \(round(ratio.processor))")
    }
}
