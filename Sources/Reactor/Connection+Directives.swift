// Martlet
// SPDX-License-Identifier: Apache-2.0

public import Memory

/// What a handler can ask for.
extension Connection {
    /// Closes once everything written so far is with the kernel, and a held connection once it is released; no more
    /// input is looked at.
    @inlinable package mutating func closeAfterFlush() { flags.insert(.closeAfterFlush) }

    /// Closes when the handler's call returns, dropping output.
    @inlinable package mutating func closeNow() { flags.insert(.closeNow) }

    /// Whether a close was asked for.
    @inlinable package var isClosing: Bool { !flags.isDisjoint(with: [.closeAfterFlush, .closeNow]) }

    /// Stops input: neither `received` nor `filled` is called until ``resumeReading()``. What was not consumed is kept.
    @inlinable package mutating func pauseReading() { flags.insert(.paused) }

    /// Takes ``pauseReading()`` back. Kept input is offered again after the other connections had their turn.
    @inlinable package mutating func resumeReading() { flags.remove(.paused) }

    /// Whether input is stopped by the handler.
    @inlinable package var isPaused: Bool { flags.contains(.paused) }

    /// "I stopped for fairness with input left": calls `received` again with what was not consumed after the other
    /// connections had their turn and after the output so far went to the socket. Counted as a yield.
    @inlinable @inline(__always)
    package mutating func yield() { flags.insert(.yielded) }

    /// Discards the `count` bytes of input that follow what `received` consumes, whenever they arrive.
    @inlinable package mutating func swallow(_ count: Int) {
        precondition(count >= 0, "a negative number of bytes to discard")
        swallowBytes += count
    }

    /// Puts the `count` bytes of input that follow what `received` consumes into the first bytes of `block`, straight
    /// from the socket where possible, and then calls `filled`. The block stays valid until `filled` or `closed`. One
    /// at a time.
    @inlinable package mutating func fill(_ block: MemoryBlock, count: Int) {
        precondition(fillTarget == nil, "a fill begins while another is under way")
        precondition(count > 0, "a fill of no bytes")
        fillTarget = block.slice(0, count)
        fillCount = 0
    }

    /// Whether a fill is under way.
    @inlinable package var isFilling: Bool { fillTarget != nil }

    /// How many bytes of the fill are there.
    @inlinable package var filledCount: Int { fillCount }

    /// Gives a fill up: what still arrives of it is discarded, `filled` is not called, and the block is free again.
    @inlinable package mutating func cancelFill() {
        guard let target = fillTarget else { return }
        swallowBytes += target.count - fillCount
        fillTarget = nil
    }

    /// Does not call `received` again before `count` bytes wait, unconsumed ones included: for a request of known size
    /// that is not whole, so that it is neither scanned nor copied again for each segment that arrives. Holds for one
    /// call. More than ``inputLimit`` counts as ``inputLimit``.
    @inlinable package mutating func minimumInput(_ count: Int) { minimumBytes = max(count, 1) }

    /// The most unconsumed input to keep, in bytes; from ``ReactorConfiguration/inputLimitBytes``. When so much waits
    /// and `received` consumes nothing of it, the connection is closed and counted.
    @inlinable package var inputLimit: Int {
        get { inputLimitBytes }
        set { inputLimitBytes = max(newValue, 1) }
    }

    /// Keeps the connection, although the peer ends its input or a close was asked for, because replies are
    /// outstanding; ``release()`` takes it back.
    @inlinable package mutating func hold() { flags.insert(.held) }

    /// Takes ``hold()`` back: the connection closes if the peer ended its input or a close was asked for, after what
    /// was written is sent.
    @inlinable package mutating func release() { flags.remove(.held) }

    /// Whether the peer ended its input, which only a held connection survives.
    @inlinable package var hasInputEnded: Bool { flags.contains(.inputEnded) }

    /// Marks the connection as active now for the idle timeout, as consuming input does by itself.
    @inlinable package mutating func touch() { flags.insert(.active) }

    /// Bytes written earlier that the socket has not taken. While there are any, no input is offered.
    package var pendingOutput: Int { backlog?.remaining ?? 0 }
}
