// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import Storage
import Testing

@testable import StorageRocksDB

/// What one commit holds in memory has a bound, whatever rows small commands look at.
struct CommitSizeTests {
    private func submitted(_ bed: StoreBed, _ writes: [StorageWrite]) -> [SubmittedWrite] {
        writes.map { SubmittedWrite(token: bed.nextToken(), write: $0) }
    }

    /// Does all of them while nothing is committed, so that they wait together; gives their outcomes and how many the
    /// commits answered.
    private func together(_ bed: StoreBed, _ writes: [StorageWrite]) -> (outcomes: [WriteOutcome?], commits: [Int]) {
        let all = submitted(bed, writes)
        let before = bed.figure("writes")
        bed.answers.gate.lock()
        bed.backend.write(submitted(bed, [StoreBed.make(.set, "first", "v")]))
        while bed.figure("writes") == before { Thread.sleep(forTimeInterval: 0.001) }
        let answered = bed.answers.batches.count
        bed.backend.write(all)
        bed.answers.gate.unlock()
        let outcomes = all.map { bed.answers.write($0.token) }
        return (outcomes, Array(bed.answers.batches.dropFirst(answered + 1)))
    }

    @Test func rowsThatAreLookedAtAndNotChangedCount() throws {
        let bed = try StoreBed()
        let value = [UInt8](repeating: 7, count: 256 << 10)
        for index in 0..<200 { bed.write(.set, "k\(index)") { $0.value = value } }
        let (outcomes, commits) = together(bed, (0..<200).map { StoreBed.make(.add, "k\($0)", "v") })
        #expect(outcomes.allSatisfy { $0 == .notStored })
        // 32 of them have the bytes of a commit; of the first it is not known how large they are.
        #expect(commits.max() ?? 0 <= 64, "\(commits)")
        #expect(commits.dropFirst().max() ?? 0 <= 40, "\(commits)")
    }

    /// Of the first rows that are looked up nobody knows how large they are: their number has the bound that readers
    /// have.
    @Test func rowsOfUnknownSizeAreNoMoreThanReadersLookUp() throws {
        let bed = try StoreBed { $0.lookupRows = 3 }
        let value = [UInt8](repeating: 7, count: 1 << 20)
        for index in 0..<40 { bed.write(.set, "k\(index)") { $0.value = value } }
        let (outcomes, commits) = together(bed, (0..<40).map { StoreBed.make(.add, "k\($0)", "v") })
        #expect(outcomes.allSatisfy { $0 == .notStored })
        // 8 of them have the bytes of a commit, and 3 come at once.
        #expect(commits.max() ?? 0 <= 10, "\(commits)")
    }

    @Test func manyChangesOfOneLargeRowAreSeveralCommits() throws {
        let bed = try StoreBed()
        let value = [UInt8](repeating: 7, count: 1 << 20)
        bed.write(.set, "k") { $0.value = value }
        let (outcomes, commits) = together(bed, (0..<60).map { StoreBed.make(.append, "k", "\($0 % 10)") })
        #expect(outcomes.map { $0.row?.value.count } == (1...60).map { (1 << 20) + $0 })
        #expect(commits.max() ?? 0 <= 10, "\(commits)")
        #expect(bed.answers.order.filter { (2...61).contains($0) } == Array(2...61))
        #expect(bed.row("k")?.value == value + (0..<60).map { UInt8(48 + $0 % 10) })
    }
}
