// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// One item where it lies in its segment: a position, valid only under the lock of the shard that gave it.
///
/// The layout, little-endian and at any alignment:
///
///     version 8 | lengths, access time and marks 8 | expiry 4? | client flags 4? | long length 4? | key | value
///
/// so 16 bytes for an item without expiry and flags, 20 with one of them. The second word, from its lowest bit: key
/// length 8, value length 20, access time in seconds 24, reads 2, then one bit each for the marks below.
@usableFromInline
package struct Item: BitwiseCopyable, Sendable {
    /// The item's bytes and whatever follows them in its segment.
    @usableFromInline let block: MemoryBlock
    /// Where the index finds it: segment slot and offset.
    @usableFromInline let location: UInt32
    /// The second header word as last read or written through this value.
    @usableFromInline var word: UInt64

    @inlinable @inline(__always)
    init(block: MemoryBlock, location: UInt32) {
        self.block = block
        self.location = location
        word = block.load(8, as: UInt64.self)
    }
}

extension Item {
    /// Bits of the second header word.
    @usableFromInline enum Mark {
        @usableFromInline static var reads: UInt64 { 3 << 52 }
        @usableFromInline static var oneRead: UInt64 { 1 << 52 }
        @usableFromInline static var fetched: UInt64 { 1 << 54 }
        @usableFromInline static var stale: UInt64 { 1 << 55 }
        @usableFromInline static var tokenSent: UInt64 { 1 << 56 }
        @usableFromInline static var binaryKey: UInt64 { 1 << 57 }
        @usableFromInline static var hasExpiry: UInt64 { 1 << 58 }
        @usableFromInline static var hasFlags: UInt64 { 1 << 59 }
        @usableFromInline static var hasLongLength: UInt64 { 1 << 60 }
        @usableFromInline static var dead: UInt64 { 1 << 61 }
        @usableFromInline static var absent: UInt64 { 1 << 62 }
        @usableFromInline static var lingers: UInt64 { 1 << 63 }
        /// What an overwrite in place must keep for the item to have the same size.
        @usableFromInline static var shape: UInt64 { hasExpiry | hasFlags | hasLongLength }
    }

    /// Values below this length keep it in the header word.
    @usableFromInline static var shortLengthLimit: Int { 1 << 20 }
    @usableFromInline static var timeMask: UInt64 { (1 << 24) - 1 }

    @inlinable @inline(__always)
    static func headerSize(_ word: UInt64) -> Int {
        16 &+ 4 &* Int(truncatingIfNeeded: ((word >> 58) & 1) &+ ((word >> 59) & 1) &+ ((word >> 60) & 1))
    }

    @inlinable @inline(__always)
    mutating func write(_ word: UInt64) {
        self.word = word
        block.store(word, at: 8)
    }

    /// Bytes of the key, 1 to 250.
    @inlinable package var keyLength: Int {
        @inline(__always) get { Int(truncatingIfNeeded: word & 0xFF) }
    }
    /// Where the key starts in the item.
    @inlinable package var keyOffset: Int {
        @inline(__always) get { Self.headerSize(word) }
    }
    /// Bytes of the value.
    @inlinable package var valueLength: Int {
        @inline(__always) get {
            if word & Mark.hasLongLength != 0 {
                return Int(block.load(Self.headerSize(word) &- 4, as: UInt32.self))
            }
            return Int(truncatingIfNeeded: (word >> 8) & 0xFFFFF)
        }
    }
    /// Where the value starts in the item.
    @inlinable package var valueOffset: Int {
        @inline(__always) get { Self.headerSize(word) &+ keyLength }
    }
    /// Bytes of the whole item, header and key included.
    @inlinable package var size: Int {
        @inline(__always) get { valueOffset &+ valueLength }
    }
    /// The item's bytes, header first: for copying parts of it into a reply.
    @inlinable package var bytes: MemoryBlock {
        @inline(__always) get { block }
    }

    /// The version, which is the CAS value that clients see.
    @inlinable package var version: UInt64 {
        @inline(__always) get { block.load(0, as: UInt64.self) }
    }
    /// Gives the item a new version.
    @inlinable package func setVersion(_ version: UInt64) { block.store(version, at: 0) }

    /// When the item expires, in the engine's seconds; 0 is never.
    @inlinable package var expiry: UInt32 {
        @inline(__always) get { word & Mark.hasExpiry != 0 ? block.load(16, as: UInt32.self) : 0 }
    }
    /// The client's opaque flags.
    @inlinable package var clientFlags: UInt32 {
        @inline(__always) get {
            if word & Mark.hasFlags == 0 { return 0 }
            return block.load(word & Mark.hasExpiry != 0 ? 20 : 16, as: UInt32.self)
        }
    }

    /// Seconds since the item was stored or last read, at `now` (exact up to 194 days).
    package func secondsSinceAccess(now: UInt32) -> UInt32 {
        UInt32(truncatingIfNeeded: (UInt64(now) &- (word >> 28)) & Self.timeMask)
    }

    /// Whether the item was read since it was stored.
    @inlinable package var isFetched: Bool { word & Mark.fetched != 0 }
    /// Whether it was marked stale (meta delete with I).
    @inlinable package var isStale: Bool { word & Mark.stale != 0 }
    /// Whether a client was already told that it may recache (W).
    @inlinable package var isTokenSent: Bool { word & Mark.tokenSent != 0 }
    /// Whether the key came base64 encoded, and is to be shown so.
    @inlinable package var isKeyBinary: Bool { word & Mark.binaryKey != 0 }

    /// Whether it stands for a row that the store behind the cache definitely does not have: no item for any client.
    @inlinable package var isAbsent: Bool { @inline(__always) get { word & Mark.absent != 0 } }

    /// Lets it stay behind its expiry for as long as the engine is configured to: no reader finds it then but who asks
    /// for such items.
    package mutating func linger() { write(word | Mark.lingers) }

    /// When it leaves, in the engine's seconds; 0 is never.
    @inline(__always)
    func end(_ lingerSeconds: UInt32) -> UInt32 {
        let expiry = expiry
        return word & Mark.lingers != 0 && expiry != 0 ? expiry &+ lingerSeconds : expiry
    }

    /// Whether its time is over at `now`, lingering included.
    @inline(__always)
    func isOver(now: UInt32, _ lingerSeconds: UInt32) -> Bool {
        let end = end(lingerSeconds)
        return end != 0 && end <= now
    }

    /// Makes it stand for a row that the store does not have.
    package mutating func setAbsent() { write(word | Mark.absent) }

    /// Marks it stale, or fresh again.
    package mutating func setStale(_ on: Bool) { write(on ? word | Mark.stale : word & ~Mark.stale) }
    /// Notes whether a client was told that it may recache.
    package mutating func setTokenSent(_ on: Bool) { write(on ? word | Mark.tokenSent : word & ~Mark.tokenSent) }

    /// Notes a read: first it marks the item fetched, afterwards it keeps the access time, as memcached does.
    @inlinable @inline(__always)
    package mutating func noteRead(now: UInt32) {
        var fresh = word
        if fresh & Mark.reads != Mark.reads { fresh &+= Mark.oneRead }
        if fresh & Mark.fetched == 0 {
            fresh |= Mark.fetched
        } else {
            fresh = (fresh & ~(Self.timeMask << 28)) | (UInt64(now) & Self.timeMask) << 28
        }
        if fresh != word { write(fresh) }
    }

    /// Sets the access time without counting a read.
    package mutating func setAccessTime(now: UInt32) {
        write((word & ~(Self.timeMask << 28)) | (UInt64(now) & Self.timeMask) << 28)
    }

    @inlinable @inline(__always)
    func hasKey(_ key: Span<UInt8>) -> Bool {
        keyLength == key.count && block.equals(key, at: Self.headerSize(word))
    }
}

/// What a new item will hold beside its bytes; decides its size.
@usableFromInline
package struct ItemShape: BitwiseCopyable, Sendable {
    /// Bytes of the key, 1 to 250.
    @usableFromInline package var keyLength: Int
    /// Bytes of the value.
    @usableFromInline package var valueLength: Int
    /// The client's opaque flags; 0 takes no room.
    @usableFromInline package var clientFlags: UInt32
    /// When it expires, in the engine's seconds; 0 is never and takes no room.
    @usableFromInline package var expiry: UInt32
    /// Whether the key came base64 encoded.
    @usableFromInline package var isKeyBinary: Bool
    /// Whether the item has a field for an expiry even when it does not expire: large items, so that a touch never
    /// copies them.
    @usableFromInline package var reservesExpiry = false

    /// The shape of an item of these lengths.
    @inlinable @inline(__always)
    package init(keyLength: Int, valueLength: Int, clientFlags: UInt32, expiry: UInt32, isKeyBinary: Bool = false) {
        self.keyLength = keyLength
        self.valueLength = valueLength
        self.clientFlags = clientFlags
        self.expiry = expiry
        self.isKeyBinary = isKeyBinary
    }

    /// The second header word of a fresh item of this shape.
    @inlinable @inline(__always)
    func word(now: UInt32) -> UInt64 {
        var word = UInt64(UInt8(truncatingIfNeeded: keyLength)) | (UInt64(now) & Item.timeMask) << 28
        if valueLength < Item.shortLengthLimit {
            word |= UInt64(truncatingIfNeeded: valueLength) << 8
        } else {
            word |= Item.Mark.hasLongLength
        }
        if expiry != 0 || reservesExpiry { word |= Item.Mark.hasExpiry }
        if clientFlags != 0 { word |= Item.Mark.hasFlags }
        if isKeyBinary { word |= Item.Mark.binaryKey }
        return word
    }

    /// Bytes that the item takes.
    @inlinable package var size: Int {
        @inline(__always) get { Item.headerSize(word(now: 0)) &+ keyLength &+ valueLength }
    }

    /// What memcached would count for the item against `-I`: a header of 48 bytes, 8 for CAS, the key and its
    /// terminator, 4 for flags unless they are 0, and the value with its line end.
    @inlinable package var memcachedSize: Int {
        48 &+ 8 &+ keyLength &+ 1 &+ (clientFlags == 0 ? 0 : 4) &+ valueLength &+ 2
    }

    /// The longest value that is within `itemSizeMax` with a key of this length, whatever its flags.
    package static func valueLimit(itemSizeMax: Int, keyLength: Int) -> Int {
        let fixed = ItemShape(keyLength: keyLength, valueLength: 0, clientFlags: 1, expiry: 0).memcachedSize
        return max(0, itemSizeMax - fixed)
    }

    /// Writes header and key at the start of `block`; the value is still to come.
    @inlinable @inline(__always)
    func writeHeader(to block: MemoryBlock, key: Span<UInt8>, version: UInt64, now: UInt32) {
        let word = self.word(now: now)
        block.store(version, at: 0)
        block.store(word, at: 8)
        var offset = 16
        if word & Item.Mark.hasExpiry != 0 {
            block.store(expiry, at: offset)
            offset &+= 4
        }
        if clientFlags != 0 {
            block.store(clientFlags, at: offset)
            offset &+= 4
        }
        if valueLength >= Item.shortLengthLimit {
            block.store(UInt32(truncatingIfNeeded: valueLength), at: offset)
            offset &+= 4
        }
        block.copy(key, at: offset)
    }
}
