// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Reactor

/// A line protocol whose commands exercise one directive each.
final class ScriptHandler: ReactorHandler {
    /// What happened, for tests to see from outside.
    struct Record: Sendable {
        var opened = 0
        var closed: [CloseReason] = []
        var released: [UInt64] = []
        var receivedCalls = 0
        var drained = 0
        var inputEnded = 0
        var messages: [ReactorMessage] = []
        var connections: [ConnectionID] = []
        var streams: [ConnectionStream] = []
        var started = 0
        var stopped = 0
        var ticks = 0
        var order: [UInt64] = []
        /// How many inputs there were in each group.
        var foreseen: [Int] = []
    }

    private let reactor: Reactor
    private let record: Guarded<Record>
    private var blocks: [Int: MemoryBlock] = [:]
    /// External bytes that are out, by token: a reactor that used them after their release would read freed memory,
    /// which the address sanitizer sees.
    private var externals: [UInt64: MemoryBlock] = [:]
    private var nextToken: UInt64 = 1
    /// Those that take input again when the turn is over.
    private var resting: [ConnectionID] = []
    private static let pattern = (0..<256).map { UInt8($0) }

    init(_ reactor: Reactor, _ record: Guarded<Record>) {
        self.reactor = reactor
        self.record = record
    }

    private func note(_ change: (inout Record) -> Void) { record.withLock { change(&$0) } }

    func started(_ loop: inout ReactorLoop) { note { $0.started += 1 } }
    func stopped() { note { $0.stopped += 1 } }
    func tick(_ loop: inout ReactorLoop, now: UInt64) { note { $0.ticks += 1 } }

    func turnEnded(_ loop: inout ReactorLoop) {
        let ids = resting
        resting = []
        for id in ids { loop.withConnection(id) { connection, _ in connection.resumeReading() } }
    }

    func released(_ token: UInt64) {
        if let block = externals.removeValue(forKey: token) { unsafe block.unsafeBase.deallocate() }
        note { $0.released.append(token) }
    }

    func foresee(_ inputs: borrowing InputGroup) {
        let count = inputs.count
        note { $0.foreseen.append(count) }
    }

    func opened(_ connection: inout Connection, _ output: inout OutputBuffer) {
        let id = connection.id
        note {
            $0.opened += 1
            $0.connections.append(id)
        }
        if connection.tag == 7 { output.append("hello\n") }
    }

    func closed(_ connection: inout Connection, _ reason: CloseReason) {
        free(connection.slot)
        note { $0.closed.append(reason) }
    }

    private func free(_ slot: Int) {
        if let block = blocks.removeValue(forKey: slot) { unsafe block.unsafeBase.deallocate() }
    }

    func drained(_ connection: inout Connection, _ output: inout OutputBuffer) { note { $0.drained += 1 } }

    func inputEnded(_ connection: inout Connection, _ output: inout OutputBuffer) { note { $0.inputEnded += 1 } }

    func message(_ message: ReactorMessage, _ loop: inout ReactorLoop) {
        note { $0.messages.append(message) }
        loop.withConnection(message.connection) { connection, output in
            switch message.kind {
            case 1: connection.resumeReading()
            case 2:
                output.append("late\n")
                connection.release()
            default: output.append(string: "message \(message.value)\n")
            }
        }
    }

    func filled(_ connection: inout Connection, _ output: inout OutputBuffer) {
        guard let block = blocks[connection.slot] else { return output.append("no block\n") }
        let sum = block.withSpan { stableHash($0) }
        free(connection.slot)
        output.append(string: "filled \(block.count) \(sum)\n")
    }

    func datagram(_ datagram: borrowing Datagram, _ input: Span<UInt8>, _ output: inout OutputBuffer) {
        let text = string(input)
        if text.hasPrefix("big "), let count = Int(text.dropFirst(4).dropLast()) {
            for index in 0..<count { output.append(UInt8(ascii: "a") + UInt8(index % 26)) }
        } else if text.hasPrefix("split ") {
            output.append("before ")
            sendExternal(3000, &output)
            output.append(" after")
        } else {
            output.append(input)
        }
    }

    func received(_ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Int {
        note { $0.receivedCalls += 1 }
        var offset = 0
        while let end = newline(input, from: offset) {
            let line = string(input.extracting(offset..<end))
            let words = line.split(separator: " ").map(String.init)
            guard run(words, &connection, input, end + 1 - offset, input.count - offset, &output) else { break }
            offset = end + 1
            if stops(connection) || words[0] == "turn" { break }
        }
        return offset
    }

    private func stops(_ connection: borrowing Connection) -> Bool {
        connection.isClosing || connection.isPaused || connection.isFilling || connection.handlerState == 1
    }

    /// False when the command is not whole.
    private func run(
        _ words: [String], _ connection: inout Connection, _ input: Span<UInt8>, _ lineLength: Int, _ available: Int,
        _ output: inout OutputBuffer
    ) -> Bool {
        let count = words.count > 1 ? Int(words[1]) ?? 0 : 0
        switch words[0] {
        case "fill":
            let block = unsafe MemoryBlock(
                unsafeBase: UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 16), count: count)
            blocks[connection.slot] = block
            connection.fill(block, count: count)
        case "swallow":
            connection.swallow(count)
            output.append("swallowing\n")
            // The bytes must not be taken for lines: stop here.
            connection.handlerState = 1
        case "go": connection.handlerState = 0
        case "big":
            output.reserve(count)
            for _ in 0..<count / 256 { output.append(Self.pattern.span) }
            output.append(Self.pattern.span.extracting(0..<count % 256))
        case "external":
            output.append("<")
            sendExternal(count, &output)
            output.append(">\n")
        case "close":
            output.append("bye\n")
            connection.closeAfterFlush()
        case "drop": connection.closeNow()
        case "pause": connection.pauseReading()
        case "hold": connection.hold()
        case "rest":
            let id = connection.id
            note { $0.order.append(id.rawValue) }
            resting.append(id)
            connection.pauseReading()
        case "turn":
            let id = connection.id
            note { $0.order.append(id.rawValue) }
            output.append("turned\n")
            connection.yield()
        case "need":
            // The command is the line and `count` bytes after it.
            guard available >= lineLength + count else {
                connection.minimumInput(lineLength + count)
                return false
            }
            output.append(string: "had \(count)\n")
            connection.swallow(count)
            connection.handlerState = 1
        case "limit": connection.inputLimit = count
        case "stream":
            connection.pauseReading()
            let stream = connection.makeStream(of: reactor, limitBytes: count)
            note { $0.streams.append(stream) }
        case "subject": output.append(string: "\(connection.tlsPeerCommonName ?? "nobody")\n")
        case "address": output.append(string: "\(connection.peerAddress) \(connection.localAddress)\n")
        case "thread": output.append(string: "\(reactor.index)\n")
        default: output.append(string: words.joined(separator: " ") + "\n")
        }
        return true
    }

    private func sendExternal(_ count: Int, _ output: inout OutputBuffer) {
        let block = unsafe MemoryBlock(
            unsafeBase: UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 16), count: count)
        block.fill(UInt8(ascii: "e"), from: 0, length: count)
        externals[nextToken] = block
        output.append(external: block, token: nextToken)
        nextToken += 1
    }

    private func newline(_ input: Span<UInt8>, from start: Int) -> Int? {
        for index in start..<input.count where input[index] == UInt8(ascii: "\n") { return index }
        return nil
    }

    private func string(_ input: Span<UInt8>) -> String {
        var bytes: [UInt8] = []
        for index in input.indices { bytes.append(input[index]) }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// A group with ``ScriptHandler``s that ends with the test.
final class TestServer: Sendable {
    let group: ReactorGroup
    let record: Guarded<ScriptHandler.Record>
    private let ended = Guarded(false)

    init(
        _ listeners: [ListenerConfiguration] = [ListenerConfiguration(.tcp(host: "127.0.0.1", port: 0))],
        tls: TLSContext? = nil, _ configure: (inout ReactorConfiguration) -> Void = { _ in }
    ) throws {
        var configuration = ReactorConfiguration()
        configuration.threads = 1
        // The test itself may be too slow a reader.
        if isSanitized { configuration.stalledOutputMilliseconds = 600_000 }
        configure(&configuration)
        let record = Guarded(ScriptHandler.Record())
        self.record = record
        group = try ReactorGroup(configuration, tls: tls) { ScriptHandler($0, record) }
        for listener in listeners { try group.listen(listener) }
        try group.start()
    }

    deinit { end(.immediate) }

    func end(_ mode: StopMode) {
        let first = ended.withLock { ended in
            defer { ended = true }
            return !ended
        }
        guard first else { return }
        group.stop(mode)
        group.join()
    }

    var port: UInt16 { group.listeners[0].port }
    var seen: ScriptHandler.Record { record.withLock { $0 } }
    func count(_ counter: ReactorCounter) -> UInt64 { group.total(of: counter) }
}
