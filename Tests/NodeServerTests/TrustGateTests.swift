// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Synchronization
import Testing

@testable import NodeServer

@Suite struct TrustGateTests {
    @Test func showsWhatIsTrusted() {
        let gate = TrustGate()
        #expect(gate.isDoubtful(at: 0) && gate.quarantined == .max)
        gate.publish(quarantined: 0b10, trustedUntil: 100)
        #expect(gate.shows(0b01, at: 99) && !gate.shows(0b10, at: 99) && !gate.shows(0b01, at: 100))
        #expect(gate.isDoubtful(at: 99))
        gate.publish(quarantined: 0, trustedUntil: 100)
        #expect(!gate.isDoubtful(at: 99) && gate.isDoubtful(at: 100))
    }

    @Test(arguments: LagPolicy.allCases) func aPoolSaysWhatBecomesOfReadsPastTheBound(_ policy: LagPolicy) {
        let gate = TrustGate()
        let behind: [LagPolicy: CopyStanding] = [.revalidate: .hidden, .serveStale: .stale, .fail: .refused]
        gate.publish(quarantined: 0b10, trustedUntil: 100)
        #expect(gate.standing(of: 0b01, at: 99, policy) == .vouched)
        #expect(gate.standing(of: 0b01, at: 100, policy) == behind[policy])
        #expect(gate.standing(of: 0b10, at: 99, policy) == .hidden, "a quarantine is not for how far it is behind")
        #expect(gate.standing(of: 0b10, at: 100, policy) == (policy == .fail ? .refused : .hidden))
        let anew = TrustGate().standing(of: 0b01, at: 0, policy)
        #expect(anew == (policy == .fail ? .refused : .hidden), "before the stream was joined nothing is shown")
    }

    /// A proof that comes behind a quarantine is never seen without it, wherever the reader pauses.
    @Test func noReaderSeesAProofWithoutTheQuarantineBeforeIt() throws {
        let gate = TrustGate()
        let turn = Atomic<UInt64>(1)
        let isOver = Atomic<Bool>(false)
        let shown = Atomic<Int>(0)
        let looks = Atomic<Int>(0)
        gate.publish(quarantined: 0, trustedUntil: 1)
        let readers = try (0..<2).map { number in
            try Thread(name: "reader-\(number)") {
                while !isOver.load(ordering: .relaxed) {
                    let now = turn.load(ordering: .acquiring)
                    let isShown = gate.shows(1, at: now)
                    // Within the turn, the copy is first too old, and then in quarantine.
                    guard turn.load(ordering: .acquiring) == now else { continue }
                    looks.add(1, ordering: .relaxed)
                    if isShown { shown.add(1, ordering: .relaxed) }
                }
            }
        }
        let end = Clock.monotonicNanoseconds() + 1_000_000_000
        var now: UInt64 = 1
        while Clock.monotonicNanoseconds() < end {
            gate.publish(quarantined: .max, trustedUntil: now)
            gate.publish(quarantined: .max, trustedUntil: now + 1)
            turn.store(now + 1, ordering: .sequentiallyConsistent)
            gate.publish(quarantined: 0, trustedUntil: now + 1)
            now += 1
        }
        isOver.store(true, ordering: .relaxed)
        for reader in readers { reader.join() }
        #expect(shown.load(ordering: .relaxed) == 0)
        #expect(looks.load(ordering: .relaxed) > 1_000)
    }
}
