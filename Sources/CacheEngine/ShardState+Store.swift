// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// How a store treats what is there already. Source: memcached protocol.txt, "Storage commands" and "Meta Set".
@usableFromInline
package enum StoreMode: UInt8, BitwiseCopyable, Sendable {
    case set, add, replace, append, prepend, appendOrCreate, prependOrCreate, compareAndSet
}

/// What became of a store.
@usableFromInline
package enum StoreOutcome: UInt8, BitwiseCopyable, Sendable {
    case stored, notStored, exists, notFound
    /// The shard found no room; the engine may make some in other shards and try again.
    case outOfMemory
}

/// A store as the client asked for it, times already in the engine's seconds.
@usableFromInline
package struct StoreRequest: BitwiseCopyable, Sendable {
    /// How it treats what is there.
    @usableFromInline package var mode: StoreMode
    /// The client's opaque flags.
    @usableFromInline package var clientFlags: UInt32
    /// When the item expires, in the engine's seconds; 0 is never.
    @usableFromInline package var expiry: UInt32
    /// The version that must be there; 0 compares nothing.
    @usableFromInline package var compare: UInt64
    /// The version that the stored item gets.
    @usableFromInline package var version: UInt64
    /// A compare with an older version stores, and marks the item stale (meta set with I).
    @usableFromInline package var allowsStale = false
    /// Whether the key came base64 encoded.
    @usableFromInline package var isKeyBinary = false

    /// A store that leaves no stale items and has a text key.
    @inlinable
    package init(mode: StoreMode, clientFlags: UInt32, expiry: UInt32, compare: UInt64, version: UInt64) {
        self.mode = mode
        self.clientFlags = clientFlags
        self.expiry = expiry
        self.compare = compare
        self.version = version
    }
}

/// What a store did, beside its outcome.
@usableFromInline
package struct StoreResult: BitwiseCopyable, Sendable {
    /// What became of it.
    @usableFromInline package var outcome: StoreOutcome
    /// The item's version afterwards, when stored.
    @usableFromInline package var version: UInt64 = 0
    /// The value's length afterwards, when stored.
    @usableFromInline package var valueLength = 0
    /// For a compare: whether an item was there to compare with.
    @usableFromInline package var compared = false

    /// Bytes that there was no room for, when out of memory.
    @usableFromInline package var neededBytes = 0

    /// A result that stored nothing, or whose particulars follow.
    @inlinable
    package init(_ outcome: StoreOutcome) { self.outcome = outcome }

    @inlinable
    init(outOfMemoryFor bytes: Int) {
        outcome = .outOfMemory
        neededBytes = bytes
    }
}

extension ShardState {
    /// What the rules say about a store, before any memory is touched.
    @usableFromInline enum Decision: BitwiseCopyable {
        case refuse(StoreOutcome)
        case put
        case putStale
        case join
    }

    @inlinable
    func decide(_ request: StoreRequest, _ old: Item?) -> Decision {
        guard let old else {
            switch request.mode {
            case .set, .add, .appendOrCreate, .prependOrCreate: return .put
            case .compareAndSet: return .refuse(.notFound)
            case .replace, .append, .prepend: return .refuse(.notStored)
            }
        }
        switch request.mode {
        case .set, .replace: return .put
        case .add: return .refuse(.notStored)
        case .compareAndSet:
            if request.compare != 0 && request.compare == old.version { return .put }
            if request.compare != 0 && request.allowsStale && request.compare < old.version { return .putStale }
            return .refuse(.exists)
        case .append, .prepend, .appendOrCreate, .prependOrCreate:
            return request.compare == 0 || request.compare == old.version ? .join : .refuse(.exists)
        }
    }

    /// Stores a value. May reclaim.
    @inlinable
    package mutating func store(
        _ hash: UInt64, key: Span<UInt8>, value: Span<UInt8>, _ request: StoreRequest, now: UInt32
    ) -> StoreResult {
        let old = find(hash, key, now: now)
        switch decide(request, old) {
        case .refuse(let outcome): return refuse(outcome, request, old, now: now)
        case .put:
            if let old, let result = overwrite(old, value, request, now: now) { return result }
            return put(hash, key: key, value: value, request, old, now: now, isStale: false)
        case .putStale: return put(hash, key: key, value: value, request, old, now: now, isStale: true)
        case .join: return join(hash, key: key, value: value, request, now: now)
        }
    }

    @usableFromInline
    mutating func refuse(_ outcome: StoreOutcome, _ request: StoreRequest, _ old: Item?, now: UInt32) -> StoreResult {
        var result = StoreResult(outcome)
        result.compared = old != nil && request.mode == .compareAndSet
        // A refused add still counts as interest in the item.
        if request.mode == .add, var old { old.setAccessTime(now: now) }
        return result
    }

    /// Writes over an item of the same shape and size; nil when it has another, or somebody sends from it.
    @inlinable @inline(__always)
    mutating func overwrite(_ old: Item, _ value: Span<UInt8>, _ request: StoreRequest, now: UInt32) -> StoreResult? {
        let shape = ItemShape(
            keyLength: old.keyLength, valueLength: value.count, clientFlags: request.clientFlags,
            expiry: request.expiry, isKeyBinary: request.isKeyBinary)
        var word = shape.word(now: now)
        guard (word ^ old.word) & Item.Mark.shape == 0, old.valueLength == value.count else { return nil }
        let slot = self.slot(of: old.location)
        if segments[slot].pins != 0 { return nil }
        // A write is interest too: the item keeps its reads, and gains one.
        let reads = old.word & Item.Mark.reads
        word |= reads == Item.Mark.reads ? reads : reads &+ Item.Mark.oneRead
        let block = old.block
        block.store(request.version, at: 0)
        block.store(word, at: 8)
        if request.expiry != 0 {
            block.store(request.expiry, at: 16)
            let earliest = segments[slot].earliestExpiry
            if earliest == 0 || request.expiry < earliest { segments[slot].earliestExpiry = request.expiry }
        }
        if request.clientFlags != 0 { block.store(request.clientFlags, at: request.expiry != 0 ? 20 : 16) }
        block.copy(value, at: old.valueOffset)
        statistics.totalItems &+= 1
        var result = StoreResult(.stored)
        result.version = request.version
        result.valueLength = value.count
        result.compared = request.mode == .compareAndSet
        return result
    }

    @usableFromInline
    mutating func put(
        _ hash: UInt64, key: Span<UInt8>, value: Span<UInt8>, _ request: StoreRequest, _ old: Item?, now: UInt32,
        isStale: Bool
    ) -> StoreResult {
        let inherited = isStale ? old : nil
        let marks = (isStale ? Item.Mark.stale : 0) | ((inherited?.word ?? 0) & Item.Mark.tokenSent)
        let shape = ItemShape(
            keyLength: key.count, valueLength: value.count, clientFlags: request.clientFlags,
            expiry: inherited?.expiry ?? request.expiry, isKeyBinary: request.isKeyBinary)
        guard let item = create(hash, key: key, shape, version: request.version, now: now, replacing: old) else {
            return StoreResult(outOfMemoryFor: shape.size)
        }
        item.block.copy(value, at: item.valueOffset)
        return finish(item, marks, request, compared: old != nil && request.mode == .compareAndSet)
    }

    private func finish(_ item: Item, _ marks: UInt64, _ request: StoreRequest, compared: Bool) -> StoreResult {
        var item = item
        if marks != 0 { item.write(item.word | marks) }
        var result = StoreResult(.stored)
        result.version = request.version
        result.valueLength = item.valueLength
        result.compared = compared
        return result
    }

    /// Appends to or prepends to the item of `key`, which is there.
    @usableFromInline
    mutating func join(
        _ hash: UInt64, key: Span<UInt8>, value: Span<UInt8>, _ request: StoreRequest, now: UInt32
    ) -> StoreResult {
        guard let before = find(hash, key, now: now) else { return StoreResult(.notStored) }
        let shape = ItemShape(
            keyLength: key.count, valueLength: before.valueLength + value.count, clientFlags: before.clientFlags,
            expiry: before.expiry, isKeyBinary: before.isKeyBinary)
        // memcached answers a join that would be too large like one to nothing, and the item stays.
        guard shape.memcachedSize <= itemSizeMax else { return StoreResult(.notStored) }
        let isMain = segments[slot(of: before.location)].place == .main
        protect(before)
        guard let location = allocate(shape.size, toMain: isMain, now: now) else {
            return StoreResult(outOfMemoryFor: shape.size)
        }
        // Making room may have moved or dropped the old item.
        let fresh = write(shape, key, request.version, at: location, now: now)
        guard let old = find(hash, key, now: now) else {
            abandon(fresh)
            return StoreResult(outOfMemoryFor: shape.size)
        }
        let oldAtFront = request.mode == .append || request.mode == .appendOrCreate
        let start = fresh.valueOffset
        fresh.block.copy(
            old.block, from: old.valueOffset, length: old.valueLength, at: start + (oldAtFront ? 0 : value.count))
        fresh.block.copy(value, at: start + (oldAtFront ? old.valueLength : 0))
        link(fresh, hash, replacing: old)
        return finish(fresh, 0, request, compared: false)
    }

    /// Gives an item the reads that let it survive the reclaiming that its own replacement may cause.
    func protect(_ item: Item) {
        var item = item
        item.write(item.word | Item.Mark.reads)
    }

    /// Allocates an item, writes its header and key, and puts it in the index in the place of `old`. The value is the
    /// caller's to write. Nil when there is no room. May reclaim.
    package mutating func create(
        _ hash: UInt64, key: Span<UInt8>, _ shape: ItemShape, version: UInt64, now: UInt32, replacing old: Item?
    ) -> Item? {
        var old = old
        let toMain: Bool
        if let old {
            toMain = segments[slot(of: old.location)].place == .main
        } else {
            toMain = ghost.take(hash)
            if toMain { statistics.ghostHits += 1 }
        }
        let relocationsBefore = relocations
        guard let location = allocate(shape.size, toMain: toMain, now: now) else { return nil }
        let item = write(shape, key, version, at: location, now: now)
        if old != nil, relocations != relocationsBefore { old = find(hash, key, now: now) }
        link(item, hash, replacing: old)
        return item
    }

    /// Writes the header and key of a new item into its allocated place.
    func write(_ shape: ItemShape, _ key: Span<UInt8>, _ version: UInt64, at location: UInt32, now: UInt32) -> Item {
        let slot = slot(of: location)
        let offset = Int(location & ((1 << segmentShift) - 1))
        let block = segments[slot].block.slice(offset, segments[slot].block.count - offset)
        shape.writeHeader(to: block, key: key, version: version, now: now)
        return Item(block: block, location: location)
    }

    /// Puts a written item in the index, in the place of `old` if there is one, and in the accounts.
    mutating func link(_ item: Item, _ hash: UInt64, replacing old: Item?) {
        if let old {
            guard let position = index.position(of: old.location, hash: hash) else {
                preconditionFailure("an item to replace is not in the index")
            }
            index.setLocation(item.location, at: position)
            kill(old)
        } else {
            let before = index.byteCount
            index.insert(hash, item.location)
            budget.chargeIndex(index.byteCount - before)
        }
        segments[slot(of: item.location)].noteExpiry(item.expiry)
        statistics.items += 1
        statistics.totalItems &+= 1
        statistics.itemBytes += item.size
    }

    /// Drops an item that was written but never linked.
    mutating func abandon(_ item: Item) {
        statistics.items += 1
        statistics.itemBytes += item.size
        kill(item)
    }
}
