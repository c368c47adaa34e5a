// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Storage
import StorageRocksDB

/// Writes one line with one system call, so that lines of several threads stay whole.
func say(_ line: String, to fd: Int32 = 1) { writeWhole(Array((line + "\n").utf8), to: fd) }

/// What the program is asked to do.
enum Command {
    case run(RocksDBConfiguration, seed: UInt64, firstToken: UInt64)
    case check(RocksDBConfiguration)

    init?(_ arguments: [String]) {
        var configuration = RocksDBConfiguration(path: arguments[2])
        configuration.keepsOutbox = true
        // Small, so that files are written and rewritten within a short run.
        configuration.writeBufferBytes = 1 << 20
        configuration.outboxBufferBytes = 128 << 10
        configuration.blockCacheBytes = 8 << 20
        configuration.region = "test"
        switch arguments[1] {
        case "run":
            guard arguments.count == 7, let seed = UInt64(arguments[3]), let first = UInt64(arguments[5]),
                let durability = RocksDBConfiguration.Durability(rawValue: arguments[4]),
                let offset = Int64(arguments[6])
            else { return nil }
            configuration.durability = durability
            configuration.now = { Int64(Clock.realtimeNanoseconds() / 1_000_000) + offset }
            self = .run(configuration, seed: seed, firstToken: first)
        case "check":
            guard arguments.count == 4,
                let durability = RocksDBConfiguration.Durability(rawValue: arguments[3])
            else { return nil }
            configuration.durability = durability
            self = .check(configuration)
        default: return nil
        }
    }

    func perform() {
        switch self {
        case .run(let configuration, let seed, let firstToken):
            let writer = Writer(RocksDBBackend(configuration), seed: seed, firstToken: firstToken)
            writer.start()
            writer.run()
        case .check(let configuration): Check(RocksDBBackend(configuration)).run()
        }
    }
}

/// Says what is in a store.
struct Check {
    private let backend: RocksDBBackend

    init(_ backend: RocksDBBackend) { self.backend = backend }

    func run() {
        do throws(StorageStartError) { try backend.start(Deaf()) } catch {
            say("E \(error.description)")
            exitProcess(1)
        }
        do throws(StorageFailure) {
            var key: [UInt8] = []
            while true {
                let rows = try backend.scan(prefix: [], after: key, limit: 1_000)
                for (key, row) in rows { say("R \(text(key)) \(row.version) \(rest(row)) \(hexadecimal(row.value))") }
                guard let last = rows.last else { break }
                key = last.key
            }
            for slot in 0..<64 {
                let slice = try backend.outboxRecords(slot: slot, after: 0, limit: .max)
                say("K \(slot) \(slice.firstKept) \(slice.last)")
                for record in slice.records {
                    say(
                        "O \(slot) \(record.sequence) \(text(record.key)) \(record.version) \(record.operation) "
                            + "\(record.expiryMilliseconds) \(record.epoch)")
                }
            }
            backend.stop()
            say("END")
        } catch {
            say("E \(error.reason)")
            exitProcess(1)
        }
    }

    private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    private func rest(_ row: StoredRow) -> String { "\(row.expiryMilliseconds) \(row.clientFlags)" }

    /// The value in hexadecimal digits behind an x, so that an empty one is a word too.
    private func hexadecimal(_ bytes: [UInt8]) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var result: [UInt8] = [UInt8(ascii: "x")]
        result.reserveCapacity(2 * bytes.count + 1)
        for byte in bytes {
            result.append(digits[Int(byte >> 4)])
            result.append(digits[Int(byte & 15)])
        }
        return text(result)
    }

    private final class Deaf: StorageSink {
        func readsCompleted(_ results: [(token: UInt64, outcome: ReadOutcome)]) {}
        func writesCompleted(_ results: [(token: UInt64, outcome: WriteOutcome)]) {}
        func unknownOutcomesSettled() {}
    }
}
