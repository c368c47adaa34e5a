// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import MemcacheProtocol
internal import Platform
internal import Reactor

/// What is said of the machine that made a load.
enum MachineFacts {
    /// The number and model of its processors, and its kernel.
    static var text: String {
        let lines = file("/proc/cpuinfo").split(separator: "\n")
        let model = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last
        let name = model.map { ", \(trimmed($0))" } ?? ""
        return "\(ProcessControl.processors) processors\(name); Linux \(trimmed(file("/proc/sys/kernel/osrelease")))"
    }

    private static func file(_ path: String) -> String {
        String(decoding: (try? readFile(path, limitBytes: 4 << 20)) ?? [], as: UTF8.self)
    }

    private static func trimmed(_ text: some StringProtocol) -> String {
        var rest = Substring(text)
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return String(rest)
    }
}

/// Asks a server for its version, over a connection of its own.
enum ServerVersion {
    private static let patienceNanoseconds: UInt64 = 2_000_000_000
    private static let limitBytes = 200

    /// The version; nil when there is no answer in time.
    static func ask(_ server: ServerAddress) -> String? {
        do throws(SystemError) { return try find(server, Clock.monotonicNanoseconds() + patienceNanoseconds) } catch {
            return nil
        }
    }

    private static func find(_ server: ServerAddress, _ deadline: UInt64) throws(SystemError) -> String? {
        let poller = try Poller(capacity: 4)
        let stream = try OutboundStream(to: server.address, tls: server.tls)
        try poller.add(stream.fd, [.input, .output], user: 0)
        func wait() -> Bool {
            while poller.wait(nanoseconds: 20_000_000) == 0 {
                if Clock.monotonicNanoseconds() >= deadline { return false }
            }
            return Clock.monotonicNanoseconds() < deadline
        }
        var securing = OutboundStream.Securing.needsOutput
        while securing != .ready {
            guard wait(), stream.connectFailure() == nil else { return nil }
            securing = stream.secure()
            if case .failed = securing { return nil }
            poller.change(stream.fd, securing == .needsOutput ? .output : .input, user: 0)
        }
        var output = OutputBuffer(capacity: 16)
        output.append("version\r\n")
        guard stream.send(output, from: 0) == output.count else { return nil }
        poller.change(stream.fd, .input, user: 0)
        var input = InputBuffer(capacity: 4096)
        while true {
            var version: String?
            let (taken, _, defect) = readReplies(input) { unit, span in
                guard unit.kind == .version else { return }
                let end = min(unit.textEnd, unit.restStart + limitBytes)
                let text = [UInt8](copying: span.extracting(unit.restStart..<max(unit.restStart, end)))
                version = String(decoding: text, as: UTF8.self)
            }
            if let version { return version }
            // Anything else is no answer.
            guard taken == 0, defect == nil, wait() else { return nil }
            switch stream.receive(into: &input, minimum: 4096) {
            case .bytes, .nothing: break
            case .ended, .failed: return nil
            }
        }
    }
}
