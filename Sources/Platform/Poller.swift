// Martlet
// SPDX-License-Identifier: Apache-2.0

public import CPlatform

/// What a descriptor is ready for, or watched for.
@usableFromInline
package struct Readiness: OptionSet, BitwiseCopyable, Sendable {
    /// The bits as epoll has them.
    @usableFromInline package let rawValue: UInt32
    /// The set of those bits.
    @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }

    /// There is something to read, or the end of it.
    @inlinable package static var input: Self { Self(rawValue: MARTLET_EPOLLIN) }
    /// There is room to write.
    @inlinable package static var output: Self { Self(rawValue: MARTLET_EPOLLOUT) }
    /// Always watched for.
    @inlinable package static var error: Self { Self(rawValue: MARTLET_EPOLLERR) }
    /// Both directions are shut; always watched for.
    @inlinable package static var hangup: Self { Self(rawValue: MARTLET_EPOLLHUP) }
    /// The peer ended its output; comes with ``input``.
    @inlinable package static var peerEnded: Self { Self(rawValue: MARTLET_EPOLLRDHUP) }
    /// Tell once per change instead of as long as it lasts.
    @inlinable package static var edge: Self { Self(rawValue: MARTLET_EPOLLET) }
    /// Of several pollers that watch the same file, wake one. Only for `add`.
    @inlinable package static var exclusive: Self { Self(rawValue: MARTLET_EPOLLEXCLUSIVE) }
}

/// An epoll instance and its event buffer, for one waiting thread.
@safe @usableFromInline
package struct Poller: ~Copyable, @unchecked Sendable {
    // SAFETY (Sendable): epoll_ctl is thread-safe, and only the thread that waits touches the event buffer.
    private let epoll: Descriptor
    @usableFromInline let events: UnsafeMutablePointer<epoll_event>
    @usableFromInline let capacity: Int

    /// Makes a poller that takes up to `capacity` events at once. Allocates.
    package init(capacity: Int) throws(SystemError) {
        let number = epoll_create1(EPOLL_CLOEXEC_FLAG)
        guard number >= 0 else { throw SystemError("epoll_create1") }
        epoll = Descriptor(owning: number)
        self.capacity = capacity
        // SAFETY: freed in deinit; the kernel writes at most `capacity` events.
        unsafe events = UnsafeMutablePointer<epoll_event>.allocate(capacity: capacity)
    }

    deinit { unsafe events.deallocate() }

    /// Watches `fd`; `user` comes back with its events.
    package func add(_ fd: Int32, _ interest: Readiness, user: UInt64) throws(SystemError) {
        guard martlet_epoll_control(epoll.number, EPOLL_CTL_ADD, fd, interest.rawValue, user) == 0 else {
            throw SystemError("epoll_ctl", subject: "add descriptor \(fd)")
        }
    }

    /// Changes what `fd`, which was added, is watched for.
    package func change(_ fd: Int32, _ interest: Readiness, user: UInt64) {
        // Fails only for a descriptor that is not there, which is a defect, or for want of kernel memory on ADD.
        let result = martlet_epoll_control(epoll.number, EPOLL_CTL_MOD, fd, interest.rawValue, user)
        precondition(result == 0, "a descriptor is watched that was never added")
    }

    /// Stops watching `fd`. Closing a descriptor that has no duplicate does so by itself.
    package func remove(_ fd: Int32) {
        _ = martlet_epoll_control(epoll.number, EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Waits up to `timeoutMilliseconds` (-1: for ever) and returns how many events there are, 0 when interrupted.
    package func wait(timeoutMilliseconds: Int) -> Int {
        // SAFETY: the buffer has room for `capacity` events and is used by this thread only.
        let count = unsafe martlet_epoll_wait(epoll.number, events, Int32(capacity), Int32(timeoutMilliseconds))
        if count < 0 { precondition(martlet_errno() == EINTR, "epoll_wait refused its own instance") }
        return max(Int(count), 0)
    }

    /// As ``wait(timeoutMilliseconds:)``, up to `nanoseconds`, to a few microseconds where the kernel can (Linux 5.11).
    package func wait(nanoseconds: UInt64) -> Int {
        // SAFETY: as above.
        let count = unsafe martlet_epoll_wait_for(epoll.number, events, Int32(capacity), nanoseconds)
        if count >= 0 { return Int(count) }
        guard martlet_errno() == ENOSYS else {
            precondition(martlet_errno() == EINTR, "epoll_pwait2 refused its own instance")
            return 0
        }
        return wait(timeoutMilliseconds: Int(nanoseconds / 1_000_000))
    }

    /// The user word of event `index` of the last wait.
    @inlinable @inline(__always)
    package func user(_ index: Int) -> UInt64 {
        precondition(index >= 0 && index < capacity)
        // SAFETY: in bounds by the line above.
        return unsafe martlet_event_user(events + index)
    }

    /// What event `index` of the last wait says.
    @inlinable @inline(__always)
    package func readiness(_ index: Int) -> Readiness {
        precondition(index >= 0 && index < capacity)
        // SAFETY: in bounds by the line above.
        return unsafe Readiness(rawValue: martlet_event_bits(events + index))
    }
}

/// EPOLL_CLOEXEC: the header has it in an enumeration that Swift imports with another type.
private let EPOLL_CLOEXEC_FLAG = Int32(O_CLOEXEC)

/// An eventfd: wakes a thread that waits in a ``Poller``.
package struct WakeEvent: ~Copyable, Sendable {
    private let descriptor: Descriptor

    /// An event that nobody has signalled.
    package init() throws(SystemError) {
        let number = eventfd(0, Int32(O_CLOEXEC | O_NONBLOCK))
        guard number >= 0 else { throw SystemError("eventfd") }
        descriptor = Descriptor(owning: number)
    }

    /// To watch with ``Readiness/edge``: every signal is a new edge, and nobody needs to read.
    package var fd: Int32 { descriptor.number }

    /// Wakes whoever watches. From any thread.
    package func signal() {
        var one: UInt64 = 1
        // SAFETY: the eight bytes are local. The only failure, a counter near 2^64, still is a wake-up.
        unsafe _ = write(descriptor.number, &one, 8)
    }
}

/// A timerfd: wakes a thread that waits in a ``Poller`` at a time that is set once, however often it wakes before that.
package struct WakeTimer: ~Copyable, Sendable {
    private let descriptor: Descriptor

    /// A timer that is not set.
    package init() throws(SystemError) {
        let number = timerfd_create(CLOCK_MONOTONIC, Int32(O_CLOEXEC | O_NONBLOCK))
        guard number >= 0 else { throw SystemError("timerfd_create") }
        descriptor = Descriptor(owning: number)
    }

    /// To watch with ``Readiness/edge``: every time that comes is a new edge, and nobody needs to read.
    package var fd: Int32 { descriptor.number }

    /// Wakes at that time, in monotonic nanoseconds, in the place of the one set before; at once where it is over.
    package func set(_ nanoseconds: UInt64) {
        var time = itimerspec()
        // 0 would be never.
        let due = max(nanoseconds, 1)
        time.it_value.tv_sec = Int(clamping: due / 1_000_000_000)
        time.it_value.tv_nsec = Int(due % 1_000_000_000)
        // SAFETY: the kernel reads the local structure within the call.
        let result = unsafe timerfd_settime(descriptor.number, TFD_TIMER_ABSTIME_FLAG, &time, nil)
        precondition(result == 0, "timerfd_settime refused its own timer")
    }
}

/// TFD_TIMER_ABSTIME: the header has it in an enumeration that Swift imports with another type.
private let TFD_TIMER_ABSTIME_FLAG: Int32 = 1
