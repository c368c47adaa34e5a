// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CPlatform

/// Calls on connected, non-blocking sockets by number: the hot path of a reactor. Results are counts, 0 at the end of
/// the stream for reads, or ``wouldBlock`` or ``failed``.
@usableFromInline
package enum StreamSocket {
    /// The call would have had to wait.
    @inlinable package static var wouldBlock: Int { -1 }
    /// The connection is broken.
    @inlinable package static var failed: Int { -2 }

    /// Reads up to `count` bytes to `target`.
    @inlinable @inline(__always)
    package static func read(_ fd: Int32, _ target: UnsafeMutableRawPointer, _ count: Int) -> Int {
        // SAFETY: the caller gives `count` writable bytes.
        let result = unsafe martlet_receive(fd, target, count)
        return result >= 0 ? result : outcome()
    }

    /// Reads to several places, in order.
    @inlinable @inline(__always)
    package static func read(_ fd: Int32, _ targets: UnsafePointer<iovec>, count: Int) -> Int {
        // SAFETY: the caller gives `count` vectors over writable bytes.
        let result = unsafe readv(fd, targets, Int32(truncatingIfNeeded: count))
        return result >= 0 ? result : outcome()
    }

    /// Writes up to `count` bytes; a broken connection raises no signal.
    @inlinable @inline(__always)
    package static func write(_ fd: Int32, _ source: UnsafeRawPointer, _ count: Int) -> Int {
        // SAFETY: the caller gives `count` readable bytes.
        let result = unsafe martlet_send(fd, source, count)
        return result >= 0 ? result : outcome()
    }

    /// Writes from several places, in order; a broken connection raises no signal.
    package static func write(_ fd: Int32, _ sources: UnsafeMutablePointer<iovec>, count: Int) -> Int {
        var message = unsafe msghdr()
        unsafe message.msg_iov = sources
        unsafe message.msg_iovlen = count
        // SAFETY: the caller gives `count` vectors over readable bytes; the header is local.
        let result = unsafe sendmsg(fd, &message, Int32(truncatingIfNeeded: MSG_NOSIGNAL))
        return result >= 0 ? result : outcome()
    }

    @usableFromInline @inline(never)
    static func outcome() -> Int {
        switch martlet_errno() {
        case EAGAIN, EINTR: wouldBlock
        default: failed
        }
    }

    /// Whether input waits that nobody read.
    package static func hasUnreadInput(_ fd: Int32) -> Bool { martlet_unread_bytes(fd) > 0 }

    /// Bytes that the kernel has taken and the peer's has not; -1 when it does not say.
    package static func unacknowledgedBytes(_ fd: Int32) -> Int { Int(martlet_unacknowledged_bytes(fd)) }

    /// Says that we send no more.
    package static func endOutput(_ fd: Int32) { _ = shutdown(fd, Int32(SHUT_WR)) }

    /// Closes a descriptor by number.
    package static func closeNumber(_ fd: Int32) { _ = close(fd) }
}
