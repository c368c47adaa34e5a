// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Platform

/// Runs tasks on a client's own threads: `withTaskExecutorPreference(client.executor) { … }`.
///
/// A task that does little but wait for the cache is cheapest there: neither its requests nor their replies change
/// threads. What runs there must not block or compute for long, because replies to everybody else wait meanwhile. After
/// the client was shut down, what is left of such tasks runs where it is resumed.
public final class ClientExecutor: TaskExecutor {
    private let queues: [CallQueue]
    private let turn = Guarded(0)

    init(_ queues: [CallQueue]) { self.queues = queues }

    /// Puts a part of a task in line; for the Swift runtime.
    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        var index = 0
        if queues.count > 1 {
            index = turn.withLock { turn in
                turn = (turn + 1) % queues.count
                return turn
            }
        }
        if !queues[index].put(job) { run(job) }
    }

    /// Runs a part of a task on this thread.
    func run(_ job: UnownedJob) {
        // SAFETY: the runtime gave the job to `enqueue`, and it is run once: a queue hands out what it holds once.
        unsafe job.runSynchronously(on: asUnownedTaskExecutor())
    }
}
