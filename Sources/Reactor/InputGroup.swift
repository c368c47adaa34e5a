// Martlet
// SPDX-License-Identifier: Apache-2.0

// SAFETY (file): the buffer has room for `limit` slices and lives as long as the group; the reactor's thread alone
// touches it, and `count` slices are filled as far as `lengths` says.

/// Input of several connections that became ready together: read before any of it is executed, so that a handler can
/// have memory fetched for all of them at once.
@safe @usableFromInline
package struct InputGroup: ~Copyable {
    /// The most inputs of a group.
    @inlinable package static var limit: Int { 16 }
    /// The most bytes of an input; a connection that sends more at once is read by itself.
    @inlinable package static var sliceBytes: Int { 2048 }

    @usableFromInline let base: UnsafeMutableRawPointer
    @usableFromInline var lengths = InlineArray<16, Int>(repeating: 0)
    private var ids = InlineArray<16, UInt64>(repeating: 0)
    /// Inputs in the group.
    @usableFromInline package private(set) var count = 0

    init() {
        unsafe base = UnsafeMutableRawPointer.allocate(byteCount: Self.limit * Self.sliceBytes, alignment: 4096)
    }

    deinit { unsafe base.deallocate() }

    /// Whether another input fits.
    var isFull: Bool { count == Self.limit }

    /// Where the next input goes.
    var unsafeNext: UnsafeMutableRawPointer {
        precondition(count < Self.limit, "a group has more inputs than it takes")
        return unsafe base + count &* Self.sliceBytes
    }

    /// Says that `length` bytes of `connection` were read to ``unsafeNext``.
    mutating func add(_ connection: ConnectionID, _ length: Int) {
        precondition(count < Self.limit && length > 0 && length <= Self.sliceBytes)
        lengths[count] = length
        ids[count] = connection.rawValue
        count &+= 1
    }

    /// Whose the input at `index` is.
    func connection(_ index: Int) -> ConnectionID { ConnectionID(rawValue: ids[index]) }

    /// Where the input at `index` lies, and how many bytes it has.
    func unsafeInput(_ index: Int) -> (UnsafeMutableRawPointer, Int) {
        precondition(index >= 0 && index < count)
        return unsafe (base + index &* Self.sliceBytes, lengths[index])
    }

    /// Forgets the inputs.
    mutating func removeAll() { count = 0 }

    /// Runs `body` with the input at `index`.
    @inlinable @inline(__always)
    package func withInput<R>(_ index: Int, _ body: (Span<UInt8>) -> R) -> R {
        precondition(index >= 0 && index < count)
        let start = unsafe (base + index &* Self.sliceBytes).assumingMemoryBound(to: UInt8.self)
        let bytes = unsafe UnsafeBufferPointer(start: start, count: lengths[index])
        return unsafe body(Span(_unsafeElements: bytes))
    }
}
