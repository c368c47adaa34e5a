// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Telemetry
internal import Tracing

/// Commands that waited long for the store, on their way from the reactors, which must not block, to the log.
final class SlowOperations: Sendable {
    /// A command and where its time went, in nanoseconds.
    struct Operation: Sendable {
        let kind: CommandKind
        let key: [UInt8]
        let total: UInt64
        /// Behind earlier commands of its connection on the same key.
        let held: UInt64
        /// With the store: its queues, its disk and the cache step.
        let stored: UInt64
        /// The span that was recorded of it, if one was.
        let span: SpanContext
    }

    /// Operations that wait for the log at most; more are counted only.
    private static let limit = 64

    /// From how long on a command is slow, in nanoseconds; 0 is never.
    let thresholdNanoseconds: UInt64
    private let waiting = Guarded<(operations: [Operation], dropped: Int)>(([], 0))

    init(thresholdMilliseconds: Int) { thresholdNanoseconds = UInt64(thresholdMilliseconds) * 1_000_000 }

    /// Notes a command, if it was slow.
    func note(_ parked: ParkedRequest, finished: UInt64) {
        let total = finished &- parked.readyNanoseconds
        guard thresholdNanoseconds > 0, total >= thresholdNanoseconds else { return }
        // What was answered without the store was neither held nor with it.
        let wasAsked = parked.askedNanoseconds > 0
        let operation = Operation(
            kind: parked.kind, key: parked.key, total: total,
            held: wasAsked ? parked.askedNanoseconds &- parked.readyNanoseconds : 0,
            stored: wasAsked ? parked.answeredNanoseconds &- parked.askedNanoseconds : 0,
            span: parked.span.isSampled ? parked.span.context : .none)
        waiting.withLock { waiting in
            if waiting.operations.count < Self.limit {
                waiting.operations.append(operation)
            } else {
                waiting.dropped += 1
            }
        }
    }

    /// Writes what waits to the log; for a thread that may block.
    func write(to log: Log) {
        let (operations, dropped) = waiting.withLock { waiting in
            defer { waiting = ([], 0) }
            return waiting
        }
        for operation in operations {
            log.warning(
                "slow storage operation",
                [
                    "command": .text(operation.kind.label), "key_hash": .key(operation.key.span),
                    "ms": .number(Self.milliseconds(operation.total)),
                    "held_ms": .number(Self.milliseconds(operation.held)),
                    "store_ms": .number(Self.milliseconds(operation.stored)),
                    // What the reply then waited for: earlier replies of the connection, and its reactor.
                    "reply_ms": .number(
                        Self.milliseconds(operation.total &- operation.held &- operation.stored)),
                ],
                trace: operation.span.isValid
                    ? Log.Trace(trace: operation.span.traceText, span: operation.span.spanText) : nil)
        }
        if dropped > 0 { log.warning("more slow storage operations", ["count": .count(dropped)]) }
    }

    private static func milliseconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds / 1000) / 1000 }
}
