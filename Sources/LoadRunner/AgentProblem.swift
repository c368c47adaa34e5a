// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// What is wrong between a coordinator and an agent, in one line.
struct AgentProblem: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// What a message between a coordinator and an agent says.
enum AgentMessage: UInt8 {
    /// Agent: its first random bytes.
    case hello = 1
    /// Coordinator: its own, and the proof that it knows the token.
    case proof
    /// Agent: the same proof of its own, and what it can.
    case welcome
    /// Agent: the reason why it goes no further.
    case refusal
    /// Coordinator: its clock. Agent: the same, and its own. Also says that somebody is there.
    case ping, pong
    /// Coordinator: a test; see ``AgentJob``.
    case job
    /// Agent: everything is prepared; the metrics' digest.
    case ready
    /// Coordinator: when the test starts, on the agent's clock.
    case start
    /// Coordinator: no iteration starts from now on.
    case stop
    /// Agent: what it has gathered; see ``AgentReport``.
    case report
    /// Agent: why the test cannot go on.
    case failure
    /// Agent: the last report was the last.
    case done
}

/// What both sides of a connection between a coordinator and an agent hold themselves to.
enum AgentLimits {
    /// Bytes of a message before the token is proven, of a test with its files, and of anything else.
    static let handshakeBytes = 256
    static let jobBytes = 256 << 20
    static let messageBytes = 64 << 20
    /// Coordinators that prove the token at once.
    static let handshakes = 8
    static let handshakeNanoseconds: UInt64 = 5_000_000_000
    /// Both sides say something so often, and a side that was silent for so long is gone.
    static let pingNanoseconds: UInt64 = 1_000_000_000
    static let silenceNanoseconds: UInt64 = 10_000_000_000
    /// A message that cannot be sent within this time is not sent at all.
    static let sendNanoseconds: UInt64 = 60_000_000_000
    /// A token has so many bytes.
    static let tokenBytes = 16...1024
    /// What an agent says that has another coordinator's test.
    static let busy = "it is busy with another test"
    /// Where an agent listens unless it is told otherwise.
    static let port: UInt16 = 6570
    /// Between the moment when everything is prepared and the start, so that it is known everywhere by then.
    static let startNanoseconds: UInt64 = 500_000_000
}

/// The token that a coordinator and its agents share: out of a file, or the environment, never a command line, which
/// everybody on the machine can read.
enum AgentToken {
    static let variable = "MARTLET_LOAD_TOKEN"

    /// The token that the command line or the environment names. Throws when there is none.
    static func find(_ line: LoadCommandLine, _ environment: [String: String]) throws(OptionProblem) -> [UInt8] {
        var bytes: [UInt8]
        if let path = line.last("token-file") {
            do throws(SystemError) {
                bytes = try readFile(path, limitBytes: 64 << 10)
            } catch {
                throw OptionProblem("--token-file \(path): \(error.reason)")
            }
        } else if let text = environment[variable] {
            bytes = Array(text.utf8)
        } else {
            throw OptionProblem("agents need a token that both sides know: give --token-file FILE or set \(variable)")
        }
        while let last = bytes.last, [10, 13, 32].contains(last) { bytes.removeLast() }
        guard AgentLimits.tokenBytes.contains(bytes.count) else {
            throw OptionProblem(
                "the token has \(bytes.count) bytes: \(AgentLimits.tokenBytes.lowerBound) to "
                    + "\(AgentLimits.tokenBytes.upperBound) are allowed")
        }
        return bytes
    }

    /// Random bytes, another ones each time.
    static func nonce() -> [UInt8] {
        var random = SystemRandomNumberGenerator()
        return (0..<32).map { _ in UInt8.random(in: 0...255, using: &random) }
    }

    /// What proves to whoever made the first nonce that the other side knows the token.
    static func proof(_ token: [UInt8], _ side: String, _ nonces: [[UInt8]]) -> [UInt8] {
        SHA256.code(key: token, [Array("martlet-load 1 \(side)".utf8)] + nonces)
    }
}
