// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Memory
internal import Platform
internal import Reactor

/// Messages between a coordinator and an agent, for one thread. From the proof of the token on each one carries a code
/// that nobody makes who does not know it, and that counts, so that none is changed, repeated or left out.
///
/// On the wire: the length of what follows in four bytes, the kind, the contents, and the code. The contents are not
/// encrypted.
final class AgentChannel {
    private var stream: OutboundStream?
    private let poller: Poller
    private var input = InputBuffer(capacity: 4096)
    private var output = OutputBuffer(capacity: 4096)
    private var key: [UInt8] = []
    private var sent: UInt64 = 0
    private var received: UInt64 = 0
    private let side: UInt8
    /// Bytes of a message that is taken at most.
    var limitBytes = AgentLimits.handshakeBytes
    /// When something arrived last.
    private(set) var heard = Clock.monotonicNanoseconds()

    /// A connection that was made or taken; `isAgent` says which side this is.
    init(_ stream: consuming OutboundStream, isAgent: Bool) throws(SystemError) {
        side = isAgent ? 1 : 0
        poller = try Poller(capacity: 2)
        try poller.add(stream.fd, .input, user: 0)
        self.stream = consume stream
    }

    /// Connects to `address` within some nanoseconds.
    static func connect(to address: SocketAddress, nanoseconds: UInt64) throws(SystemError) -> AgentChannel {
        let stream = try OutboundStream(to: address)
        let waiting = try Poller(capacity: 2)
        try waiting.add(stream.fd, .output, user: 0)
        if !stream.isConnectedAtOnce, waiting.wait(nanoseconds: nanoseconds) == 0 {
            throw SystemError("connect", code: 110, subject: address.host)
        }
        if let error = stream.connectFailure() { throw error }
        waiting.remove(stream.fd)
        return try AgentChannel(stream, isAgent: false)
    }

    /// From here on messages carry codes under this key.
    func secure(_ key: [UInt8]) { self.key = key }

    private func code(_ isFromAgent: UInt8, _ number: UInt64, _ kind: UInt8, _ contents: [UInt8]) -> [UInt8] {
        var head = WireWriter()
        head.put(UInt64(isFromAgent))
        head.put(number)
        head.put(UInt64(kind))
        return SHA256.code(key: key, [head.bytes, contents])
    }

    /// Sends a message, waiting while the other side does not take it.
    func send(_ message: AgentMessage, _ contents: [UInt8] = []) throws(AgentProblem) {
        let code = key.isEmpty ? [] : code(side, sent, message.rawValue, contents)
        sent += 1
        output.removeAll()
        output.append(bigEndian: UInt32(1 + contents.count + code.count))
        output.append(message.rawValue)
        output.append(contents.span)
        output.append(code.span)
        var written = 0
        let end = Clock.monotonicNanoseconds() + AgentLimits.sendNanoseconds
        while written < output.count {
            guard let count = stream?.send(output, from: written) else { throw AgentProblem("the connection broke") }
            written += count
            guard count == 0 else { continue }
            guard Clock.monotonicNanoseconds() < end else { throw AgentProblem("it takes no messages") }
            Thread.sleep(microseconds: 500)
        }
        output.shrink(to: 64 << 10)
    }

    /// The next message, if one comes within some nanoseconds.
    func receive(nanoseconds: UInt64) throws(AgentProblem) -> (message: AgentMessage, contents: [UInt8])? {
        let end = Clock.monotonicNanoseconds() + nanoseconds
        while true {
            if let found = try take() { return found }
            let now = Clock.monotonicNanoseconds()
            if poller.wait(nanoseconds: now < end ? end - now : 0) == 0, now >= end { return nil }
            switch read() {
            case .bytes: heard = Clock.monotonicNanoseconds()
            case .nothing: if Clock.monotonicNanoseconds() >= end { return nil }
            case .ended: throw AgentProblem("it closed the connection")
            case .failed: throw AgentProblem("the connection broke")
            }
        }
    }

    private func read() -> OutboundStream.Reading { stream?.receive(into: &input, minimum: 64 << 10) ?? .ended }

    /// Ends the connection.
    func close() { stream = nil }

    /// A message that is there already.
    private func take() throws(AgentProblem) -> (message: AgentMessage, contents: [UInt8])? {
        let codeBytes = key.isEmpty ? 0 : SHA256.digestBytes
        guard let length = Self.length(input) else { return nil }
        guard length >= 1 + codeBytes, length <= limitBytes + codeBytes else {
            throw AgentProblem("a message of \(length) bytes; does martlet-load speak there?")
        }
        guard input.count >= 4 + length else { return nil }
        let kind = Self.copy(input, 4..<5)[0]
        let contents = Self.copy(input, 5..<4 + length - codeBytes)
        let given = Self.copy(input, 4 + length - codeBytes..<4 + length)
        input.consume(4 + length)
        let expected = key.isEmpty ? [] : code(1 - side, received, kind, contents)
        received += 1
        guard SHA256.isSame(given, expected) else { throw AgentProblem("a message that is not what was sent") }
        guard let message = AgentMessage(rawValue: kind) else { throw AgentProblem("a message of an unknown kind") }
        return (message, contents)
    }

    private static func length(_ input: borrowing InputBuffer) -> Int? {
        let span = input.span
        guard span.count >= 4 else { return nil }
        return (0..<4).reduce(0) { $0 << 8 | Int(span[$1]) }
    }

    private static func copy(_ input: borrowing InputBuffer, _ range: Range<Int>) -> [UInt8] {
        [UInt8](copying: input.span.extracting(range))
    }

    /// The next message, which must be of that kind.
    func expect(_ message: AgentMessage, nanoseconds: UInt64) throws(AgentProblem) -> WireReader {
        guard let (kind, contents) = try receive(nanoseconds: nanoseconds) else {
            throw AgentProblem("it does not answer")
        }
        if kind == .refusal { throw AgentProblem(Self.refusal(contents)) }
        guard kind == message else { throw AgentProblem("it says something else than what was asked") }
        return WireReader(contents)
    }

    /// The reason in a refusal, on one line.
    static func refusal(_ contents: [UInt8]) -> String {
        let text = String(decoding: contents.prefix(1000), as: UTF8.self)
        return String(String.UnicodeScalarView(text.unicodeScalars.map { $0.value < 32 || $0.value == 127 ? " " : $0 }))
    }
}

extension AgentChannel {
    /// What a handshake's message holds.
    private static func read<T>(
        _ wire: inout WireReader, _ body: (inout WireReader) throws(WireProblem) -> T
    ) throws(AgentProblem) -> T {
        do throws(WireProblem) { return try body(&wire) } catch { throw AgentProblem(error.description) }
    }

    /// The agent's part of the proof of the token. Throws when the other side does not know it, or `claim` says that
    /// somebody else has the agent.
    func admit(_ token: [UInt8], threads: Int, claim: () -> Bool) throws(AgentProblem) {
        let own = AgentToken.nonce()
        try send(.hello, own)
        var reader = try expect(.proof, nanoseconds: AgentLimits.handshakeNanoseconds)
        let other = try Self.read(&reader) { (wire) throws(WireProblem) in try wire.blob() }
        let proof = try Self.read(&reader) { (wire) throws(WireProblem) in try wire.blob() }
        guard other.count == own.count,
            SHA256.isSame(proof, AgentToken.proof(token, "coordinator", [own, other]))
        else {
            // Guessing must take time.
            Thread.sleep(microseconds: 200_000)
            try send(.refusal, Array("the token is another one".utf8))
            throw AgentProblem("a wrong token")
        }
        guard claim() else {
            try send(.refusal, Array(AgentLimits.busy.utf8))
            throw AgentProblem(AgentLimits.busy)
        }
        var wire = WireWriter()
        wire.put(AgentToken.proof(token, "agent", [other, own]))
        wire.put(threads)
        try send(.welcome, wire.bytes)
        secure(AgentToken.proof(token, "session", [own, other]))
    }

    /// The coordinator's part; how many threads the agent has for a test.
    func join(_ token: [UInt8]) throws(AgentProblem) -> Int {
        let own = AgentToken.nonce()
        guard let (kind, other) = try receive(nanoseconds: AgentLimits.handshakeNanoseconds) else {
            throw AgentProblem("it says nothing; does martlet-load agent run there?")
        }
        if kind == .refusal { throw AgentProblem(Self.refusal(other)) }
        guard kind == .hello, other.count == own.count else { throw AgentProblem("it is no agent of martlet-load") }
        var wire = WireWriter()
        wire.put(own)
        wire.put(AgentToken.proof(token, "coordinator", [other, own]))
        try send(.proof, wire.bytes)
        var reader = try expect(.welcome, nanoseconds: AgentLimits.handshakeNanoseconds)
        let proof = try Self.read(&reader) { (wire) throws(WireProblem) in try wire.blob() }
        guard SHA256.isSame(proof, AgentToken.proof(token, "agent", [own, other])) else {
            throw AgentProblem("it does not know the token")
        }
        let threads = try Self.read(&reader) { (wire) throws(WireProblem) in
            try wire.number(upTo: LoadOptions.threadLimit)
        }
        secure(AgentToken.proof(token, "session", [other, own]))
        return max(1, threads)
    }
}
