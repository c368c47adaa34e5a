// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MemcacheProtocol

@Suite struct AuthenticationParserTests {
    /// What a login attempt comes to, as text, and how many bytes are left.
    private func attempt(_ text: String) -> (outcomes: [String], rest: Int) {
        let bytes = Array(text.utf8)
        var parser = AuthenticationParser()
        var offset = 0
        var outcomes: [String] = []
        while true {
            switch parser.next(bytes.span, at: &offset) {
            case .incomplete(let needed):
                if needed > 0 { outcomes.append("needs \(needed)") }
                return (outcomes, bytes.count - offset)
            case .close: return (outcomes + ["close"], bytes.count - offset)
            case .refused(let error): outcomes.append("\(error.text)")
            case .credentials(let user, let password):
                let name = String(decoding: bytes[user], as: UTF8.self)
                outcomes.append(name + "/" + String(decoding: bytes[password], as: UTF8.self))
            }
            if offset == bytes.count { return (outcomes, 0) }
        }
    }

    @Test func setCarriesTheLogin() {
        #expect(attempt("set x 0 0 9\r\nuser pass\r\n").outcomes == ["user/pass"])
        #expect(attempt("set x 9 9 9 noreply\r\nuser pass\r\n").outcomes == ["user/pass"])
        #expect(attempt("setup x 0 0 9\r\nuser pass\r\n").outcomes == ["user/pass"], "memcached looks at three letters")
        #expect(attempt("set x 0 0 8\r\nuser a b\r\n").outcomes == ["user/a b"])
        #expect(attempt("set x 0 0 5\r\nuser \r\n").outcomes == ["user/"])
    }

    @Test func anythingElseIsRefusedAndMayTryAgain() {
        #expect(
            attempt("get key\r\nset x 0 0 9\r\nuser pass\r\n").outcomes == [
                "CLIENT_ERROR unauthenticated", "user/pass",
            ])
        #expect(attempt("set x 0 0 no\r\n").outcomes == ["CLIENT_ERROR unauthenticated"])
        #expect(attempt("set x 0 0 16385\r\n").outcomes == ["CLIENT_ERROR auth token too long"])
        #expect(attempt("set x 0 0 9\r\nuser pass x").outcomes == ["CLIENT_ERROR bad command line termination"])
        #expect(attempt("set x 0 0 8\r\nuserpass\r\n").outcomes == ["CLIENT_ERROR bad authentication token format"])
    }

    @Test func shortAndEndlessLinesClose() {
        #expect(attempt("quit\r\n").outcomes == ["close"])
        #expect(attempt("mn\r\n").outcomes == ["close"])
        #expect(attempt("").outcomes == ["needs 3"])
        #expect(attempt("set").outcomes == [])
        #expect(attempt(String(repeating: "x", count: 2048)).outcomes == [])
        #expect(attempt(String(repeating: "x", count: 2049)).outcomes == ["close"])
    }

    @Test func bareLineFeedCostsTheLastDigit() {
        #expect(attempt("set x 0 0 19\nu\r\n").outcomes == ["CLIENT_ERROR bad authentication token format"])
        #expect(attempt("set x 0 0 9\n").outcomes == ["CLIENT_ERROR unauthenticated"])
    }

    @Test func waitsForAllOfTheLogin() {
        let (outcomes, rest) = attempt("set x 0 0 9\r\nuser pa")
        #expect(outcomes == ["needs 11"] && rest == 7)
    }

    @Test func splittingAnywhereChangesNothing() {
        let text = "get a b\r\nset x 0 0 9\r\nuser pass\r\n"
        let bytes = Array(text.utf8)
        for cut in 0...bytes.count {
            var parser = AuthenticationParser()
            var offset = 0
            var seen: [AuthenticationOutcome] = []
            for end in [cut, bytes.count] {
                while true {
                    let outcome = parser.next(bytes.span.extracting(0..<end), at: &offset)
                    if case .incomplete = outcome { break }
                    seen.append(outcome)
                }
            }
            #expect(seen == [.refused(.unauthenticated), .credentials(user: 22..<26, password: 27..<31)])
        }
    }
}
