// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform

/// Memory for segments, or for the shards' indices: chunks of one size, cut from extents of 2 MiB.
///
/// An extent starts on a multiple of its size, so that one huge page can map it. That happens when all of it is in use,
/// and so costs no memory: see ``collapse(limit:)``. A random read of a cache of some size misses the processor's
/// translation buffer where pages are of 4 KiB; decision 0026 has the figures.
///
/// A chunk as an allocation of its own would cost jemalloc 128 bytes of bookkeeping. Safe to use from any thread.
@usableFromInline
final class ChunkPool: Sendable {
    /// Bytes of an extent: of a huge page on x86-64, and on arm64 with pages of 4 KiB.
    static var extentBytes: Int { 2 << 20 }
    /// Calls of ``collapse(limit:)`` that an extent must stay whole for: what comes and goes is not worth the copying.
    private static var patience: UInt64 { 5 }
    /// Refusals in a row after which the kernel is taken to have no huge pages for this process.
    private static var refusalsMax: Int { 16 }

    /// A place for an extent; it stays when the extent goes, for another one.
    private struct Extent {
        var block: MemoryBlock
        /// Chunks that were cut off so far, from the front; what lies behind was never touched.
        var cut: Int
        /// Numbers of the chunks that came back.
        var returned: [UInt32] = []
        /// Whether `withRoom` has it.
        var isOffered = true
        /// Whether one huge page maps it.
        var isHuge = false
        /// Whether ``ChunkPool/collapse(limit:)`` works on it, outside of the lock.
        var isCollapsing = false
        /// Counts what came back, so that a candidate is known to have stayed whole.
        var returns: UInt64 = 0

        var isUnused: Bool { cut == returned.count }

        /// The number of a chunk that nobody has, of `count`; those first that came back.
        mutating func takeNumber(of count: Int) -> Int? {
            if let number = returned.popLast() { return Int(number) }
            guard cut < count else { return nil }
            cut += 1
            return cut - 1
        }
    }

    /// An extent that became full.
    private struct Candidate {
        let place: Int
        let returns: UInt64
        /// The pass in which it became full.
        let pass: UInt64
    }

    private struct State {
        var extents: [Extent] = []
        /// Where the extent of an address is; addresses count in extents.
        var places: [UInt: Int] = [:]
        /// Places without an extent.
        var vacant: [Int] = []
        /// Extents that may have chunks left, the one to take from last.
        var withRoom: [Int] = []
        /// Extents that became full, oldest first.
        var candidates: [Candidate] = []
        /// Extents without a chunk in use; one is kept.
        var unused = 0
        var huge = 0
        var pass: UInt64 = 0
        var refusals = 0
    }

    /// Bytes of a chunk: a power of two, from a page to an extent.
    let chunkBytes: Int
    private let arena: Arena
    private let state = Guarded(State())

    init(arena: Arena, chunkBytes: Int) {
        precondition(chunkBytes >= 4096 && Self.extentBytes % chunkBytes == 0, "an extent has whole chunks")
        self.arena = arena
        self.chunkBytes = chunkBytes
    }

    /// All chunks end with the pool.
    deinit {
        let blocks = state.withLock { state in state.places.values.map { state.extents[$0].block } }
        for block in blocks { arena.free(block, alignment: Self.extentBytes) }
    }

    /// Chunks of an extent.
    private var chunksPerExtent: Int { Self.extentBytes / chunkBytes }

    /// A chunk (not initialised), or nil when the system has no more memory.
    func take() -> MemoryBlock? {
        state.withLock { state in
            while let place = state.withRoom.last {
                if let chunk = take(from: place, &state) { return chunk }
                state.withRoom.removeLast()
                state.extents[place].isOffered = false
            }
            guard let block = arena.allocate(Self.extentBytes, alignment: Self.extentBytes) else { return nil }
            return take(from: add(block, &state), &state)
        }
    }

    private func take(from place: Int, _ state: inout State) -> MemoryBlock? {
        let wasUnused = state.extents[place].isUnused
        guard let number = state.extents[place].takeNumber(of: chunksPerExtent) else { return nil }
        if wasUnused { state.unused -= 1 }
        let extent = state.extents[place]
        if extent.cut == chunksPerExtent, extent.returned.isEmpty {
            state.candidates.append(Candidate(place: place, returns: extent.returns, pass: state.pass))
        }
        return extent.block.slice(number * chunkBytes, chunkBytes)
    }

    /// Gives a new extent a place, when no other has room.
    private func add(_ block: MemoryBlock, _ state: inout State) -> Int {
        let place = state.vacant.popLast() ?? state.extents.count
        if place == state.extents.count {
            state.extents.append(Extent(block: block, cut: 0))
        } else {
            let returns = state.extents[place].returns
            state.extents[place] = Extent(block: block, cut: 0, returns: returns)
        }
        state.places[Self.number(block)] = place
        state.unused += 1
        state.withRoom.append(place)
        return place
    }

    /// Takes a chunk back, whose pages go to the kernel at once. It must not be used again.
    func give(_ chunk: MemoryBlock) {
        chunk.releasePages()
        let released = state.withLock { state -> MemoryBlock? in
            guard let place = state.places[Self.number(chunk)] else { preconditionFailure("a chunk of another pool") }
            let offset = Int(chunk.address - state.extents[place].block.address)
            state.extents[place].returned.append(UInt32(offset / chunkBytes))
            state.extents[place].returns += 1
            if state.extents[place].isHuge {
                state.extents[place].isHuge = false
                state.huge -= 1
            }
            if !state.extents[place].isOffered {
                state.extents[place].isOffered = true
                state.withRoom.append(place)
            }
            if state.extents[place].isUnused { state.unused += 1 }
            return dropIfUnused(place, &state)
        }
        if let released { arena.free(released, alignment: Self.extentBytes) }
    }

    /// Forgets an extent that nobody uses, unless it is the only one; its block then is the caller's to free.
    private func dropIfUnused(_ place: Int, _ state: inout State) -> MemoryBlock? {
        let extent = state.extents[place]
        guard state.unused > 1, extent.isUnused, !extent.isCollapsing else { return nil }
        state.unused -= 1
        state.places[Self.number(extent.block)] = nil
        state.vacant.append(place)
        // Nothing is left to take of it, until the place has another.
        state.extents[place].cut = chunksPerExtent
        state.extents[place].returned = []
        return extent.block
    }

    /// The number of the extent that a block is in.
    private static func number(_ block: MemoryBlock) -> UInt { block.address / UInt(extentBytes) }
}

extension ChunkPool {
    /// Bytes that huge pages map.
    var hugeBytes: Int { state.withLock { $0.huge } * Self.extentBytes }

    /// Bytes of its extents, used or not; of what is not used, nothing is resident.
    var extentsByteCount: Int { state.withLock { $0.places.count } * Self.extentBytes }

    /// Lets one huge page each map up to `limit` extents that have stayed wholly in use for some calls.
    ///
    /// Each costs a fraction of a millisecond, in which nobody waits for the pool. To be called some times a second by
    /// one thread.
    func collapse(limit: Int) {
        state.withLock { $0.pass += 1 }
        for _ in 0..<limit {
            guard let next = nextCandidate() else { return }
            // The extent stays the pool's while `isCollapsing`.
            let isHuge = next.block.collapsePages()
            if let released = finish(next.place, isHuge: isHuge) { arena.free(released, alignment: Self.extentBytes) }
        }
    }

    /// The next extent to work on, marked as `isCollapsing`; nil when there is none.
    private func nextCandidate() -> (place: Int, block: MemoryBlock)? {
        state.withLock { state in
            var passed = 0
            defer { state.candidates.removeFirst(passed) }
            for candidate in state.candidates {
                guard candidate.pass + Self.patience <= state.pass else { return nil }
                passed += 1
                let extent = state.extents[candidate.place]
                guard extent.returns == candidate.returns, !extent.isHuge, state.refusals < Self.refusalsMax
                else { continue }
                state.extents[candidate.place].isCollapsing = true
                return (candidate.place, extent.block)
            }
            return nil
        }
    }

    /// Notes what became of an extent. Chunks that came back meanwhile have pages again: they are released again.
    private func finish(_ place: Int, isHuge: Bool) -> MemoryBlock? {
        state.withLock { state in
            state.refusals = isHuge ? 0 : state.refusals + 1
            state.extents[place].isCollapsing = false
            let extent = state.extents[place]
            guard !extent.returned.isEmpty else {
                // It may have been whole, not whole, and whole again meanwhile, and so be a candidate twice.
                if isHuge, !extent.isHuge {
                    state.extents[place].isHuge = true
                    state.huge += 1
                }
                return nil
            }
            for number in extent.returned {
                // A chunk that nobody has, and that nobody can take while the lock is held.
                extent.block.slice(Int(number) * chunkBytes, chunkBytes).releasePages()
            }
            return dropIfUnused(place, &state)
        }
    }
}
