// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Admin

/// Who gets a page that changes something.
@Suite struct AccessTests {
    private func status(
        token: String?, isLocal: Bool, headers: [String: String] = [:], method: String = "POST", path: String = "/act"
    ) -> Int {
        var configuration = AdminConfiguration()
        configuration.token = token.map { Array($0.utf8) }
        let routes = [
            AdminRoute("/act", "acts", access: .localAction) { _ in .text("done") },
            AdminRoute("/guarded", "acts", access: .action) { _ in .text("done") },
        ]
        return Pages(configuration, routes).respond(
            method, path, query: { _ in nil }, header: { headers[$0] }, isLocal: { isLocal }
        ).status
    }

    @Test func withoutATokenOnlyProgramsOfThisMachineMay() {
        #expect(status(token: nil, isLocal: true) == 200)
        #expect(status(token: nil, isLocal: false) == 403)
        #expect(status(token: nil, isLocal: true, headers: ["Origin": "http://localhost:9150"]) == 403)
        #expect(status(token: nil, isLocal: true, headers: ["Origin": "null"]) == 403)
        for header in ["Forwarded", "X-Forwarded-For", "Via"] {
            #expect(status(token: nil, isLocal: true, headers: [header: "for=10.0.0.9"]) == 403)
        }
        #expect(status(token: nil, isLocal: true, path: "/guarded") == 403)
    }

    @Test func withATokenWhoeverHasIt() {
        let token = "a-token-of-some-length"
        #expect(status(token: token, isLocal: true) == 401)
        #expect(status(token: token, isLocal: false, headers: ["Authorization": "Bearer \(token)"]) == 200)
        #expect(status(token: token, isLocal: true, headers: ["Authorization": "Bearer \(token)x"]) == 401)
    }

    @Test func byPostOnly() {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            #expect(status(token: nil, isLocal: true, method: method) == 405)
        }
    }

    @Test func adviceTakesNoTrafficAway() {
        let failing = HealthCheck("storage", failure: "it is away", isAdvisory: true)
        var checks = [HealthCheck("listeners"), failing]
        let page = { (query: [String: String]) in
            AdminPages.readiness { [checks] in checks }.handler(AdminRequest(path: "/readyz", accept: "", query: query))
        }
        #expect(page([:]).status == 200)
        #expect(String(decoding: page([:]).body, as: UTF8.self) == "ok\n")
        #expect(
            String(decoding: page(["verbose": ""]).body, as: UTF8.self).contains("[!]storage degraded: it is away\n"))
        checks.append(HealthCheck("serving", failure: "draining"))
        #expect(page([:]).status == 503)
    }
}
