// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

import Settings

private func scan(_ arguments: String...) -> (steps: [OptionScanner.Step], operands: [String]) {
    var scanner = OptionScanner(
        program: "martlet-server", shorts: "p:vdx",
        longs: [
            .init("port", .required), .init("pidfile", .required), .init("verbose", .optional), .init("daemon", .none),
            .init("port-range", .required, abbreviable: false), .init("safe", .boolean, abbreviable: false),
        ],
        arguments: arguments)
    var steps: [OptionScanner.Step] = []
    while let step = scanner.next() { steps.append(step) }
    return (steps, scanner.operands)
}

@Suite struct OptionScannerTests {
    @Test func takesShortOptionsInAllTheirForms() {
        #expect(
            scan("-p", "1", "-p2", "-vdp3", "-vx").steps == [
                .short("p", "1"), .short("p", "2"), .short("v", nil), .short("d", nil), .short("p", "3"),
                .short("v", nil), .short("x", nil),
            ])
    }

    @Test func takesLongOptionsInAllTheirForms() {
        #expect(
            scan("--port", "1", "--port=2", "--port=", "--daemon", "--verbose", "--verbose=3").steps == [
                .long("port", "1"), .long("port", "2"), .long("port", ""), .long("daemon", nil), .long("verbose", nil),
                .long("verbose", "3"),
            ])
    }

    @Test func aValueMayLookLikeAnOption() {
        #expect(scan("-p", "-1", "--port", "--daemon").steps == [.short("p", "-1"), .long("port", "--daemon")])
    }

    @Test func aSwitchTakesTheNextWordWhereThatIsABoolean() {
        let result = scan("--safe", "false", "--safe", "YES", "--safe", "--safe=maybe", "--safe", "maybe", "--safe")
        #expect(
            result.steps == [
                .long("safe", "false"), .long("safe", "YES"), .long("safe", nil), .long("safe", "maybe"),
                .long("safe", nil), .long("safe", nil),
            ])
        #expect(result.operands == ["maybe"])
        // What getopt calls optional is no switch of ours.
        #expect(scan("--verbose", "on", "-v", "off").operands == ["on", "off"])
        #expect(scan("--safe", "--", "off").operands == ["off"])
    }

    @Test func completesUnambiguousBeginnings() {
        #expect(
            scan("--dae", "--po", "7", "--pid=f").steps == [
                .long("daemon", nil), .long("port", "7"), .long("pidfile", "f"),
            ])
        #expect(scan("--port-range=1").steps == [.long("port-range", "1")])
    }

    @Test func goesOnAfterOtherArgumentsAndStopsAtTwoDashes() {
        let result = scan("one", "-v", "two", "-", "--", "-d", "three")
        #expect(result.steps == [.short("v", nil)])
        #expect(result.operands == ["one", "two", "-", "-d", "three"])
    }

    @Test(arguments: [
        (["-q"], "martlet-server: invalid option -- 'q'"),
        (["-p"], "martlet-server: option requires an argument -- 'p'"),
        (["--nope"], "martlet-server: unrecognized option '--nope'"),
        (["--nope=1"], "martlet-server: unrecognized option '--nope'"),
        (["--port-ra=1"], "martlet-server: unrecognized option '--port-ra'"),
        (["--port"], "martlet-server: option '--port' requires an argument"),
        (["--daemon=1"], "martlet-server: option '--daemon' doesn't allow an argument"),
        (["--p=1"], "martlet-server: option '--p' is ambiguous; possibilities: '--port' '--pidfile'"),
    ])
    func reportsWhatIsWrongAsGetoptDoes(_ arguments: [String], _ message: String) {
        var scanner = OptionScanner(
            program: "martlet-server", shorts: "p:vdx",
            longs: [
                .init("port", .required), .init("pidfile", .required), .init("daemon", .none),
                .init("port-range", .required, abbreviable: false),
            ],
            arguments: arguments)
        guard case .problem(message, let unknown) = scanner.next() else {
            Issue.record("not the problem that was expected")
            return
        }
        #expect(
            unknown
                == (message.contains("unrecognized")
                    ? message.split(separator: "'").last.map { String($0.dropFirst(2)) } : nil))
    }
}
