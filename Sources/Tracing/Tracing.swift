// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Platform
internal import Synchronization
package import Telemetry

/// What is counted of spans that are exported.
enum TraceCounter: Int, CounterIndex {
    /// Spans that the collector took.
    case exported
    /// Spans that it did not take, in the end.
    case failed
    /// Requests to it that did not succeed.
    case failures
}

/// A process's tracing: a ring of spans for each of its threads, and the thread that sends them to a collector. Safe to
/// use from any thread.
package final class Tracing: Sendable {
    /// What it was told.
    package let configuration: TracingConfiguration
    private let rings: [SpanRing]
    private let peers = Guarded<[String]>([])
    private let own = Guarded<String?>(nil)
    private let exporter: SpanExporter?
    private let counts: SharedCounterSet<TraceCounter>

    /// Tracing for so many threads. Allocates nothing to speak of where it is off.
    package init(_ configuration: TracingConfiguration, threads: Int) {
        self.configuration = configuration
        let counts = SharedCounterSet<TraceCounter>()
        self.counts = counts
        rings = (0..<threads).map { _ in SpanRing(capacity: configuration.isOn ? configuration.queueLimit : 1) }
        exporter = configuration.isOn ? SpanExporter(configuration, rings, counts) : nil
    }

    /// The tracer of one thread; one for each.
    package func tracer(_ thread: Int) -> Tracer {
        Tracer(self, rings[thread], seed: UInt64.random(in: .min ... .max))
    }

    /// The number of a server, given as `host:port`, for spans of requests to it.
    package func peer(_ name: String) -> Int32 {
        guard configuration.isOn else { return -1 }
        return peers.withLock { peers in
            if let known = peers.firstIndex(of: name) { return Int32(known) }
            guard peers.count < Self.peerLimit else { return -1 }
            peers.append(name)
            return Int32(peers.count - 1)
        }
    }

    /// Servers that have a number at most: a fleet's members may come and go for years.
    private static var peerLimit: Int { 65_536 }

    /// Says where the process itself is reached, as `host:port`.
    package func setAddress(_ name: String) { own.withLock { $0 = name } }

    /// Wakes the exporter: a batch is there.
    func wake() { exporter?.wake() }

    /// Starts the exporter's thread, where tracing is on.
    package func start(log: Log?) throws(SystemError) {
        try exporter?.start(log: log) { [self] in
            SpanExporter.Surroundings(peers: peers.withLock { $0 }, own: own.withLock { $0 })
        }
    }

    /// Sends what waits, for two seconds at most, or where the process is to end at once, for a tenth of one; and ends
    /// the thread. Blocks.
    package func stop(isHurried: Bool) { exporter?.stop(withinMilliseconds: isHurried ? 100 : 2_000) }

    /// What became of spans; `prefix` is what the names begin with.
    package func appendMetrics(to page: inout Exposition, prefix: String) {
        page.family("\(prefix)_spans_exported_total", .counter, help: "Spans that the collector took.")
        page.sample(counts[.exported])
        page.family(
            "\(prefix)_spans_dropped_total", .counter,
            help: "Spans that were not exported: because too many waited, or the collector did not take them.")
        page.sample(rings.reduce(UInt64(0)) { $0 + $1.dropped }, ("reason", "queue"))
        page.sample(counts[.failed], ("reason", "export"))
        page.family(
            "\(prefix)_export_failures_total", .counter, help: "Requests to the collector that did not succeed.")
        page.sample(counts[.failures])
    }
}

/// A tracer for threads that are no reactors, one at a time.
package final class SharedTracer: Sendable {
    // Touched under the lock only.
    private let tracer: FixedArray<Tracer>
    private let lock = Lock()
    /// Whether anything is traced at all.
    package let isOn: Bool

    /// Takes a thread's place in `tracing`.
    package init(_ tracing: Tracing, thread: Int) {
        tracer = FixedArray(count: 1) { _ in tracing.tracer(thread) }
        isOn = tracing.configuration.isOn
    }

    /// Records a span below one that another process told of, if that is sampled; gives the span's own context then.
    @discardableResult
    package func record(
        below parent: SpanContext, _ name: SpanName, _ kind: SpanKind, start: UInt64, key: Span<UInt8>
    ) -> SpanContext? {
        lock.lock()
        defer { lock.unlock() }
        let seed = tracer[0].seed(below: parent)
        guard seed.isSampled else { return nil }
        var record = SpanRecord(seed, name, kind, start: start)
        record.end = Clock.monotonicNanoseconds()
        record.note(key: key, isShown: tracer[0].showsKeys)
        tracer[0].record(record)
        return record.context
    }
}
