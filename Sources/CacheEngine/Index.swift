// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory
public import Synchronization

/// A shard's index: linear hashing over cache lines of ten entries, with overflow lines where a bucket has more.
///
/// A line holds ten 16-bit tags, the number of its overflow line, and ten 32-bit locations. A lookup compares all tags
/// of a line with three word operations and touches an item only where a tag matches, so a miss rarely leaves the line.
/// The table grows by one bucket at a time; the tag holds hash bits 6 to 21, so a split needs no keys. Line numbers:
/// primary lines count from 0; overflow lines have the highest bit set. Source: Litwin, "Linear Hashing" (VLDB 1980).
@usableFromInline
struct Index: ~Copyable {
    @usableFromInline static var entriesPerLine: Int { 10 }
    @usableFromInline static var linesPerChunk: Int { 64 }
    @usableFromInline static var chunkBytes: Int { 4096 }
    @usableFromInline static var overflowBit: UInt32 { 1 << 31 }
    @usableFromInline static var firstLevel: Int { 6 }
    /// Past this level the tag has no more bits to split by, and chains grow instead: 4 million buckets a shard.
    static var lastLevel: Int { 22 }

    /// The primary lines' chunks, for prefetching without the lock; none is freed before the engine ends.
    @usableFromInline var hints: AddressTable
    /// The overflow lines' chunks, likewise.
    @usableFromInline var overflowHints: AddressTable
    /// Level and bucket count, for prefetching without the lock.
    @usableFromInline let geometry: Atomic<UInt64>
    @usableFromInline var primary: Table<MemoryBlock>
    @usableFromInline var overflow: Table<MemoryBlock>
    @usableFromInline var level = Index.firstLevel
    @usableFromInline var bucketCount = 1 << Index.firstLevel
    /// Entries in the index.
    @usableFromInline var count = 0
    private var freeOverflow: UInt32 = 0
    private var overflowLines: UInt32 = 0
    private var scratch: Table<UInt64>
    private let chunks: ChunkPool

    init(chunks: ChunkPool) {
        self.chunks = chunks
        primary = Table(capacity: 4)
        overflow = Table(capacity: 4)
        scratch = Table(capacity: 32)
        hints = AddressTable(capacity: 16, blockBytes: Self.chunkBytes)
        overflowHints = AddressTable(capacity: 16, blockBytes: Self.chunkBytes)
        geometry = Atomic(Self.geometry(Self.firstLevel, 1 << Self.firstLevel))
        addPrimary()
    }

    private static func geometry(_ level: Int, _ bucketCount: Int) -> UInt64 {
        UInt64(level) << 32 | UInt64(bucketCount)
    }

    private mutating func addPrimary() {
        let chunk = takeChunk()
        primary.append(chunk)
        hints.append(chunk)
    }

    /// A chunk of zeros, for as long as the engine lives.
    private func takeChunk() -> MemoryBlock {
        guard let chunk = chunks.take() else { preconditionFailure("no memory left for the index") }
        chunk.fill(0, from: 0, length: Self.chunkBytes)
        return chunk
    }

    /// Bytes of index memory.
    var byteCount: Int { (primary.count + overflow.count) * Self.chunkBytes }

    /// Forgets every entry. The chunks stay, for the entries to come.
    mutating func removeAll() {
        level = Self.firstLevel
        bucketCount = 1 << Self.firstLevel
        geometry.store(Self.geometry(level, bucketCount), ordering: .releasing)
        for index in 0..<primary.count { primary[index].clearRelaxed(from: 0, length: Self.chunkBytes) }
        for index in 0..<overflow.count { overflow[index].clearRelaxed(from: 0, length: Self.chunkBytes) }
        count = 0
        freeOverflow = 0
        overflowLines = 0
    }
}

/// Where an entry is: a line and one of its ten places.
@usableFromInline
struct IndexPosition: BitwiseCopyable {
    @usableFromInline let line: UInt32
    @usableFromInline let place: Int

    @inlinable @inline(__always)
    init(line: UInt32, place: Int) {
        self.line = line
        self.place = place
    }
}

extension Index {
    @inlinable @inline(__always)
    static func tag(_ hash: UInt64) -> UInt16 { UInt16(truncatingIfNeeded: hash >> 6) }

    @inlinable @inline(__always)
    func bucket(_ hash: UInt64) -> UInt32 {
        let wide = Int(truncatingIfNeeded: hash) & ((2 &<< level) &- 1)
        return UInt32(truncatingIfNeeded: wide < bucketCount ? wide : wide & ((1 &<< level) &- 1))
    }

    /// The chunk that holds `line`.
    @inlinable @inline(__always)
    func chunk(_ line: UInt32) -> MemoryBlock {
        let number = Int(truncatingIfNeeded: line & ~Self.overflowBit) >> 6
        if line & Self.overflowBit == 0 { return hints.usualBlock(number) ?? primary[number] }
        return overflowHints.usualBlock(number) ?? overflow[number]
    }

    @inlinable @inline(__always)
    static func offset(_ line: UInt32) -> Int { (Int(truncatingIfNeeded: line) & 63) << 6 }

    @inlinable @inline(__always)
    func prefetch(_ hash: UInt64) { prefetchHint(lineHint(hash)) }

    /// The address of the line of `hash`, as a hint: without the lock, and perhaps outdated. 0 if there is none.
    @inlinable @inline(__always)
    func lineHint(_ hash: UInt64) -> UInt64 {
        let geometry = geometry.load(ordering: .acquiring)
        let level = geometry >> 32
        let count = geometry & 0xFFFF_FFFF
        let wide = hash & ((2 &<< level) &- 1)
        let bucket = wide < count ? wide : wide & ((1 &<< level) &- 1)
        let chunk = hints.hint(Int(truncatingIfNeeded: bucket >> 6))
        return chunk == 0 ? 0 : chunk &+ (bucket & 63) << 6
    }

    /// The address of the overflow line that follows the line at `line`, as a hint; 0 if there is none.
    @inlinable @inline(__always)
    func overflowHint(after line: UInt64) -> UInt64 {
        let next = loadHint32(line &+ 20)
        guard next & Self.overflowBit != 0 else { return 0 }
        let number = next & ~Self.overflowBit
        let chunk = overflowHints.hint(Int(truncatingIfNeeded: number >> 6))
        return chunk == 0 ? 0 : chunk &+ UInt64(number & 63) << 6
    }

    @inlinable @inline(__always)
    func location(_ position: IndexPosition) -> UInt32 {
        chunk(position.line).load(Self.offset(position.line) &+ 24 &+ position.place &* 4, as: UInt32.self)
    }

    @inlinable @inline(__always)
    func setLocation(_ location: UInt32, at position: IndexPosition) {
        chunk(position.line).storeRelaxed(location, at: Self.offset(position.line) &+ 24 &+ position.place &* 4)
    }

    /// Calls `accept` for each entry whose tag matches, until it returns true; gives that entry's position.
    @inlinable @inline(__always)
    func search(_ hash: UInt64, _ accept: (UInt32) -> Bool) -> IndexPosition? {
        let pattern = UInt64(Self.tag(hash)) &* 0x0001_0001_0001_0001
        var line = bucket(hash)
        while true {
            let chunk = self.chunk(line)
            let base = Self.offset(line)
            var next: UInt32 = 0
            var firstPlace = 0
            while firstPlace < Self.entriesPerLine {
                let tags = chunk.load(base &+ firstPlace &* 2, as: UInt64.self)
                let difference = tags ^ pattern
                var matches = (difference &- 0x0001_0001_0001_0001) & ~difference & 0x8000_8000_8000_8000
                if firstPlace == 8 {
                    matches &= 0x8000_8000
                    next = UInt32(truncatingIfNeeded: tags >> 32)
                }
                while matches != 0 {
                    let place = firstPlace &+ matches.trailingZeroBitCount >> 4
                    let location = chunk.load(base &+ 24 &+ place &* 4, as: UInt32.self)
                    if location != 0, accept(location) { return IndexPosition(line: line, place: place) }
                    matches &= matches &- 1
                }
                firstPlace &+= 4
            }
            if next == 0 { return nil }
            line = next
        }
    }

    /// The position of the entry that points to `location`.
    @inlinable @inline(__always)
    func position(of location: UInt32, hash: UInt64) -> IndexPosition? { search(hash) { $0 == location } }

    /// Adds an entry. The key must not be in the index yet.
    mutating func insert(_ hash: UInt64, _ location: UInt32) {
        place(Self.tag(hash), location, from: bucket(hash))
        count += 1
        // Split at 11 entries a bucket on average: 10.6 bytes an item, overflow lines included (8.5 entries: 11.1
        // bytes).
        if count > bucketCount &* 11 { split() }
    }

    /// Removes the entry at `position`, which belongs to `hash`. An entry of the chain's last line takes its place, so
    /// that no line but the last has room: or a cache that evicts would keep an overflow line for as long as the last
    /// entry in it stays, which is a fifth of the index.
    mutating func remove(_ position: IndexPosition, hash: UInt64) {
        count -= 1
        var last = position.line
        while true {
            let next = chunk(last).load(Self.offset(last) + 20, as: UInt32.self)
            if next == 0 { break }
            last = next
        }
        var hole = position
        if last != position.line, let donor = someEntry(of: last) {
            let tag = chunk(last).load(Self.offset(last) + donor * 2, as: UInt16.self)
            write(tag, location(IndexPosition(line: last, place: donor)), at: position)
            hole = IndexPosition(line: last, place: donor)
        }
        write(0, 0, at: hole)
        if last & Self.overflowBit != 0 { freeIfEmpty(last, from: bucket(hash)) }
    }

    private func write(_ tag: UInt16, _ location: UInt32, at position: IndexPosition) {
        let chunk = self.chunk(position.line)
        let base = Self.offset(position.line)
        chunk.storeRelaxed(location, at: base + 24 + position.place * 4)
        chunk.storeRelaxed(tag, at: base + position.place * 2)
    }

    /// The place of an entry of a line; nil when there is none.
    private func someEntry(of line: UInt32) -> Int? {
        let chunk = self.chunk(line)
        let base = Self.offset(line)
        var place = Self.entriesPerLine - 1
        while place >= 0, chunk.load(base + 24 + place * 4, as: UInt32.self) == 0 { place -= 1 }
        return place < 0 ? nil : place
    }

    private mutating func place(_ tag: UInt16, _ location: UInt32, from first: UInt32) {
        var line = first
        while true {
            let chunk = self.chunk(line)
            let base = Self.offset(line)
            for place in 0..<Self.entriesPerLine where chunk.load(base + 24 + place * 4, as: UInt32.self) == 0 {
                write(tag, location, at: IndexPosition(line: line, place: place))
                return
            }
            let next = chunk.load(base + 20, as: UInt32.self)
            if next != 0 {
                line = next
            } else {
                let fresh = allocateOverflow()
                self.chunk(line).storeRelaxed(fresh, at: base + 20)
                line = fresh
            }
        }
    }

    private mutating func allocateOverflow() -> UInt32 {
        if freeOverflow != 0 {
            let line = freeOverflow
            let chunk = self.chunk(line)
            freeOverflow = chunk.load(Self.offset(line) + 20, as: UInt32.self)
            chunk.clearRelaxed(from: Self.offset(line), length: 64)
            return line
        }
        if Int(overflowLines) == overflow.count * Self.linesPerChunk {
            let chunk = takeChunk()
            overflow.append(chunk)
            overflowHints.append(chunk)
        }
        let line = overflowLines | Self.overflowBit
        overflowLines += 1
        return line
    }

    private mutating func freeOverflow(_ line: UInt32) {
        chunk(line).storeRelaxed(freeOverflow, at: Self.offset(line) + 20)
        freeOverflow = line
    }

    private mutating func freeIfEmpty(_ line: UInt32, from first: UInt32) {
        let chunk = self.chunk(line)
        let base = Self.offset(line)
        for place in 0..<Self.entriesPerLine where chunk.load(base + 24 + place * 4, as: UInt32.self) != 0 { return }
        let next = chunk.load(base + 20, as: UInt32.self)
        var before = first
        while true {
            let after = self.chunk(before).load(Self.offset(before) + 20, as: UInt32.self)
            precondition(after != 0, "an overflow line is not in its bucket's chain")
            if after == line { break }
            before = after
        }
        self.chunk(before).storeRelaxed(next, at: Self.offset(before) + 20)
        freeOverflow(line)
    }

    private mutating func split() {
        guard level < Self.lastLevel else { return }
        let old = UInt32(bucketCount - 1 << level)
        let new = UInt32(bucketCount)
        if bucketCount == primary.count * Self.linesPerChunk { addPrimary() }
        collect(old)
        bucketCount += 1
        let bit = level - Self.firstLevel
        for index in 0..<scratch.count {
            let entry = scratch[index]
            let tag = UInt16(truncatingIfNeeded: entry >> 32)
            place(tag, UInt32(truncatingIfNeeded: entry), from: (tag >> bit) & 1 == 0 ? old : new)
        }
        if bucketCount == 2 << level { level += 1 }
        geometry.store(Self.geometry(level, bucketCount), ordering: .releasing)
    }

    /// Takes every entry out of a bucket's chain into `scratch`.
    private mutating func collect(_ bucket: UInt32) {
        scratch.removeAll()
        var line = bucket
        while true {
            let chunk = self.chunk(line)
            let base = Self.offset(line)
            for place in 0..<Self.entriesPerLine {
                let location = chunk.load(base + 24 + place * 4, as: UInt32.self)
                guard location != 0 else { continue }
                scratch.append(UInt64(chunk.load(base + place * 2, as: UInt16.self)) << 32 | UInt64(location))
            }
            let next = chunk.load(base + 20, as: UInt32.self)
            if line == bucket { chunk.clearRelaxed(from: base, length: 64) } else { freeOverflow(line) }
            if next == 0 { return }
            line = next
        }
    }

    /// Calls `body` with the location of each entry of a bucket.
    func forEach(inBucket bucket: UInt32, _ body: (UInt32) -> Void) {
        var line = bucket
        while true {
            let chunk = self.chunk(line)
            let base = Self.offset(line)
            for place in 0..<Self.entriesPerLine {
                let location = chunk.load(base + 24 + place * 4, as: UInt32.self)
                if location != 0 { body(location) }
            }
            line = chunk.load(base + 20, as: UInt32.self)
            if line == 0 { return }
        }
    }
}
