// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import Settings
import Testing

/// The digest of a file, an environment and flags.
private func digest(
    _ text: String, _ environment: [String: String] = [:], _ flags: [SettingsSchema.Flag] = [], options: [String] = [],
    files: [[UInt8]] = []
) throws -> String {
    let schema = SettingsSchema([
        Setting("port", .integer(0...65535), default: "11211", "A process's own."),
        Setting("unix.socket", .text, "A process's own, by its group."),
        Setting("memory", .size(0...1 << 40), default: "64MiB", "How much."),
        Setting(
            "pools",
            .mappings([
                Setting("prefix", .text, required: true, "What keys begin with."),
                Setting("ttl", .duration(0...1 << 60), default: "0", "For how long."),
                Setting("password", .text, secret: true, "Nobody's."),
            ]), "Rules."),
        Setting("members", .list, "Who is there."),
        Setting("token", .text, secret: true, "Nobody's."),
    ])
    let (values, _) = try schema.resolve(
        file: ("test.yaml", Array(text.utf8)), environment: environment, flags: flags)
    return ConfigurationSummary(schema, values, options: options, files: files).digest
}

@Suite struct ConfigurationSummaryTests {
    @Test func isTheSameWhateverSaidIt() throws {
        let one = try digest("memory: 1GiB\nmembers: [a, b]\n")
        #expect(one == (try digest("members: [a, b]\n", ["MARTLET_MEMORY": "1024m"])))
        #expect(one == (try digest("", [:], [("memory", "1073741824"), ("members", "a,b")])))
        #expect(one.count == 16)
    }

    @Test func aDefaultIsAsIfNobodySaidIt() throws {
        #expect(try digest("memory: 64MiB\n") == (try digest("{}\n")))
    }

    @Test func whatIsAProcesssOwnDoesNotCount() throws {
        #expect(try digest("port: 5\nunix: {socket: x}\n") == (try digest("{}\n")))
    }

    @Test func secretsDoNotCount() throws {
        #expect(try digest("token: a\n") == (try digest("token: b\n")))
        let pools = try ["a", "b"].map { try digest("pools: [{prefix: p, password: \($0)}]\n") }
        #expect(pools[0] == pools[1])
    }

    @Test func everythingElseCounts() throws {
        let all = try [
            digest("{}\n"), digest("memory: 1GiB\n"), digest("members: [a]\n"), digest("members: [a, b]\n"),
            digest("members: ['a, b']\n"), digest("pools: [{prefix: p}]\n"), digest("pools: [{prefix: p, ttl: 5s}]\n"),
            digest("pools: [{prefix: p}, {prefix: q}]\n"), digest("{}\n", options: ["-R 5"]),
            digest("{}\n", files: [[1, 2]]), digest("{}\n", files: [[1, 3]]),
            digest("{}\n", files: [[1, 2], [1, 2]]),
        ]
        #expect(Set(all).count == all.count)
    }
}
