// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What became of an arithmetic command.
package enum ArithmeticOutcome: Sendable {
    /// The new number, the version that it got, and the item's expiry.
    case value(UInt64, version: UInt64, expiry: UInt32)
    case notFound, notNumeric, versionMismatch, outOfMemory
}

extension ShardState {
    /// Gives an item a new expiry. Returns where the item lies now, its expiry unchanged if there was no room for one,
    /// or nil when making room took the item itself. The item passed in must not be used afterwards. May reclaim.
    package mutating func setExpiry(
        _ expiry: UInt32, of item: Item, _ hash: UInt64, key: Span<UInt8>, now: UInt32
    ) -> Item? {
        if item.word & Item.Mark.hasExpiry != 0 {
            var item = item
            item.block.store(expiry, at: 16)
            // What was given another end is not kept beyond it.
            if item.word & Item.Mark.lingers != 0 { item.write(item.word & ~Item.Mark.lingers) }
            segments[slot(of: item.location)].noteExpiry(expiry)
            return item
        }
        if expiry == 0 { return item }
        // The item has no field for an expiry: it moves to a place that has.
        let shape = ItemShape(
            keyLength: item.keyLength, valueLength: item.valueLength, clientFlags: item.clientFlags, expiry: expiry,
            isKeyBinary: item.isKeyBinary)
        let word = item.word
        let version = item.version
        let lengthsAndShape = 0xFFF_FFFF | Item.Mark.shape
        let moved = replace(item, hash, key: key, shape, version: version, now: now) { old, fresh in
            fresh.block.copy(old.block, from: old.valueOffset, length: old.valueLength, at: fresh.valueOffset)
            fresh.write((fresh.word & lengthsAndShape) | (word & ~lengthsAndShape))
        }
        guard let moved else { return find(hash, key, now: now) }
        statistics.totalItems &-= 1
        return moved
    }

    /// Replaces an item by one of another shape that `fill` completes from the old one; nil when there was no room, or
    /// the item went with making some. May reclaim.
    private mutating func replace(
        _ item: Item, _ hash: UInt64, key: Span<UInt8>, _ shape: ItemShape, version: UInt64, now: UInt32,
        _ fill: (_ old: Item, _ fresh: inout Item) -> Void
    ) -> Item? {
        let isMain = segments[slot(of: item.location)].place == .main
        protect(item)
        guard let location = allocate(shape.size, toMain: isMain, now: now) else { return nil }
        var fresh = write(shape, key, version, at: location, now: now)
        guard let old = find(hash, key, now: now) else {
            abandon(fresh)
            return nil
        }
        fill(old, &fresh)
        link(fresh, hash, replacing: old)
        return fresh
    }

    /// Adds to or subtracts from a decimal value: 64 bits, up past the end wraps, down stops at 0. A result of fewer
    /// digits keeps the length and is padded with spaces. `compare` is a version to match, 0 for none. May reclaim.
    /// Source: protocol.txt, "Increment/Decrement".
    package mutating func add(
        _ delta: UInt64, increment: Bool, _ hash: UInt64, key: Span<UInt8>, compare: UInt64, version: UInt64,
        now: UInt32
    ) -> ArithmeticOutcome {
        guard let item = find(hash, key, now: now) else { return .notFound }
        guard item.valueLength > 0 else { return .notNumeric }
        if compare != 0, item.version != compare { return .versionMismatch }
        let text = item.block.slice(item.valueOffset, item.valueLength)
        guard let current = text.withSpan({ parseStoredNumber($0) }) else { return .notNumeric }
        let result = increment ? current &+ delta : (delta > current ? 0 : current - delta)
        let digits = decimalLength(result)
        var kept = item
        if digits > item.valueLength || segments[slot(of: item.location)].pins > 0 {
            let shape = ItemShape(
                keyLength: item.keyLength, valueLength: digits, clientFlags: item.clientFlags, expiry: item.expiry,
                isKeyBinary: item.isKeyBinary)
            guard let fresh = replace(item, hash, key: key, shape, version: version, now: now, { _, _ in }) else {
                return .outOfMemory
            }
            kept = fresh
        } else {
            kept.setVersion(version)
            kept.setAccessTime(now: now)
        }
        writeNumber(result, digits, into: kept)
        return .value(result, version: version, expiry: kept.expiry)
    }

    private func writeNumber(_ value: UInt64, _ digits: Int, into item: Item) {
        let start = item.valueOffset
        item.block.storeDecimal(value, at: start)
        if digits < item.valueLength {
            item.block.fill(UInt8(ascii: " "), from: start + digits, length: item.valueLength - digits)
        }
    }
}
