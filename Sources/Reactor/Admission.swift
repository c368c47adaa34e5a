// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform
internal import Synchronization

/// How many connections a group has, and what the acceptor and the reactors tell each other about it.
final class Admission: Sendable {
    /// Connections accepted and not closed.
    let count = Atomic<Int>(0)
    /// Whether new connections are taken.
    let isAccepting = Atomic<Bool>(true)
    /// Whether the group was told to stop.
    let isStopped = Atomic<Bool>(false)
    private let isWaiting = Atomic<Bool>(false)
    private let wake: WakeEvent

    init() throws(SystemError) { wake = try WakeEvent() }

    /// For the acceptor to watch, edge-triggered.
    var fd: Int32 { wake.fd }

    /// A connection is closed.
    func leave() {
        count.subtract(1, ordering: .sequentiallyConsistent)
        if isWaiting.load(ordering: .sequentiallyConsistent) {
            isWaiting.store(false, ordering: .sequentiallyConsistent)
            wake.signal()
        }
    }

    /// The acceptor wants to hear of the next close.
    func awaitClose() { isWaiting.store(true, ordering: .sequentiallyConsistent) }

    /// Ends the acceptor.
    func stop() {
        isStopped.store(true, ordering: .sequentiallyConsistent)
        wake.signal()
    }
}
