// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Platform
import Testing

@Suite struct SocketTests {
    private func bound(_ host: String, isDatagram: Bool = false) throws -> Descriptor {
        let address = try ListeningSocket.resolve(host: host, port: 0, isDatagram: isDatagram)[0]
        return isDatagram ? try ListeningSocket.udp(address) : try ListeningSocket.tcp(address, backlog: 16)
    }

    @Test func writesAddressesAsMemcachedDoes() throws {
        let four = try bound("127.0.0.1")
        let address = SocketAddress.local(of: four.number)
        #expect(address.host == "127.0.0.1")
        #expect(address.port > 0)
        #expect(address.description(isDatagram: false) == "tcp:127.0.0.1:\(address.port)")
        #expect(address.description(isDatagram: true) == "udp:127.0.0.1:\(address.port)")
        let second = try bound("::1")
        let six = SocketAddress.local(of: second.number)
        #expect(six.isIPv6)
        #expect(six.description(isDatagram: false) == "tcp6:[::1]:\(six.port)")
        #expect(SocketAddress(path: "/run/x").description(isDatagram: false) == "unix:/run/x")
        #expect(SocketAddress(path: "").description(isDatagram: false) == "unix:<AF 1>")
        #expect(four.number != second.number, "both are open until here")
    }

    @Test func setsWhatMemcachedSets() throws {
        let socket = try bound("127.0.0.1")
        for (level, option) in [
            (SOL_SOCKET, SO_REUSEADDR), (SOL_SOCKET, SO_KEEPALIVE), (Int32(IPPROTO_TCP), TCP_NODELAY),
        ] {
            var (value, length) = (Int32(0), socklen_t(4))
            unsafe getsockopt(socket.number, level, option, &value, &length)
            #expect(value != 0)
        }
        #expect(fcntl(socket.number, F_GETFL) & O_NONBLOCK != 0)
        #expect(fcntl(socket.number, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test func namesWhatCannotBeBound() throws {
        let error = #expect(throws: SystemError.self) {
            try ListeningSocket.resolve(host: "no host", port: 1, isDatagram: false)
        }
        #expect(error?.description.contains("no host") == true)
        let long = String(repeating: "p", count: 108)
        let refused = #expect(throws: SystemError.self) {
            _ = try ListeningSocket.unix(path: long, mode: 0o700, backlog: 1).number
        }
        #expect(refused?.description.contains(long) == true)
    }

    @Test func readsNothingWithoutWaiting() throws {
        let listener = try bound("127.0.0.1")
        guard case .failure(let error) = ListeningSocket.accept(listener.number) else {
            Issue.record("nobody connected")
            return
        }
        #expect(error.code == SystemError.wouldBlockCode)
        var bytes: [UInt8] = [0, 0, 0, 0]
        let datagram = try bound("127.0.0.1", isDatagram: true)
        #expect(unsafe StreamSocket.read(datagram.number, &bytes, 4) == StreamSocket.wouldBlock)
        #expect(unsafe StreamSocket.read(listener.number, &bytes, 4) == StreamSocket.failed)
    }

    @Test func removesOnlyItsOwnPath() throws {
        let path = "/tmp/martlet-\(getpid())-own"
        let first = try ListeningSocket.unix(path: path, mode: 0o700, backlog: 1)
        let identity = ListeningSocket.fileIdentity(path)
        // Open as long as the second is made, so that its number is not given away again.
        let second = try ListeningSocket.unix(path: path, mode: 0o700, backlog: 1)
        #expect(first.number != second.number)
        ListeningSocket.remove(path: path, identity: identity)
        let successor = ListeningSocket.fileIdentity(path)
        #expect(successor != nil && successor != identity)
        ListeningSocket.remove(path: path, identity: successor)
        #expect(ListeningSocket.fileIdentity(path) == nil)
    }
}
