// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Memory

// SAFETY (file): vectors point to bytes that stay where they are until the cursor has passed them.

/// How far an ``OutputBuffer`` is sent.
struct OutputCursor {
    /// Own bytes sent.
    var own = 0
    /// External pieces sent whole.
    var external = 0
    /// Bytes sent of the external piece after those.
    var externalBytes = 0
}

/// Output of one connection that its socket did not take. Exists only for slow readers.
final class Backlog {
    var buffer: OutputBuffer
    var cursor = OutputCursor()
    /// Bytes that wait, external ones included.
    private(set) var remaining: Int

    /// When the peer was last seen to take something, or the first of this had to wait, in monotonic nanoseconds.
    private(set) var progressNanoseconds: UInt64 = 0
    /// Bytes that the kernel held for the peer then.
    private var queuedBytes = 0

    /// Says that the socket took something, or that waiting began.
    func noteProgress(now: UInt64) { progressNanoseconds = now }

    /// Says how many bytes the kernel holds for the peer: other than before is progress as well. A slow reader makes
    /// room in the kernel's buffers long before there is enough for another write.
    func noteQueued(_ count: Int, now: UInt64) {
        guard count != queuedBytes else { return }
        queuedBytes = count
        progressNanoseconds = now
    }

    /// Whether external bytes wait, which keep what they are part of from being given up.
    var holdsExternals: Bool { cursor.external < buffer.externals.count }

    /// Bytes of the buffer's own that wait: what the backlog costs in memory. External ones lie where they are counted.
    var ownRemaining: Int { buffer.count - cursor.own }

    /// An empty one.
    init(capacity: Int) {
        buffer = OutputBuffer(capacity: capacity)
        remaining = 0
    }

    /// Takes over what `output` has after `cursor`, and leaves it empty. When that is much of it, the two change their
    /// memory instead of copying.
    func take(_ output: inout OutputBuffer, from cursor: OutputCursor) {
        precondition(buffer.isEmpty && remaining == 0, "a backlog is begun twice")
        if Self.keepsMemory(of: output, from: cursor) {
            swap(&buffer, &output)
            self.cursor = cursor
            remaining = buffer.totalCount - cursor.own - cursor.externalBytes
            for piece in buffer.externals[..<cursor.external] { remaining -= piece.block.count }
        } else {
            buffer.append(output, from: cursor.own, externalStart: cursor.external)
            self.cursor = OutputCursor(externalBytes: cursor.externalBytes)
            remaining = buffer.totalCount - cursor.externalBytes
        }
        output.removeAll()
    }

    /// Whether what follows `cursor` fills enough of the buffer it is in to stay there: slow readers together hold at
    /// most four times what waits for them.
    static func keepsMemory(of output: borrowing OutputBuffer, from cursor: OutputCursor) -> Bool {
        let rest = output.count - cursor.own
        return rest > copiedBytes && rest >= output.capacityBytes / 4
    }

    /// So much is always copied.
    private static var copiedBytes: Int { 8 * 1024 }

    /// Makes it fit to be used again.
    func reset() {
        precondition(remaining == 0, "a backlog is given up with bytes in it")
        buffer.removeAll()
        cursor = OutputCursor()
    }

    /// Adds all of `output`.
    func append(_ output: borrowing OutputBuffer) {
        compact()
        buffer.append(output, from: 0, externalStart: 0)
        remaining += output.totalCount
    }

    /// Adds bytes of another thread.
    func append(_ bytes: [UInt8]) {
        compact()
        buffer.append(bytes.span)
        remaining += bytes.count
    }

    /// Says that `count` more bytes are sent; calls `release` with the token of each external piece that is done.
    func sent(_ count: Int, release: (UInt64) -> Void) {
        remaining -= count
        cursor.advance(count, in: buffer, release: release)
    }

    /// Calls `release` for every external piece not sent whole.
    func drop(release: (UInt64) -> Void) {
        for piece in buffer.externals[cursor.external...] { release(piece.token) }
        remaining = 0
    }

    /// Keeps a stream that never quite drains from growing for ever.
    private func compact() {
        guard cursor.own >= 64 * 1024, cursor.own >= buffer.count / 2 else { return }
        buffer.discardFirst(cursor.own, externalCount: cursor.external)
        cursor = OutputCursor(externalBytes: cursor.externalBytes)
    }
}

extension OutputCursor {
    /// Moves `count` bytes on; calls `release` with the token of each external piece that is passed.
    mutating func advance(_ count: Int, in buffer: borrowing OutputBuffer, release: (UInt64) -> Void) {
        var left = count
        while true {
            if external < buffer.externals.count, buffer.externals[external].position == own {
                let piece = buffer.externals[external]
                let step = min(left, piece.block.count - externalBytes)
                externalBytes += step
                left -= step
                guard externalBytes == piece.block.count else { return }
                release(piece.token)
                external += 1
                externalBytes = 0
            } else {
                guard left > 0 else { return }
                let end = external < buffer.externals.count ? buffer.externals[external].position : buffer.count
                let step = min(left, end - own)
                precondition(step > 0, "more bytes sent than there were")
                own += step
                left -= step
            }
        }
    }

    /// Whether all of `buffer` is sent.
    func isAtEnd(of buffer: borrowing OutputBuffer) -> Bool {
        own == buffer.count && external == buffer.externals.count
    }

    /// The next bytes to send as vectors, at most `limit` of them; returns how many.
    func gather(_ buffer: borrowing OutputBuffer, _ vectors: UnsafeMutablePointer<iovec>, limit: Int) -> Int {
        var cursor = self
        var used = 0
        // SAFETY: own bytes and external blocks stay where they are until the cursor has passed them, which is after
        // the system call that uses the vectors; `used` stays below `limit`, which the caller has room for.
        while used < limit {
            if cursor.external < buffer.externals.count, buffer.externals[cursor.external].position == cursor.own {
                let rest = cursor.rest(of: buffer.externals[cursor.external].block)
                unsafe vectors[used] = iovec(iov_base: rest.unsafeBase, iov_len: rest.count)
                cursor.external += 1
                cursor.externalBytes = 0
            } else {
                let end = cursor.ownEnd(buffer)
                guard end > cursor.own else { break }
                unsafe buffer.withUnsafeBytes(from: cursor.own) { bytes in
                    unsafe vectors[used] = iovec(
                        iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress), iov_len: end - cursor.own)
                }
                cursor.own = end
            }
            used += 1
        }
        return used
    }

    /// What is left of an external piece.
    func rest(of block: MemoryBlock) -> MemoryBlock { block.slice(externalBytes, block.count - externalBytes) }

    /// Where the own bytes before the next external piece end.
    func ownEnd(_ buffer: borrowing OutputBuffer) -> Int {
        external < buffer.externals.count ? buffer.externals[external].position : buffer.count
    }
}
