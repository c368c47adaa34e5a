// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Remembers the keys that left the small queue unread, so that one that comes back goes to the main queue at once.
///
/// One byte a remembered key: its hash picks the place, seven more bits tell it apart (1 in 128 is mistaken, which only
/// promotes an item early). A later eviction with the same place replaces it, so a key is remembered for about as many
/// evictions as there are places. Source: S3-FIFO (SOSP 2023), its ghost queue.
struct Ghost: ~Copyable {
    private var marks: MemoryBlock?
    private let arena: Arena

    init(arena: Arena) {
        self.arena = arena
        marks = nil
    }

    /// Gives the memory back; the table is not used afterwards.
    func destroy() {
        if let marks { arena.free(marks) }
    }

    var byteCount: Int { marks?.count ?? 0 }

    /// Sizes the table to about `places`; forgets everything when that changes it. Returns the growth in bytes.
    mutating func prepare(places: Int) -> Int {
        let before = byteCount
        if let marks, places <= marks.count * 2, places * 4 >= marks.count { return 0 }
        let size = max(places & ~4095, 4096)
        if size == before { return 0 }
        removeAll()
        guard let fresh = arena.allocate(size) else { return -before }
        fresh.fill(0, from: 0, length: size)
        marks = fresh
        return size - before
    }

    mutating func removeAll() {
        if let marks { arena.free(marks) }
        marks = nil
    }

    private static func position(_ hash: UInt64, _ count: Int) -> Int {
        // From the lower half: the upper bits are the shard's number, the same for all keys here.
        Int(((hash & 0xFFFF_FFFF) &* UInt64(count)) >> 32)
    }

    private static func mark(_ hash: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: hash >> 2) | 1 }

    func insert(_ hash: UInt64) {
        guard let marks else { return }
        marks.store(Self.mark(hash), at: Self.position(hash, marks.count))
    }

    /// Whether the key was remembered; it is forgotten with that.
    func take(_ hash: UInt64) -> Bool {
        guard let marks else { return false }
        let position = Self.position(hash, marks.count)
        guard marks.load(position, as: UInt8.self) == Self.mark(hash) else { return false }
        marks.store(UInt8(0), at: position)
        return true
    }
}
