// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CAres

/// Asks the domain name system, by c-ares. One at a time, from one thread; blocks.
// SAFETY (file): the channel lives from init to deinit; a query's box is retained until its callback, which c-ares
// calls exactly once, at the latest when the channel is destroyed.
@safe
final class Resolver {
    /// Why a name was not found.
    struct Failure: Error, Sendable {
        let reason: String
        /// Whether the name is known not to be there, or to have no such records.
        let isAbsent: Bool
    }

    /// Record types. Source: RFC 1035, RFC 3596, RFC 2782.
    enum RecordType: Int32 {
        case a = 1
        case aaaa = 28
        case srv = 33
    }

    private let channel: ares_channel

    /// A resolver by the system's configuration, or by `servers`: `address:port`, with commas between them.
    init(servers: String? = nil) throws(Failure) {
        // Once for each resolver: c-ares counts.
        var code = ares_library_init(ARES_LIB_INIT_ALL)
        guard code == ARES_SUCCESS else { throw Self.failure(code) }
        var made: ares_channel?
        var options = unsafe ares_options()
        unsafe options.timeout = 2_000
        unsafe options.tries = 2
        code = unsafe ares_init_options(&made, &options, Int32(ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES))
        guard code == ARES_SUCCESS, let made = unsafe made else { throw Self.failure(code) }
        unsafe channel = made
        guard let servers else { return }
        code = unsafe ares_set_servers_ports_csv(made, servers)
        guard code == ARES_SUCCESS else { throw Self.failure(code) }
    }

    deinit {
        unsafe ares_destroy(channel)
        ares_library_cleanup()
    }

    private static func failure(_ code: Int32) -> Failure {
        let reason = unsafe String(cString: ares_strerror(code))
        let absent = [ARES_ENOTFOUND, ARES_ENODATA]
        return Failure(reason: reason, isAbsent: absent.contains(code))
    }

    /// The records of a name. `isStopped` ends the wait early.
    func query(
        _ name: String, _ type: RecordType, isStopped: () -> Bool
    ) throws(Failure) -> [DNSMessage.Record] {
        let answer = Answer()
        let box = unsafe Unmanaged.passRetained(answer)
        unsafe ares_query(
            channel, name, 1, type.rawValue,
            { context, status, _, buffer, length in
                guard let context = unsafe context else { return }
                let answer = unsafe Unmanaged<Answer>.fromOpaque(context).takeRetainedValue()
                answer.status = status
                guard let buffer = unsafe buffer, length > 0 else { return }
                unsafe answer.bytes = Array(UnsafeBufferPointer(start: buffer, count: Int(length)))
            }, box.toOpaque())
        while answer.status == nil, !isStopped() {
            if unsafe martlet_ares_step(channel, 200) == 0 { break }
        }
        guard let status = answer.status else {
            unsafe ares_cancel(channel)
            throw Failure(reason: "the query was given up", isAbsent: false)
        }
        guard status == ARES_SUCCESS else { throw Self.failure(status) }
        guard let message = DNSMessage(answer.bytes) else {
            throw Failure(reason: "an answer that cannot be read", isAbsent: false)
        }
        return message.records
    }

    private final class Answer {
        var status: Int32?
        var bytes: [UInt8] = []
    }
}
