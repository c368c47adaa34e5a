// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Reactor

/// A request on its way to the node that owns its key.
final class ForwardedCommand {
    /// The client's request, which waits for the reply.
    let parked: ParkedRequest
    /// As the owner is asked: always aloud, because a reply is known by its place.
    let bytes: [UInt8]
    /// Whom to ask.
    var owner: String
    /// How often somebody else was said to be the owner.
    var hops = 0
    /// When it is given up, in monotonic nanoseconds.
    let deadline: UInt64

    init(_ parked: ParkedRequest, _ bytes: [UInt8], to owner: String, deadline: UInt64) {
        self.parked = parked
        self.bytes = bytes
        self.owner = owner
        self.deadline = deadline
    }
}

/// Bytes of the commands that wait for other nodes, of all lanes of a reactor.
final class OwnerBacklog {
    fileprivate(set) var bytes = 0
}

/// One reactor's connection to another node, for one protocol, and what waits for its replies, in order.
final class OwnerLane {
    /// The node's address; empty when the lane is free.
    var owner = ""
    let isBinary: Bool
    var connection: ConnectionID?
    var isOpen = false
    var isDirty = false
    /// What goes out when the turn ends, or the connection stands.
    var pending = OutputBuffer(capacity: 512)
    /// nil is the greeting.
    private var calls: [ForwardedCommand?] = []
    private var head = 0
    private let backlog: OwnerBacklog

    init(isBinary: Bool, _ backlog: OwnerBacklog) {
        self.isBinary = isBinary
        self.backlog = backlog
    }

    /// Commands that wait for replies of one owner at most.
    static var callLimit: Int { 65_536 }
    /// Their bytes at most, of all owners together: an owner that stands still has its clients' values wait here. One
    /// command may always wait.
    static var byteLimit: Int { 64 << 20 }

    /// How many wait.
    var count: Int { calls.count - head }
    /// The one that the next reply is to; nil when there is none.
    var first: ForwardedCommand?? { head < calls.count ? calls[head] : nil }

    /// The command that has waited longest.
    var oldest: ForwardedCommand? { calls[head...].lazy.compactMap { $0 }.first }

    func append(_ command: ForwardedCommand?) {
        backlog.bytes += command?.bytes.count ?? 0
        calls.append(command)
    }

    func removeFirst() {
        backlog.bytes -= calls[head]?.bytes.count ?? 0
        calls[head] = nil
        head += 1
        guard head == calls.count || head > 4096 else { return }
        calls.removeFirst(head)
        head = 0
    }

    /// Takes all that wait.
    func takeAll() -> [ForwardedCommand] {
        let all = calls[head...].compactMap { $0 }
        backlog.bytes -= all.reduce(0) { $0 + $1.bytes.count }
        (calls, head) = ([], 0)
        return all
    }

    /// What a node is told first, so that it does not pass on what it does not own itself.
    func greet() {
        append(nil)
        guard isBinary else { return pending.append("config get owners\r\n") }
        let key: StaticString = "owners"
        pending.append(
            bigEndian: UInt64(BinaryHeader.requestMagic) << 56 | UInt64(BinaryOpcode.stat) << 48
                | UInt64(key.utf8CodeUnitCount) << 32)
        pending.append(bigEndian: UInt64(key.utf8CodeUnitCount) << 32)
        pending.append(bigEndian: UInt64(0))
        pending.append(key)
    }

    /// The length of the reply that starts at `start`: nil while it is not all there, 0 when it is none.
    static func replyLength(to command: ForwardedCommand?, isBinary: Bool, _ input: Span<UInt8>, at start: Int) -> Int?
    {
        if isBinary {
            guard input.count - start >= BinaryHeader.bytes else { return nil }
            guard input[start] == BinaryHeader.replyMagic else { return 0 }
            let length = BinaryHeader.bytes + Int(input.bigEndian(at: start + 8, as: UInt32.self))
            return start + length <= input.count ? length : nil
        }
        let isGet = command.map { $0.parked.request.isClassicGet } ?? false
        var end = start
        while true {
            switch ReplyParser.next(in: input, at: end) {
            case .incomplete: return nil
            case .malformed: return 0
            case .unit(let unit):
                guard unit.end <= input.count else { return nil }
                end = unit.end
                if !isGet || unit.kind != .value { return end - start }
            }
        }
    }
}

extension Request {
    /// Whether it is get, gets, gat or gats of the classic protocol.
    var isClassicGet: Bool { form == .classic && verb.rawValue <= Verb.gats.rawValue }
}
