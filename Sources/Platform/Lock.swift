// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
public import Synchronization

/// A mutual-exclusion lock that spins briefly and then sleeps in the kernel: 4 bytes, no allocation, not recursive.
///
/// The standard library's Mutex is a priority-inheritance futex on Linux in Swift 6.3 and collapses under contention
/// (swiftlang/swift#88440); this is the three-state futex lock of Drepper's "Futexes Are Tricky".
@usableFromInline
package struct Lock: ~Copyable, Sendable {
    /// 0 free, 1 held, 2 held and somebody sleeps.
    @usableFromInline let word = Atomic<UInt32>(0)
    /// How often a waiter looks again before it sleeps. On an oversubscribed machine long spins only burn time.
    @usableFromInline static var spins: Int { 64 }

    @inlinable package init() {}

    /// Takes the lock, waiting for it if it must.
    @inlinable @inline(__always)
    package func lock() {
        if !word.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged { lockSlowly() }
    }

    /// Takes the lock if it is free; true if taken.
    @inlinable @inline(__always)
    package func tryLock() -> Bool {
        word.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
    }

    /// Gives the lock up; only whoever holds it may.
    @inlinable @inline(__always)
    package func unlock() {
        if word.exchange(0, ordering: .releasing) == 2 { wake() }
    }

    /// Runs `body` with the lock held.
    @inlinable @inline(__always)
    package func withLock<R: ~Copyable, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        lock()
        defer { unlock() }
        return try body()
    }

    @usableFromInline @inline(never)
    func lockSlowly() {
        for _ in 0..<Self.spins {
            if word.load(ordering: .relaxed) == 0, tryLock() { return }
            martlet_pause()
        }
        while word.exchange(2, ordering: .acquiring) != 0 {
            sleep()
        }
    }

    private func sleep() {
        // SAFETY: the kernel compares the word at an address that is valid during the call.
        unsafe withUnsafeAddress { unsafe _ = martlet_futex_wait($0, 2) }
    }

    @usableFromInline @inline(never)
    func wake() {
        // SAFETY: waking by an address touches no memory.
        unsafe withUnsafeAddress { unsafe _ = martlet_futex_wake($0, 1) }
    }

    private func withUnsafeAddress(_ body: (UnsafeRawPointer) -> Void) {
        // SAFETY: an Atomic's storage is at self's address and does not move: locks live in classes or FixedArrays.
        unsafe withUnsafePointer(to: self) { unsafe body(UnsafeRawPointer($0)) }
    }
}
