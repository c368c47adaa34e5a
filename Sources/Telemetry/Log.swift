// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Platform
internal import Synchronization

/// Structured log lines: one JSON object or one logfmt line per event, one write(2) each, on standard error.
///
/// A message is a constant; what varies goes into fields. So lines can be counted and searched by message, and repeats
/// be limited. Cached values never go into a log, and keys only as ``Field/key(_:)``, which hashes them. May be
/// called from any thread, but not on the request path. After ``startWriting()`` whoever logs takes a short lock and
/// waits for nobody; before, it waits for a reader that stands still, but not long, and for a file as long as the disk
/// does. What there is no room for is dropped, and counted in the next line's field `dropped`.
package final class Log: Sendable {
    /// How much an event matters, from least to most.
    package enum Level: String, CaseIterable, Comparable, Sendable {
        case debug, info, warning, error

        package static func < (left: Level, right: Level) -> Bool { left.rank < right.rank }

        /// The syslog priority, for systemd.
        var priority: Int {
            switch self {
            case .debug: 7
            case .info: 6
            case .warning: 4
            case .error: 3
            }
        }

        private var rank: Int { 7 - priority }
    }

    /// How lines are written.
    package enum Format: String, CaseIterable, Sendable {
        case json, logfmt
    }

    /// A field's value.
    package enum Field: Sendable, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral {
        case text(String)
        case integer(Int64)
        case unsigned(UInt64)
        case number(Double)
        case boolean(Bool)

        package init(stringLiteral value: String) { self = .text(value) }
        package init(integerLiteral value: Int64) { self = .integer(value) }
        package init(booleanLiteral value: Bool) { self = .boolean(value) }

        /// A whole number.
        package static func count(_ value: some BinaryInteger) -> Field { .integer(Int64(clamping: value)) }

        /// A cache key, as 16 hexadecimal digits of its hash: a key can be personal data.
        package static func key(_ bytes: Span<UInt8>) -> Field { .text(Hexadecimal.digits(stableHash(bytes))) }

        /// Anything that describes itself, such as an error.
        package static func of(_ value: some CustomStringConvertible) -> Field { .text(value.description) }
    }

    /// The trace and the span of the request that a line is about, in hexadecimal digits: the fields `trace_id` and
    /// `span_id`. Source: OpenTelemetry's specification, Trace Context in non-OTLP Log Formats.
    package struct Trace: Sendable {
        let trace: String
        let span: String

        /// A span of a trace.
        package init(trace: String, span: String) {
            self.trace = trace
            self.span = span
        }
    }

    /// What a log does with its events.
    package struct Configuration: Sendable {
        /// The spelling of lines.
        package var format = Format.json
        /// Events below it are dropped.
        package var level = Level.info
        /// Where lines go; standard error unless a test says otherwise.
        package var fd: Int32 = 2
        /// Whether lines begin with `<N>`, which the journal takes for the priority.
        package var hasPriorityPrefix = false
        /// How many lines with the same message go out in an interval.
        package var burst = 20
        /// The interval of `burst`, in nanoseconds.
        package var intervalNanoseconds: UInt64 = 10_000_000_000
        /// How many messages are watched for repeats; the table starts afresh beyond it.
        package var repeatTableLimit = 512
        /// A text field longer than this many bytes is cut.
        package var fieldLimitBytes = 1024
        /// A line longer than this many bytes is cut after a whole field.
        package var lineLimitBytes = 8192
        /// Lines that wait for the thread that writes them have at most so many bytes.
        package var waitingLimitBytes = 1 << 20

        package init() {}

        /// The defaults for this process: with priorities when standard error is the journal.
        package static func forProcess(format: Format, level: Level) -> Configuration {
            var configuration = Configuration()
            configuration.format = format
            configuration.level = level
            configuration.hasPriorityPrefix = standardErrorIsJournal()
            return configuration
        }
    }

    private struct Repeats {
        var windowStart: UInt64
        var written: Int
        var suppressed: UInt64
    }

    private let configuration: Configuration
    private let minimum: Atomic<Int>
    /// Lines that nobody took.
    private let dropped = Atomic<UInt64>(0)
    /// How long a line waits for room.
    private static let patienceMilliseconds: Int32 = 10
    /// The thread that writes, once there is one.
    private let writer = Guarded<LogWriter?>(nil)
    /// How often each message came lately.
    private let repeats = Guarded<[String: Repeats]>([:])
    /// The last events, whatever the level and however often they come.
    package let events = EventLog()

    /// A log that writes as `configuration` says.
    package init(_ configuration: Configuration) {
        self.configuration = configuration
        minimum = Atomic(configuration.level.priority)
    }

    /// Changes the least level that is written, while running.
    package func setLevel(_ level: Level) { minimum.store(level.priority, ordering: .relaxed) }

    /// Whether events of `level` are written: to skip work that only a log line needs.
    package func isEnabled(_ level: Level) -> Bool { level.priority <= minimum.load(ordering: .relaxed) }

    /// Writes what helps to find a fault; see ``write(_:_:_:trace:)``.
    package func debug(_ message: StaticString, _ fields: KeyValuePairs<StaticString, Field> = [:]) {
        write(.debug, message, fields)
    }

    /// Writes what happened; see ``write(_:_:_:trace:)``.
    package func info(_ message: StaticString, _ fields: KeyValuePairs<StaticString, Field> = [:]) {
        write(.info, message, fields)
    }

    /// Writes what somebody should look at; see ``write(_:_:_:trace:)``.
    package func warning(
        _ message: StaticString, _ fields: KeyValuePairs<StaticString, Field> = [:], trace: Trace? = nil
    ) {
        write(.warning, message, fields, trace: trace)
    }

    /// Writes what did not work; see ``write(_:_:_:trace:)``.
    package func error(_ message: StaticString, _ fields: KeyValuePairs<StaticString, Field> = [:]) {
        write(.error, message, fields)
    }

    /// Writes an event, unless its level is too low or its message repeats too fast. A line after suppressed ones has
    /// the field `suppressed` with their number.
    package func write(
        _ level: Level, _ message: StaticString, _ fields: KeyValuePairs<StaticString, Field>, trace: Trace? = nil
    ) {
        let text = message.description
        let kind = EventKind.messages[text]
        if let kind { note(level, text, fields, kind) }
        guard isEnabled(level) else { return }
        guard let suppressed = admit(text, at: Clock.monotonicNanoseconds()) else { return }
        let writer = self.writer.withLock { $0 }
        if writer == nil, !takesOutput(configuration.fd, within: Self.patienceMilliseconds) {
            dropped.add(1 + suppressed, ordering: .relaxed)
            return
        }
        let missing = dropped.exchange(0, ordering: .relaxed)
        var line = LogLine(configuration)
        line.begin(level, text, at: Clock.realtimeNanoseconds())
        for (name, value) in fields { line.append(name.description, value) }
        if let kind { line.append("event", .text(kind.rawValue)) }
        if let trace {
            line.append("trace_id", .text(trace.trace))
            line.append("span_id", .text(trace.span))
        }
        if suppressed > 0 { line.append("suppressed", .unsigned(suppressed)) }
        if missing > 0 { line.append("dropped", .unsigned(missing)) }
        line.end()
        guard let writer else { return writeWhole(line.bytes, to: configuration.fd) }
        if !writer.offer(line.bytes) { dropped.add(1 + suppressed + missing, ordering: .relaxed) }
    }

    /// Keeps an event for the admin port.
    private func note(
        _ level: Level, _ message: String, _ fields: KeyValuePairs<StaticString, Field>, _ kind: EventKind
    ) {
        var configuration = self.configuration
        configuration.format = .json
        configuration.hasPriorityPrefix = false
        var line = LogLine(configuration)
        line.begin(level, message, at: Clock.realtimeNanoseconds())
        line.append("event", .text(kind.rawValue))
        for (name, value) in fields { line.append(name.description, value) }
        line.end()
        events.add(String(decoding: line.bytes.dropLast(), as: UTF8.self))
    }

    /// Has a thread write the lines from now on, so that a disk that does not answer holds up that thread alone. After
    /// a fork, which threads do not survive. Once.
    package func startWriting() throws(SystemError) {
        let fresh = LogWriter(fd: configuration.fd, limitBytes: configuration.waitingLimitBytes)
        try fresh.start()
        writer.withLock { $0 = fresh }
    }

    /// Waits until everything so far is written, at most `milliseconds`: before the process ends. Blocks.
    package func finish(milliseconds: UInt64) { writer.withLock { $0 }?.finish(milliseconds: milliseconds) }

    /// How many lines with this message were suppressed before this one; nil when this one is suppressed too.
    private func admit(_ message: String, at now: UInt64) -> UInt64? {
        repeats.withLock { repeats in
            if repeats.count >= configuration.repeatTableLimit, repeats[message] == nil { repeats.removeAll() }
            var entry = repeats[message] ?? Repeats(windowStart: now, written: 0, suppressed: 0)
            defer { repeats[message] = entry }
            if now &- entry.windowStart >= configuration.intervalNanoseconds {
                entry.windowStart = now
                entry.written = 0
            }
            guard entry.written < configuration.burst else {
                entry.suppressed += 1
                return nil
            }
            entry.written += 1
            defer { entry.suppressed = 0 }
            return entry.suppressed
        }
    }
}

/// Whether systemd started this process with standard error connected to the journal.
private func standardErrorIsJournal() -> Bool {
    if let stream = Environment.value("JOURNAL_STREAM") { return stream == fileIdentity(2) }
    return false
}
