// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MartletClient
internal import Memory
internal import Platform
internal import Reactor

/// One connection to the home region, and what waits for its replies, in order. A key's requests of one kind go over
/// one lane, so that they keep their order. One reactor's.
final class RegionLane {
    /// Where it connects to next, and what is left to try of this attempt.
    struct Candidate {
        var endpoint: Int
        var address: SocketAddress
    }

    var machine: ConnectionStateMachine
    var connection: ConnectionID?
    var isOpen = false
    var isDirty = false
    /// The endpoint that answered last, or is tried first.
    var endpoint: Int
    var candidates: ArraySlice<Candidate> = []
    /// Whether the attempt goes on with the next candidate.
    var triesNext = false
    /// What goes out when the turn ends, or the connection stands.
    var pending = OutputBuffer(capacity: 512)
    /// Why it is not there, or what its peer did.
    var reason = ""
    private var requests: [RegionRequest] = []
    private var head = 0
    /// How many of the requests that wait went out.
    private(set) var sent = 0
    /// Bytes of all that wait.
    private(set) var bytes = 0

    init(_ configuration: ConnectionStateMachine.Configuration, endpoint: Int) {
        machine = ConnectionStateMachine(configuration)
        self.endpoint = endpoint
    }

    /// Requests whose replies are to come.
    var count: Int { requests.count - head }
    /// The one that the next reply is to.
    var first: RegionRequest? { head < requests.count && sent > 0 ? requests[head] : nil }

    func append(_ request: RegionRequest) {
        requests.append(request)
        bytes += request.bytes
    }

    /// Everything that was appended has gone out.
    func noteSent() { sent = count }

    /// The first has its reply. Its size is the caller's to give back.
    func removeFirst() {
        bytes -= requests[head].bytes
        requests[head].question = .read([])
        head += 1
        sent -= 1
        guard head == requests.count || head > 4096 else { return }
        requests.removeFirst(head)
        head = 0
    }

    /// Takes all that wait: those that went out, and those that did not.
    func takeAll() -> (sent: [RegionRequest], unsent: [RegionRequest]) {
        let all = requests[head...]
        defer { (requests, head, sent, bytes) = ([], 0, 0, 0) }
        pending.removeAll()
        return (Array(all.prefix(sent)), Array(all.dropFirst(sent)))
    }
}
