// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Hosting
import Memory
import NodeServer
import Platform
import Reactor
import RouterProxy
import Synchronization
import Testing
import Tracing

/// A node with one reactor in this process, a client of it, and the count of what the reactor's thread allocates; or a
/// router with one reactor before it, and what that one's thread allocates.
final class AllocationBed {
    /// Requests that are measured.
    static let requests = 10_000
    /// Requests sent before the replies are awaited.
    static let pipelined = 20

    private let service: NodeService
    private let router: RouterService?
    private let client: Descriptor
    private var buffer = [UInt8](repeating: 0, count: 64 << 10)

    /// Where there are `tenants`, the client is one that may use every key, and rules are looked at for each. With a
    /// `sampler` requests are traced, for a collector that is not there.
    init(throughRouter: Bool = false, tenants: Bool = false, sampler: TraceSampler.Rule? = nil) throws {
        var tracing = TracingConfiguration()
        if let sampler {
            tracing.url = "http://127.0.0.1:1/v1/traces"
            tracing.sampler = TraceSampler(sampler, ratio: 1)
        }
        let everybody = tenants ? [Self.everybody] : []
        var configuration = NodeConfiguration()
        configuration.threads = 1
        configuration.listeners = [ServerListener(host: "127.0.0.1", port: 0)]
        configuration.tenants = everybody
        configuration.tracing = tracing
        service = try NodeService(configuration) { _ in }
        try service.bind()
        try service.start()
        let port = try #require(service.listeners.first?.port)
        router = throughRouter ? try Self.startRouter(to: port, everybody, tracing) : nil
        client = try Self.connect(router?.listeners.first?.port ?? port)
    }

    private static var everybody: TenantSettings {
        let permissions = TenantPermissions(
            commands: .all, prefixes: [[]], readPrefixes: [Array("nobody's:".utf8), Array("z".utf8)])
        var settings = TenantSettings(name: "everybody", permissions: permissions)
        settings.includesOthers = true
        settings.quotas.operations = CellRate(rate: 1_000_000_000, burst: 1_000_000_000)
        settings.quotas.bytes = CellRate(rate: 1 << 40, burst: 1 << 40)
        return settings
    }

    private static func startRouter(
        to port: UInt16, _ tenants: [TenantSettings], _ tracing: TracingConfiguration
    ) throws -> RouterService {
        var configuration = RouterConfiguration()
        configuration.threads = 1
        configuration.listeners = [ServerListener(host: "127.0.0.1", port: 0)]
        configuration.tenants = tenants
        configuration.tracing = tracing
        try configuration.usePool([try #require(RouterServer("127.0.0.1:\(port)"))])
        let router = try RouterService(configuration)
        try router.bind()
        try router.start()
        return router
    }

    /// Ends the node, and the router.
    func end() {
        router?.stop(timeoutMilliseconds: 0, idleMilliseconds: 0)
        router?.wait()
        service.stop(timeoutMilliseconds: 0, idleMilliseconds: 0)
        service.wait()
    }

    private static func connect(_ port: UInt16) throws -> Descriptor {
        let fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let code = unsafe withUnsafeBytes(of: &address) { bytes in
            unsafe Glibc.connect(fd, bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self), length)
        }
        try #require(fd >= 0 && code == 0)
        // A node that stalls makes the test fail, not wait for ever.
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        unsafe _ = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        return Descriptor(owning: fd)
    }

    /// Bytes that the reactor's thread allocated so far, once it has done all that was sent to it before.
    private func reading() throws -> UInt64 {
        let reading = Reading()
        let ticket = reading.parking.ticket
        let work: @Sendable () -> Void = {
            reading.bytes.store(threadAllocatedBytes(), ordering: .releasing)
            reading.parking.announce()
        }
        let isPosted = router?.runOnFirstReactor(work) ?? service.runOnFirstReactor(work)
        try #require(isPosted)
        while reading.bytes.load(ordering: .acquiring) == .max {
            reading.parking.wait(ticket, timeoutNanoseconds: 1_000_000)
        }
        return reading.bytes.load(ordering: .acquiring)
    }

    private final class Reading: Sendable {
        let bytes = Atomic<UInt64>(.max)
        let parking = Parking()
    }

    /// What the requests cost the reactor's thread in bytes, after as many to warm up: the least of three rounds. Where
    /// the system holds a thread up, more waits at once than ever before, and a buffer grows to that once; what a
    /// request costs is there in each round.
    func bytesAllocated(by command: AllocationTests.Command) throws -> UInt64 {
        var least = UInt64.max
        for _ in 0..<3 where least > 0 {
            least = min(least, try bytesAllocatedInOneRound(by: command))
        }
        return least
    }

    /// What the requests cost the reactor's thread in bytes, after as many to warm up. `once` is sent amid them.
    func bytesAllocatedInOneRound(
        by command: AllocationTests.Command, once: String = "", replyOnce: String = ""
    ) throws -> UInt64 {
        if !command.preparation.isEmpty {
            try send(Array((command.preparation + "mn\r\n").utf8))
            try receive("MN\r\n", times: 1)
        }
        try repeatRequests(command)
        let before = try reading()
        if !once.isEmpty {
            try send(Array(once.utf8))
            try receive(replyOnce, times: 1)
        }
        try repeatRequests(command)
        return try reading() - before
    }

    private func repeatRequests(_ command: AllocationTests.Command) throws {
        let batch = Array(String(repeating: command.request, count: Self.pipelined).utf8)
        for _ in 0..<Self.requests / Self.pipelined {
            try send(batch)
            try receive(command.reply, times: Self.pipelined)
        }
    }

    private func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = unsafe bytes.withUnsafeBytes { rest in
                unsafe Glibc.send(client.number, rest.baseAddress.map { unsafe $0 + sent }, bytes.count - sent, 0)
            }
            try #require(count > 0)
            sent += count
        }
    }

    /// Reads until `reply` was there `times` times; what else comes is passed over.
    private func receive(_ reply: String, times: Int) throws {
        let wanted = Array(reply.utf8)
        var window: [UInt8] = []
        var found = 0
        while found < times {
            let count = unsafe buffer.withUnsafeMutableBytes { unsafe recv(client.number, $0.baseAddress, $0.count, 0) }
            try #require(count > 0, "the node closed or did not answer")
            window += buffer[0..<count]
            var start = 0
            while start + wanted.count <= window.count {
                if window[start] == wanted[0], window[start..<start + wanted.count].elementsEqual(wanted) {
                    found += 1
                    start += wanted.count
                } else {
                    start += 1
                }
            }
            window.removeFirst(start)
        }
    }
}
