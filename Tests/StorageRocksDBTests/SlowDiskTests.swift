// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Platform
import Storage
import Testing

@testable import StorageRocksDB

/// What the store does while its disk does not answer. The disk's part is played by a lock in the threads that use it.
struct SlowDiskTests {
    /// Holds threads up while it is shut.
    private final class Dam: Sendable {
        let lock = Lock()
        let held = Guarded(0)

        func pass() {
            held.withLock { $0 += 1 }
            lock.withLock {}
            held.withLock { $0 -= 1 }
        }

        func waitUntilHeld(_ count: Int) {
            while held.withLock({ $0 }) < count { usleep(1_000) }
        }
    }

    private func sets(_ bed: StoreBed, _ count: Int) -> [SubmittedWrite] {
        (0..<count).map { SubmittedWrite(token: bed.nextToken(), write: StoreBed.make(.set, "k\($0)", "v")) }
    }

    private func seconds(_ body: () throws -> Void) rethrows -> Double {
        let began = Clock.monotonicNanoseconds()
        try body()
        return Double(Clock.monotonicNanoseconds() - began) / 1e9
    }

    @Test func whatWaitsForACommitInVainIsRefusedAndNotDone() throws {
        let dam = Dam()
        let bed = try StoreBed {
            $0.waitingMilliseconds = 600
            $0.willCommit = { dam.pass() }
        }
        dam.lock.lock()
        let first = bed.nextToken()
        bed.backend.write([SubmittedWrite(token: first, write: StoreBed.make(.set, "first", "v"))])
        dam.waitUntilHeld(1)
        let waiting = sets(bed, 100)
        let waited = seconds {
            bed.backend.write(waiting)
            for write in waiting {
                #expect(bed.answers.write(write.token).failure == StorageFailure(.notSent, "the disk takes too long"))
            }
        }
        #expect(waited > 0.5 && waited < 3, "\(waited)")
        // By now the commit has taken that long itself: nothing waits for it any more, and everybody may know.
        let late = seconds {
            let write = sets(bed, 1)[0]
            bed.backend.write([write])
            #expect(bed.answers.write(write.token).failure?.kind == .notSent)
        }
        #expect(late < 0.3, "\(late)")
        #expect(bed.backend.health == .readOnly("the disk takes too long"))
        #expect(bed.read("first") == .absent, "reads go on")
        #expect(bed.answers.writeIfAnswered(first) == nil, "it is with the disk: nobody knows")
        dam.lock.unlock()
        #expect(bed.answers.write(first).version > 0)
        #expect(bed.read("k1") == .absent, "what was refused is not done later")
        // The thread that commits says so behind its answers.
        for _ in 0..<200 where bed.backend.health != .ready { usleep(10_000) }
        #expect(bed.backend.health == .ready)
        #expect(bed.write(.set, "k1", "again").version > 0)
        #expect(bed.figure("writes_refused") == 101)
        #expect(bed.answers.repeated == 0)
    }

    @Test func whatWaitsForAReaderInVainIsRefused() throws {
        let dam = Dam()
        let bed = try StoreBed {
            $0.waitingMilliseconds = 600
            $0.readerThreads = 2
            $0.waitingReadLimit = 50
            $0.willRead = { dam.pass() }
        }
        bed.write(.set, "a", "v")
        dam.lock.lock()
        var held: [UInt64] = []
        for count in 1...2 {
            held.append(bed.nextToken())
            bed.backend.read([StorageRead(token: held[count - 1], key: Array("a".utf8))])
            dam.waitUntilHeld(count)
        }
        let reads = (0..<60).map { _ in StorageRead(token: bed.nextToken(), key: Array("a".utf8)) }
        // No reader is there to say so, and yet those beyond the queue's limit hear at once that there is no room.
        let refused = seconds {
            bed.backend.read(reads)
            for read in reads.suffix(10) {
                #expect(bed.answers.read(read.token) == .failed(StorageFailure(.notSent, "too many wait for storage")))
            }
        }
        #expect(refused < 0.3, "\(refused)")
        for read in reads.prefix(50) {
            #expect(bed.answers.read(read.token) == .failed(StorageFailure(.notSent, "the disk takes too long")))
        }
        #expect(bed.backend.health == .unavailable("the disk takes too long"))
        #expect(bed.figure("reads_refused") == 60)
        #expect(bed.write(.set, "b", "v").version > 0, "commits go on")
        dam.lock.unlock()
        for token in held { #expect(bed.answers.read(token) != nil) }
        #expect(bed.text("a") == "v")
        #expect(bed.backend.health == .ready)
        #expect(bed.answers.repeated == 0)
    }

    @Test func aStopAnswersEverythingThatWaits() throws {
        let dam = Dam()
        let bed = try StoreBed {
            $0.waitingMilliseconds = 60_000
            $0.willCommit = { dam.pass() }
        }
        dam.lock.lock()
        let writes = sets(bed, 10)
        for write in writes { bed.backend.write([write]) }
        dam.waitUntilHeld(1)
        let backend = bed.backend
        let stopping = try Thread(name: "stop") { backend.stop() }
        usleep(50_000)
        dam.lock.unlock()
        stopping.join()
        for write in writes { #expect(bed.answers.writeIfAnswered(write.token).version > 0) }
        #expect(bed.answers.repeated == 0)
    }
}
