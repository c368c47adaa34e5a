// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Settings
import Testing

@testable import Hosting

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A client, what it has sent and not had taken yet, and what it was answered.
private struct Session {
    var client = ClientIdentity(mustLogIn: true)
    var input: [UInt8] = []
    var answers: [UInt8] = []
    var tries: [Bool] = []
    let users: AuthenticationStore?

    init(_ users: String = "alice:secret\nbob:more\n") throws {
        self.users = AuthenticationStore(try AuthenticationFile(bytes(users), path: "/a"), path: "/a")
    }

    mutating func send(_ text: String) -> ClientIdentity.Progress {
        input += bytes(text)
        var (client, offset, tried) = (self.client, 0, tries)
        var output = OutputBuffer(capacity: 256)
        let sent = input
        let progress = client.logIn(sent.span, at: &offset, users: users, &output) { tried.append($0) }
        answers += output.withSpan { [UInt8](copying: $0) }
        input.removeFirst(offset)
        (self.client, tries) = (client, tried)
        return progress
    }

    var answered: String { String(decoding: answers, as: UTF8.self) }
}

@Suite struct ClientIdentityTests {
    @Test func aRightPasswordLogsIn() throws {
        var session = try Session()
        #expect(session.send("set k 0 0 12\r\nalice secret\r\nget k\r\n") == .loggedIn)
        #expect(session.client.user == bytes("alice"))
        #expect(!session.client.mustLogIn)
        #expect(session.tries == [true])
        #expect(session.answered == "STORED\r\n")
        #expect(session.input == bytes("get k\r\n"), "what follows is not the login's")
    }

    @Test func wrongPasswordsAreToldAndAnotherTryIsLeft() throws {
        var session = try Session()
        let progress = session.send("set k 0 0 9\r\nalice bad\r\nset k 0 0 8\r\nbob more\r\n")
        #expect(progress == .loggedIn)
        #expect(session.client.user == bytes("bob"))
        #expect(session.tries == [false, true])
        #expect(session.answered == "CLIENT_ERROR authentication failure\r\nSTORED\r\n")
    }

    @Test func requestsAreRefusedBeforeTheLogin() throws {
        var session = try Session()
        #expect(session.send("get key\r\n") == .incomplete(needed: 0))
        #expect(session.client.mustLogIn && session.client.user == nil)
        #expect(session.answered == "CLIENT_ERROR unauthenticated\r\n")
        #expect(session.tries.isEmpty)
    }

    @Test func aLoginMayComeInPieces() throws {
        var session = try Session()
        #expect(session.send("set k 0 0 12\r\nalice ") == .incomplete(needed: 14))
        #expect(session.answered.isEmpty)
        #expect(session.send("secret\r\n") == .loggedIn)
        #expect(session.answered == "STORED\r\n")
    }

    @Test func whatCannotBeALoginCloses() throws {
        var session = try Session()
        #expect(session.send(String(repeating: "x", count: 9000)) == .close)
        #expect(session.answered.isEmpty)
    }

    @Test func whoNeedNotLogInDoesNot() throws {
        var session = try Session()
        session.client = ClientIdentity()
        #expect(session.send("get key\r\n") == .loggedIn)
        #expect(session.input == bytes("get key\r\n"))
    }

    @Test func theTenantIsThatOfTheUserAndIsAskedForAgainAfterALogin() throws {
        var user = TenantSettings(name: "users", permissions: .none)
        user.users = ["alice"]
        var others = TenantSettings(name: "others", permissions: .none)
        others.includesOthers = true
        let directory = TenantDirectory([user, others], reactors: 1)
        var session = try Session()
        #expect(session.client.tenantEpoch != directory.epoch)
        #expect(session.client.findTenant(in: directory, certificates: []) == true)
        #expect(session.client.tenant?.name == "others")
        #expect(session.client.tenantEpoch == directory.epoch)
        #expect(session.send("set k 0 0 12\r\nalice secret\r\n") == .loggedIn)
        #expect(session.client.tenantEpoch != directory.epoch)
        #expect(session.client.findTenant(in: directory, certificates: []) == true)
        #expect(session.client.tenant?.name == "users")
    }
}
