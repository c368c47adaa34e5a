// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform
internal import Synchronization

/// A kernel thread with a name, on which no signal is delivered.
package final class Thread: Sendable {
    private let handle: pthread_t
    private let joined = Atomic<Bool>(false)

    /// Starts `body` on a new thread. `name` is cut to 15 bytes, what the kernel keeps. All signals are blocked in it,
    /// so that they reach the thread that waits for them; faults of its own still end the process.
    package init(name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
        let box = unsafe Unmanaged.passRetained(Body(name: name, run: body))
        var everything = sigset_t()
        var previous = sigset_t()
        // SAFETY: the sets are local; the mask is restored below, and the new thread inherits it as it is between.
        unsafe sigfillset(&everything)
        for fault in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS] {
            unsafe sigdelset(&everything, fault)
        }
        unsafe pthread_sigmask(SIG_BLOCK, &everything, &previous)
        defer { unsafe pthread_sigmask(SIG_SETMASK, &previous, nil) }
        var handle = pthread_t()
        // SAFETY: the box is retained above and released exactly once, by the thread, or here when there is none.
        let code = unsafe pthread_create(&handle, nil, { unsafe Body.enter($0) }, box.toOpaque())
        guard code == 0 else {
            unsafe box.release()
            throw SystemError("pthread_create", code: code, subject: name)
        }
        self.handle = handle
    }

    deinit {
        if !joined.load(ordering: .relaxed) { pthread_detach(handle) }
    }

    /// Waits until the body returned. Once only.
    package func join() {
        precondition(!joined.exchange(true, ordering: .relaxed), "a thread is joined twice")
        // The handle is of a joinable thread, and the line above makes this the only join.
        pthread_join(handle, nil)
    }

    /// Lets timed waits of the calling thread end within microseconds of their time instead of 50 µs later.
    package static func sharpenTimers() { martlet_sharpen_timers() }

    /// Rests the calling thread, for less than a second or so.
    package static func sleep(microseconds: UInt32) { usleep(microseconds) }

    /// What the thread runs, until it took hold of it.
    private final class Body: Sendable {
        let name: String
        let run: @Sendable () -> Void

        init(name: String, run: @escaping @Sendable () -> Void) {
            self.name = name
            self.run = run
        }

        static func enter(_ context: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
            guard let context = unsafe context else { return nil }
            // SAFETY: `init` retained the box for this one call.
            let body = unsafe Unmanaged<Body>.fromOpaque(context).takeRetainedValue()
            unsafe martlet_name_thread(body.name)
            body.run()
            return nil
        }
    }
}
