// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Storage
import Testing

@testable import StorageRocksDB

/// A scan of a store some of whose blocks are damaged gives all that can be read, and says what it passed over.
struct DamagedScanTests {
    private func key(_ number: Int) -> String {
        "key-" + String(repeating: "0", count: 5 - "\(number)".count) + "\(number)"
    }

    /// A store of rows whose values do not compress, in files; bits are flipped in the blocks of the named rows.
    private func damagedStore(_ numbers: [Int], of count: Int = 3_000) throws -> StoreBed {
        let bed = try StoreBed()
        var values: [Int: [UInt8]] = [:]
        let writes = (0..<count).map { number -> SubmittedWrite in
            let value = (0..<200).map { _ in UInt8.random(in: 0...255) }
            values[number] = value
            return SubmittedWrite(token: bed.nextToken(), write: StoreBed.make(.set, key(number)) { $0.value = value })
        }
        bed.backend.write(writes)
        for write in writes { #expect(bed.answers.write(write.token).version > 0) }
        try bed.backend.compact()
        bed.backend.stop()
        let path = bed.configuration.path
        var left = Set(numbers)
        for name in try FileManager.default.contentsOfDirectory(atPath: path) where name.hasSuffix(".sst") {
            let url = URL(fileURLWithPath: path + "/" + name)
            var bytes = try Data(contentsOf: url)
            for number in left {
                guard let value = values[number], let place = bytes.range(of: Data(value)) else { continue }
                bytes[place.lowerBound + 7] ^= 0x10
                left.remove(number)
            }
            try bytes.write(to: url)
        }
        try #require(left.isEmpty, "every value lies somewhere as it is")
        try bed.restart()
        return bed
    }

    private func all(_ bed: StoreBed, prefix: String = "", rows: Int) throws -> (keys: [String], damage: [ScanDamage]) {
        var (keys, damage): ([String], [ScanDamage]) = ([], [])
        var after: [UInt8] = []
        for _ in 0..<10_000 {
            let page = try bed.backend.scan(prefix: Array(prefix.utf8), after: after, ScanBounds(rows: rows))
            keys += page.rows.map { String(decoding: $0.key, as: UTF8.self) }
            damage += page.damage
            guard let next = page.next else { return (keys, damage) }
            #expect(after.lexicographicallyPrecedes(next))
            after = next
        }
        Issue.record("it goes on for ever")
        return (keys, damage)
    }

    @Test(arguments: [[0], [1_500], [2_999], [100, 101, 2_000], [0, 700, 1_400, 2_100, 2_999]])
    func damagedBlocksArePassedOver(_ numbers: [Int]) throws {
        let bed = try damagedStore(numbers)
        var seen: Set<[String]> = []
        for rows in [1, 7, 256, .max] {
            let (keys, damage) = try all(bed, rows: rows)
            #expect(keys == keys.sorted() && Set(keys).count == keys.count)
            let missing = Set((0..<3_000).map(key)).subtracting(keys)
            #expect(numbers.allSatisfy { missing.contains(key($0)) })
            // A block has 4 KiB, so some twenty rows are in it.
            #expect(missing.count <= numbers.count * 60, "\(missing.count) rows for \(numbers.count) blocks")
            let places = damage.map { String(decoding: $0.key.prefix(12), as: UTF8.self) }
            #expect((1...numbers.count).contains(damage.count), "each block once: \(places)")
            #expect(damage.allSatisfy { !$0.isOneRow && $0.reason.contains("restore a backup") })
            seen.insert(keys)
        }
        #expect(seen.count == 1, "the same rows, whatever the page")
    }

    @Test func aPrefixEndsWhereItEnds() throws {
        let bed = try damagedStore([1_500])
        let (keys, damage) = try all(bed, prefix: "key-00", rows: 100)
        #expect(keys.count == 1_000 && damage.isEmpty)
        #expect(try all(bed, prefix: "key-01", rows: 100).damage.count == 1)
        #expect(try all(bed, prefix: "l", rows: 100).keys.isEmpty)
    }

    @Test func placesBetweenKeys() {
        let low = KeyOrder.padded([1]), high = KeyOrder.padded([3])
        #expect(KeyOrder.middle(low, high).map(KeyOrder.trimmed) == [2])
        #expect(KeyOrder.middle(low, low) == nil)
        let next = KeyOrder.middle(KeyOrder.padded([255]), KeyOrder.last)
        #expect(next?.first == 255 && next?.count == 250)
        #expect(KeyOrder.predecessor([1, 0]) == [1])
        #expect(KeyOrder.predecessor([1, 2]).prefix(3) == [1, 1, 255] && KeyOrder.predecessor([1, 2]).count == 250)
        #expect(KeyOrder.trimmed(KeyOrder.padded([])) == [])
    }
}
