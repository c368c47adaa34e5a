// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// An item that was evicted, for those who watch.
package struct Eviction: Sendable {
    /// Its key.
    package let key: [UInt8]
    /// Whether it was ever read.
    package let isFetched: Bool
    /// When it would have expired, in the engine's seconds; 0 for never.
    package let expiry: UInt32
    /// Seconds since it was read or written last.
    package let ageSeconds: UInt32
    /// 1 for the queue of new items, 2 for the main queue.
    package let queue: Int
    /// Bytes of the value.
    package let valueLength: Int
}

/// Collects evictions while somebody watches them; costs a load an eviction while nobody does.
package final class EvictionLog: Sendable {
    /// Evictions kept between two collections; what comes beyond is counted only.
    static let limit = 4096

    private let on = Atomic<Bool>(false)
    private let entries = Guarded<[Eviction]>([])
    private let dropped = Atomic<Int>(0)

    /// Whether evictions are collected.
    package var isOn: Bool {
        get { on.load(ordering: .relaxed) }
        set { on.store(newValue, ordering: .relaxed) }
    }

    func add(_ eviction: Eviction) {
        entries.withLock { list in
            if list.count < Self.limit { list.append(eviction) } else { dropped.wrappingAdd(1, ordering: .relaxed) }
        }
    }

    /// Takes what was collected, and how many evictions found no room.
    package func take() -> (evictions: [Eviction], dropped: Int) {
        let list = entries.exchange([])
        return (list, dropped.exchange(0, ordering: .relaxed))
    }
}
