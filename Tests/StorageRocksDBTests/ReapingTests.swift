// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import StorageRocksDB
import Testing

/// What leaves the disk, and what does not.
struct ReapingTests {
    @Test func expiredRowsLeaveTheFiles() throws {
        let bed = try StoreBed()
        for index in 0..<100 {
            bed.write(.set, "short\(index)", "v") { $0.expiryMilliseconds = bed.clock.now + 1_000 }
            bed.write(.set, "long\(index)", "v") { $0.expiryMilliseconds = bed.clock.now + 1_000_000 }
            bed.write(.set, "ever\(index)", "v")
        }
        bed.clock.now += 2_000
        try bed.backend.compact()
        #expect(bed.figure("expired_reaped") == 100)
        #expect(bed.figure("rows_estimate") == 200)
        #expect(bed.read("short5") == .absent)
        #expect(bed.text("long5") == "v" && bed.text("ever5") == "v")
    }

    /// Without anybody asking for it, once the file that they are in is old enough.
    @Test func whatIsOverLeavesFilesThatNobodyWritesTo() throws {
        let bed = try StoreBed {
            $0.durability = .async
            $0.rewriteSeconds = 1
            $0.writeBufferBytes = 64 << 10
            $0.tombstoneMilliseconds = 1_000
        }
        for index in 0..<100 {
            bed.write(.set, "short\(index)", "v") { $0.expiryMilliseconds = bed.clock.now + 1_000 }
            bed.write(.set, "gone\(index)", "v")
            bed.write(.delete, "gone\(index)")
        }
        bed.clock.now += 5_000
        let value = String(repeating: "v", count: 4_000)
        var turn = 0
        for _ in 0..<200 where bed.figure("expired_reaped") < 100 || bed.figure("tombstones_reaped") < 100 {
            // Other keys: RocksDB looks for old files when it has written one.
            for _ in 0..<20 {
                turn += 1
                bed.write(.set, "z\(turn)", value)
            }
            Thread.sleep(forTimeInterval: 0.1)
        }
        #expect(bed.figure("expired_reaped") == 100 && bed.figure("tombstones_reaped") == 100)
    }

    @Test func tombstonesStayTheirTime() throws {
        let bed = try StoreBed { $0.tombstoneMilliseconds = 10_000 }
        for index in 0..<50 {
            bed.write(.set, "k\(index)", "v")
            bed.write(.delete, "k\(index)")
        }
        try bed.backend.compact()
        #expect(bed.figure("tombstones_reaped") == 0)
        #expect(bed.figure("rows_estimate") == 50)
        bed.clock.now += 10_000
        try bed.backend.compact()
        #expect(bed.figure("tombstones_reaped") == 50)
        #expect(bed.figure("rows_estimate") == 0)
        #expect(bed.read("k1") == .absent)
    }

    @Test func whatIsReapedDoesNotBringAnOlderRowBack() throws {
        let bed = try StoreBed { $0.tombstoneMilliseconds = 1_000 }
        for index in 0..<50 { bed.write(.set, "k\(index)", "old") }
        try bed.backend.compact()
        for index in 0..<50 {
            if index % 2 == 0 {
                bed.write(.set, "k\(index)", "new") { $0.expiryMilliseconds = bed.clock.now + 500 }
            } else {
                bed.write(.delete, "k\(index)")
            }
        }
        bed.clock.now += 5_000
        try bed.backend.compact()
        for index in 0..<50 { #expect(bed.read("k\(index)") == .absent) }
        try bed.restart()
        for index in 0..<50 { #expect(bed.read("k\(index)") == .absent) }
    }

    @Test func versionsGrowPastReapedRows() throws {
        let bed = try StoreBed { $0.tombstoneMilliseconds = 1_000 }
        bed.write(.set, "k", "v")
        let gone = bed.write(.delete, "k")
        bed.clock.now += 2_000
        try bed.backend.compact()
        bed.clock.now -= 3_600_000
        #expect(bed.write(.set, "k", "v").version > gone.version)
        try bed.restart()
        bed.clock.now -= 3_600_000
        #expect(bed.write(.set, "other", "v").version > gone.version)
    }
}
