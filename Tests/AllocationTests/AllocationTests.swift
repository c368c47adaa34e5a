// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing
import Tracing

/// Whether assertions are compiled in, and so nothing is optimised.
let isDebugBuild: Bool = {
    var isDebug = false
    assert({ isDebug = true }() == ())
    return isDebug
}()

/// What a reactor allocates for a request in steady state, counted by jemalloc on the reactor's own thread while a real
/// client asks a real node over a socket. The ceiling of every hot command is nothing at all.
///
/// Code that is not optimised allocates where the product does not, so these run in release builds:
/// `MARTLET_ONLY_TESTS=AllocationTests swift test -c release`, a stage of `make test`.
@Suite(.serialized, .enabled(if: countsThreadAllocations && !isDebugBuild, "only a release build with jemalloc tells"))
struct AllocationTests {
    /// A hot command: what is sent once to prepare, what is sent again and again, and how its reply ends.
    struct Command: Sendable, CustomTestStringConvertible {
        let name: String
        var preparation = ""
        let request: String
        let reply: String

        var testDescription: String { name }
    }

    static let value = String(repeating: "v", count: 100)
    static let keys = (0..<100).map { "key\($0)" }

    static let commands = [
        Command(
            name: "get, hit", preparation: "set hit 0 0 100\r\n\(value)\r\n", request: "get hit\r\n",
            reply: "VALUE hit 0 100\r\n\(value)\r\nEND\r\n"),
        Command(name: "get, miss", request: "get nobody\r\n", reply: "END\r\n"),
        Command(
            name: "gets, hit", preparation: "set versioned 7 0 1\r\n1\r\ndelete nobody\r\n",
            request: "gets versioned nobody\r\n",
            reply: "END\r\n"),
        Command(
            name: "set over the same size", preparation: "set same 0 0 100\r\n\(value)\r\n",
            request: "set same 0 0 100\r\n\(value)\r\n", reply: "STORED\r\n"),
        Command(
            name: "set without a reply", preparation: "set same 0 0 100\r\n\(value)\r\n",
            request: "set same 0 0 100 noreply\r\n\(value)\r\nmn\r\n", reply: "MN\r\n"),
        Command(
            name: "mg, hit", preparation: "set meta 5 0 100\r\n\(value)\r\n", request: "mg meta v f t k Oabc\r\n",
            reply: "VA 100 f5 t-1 kmeta Oabc\r\n\(value)\r\n"),
        Command(name: "mg, miss", request: "mg nobody v\r\n", reply: "EN\r\n"),
        Command(
            name: "mg, key in base64", preparation: "set meta 0 0 1\r\n1\r\n", request: "mg bWV0YQ== b v k\r\n",
            reply: "\r\n1\r\n"),
        Command(
            name: "ms over the same size", preparation: "set same 0 0 100\r\n\(value)\r\n",
            request: "ms same 100\r\n\(value)\r\n", reply: "HD\r\n"),
        Command(
            name: "get of 100 keys, half of them there",
            preparation: keys.enumerated().filter { $0.offset % 2 == 0 }.map { "set \($0.element) 0 0 3\r\nabc\r\n" }
                .joined(),
            request: "get \(keys.joined(separator: " "))\r\n", reply: "END\r\n"),
        Command(
            name: "incr", preparation: "set number 0 0 12\r\n100000000000\r\n", request: "incr number 1\r\n",
            reply: "\r\n"),
        Command(
            name: "touch", preparation: "set touched 0 100 1\r\n1\r\n", request: "touch touched 100\r\n",
            reply: "TOUCHED\r\n"),
        Command(name: "delete, miss", request: "delete nobody\r\n", reply: "NOT_FOUND\r\n"),
        Command(
            name: "set, other size, and delete", request: "set come 0 0 3\r\nabc\r\ndelete come\r\n",
            reply: "DELETED\r\n"),
        Command(name: "mn", request: "mn\r\n", reply: "MN\r\n"),
    ]

    @Test(arguments: commands)
    func aRouterAllocatesNothing(_ command: Command) throws {
        let bed = try AllocationBed(throughRouter: true)
        defer { bed.end() }
        #expect(try bed.bytesAllocated(by: command) == 0)
    }

    @Test(arguments: commands)
    func allocatesNothing(_ command: Command) throws {
        let bed = try AllocationBed()
        defer { bed.end() }
        let bytes = try bed.bytesAllocated(by: command)
        #expect(bytes == 0, "\(command.name): \(bytes) bytes for \(AllocationBed.requests) requests")
    }

    /// Nor does it where tenants are told apart, and have quotas.
    @Test(arguments: commands, [true, false])
    func allocatesNothingForTenants(_ command: Command, throughRouter: Bool) throws {
        let bed = try AllocationBed(throughRouter: throughRouter, tenants: true)
        defer { bed.end() }
        #expect(try bed.bytesAllocated(by: command) == 0)
    }

    /// Nor where requests are traced, and these are not recorded.
    @Test(arguments: commands, [true, false])
    func allocatesNothingForWhatIsNotRecorded(_ command: Command, throughRouter: Bool) throws {
        let bed = try AllocationBed(throughRouter: throughRouter, sampler: .parentOrOff)
        defer { bed.end() }
        #expect(try bed.bytesAllocated(by: command) == 0)
    }

    /// Nor does a node where they are recorded.
    @Test(arguments: commands)
    func allocatesNothingForWhatIsRecorded(_ command: Command) throws {
        let bed = try AllocationBed(sampler: .alwaysOn)
        defer { bed.end() }
        #expect(try bed.bytesAllocated(by: command) == 0)
    }

    /// The measurement sees what does allocate, or the test above could not fail.
    @Test func statisticsAreSeenToAllocate() throws {
        let bed = try AllocationBed()
        defer { bed.end() }
        let bytes = try bed.bytesAllocated(by: Command(name: "stats", request: "stats\r\n", reply: "END\r\n"))
        #expect(bytes > UInt64(AllocationBed.requests * 100))
    }

    /// One allocation among all the requests is seen.
    @Test func onePendingLargeValueIsSeenToAllocate() throws {
        let bed = try AllocationBed()
        defer { bed.end() }
        let large = String(repeating: "l", count: 300_000)
        let get = Command(name: "mn", request: "mn\r\n", reply: "MN\r\n")
        let bytes = try bed.bytesAllocatedInOneRound(
            by: get, once: "set large 0 0 300000\r\n\(large)\r\n", replyOnce: "STORED\r\n")
        #expect(bytes > 0)
    }
}
