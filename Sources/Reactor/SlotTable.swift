// Martlet
// SPDX-License-Identifier: Apache-2.0

// SAFETY (file): chunks are as large as `perChunk` and freed with the table; exactly the slots with `isOpen` are
// initialised.

/// A reactor's connections, by slot. Connections do not move; memory for them grows in steps and stays.
@safe
struct SlotTable: ~Copyable {
    private static var perChunk: Int { 64 }

    private let reactor: Int
    private var chunks: [UnsafeMutablePointer<Connection>]
    /// By slot: the generation that is open, or that the next connection gets.
    private var generations: [UInt32] = []
    private var isOpen: [Bool] = []
    private var free: [UInt32] = []

    init(reactor: Int) {
        self.reactor = reactor
        unsafe chunks = []
    }

    deinit {
        for slot in generations.indices where isOpen[slot] {
            // SAFETY: open slots are initialised.
            unsafe pointer(slot).deinitialize(count: 1)
        }
        for index in unsafe chunks.indices { unsafe chunks[index].deallocate() }
    }

    /// Slots that exist, open or not.
    var count: Int { generations.count }

    private func pointer(_ slot: Int) -> UnsafeMutablePointer<Connection> {
        // SAFETY: the array checks the chunk; the offset is below the chunk's size.
        unsafe chunks[slot / Self.perChunk] + slot % Self.perChunk
    }

    /// The connection named `id`, if it is still open. The pointer is good until ``remove(_:)``.
    @inline(__always)
    func find(_ id: ConnectionID) -> UnsafeMutablePointer<Connection>? {
        let slot = id.slot
        guard slot < generations.count, generations[slot] == id.generation, isOpen[slot] else { return nil }
        return unsafe pointer(slot)
    }

    /// The connection in `slot`, if one is open.
    func find(slot: Int) -> UnsafeMutablePointer<Connection>? {
        isOpen[slot] ? unsafe pointer(slot) : nil
    }

    /// Takes a slot for a connection made by `make`; nil when there is none.
    mutating func insert(_ make: (ConnectionID) -> Connection) -> UnsafeMutablePointer<Connection>? {
        let slot: Int
        if let spare = free.popLast() {
            slot = Int(spare)
        } else {
            guard generations.count < ConnectionID.slotLimit else { return nil }
            slot = generations.count
            generations.append(1)
            isOpen.append(false)
            if slot % Self.perChunk == 0 {
                unsafe chunks.append(UnsafeMutablePointer<Connection>.allocate(capacity: Self.perChunk))
            }
        }
        isOpen[slot] = true
        let place = unsafe pointer(slot)
        // SAFETY: the slot was free, so its memory is not initialised.
        unsafe place.initialize(to: make(ConnectionID(reactor: reactor, slot: slot, generation: generations[slot])))
        return unsafe place
    }

    /// Frees the slot of `id`, which is open.
    mutating func remove(_ id: ConnectionID) {
        let slot = id.slot
        precondition(isOpen[slot] && generations[slot] == id.generation, "a connection is closed twice")
        // SAFETY: open slots are initialised.
        unsafe pointer(slot).deinitialize(count: 1)
        isOpen[slot] = false
        generations[slot] &+= 1
        free.append(UInt32(slot))
    }
}
