// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Reactor

extension BatchRunner {
    /// Brings index lines and items of the first request of each input into the processor's caches.
    mutating func foresee(_ inputs: borrowing InputGroup) {
        var hashes = InlineArray<16, UInt64>(repeating: 0)
        for index in 0..<inputs.count {
            hashes[index] = inputs.withInput(index) { input in
                guard let key = likelyKey(input) else { return 0 }
                return stableHash(input.extracting(key), seed: executor.engine.hashSeed)
            }
            if hashes[index] != 0 { executor.engine.prefetchIndex(hashes[index]) }
        }
        var deeper: UInt64 = 0
        for index in 0..<inputs.count where hashes[index] != 0 {
            if executor.engine.prefetchItem(hashes[index]) { deeper |= 1 << UInt64(index) }
        }
        while deeper != 0 {
            executor.engine.prefetchOverflowItem(hashes[deeper.trailingZeroBitCount])
            deeper &= deeper &- 1
        }
    }
}
