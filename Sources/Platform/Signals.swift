// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Glibc

/// A signal that a server reacts to.
package enum Signal: Sendable, CaseIterable {
    /// SIGINT and SIGTERM.
    case interrupt, terminate
    /// SIGHUP.
    case hangUp
    /// SIGUSR1 and SIGUSR2.
    case user1, user2

    /// The kernel's number.
    var number: Int32 {
        switch self {
        case .interrupt: SIGINT
        case .terminate: SIGTERM
        case .hangUp: SIGHUP
        case .user1: SIGUSR1
        case .user2: SIGUSR2
        }
    }

    /// Blocks these signals in this thread and those that it starts, so that ``wait(milliseconds:)`` gets them; and
    /// ignores SIGPIPE for the whole process. Before any other thread starts.
    package static func block() {
        var set = sigset_t()
        // SAFETY: the set is local.
        unsafe fill(&set)
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
        signal(SIGPIPE, SIG_IGN)
    }

    /// Waits for one of these signals, which ``block()`` blocked before; nil when none came in the time given.
    package static func wait(milliseconds: Int) -> Signal? {
        var set = sigset_t()
        unsafe fill(&set)
        var time = timespec()
        time.tv_sec = milliseconds / 1000
        time.tv_nsec = milliseconds % 1000 * 1_000_000
        // SAFETY: the kernel reads the local set and time, and is asked for nothing but the number.
        let number = unsafe sigtimedwait(&set, nil, &time)
        return allCases.first { $0.number == number }
    }

    private static func fill(_ set: UnsafeMutablePointer<sigset_t>) {
        // SAFETY: the caller gives the address of a whole set.
        unsafe sigemptyset(set)
        for one in allCases { unsafe sigaddset(set, one.number) }
    }
}
