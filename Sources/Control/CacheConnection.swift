// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Reactor

/// A connection to a server's memcached port, with TLS where that is asked for. Every call ends within its time.
final class CacheConnection {
    /// Whom it leads to.
    let subject: String
    private let stream: OutboundStream
    private let poller: Poller
    private var input = InputBuffer(capacity: 64 << 10)
    private let timeoutNanoseconds: UInt64

    /// Connects to the first address of `host` that answers. `timeoutSeconds` holds for each wait.
    static func connect(
        host: String, port: UInt16, tls: TLSClientContext?, timeoutSeconds: Int
    ) throws(ControlError) -> CacheConnection {
        let subject = "\(host):\(port)"
        let addresses = try system { () throws(SystemError) in
            try ListeningSocket.resolve(host: host, port: port, isDatagram: false)
        }
        var failure = ControlError(.unavailable, "\(subject): there is no address")
        for address in addresses {
            do throws(ControlError) {
                let connection = try CacheConnection(address, tls, timeoutSeconds, subject)
                try connection.secure()
                return connection
            } catch { failure = error }
        }
        throw failure
    }

    private init(
        _ address: SocketAddress, _ tls: TLSClientContext?, _ timeoutSeconds: Int, _ subject: String
    ) throws(ControlError) {
        self.subject = subject
        timeoutNanoseconds = UInt64(timeoutSeconds) * 1_000_000_000
        do throws(SystemError) {
            stream = try OutboundStream(to: address, tls: tls)
            poller = try Poller(capacity: 1)
            try poller.add(stream.fd, .output, user: 0)
        } catch { throw ControlError(.system, "connect \(subject): \(error.reason)") }
    }

    private func secure() throws(ControlError) {
        try wait(.output, "connect")
        if let error = stream.connectFailure() { throw ControlError(.system, "connect \(subject): \(error.reason)") }
        while true {
            switch stream.secure() {
            case .ready: return
            case .needsInput: try wait(.input, "TLS")
            case .needsOutput: try wait(.output, "TLS")
            case .failed(let reason): throw ControlError(.unavailable, "TLS \(subject): \(reason)")
            }
        }
    }

    private func wait(_ readiness: Readiness, _ what: String) throws(ControlError) {
        poller.change(stream.fd, readiness, user: 0)
        let end = Clock.monotonicNanoseconds() &+ timeoutNanoseconds
        while poller.wait(timeoutMilliseconds: 100) == 0 {
            guard Clock.monotonicNanoseconds() < end else {
                let seconds = timeoutNanoseconds / 1_000_000_000
                throw ControlError(.system, "\(what) \(subject): no answer within \(seconds) s")
            }
        }
    }

    /// Sends all of `bytes`.
    func write(_ bytes: [UInt8]) throws(ControlError) {
        var output = OutputBuffer(capacity: max(bytes.count, 1))
        output.append(bytes.span)
        var start = 0
        while start < output.count {
            guard let sent = stream.send(output, from: start) else {
                throw ControlError(.system, "send \(subject): the connection is broken")
            }
            start += sent
            if sent == 0 { try wait(.output, "send") }
        }
    }

    /// What arrives next, up to `limit` bytes.
    func read(limit: Int) throws(ControlError) -> [UInt8] {
        while input.count == 0 {
            switch stream.receive(into: &input, minimum: 16 << 10) {
            case .bytes: break
            case .nothing: try wait(.input, "read")
            case .ended: throw ControlError(.system, "read \(subject): the server has closed the connection")
            case .failed: throw ControlError(.system, "read \(subject): the connection is broken")
            }
        }
        let count = min(limit, input.count)
        let bytes = [UInt8](copying: input.span.extracting(0..<count))
        input.consume(count)
        return bytes
    }
}
