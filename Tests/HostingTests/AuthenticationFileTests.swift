// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Hosting

private func users(_ text: String) throws(AuthenticationFileError) -> AuthenticationFile {
    try AuthenticationFile(Array(text.utf8), path: "/a")
}

private func accepts(_ file: AuthenticationFile, _ user: String, _ password: String) -> Bool {
    let left = Array(user.utf8)
    let right = Array(password.utf8)
    return file.accepts(user: left.span, password: right.span)
}

@Suite struct AuthenticationFileTests {
    @Test func acceptsItsUsersAndNobodyElse() throws {
        let file = try users("foo:bar\nuser:pa:ss\nempty:\n:nobody\n")
        #expect(file.count == 4)
        #expect(accepts(file, "foo", "bar"))
        #expect(accepts(file, "user", "pa:ss"))
        #expect(accepts(file, "empty", ""))
        #expect(accepts(file, "", "nobody"))
        for (user, password) in [
            ("foo", "ba"), ("foo", "barr"), ("foo", "bas"), ("fo", "bar"), ("foo", "pa:ss"), ("user", "bar"), ("", ""),
            ("FOO", "bar"),
        ] {
            #expect(!accepts(file, user, password))
        }
    }

    @Test func linesMayEndWithCarriageReturnsAndTheLastMayHaveNoEnd() throws {
        let file = try users("a:b\r\nc:d")
        #expect(accepts(file, "a", "b"))
        #expect(accepts(file, "c", "d"))
    }

    @Test func readsEightUsersAndNoMore() throws {
        let file = try users((0..<12).map { "u\($0):p\($0)\n" }.joined())
        #expect(file.count == 8)
        #expect(accepts(file, "u7", "p7"))
        #expect(!accepts(file, "u8", "p8"))
    }

    @Test(arguments: ["", "foo\n", "foo:bar\nbaz\n", "\n", "a:b\n\nc:d\n", "a\u{0}:b\n"])
    func refusesLinesThatAreNoUser(_ text: String) {
        #expect(
            throws: AuthenticationFileError(
                description: "Authfile [/a] has a malformed entry. Should be 'user:password'")
        ) { try users(text) }
    }

    @Test func refusesALineThatIsTooLong() throws {
        _ = try users("u:" + String(repeating: "p", count: 252) + "\n")
        #expect(throws: AuthenticationFileError.self) { try users("u:" + String(repeating: "p", count: 253) + "\n") }
    }

    @Test func tellsWhyAFileCannotBeRead() {
        #expect(
            throws: AuthenticationFileError(
                description: "Could not open authfile [/nonexistent/a] for reading, error No such file or directory: "
                    + "No such file or directory\n")
        ) { try AuthenticationFile(path: "/nonexistent/a") }
    }
}
