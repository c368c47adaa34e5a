// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import Testing

@testable import RouterProxy

/// What a router keeps of the last configuration that it could use.
struct LastGoodConfigurationTests {
    private let files: [(path: String, bytes: [UInt8])] = [
        ("/etc/router.json", Array("{}\n\n".utf8)), ("/etc/with blank", []), ("/etc/x", [0, 10, 255, 13]),
    ]

    @Test func whatIsKeptIsReadAgain() throws {
        let kept = LastGoodConfiguration(files)
        #expect(LastGoodConfiguration(encoded: kept.encoded) == kept)
        // Cut off anywhere it is none.
        for length in 0..<kept.encoded.count {
            let part = LastGoodConfiguration(encoded: Array(kept.encoded.prefix(length)))
            #expect(part.map { $0.files.count < 3 } ?? true)
        }
        #expect(LastGoodConfiguration(encoded: Array("martlet-router configuration 1\n-1 5\n".utf8)) == nil)
        #expect(LastGoodConfiguration(encoded: Array("martlet-router configuration 1\n9 9\nx".utf8)) == nil)
    }

    @Test(arguments: [
        ("servers: [\nlastGoodFile: /x/y\n", "/x/y"), ("lastGoodFile:  '/a b' # c\n", "/a b"),
        ("a: {lastGoodFile: /x}", nil), ("lastGoodFile: /x # y\r\n", "/x"), ("lastGoodFile: /x\r\n", "/x"),
        ("lastGoodFile: /a b/c  # d\n", "/a b/c"), ("lastGoodFile: /a#b \r\n", "/a#b"),
        ("lastGoodFile:\n", nil), ("lastGoodFile: \"/q\"", "/q"), ("lastGoodFile: ''\n", nil),
        ("lastGoodFile: \"/tab\\tand \\\"quote\\\"\" # c\n", "/tab\tand \"quote\""), ("lastGoodFile: 'it''s'", "it's"),
        ("lastGoodFile: [/x]\nservers: [\n", nil), ("lastGoodFile: 'open\n", nil),
    ])
    func aFileThatCannotBeReadSaysWhereItsLastStateIs(_ text: String, _ path: String?) {
        #expect(LastGoodConfiguration.path(in: Array(text.utf8)) == path)
    }

    private func line(_ files: [String: String], _ arguments: String...) -> RouterCommandLine {
        RouterCommandLine(program: "r", arguments: arguments, environment: [:]) { path in
            files[path].map { .success(RouterCommandLine.File(Array($0.utf8), stamp: [1])) }
                ?? .failure(RouterCommandLine.FileProblem("no such file"))
        }
    }

    @Test func aStartWithAWrongConfigurationUsesTheLastGoodOne() throws {
        let good = "servers: [10.0.0.1:5]\nlastGoodFile: /last\n"
        let loaded = try line(["/r.yaml": good], "--config", "/r.yaml").startingConfiguration()
        #expect(loaded.failure == nil && loaded.configuration.lastGoodPath == "/last")
        let kept = String(decoding: loaded.contents.encoded, as: UTF8.self)
        for wrong in ["servers: [\nlastGoodFile: /last\n", "hash: x\nservers: [a]\nlastGoodFile: /last\n"] {
            let files = ["/r.yaml": wrong, "/last": kept]
            let fallen = try line(files, "--config", "/r.yaml").startingConfiguration()
            #expect(fallen.failure != nil)
            #expect(fallen.configuration.routes == loaded.configuration.routes)
            #expect(fallen.files.map(\.path) == ["/r.yaml"])
            // Whoever asks whether it is right is told the truth.
            #expect(throws: StartRefusal.self) {
                try line(files, "--config", "/r.yaml", "--check-config").startingConfiguration()
            }
            #expect(throws: StartRefusal.self) {
                try line(["/r.yaml": wrong], "--config", "/r.yaml").startingConfiguration()
            }
        }
        // The file is gone: somebody else has to say where the last state is.
        let flag = line(["/last": kept], "--config", "/r.yaml", "--last-good-file", "/last")
        let fallen = try flag.startingConfiguration()
        #expect(fallen.failure != nil)
        #expect(throws: StartRefusal.self) { try line(["/last": kept], "--config", "/r.yaml").startingConfiguration() }
        // What is wrong on the command line is so with any file.
        #expect(throws: StartRefusal.self) {
            try line(["/r.yaml": good, "/last": kept], "--config", "/r.yaml", "--nonsense").startingConfiguration()
        }
    }

    @Test func whatIsImportedIsKeptToo() throws {
        let files = [
            "/r.json": #"{"pools": {"A": {"servers": "@import(s.json)"}}, "route": "PoolRoute|A"}"#,
            "/s.json": #"["10.0.0.7:1"]"#,
        ]
        let loaded = try line(files, "--config", "/r.json").startingConfiguration()
        #expect(loaded.contents.files.map(\.path) == ["/r.json", "/s.json"])
        var kept = files
        kept["/s.json"] = nil
        kept["/last"] = String(decoding: loaded.contents.encoded, as: UTF8.self)
        let fallen = try line(kept, "--config", "/r.json", "--last-good-file", "/last").startingConfiguration()
        #expect(fallen.configuration.routes == loaded.configuration.routes && fallen.failure != nil)
    }
}
