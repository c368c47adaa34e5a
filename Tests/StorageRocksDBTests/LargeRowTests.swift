// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Storage
import StorageRocksDB
import Testing

/// What a look-up has in memory, however large rows are.
struct LargeRowTests {
    @Test func rowsThatAreAskedForTogetherAreNotAllInMemoryTogether() throws {
        let lookups = Guarded(0)
        let bed = try StoreBed {
            $0.readerThreads = 1
            $0.lookupRows = 2
            $0.readBatchBytes = 250_000
            $0.willRead = { lookups.withLock { $0 += 1 } }
        }
        // Small ones before, so that nothing tells of the size of what comes.
        for number in 0..<60 { bed.write(.set, "k\(number)", String(repeating: "v", count: number < 20 ? 1 : 100_000)) }
        let small = ask(bed, 0..<20)
        #expect(bed.answers.deliveries.filter { $0 > 0 }.reduce(0, +) == 20 && small == 20)
        // Delivered together, though looked up two by two.
        #expect(lookups.withLock { $0 } >= 10 && bed.answers.deliveries.count <= 4)
        let before = bed.answers.deliveries.count
        #expect(ask(bed, 20..<60) == 40)
        let large = bed.answers.deliveries[before...]
        #expect(large.reduce(0, +) == 4_000_000)
        // As many bytes as are delivered at once, and the last look-up's.
        #expect((large.max() ?? 0) < 250_000 + 200_000, "\(large)")
        #expect(lookups.withLock { $0 } >= 30)
        #expect(bed.figure("read_batches") == Double(lookups.withLock { $0 }) && bed.answers.repeated == 0)
    }

    /// Asks for all at once; returns how many have their rows.
    private func ask(_ bed: StoreBed, _ numbers: Range<Int>) -> Int {
        let reads = numbers.map { StorageRead(token: bed.nextToken(), key: Array("k\($0)".utf8)) }
        bed.backend.read(reads)
        return reads.filter {
            if case .found? = bed.answers.read($0.token) { return true }
            return false
        }.count
    }
}
