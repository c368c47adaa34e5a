// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// The bytes that all shards share: what may be used, and what is.
final class Budget: Sendable {
    private let used = Atomic<Int>(0)
    private let index = Atomic<Int>(0)
    private let limit: Atomic<Int>

    init(limitBytes: Int) { limit = Atomic(limitBytes) }

    var limitBytes: Int {
        get { limit.load(ordering: .relaxed) }
        set { limit.store(newValue, ordering: .relaxed) }
    }

    /// What may be used: the limit, but always room for items beside an index that grew under a higher one and cannot
    /// shrink.
    private var allowedBytes: Int {
        let limit = limitBytes
        return max(limit, index.load(ordering: .relaxed) + limit / 2)
    }

    var usedBytes: Int { used.load(ordering: .relaxed) }
    var isExceeded: Bool { usedBytes > allowedBytes }

    /// Takes `bytes` if the limit allows.
    func tryCharge(_ bytes: Int) -> Bool {
        if used.wrappingAdd(bytes, ordering: .relaxed).newValue <= allowedBytes { return true }
        used.wrappingSubtract(bytes, ordering: .relaxed)
        return false
    }

    /// Takes `bytes` (or gives them back, when negative) whatever the limit.
    func charge(_ bytes: Int) {
        if bytes != 0 { used.wrappingAdd(bytes, ordering: .relaxed) }
    }

    /// Takes `bytes` that an index grew by.
    func chargeIndex(_ bytes: Int) {
        guard bytes != 0 else { return }
        index.wrappingAdd(bytes, ordering: .relaxed)
        used.wrappingAdd(bytes, ordering: .relaxed)
    }
}
