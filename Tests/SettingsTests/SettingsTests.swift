// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Settings

/// A schema with a setting of every type.
private let schema = SettingsSchema([
    Setting("listen", .list, default: "127.0.0.1", "Addresses."),
    Setting("port", .integer(-1...65535), default: "11211", "The port."),
    Setting("memory", .size(1 << 20...1 << 50), default: "64m", reloadable: true, "Memory for items."),
    Setting("evictions", .boolean, default: "true", "Whether to evict."),
    Setting("name", .text, "A name."),
    Setting("storage.path", .text, default: "", "Where."),
    Setting("storage.cacheTTL", .duration(0...604_800_000_000_000), default: "1d", reloadable: true, "How long."),
    Setting("storage.backend.kind", .enumeration(["none", "rocksdb", "postgres"]), default: "none", "What."),
    Setting("storage.password", .text, secret: true, "A secret."),
    Setting("storage.pin", .integer(1...9), secret: true, "Another."),
    Setting(
        "pools",
        .mappings([
            Setting("prefix", .text, required: true, "Which keys."),
            Setting("cacheTTL", .duration(0...604_800_000_000_000), default: "1h", "How long."),
            Setting("storage", .boolean, default: "false", "Whether stored."),
            Setting("tags", .list, "Labels."),
        ]), "Pools by prefix."),
])

private func resolve(
    _ file: String? = nil, environment: [String: String] = [:], flags: [SettingsSchema.Flag] = []
) throws(SettingsError) -> SettingsValues {
    try schema.resolve(
        file: file.map { ("node.yaml", Array($0.utf8)) }, environment: environment, flags: flags
    ).values
}

/// The problems of settings that must be refused.
private func problems(
    _ file: String? = nil, environment: [String: String] = [:], flags: [SettingsSchema.Flag] = []
) -> [String] {
    do throws(SettingsError) {
        _ = try resolve(file, environment: environment, flags: flags)
        return []
    } catch {
        return error.problems
    }
}

@Suite struct SettingsResolutionTests {
    @Test func defaultsHoldWhenNobodySetsAnything() throws {
        let values = try resolve()
        #expect(values.list("listen") == ["127.0.0.1"])
        #expect(values.integer("port") == 11211)
        #expect(values.size("memory") == 64 << 20)
        #expect(values.boolean("evictions"))
        #expect(values.text("name") == nil)
        #expect(values.duration("storage.cacheTTL") == 86_400_000_000_000)
        #expect(values.text("storage.backend.kind") == "none")
        #expect(values.mappings("pools").isEmpty)
        #expect(!values.isSet("port"))
        #expect(values.source("port") == .standard)
        #expect(values.source("name") == nil)
    }

    @Test func readsEveryTypeFromAFile() throws {
        let values = try resolve(
            """
            # A node.
            listen: [10.0.0.1, "[::1]:11212"]
            port: 0
            memory: 4GiB
            evictions: off
            name: "quoted: text"
            storage:
              path: data
              cacheTTL: 1h30m
              backend:
                kind: rocksdb
            pools:
              - {prefix: "user:", storage: true, cacheTTL: 5s, tags: [a, b]}
              - prefix: "page:"
            """)
        #expect(values.list("listen") == ["10.0.0.1", "[::1]:11212"])
        #expect(values.integer("port") == 0)
        #expect(values.size("memory") == 4 << 30)
        #expect(!values.boolean("evictions"))
        #expect(values.text("name") == "quoted: text")
        #expect(values.text("storage.path") == "data")
        #expect(values.duration("storage.cacheTTL") == 5_400_000_000_000)
        #expect(values.text("storage.backend.kind") == "rocksdb")
        #expect(values.source("storage.path") == .file("node.yaml", line: 8))
        let pools = values.mappings("pools")
        #expect(pools.map { $0.text("prefix") } == ["user:", "page:"])
        #expect(pools.map { $0.boolean("storage") } == [true, false])
        #expect(pools.map { $0.duration("cacheTTL") } == [5_000_000_000, 3_600_000_000_000])
        #expect(pools.map { $0.list("tags") } == [["a", "b"], []])
        #expect(pools.map(\.place) == [.file("node.yaml", line: 13), .file("node.yaml", line: 14)])
    }

    @Test func readsJSON() throws {
        let values = try resolve(#"{"port": 5, "storage": {"path": "x"}, "pools": [{"prefix": "p", "storage": true}]}"#)
        #expect(values.integer("port") == 5)
        #expect(values.text("storage.path") == "x")
        #expect(values.mappings("pools").first?.boolean("storage") == true)
    }

    @Test(arguments: ["", "# nothing\n", "---\n", "~\n", "storage:\n  # path: x\n"])
    func aFileWithNothingInItSetsNothing(_ text: String) throws {
        #expect(try resolve(text) == resolve())
    }

    @Test func flagsWinOverTheEnvironmentWhichWinsOverTheFile() throws {
        let file = "port: 1\nmemory: 1g\nstorage: {path: file}\n"
        let environment = ["MARTLET_PORT": "2", "MARTLET_STORAGE_PATH": "environment"]
        let flags: [SettingsSchema.Flag] = [("port", "3")]
        let values = try resolve(file, environment: environment, flags: flags)
        #expect(values.integer("port") == 3)
        #expect(values.source("port") == .flag("port"))
        #expect(values.text("storage.path") == "environment")
        #expect(values.source("storage.path") == .environment("MARTLET_STORAGE_PATH"))
        #expect(values.size("memory") == 1 << 30)
        #expect(values.source("memory") == .file("node.yaml", line: 2))
        #expect(try resolve(file, environment: environment).integer("port") == 2)
        #expect(try resolve(file).integer("port") == 1)
    }

    @Test func namesFollowOneRule() {
        let setting = Setting("storage.cacheTTL", .text, "")
        #expect(setting.flagName == "storage-cache-ttl")
        #expect(setting.environmentName == "MARTLET_STORAGE_CACHE_TTL")
        #expect(Setting("hotKeys.showKeys", .boolean, "").flagName == "hot-keys-show-keys")
        #expect(Setting("listen", .list, "").environmentName == "MARTLET_LISTEN")
    }

    @Test func everyScalarSettingHasAFlagAndAVariable() throws {
        let texts = [
            "listen": "a,b", "port": "7", "memory": "2m", "evictions": "false", "name": "n", "storage.path": "p",
            "storage.cacheTTL": "2s", "storage.backend.kind": "postgres", "storage.password": "x", "storage.pin": "3",
        ]
        for setting in schema.settings where setting.isScalar {
            let text = try #require(texts[setting.name])
            let byFlag = try resolve(flags: [(setting.flagName, text)])
            let byVariable = try resolve(environment: [setting.environmentName: text])
            #expect(byFlag.value(setting.name) == byVariable.value(setting.name))
            #expect(byFlag.value(setting.name) != (try resolve()).value(setting.name))
            #expect(schema.setting(flag: setting.flagName)?.name == setting.name)
        }
        #expect(texts.count == schema.settings.filter(\.isScalar).count)
    }

    @Test func aListBySeveralFlagsIsAllOfThem() throws {
        let values = try resolve("listen: [x]\n", flags: [("listen", "a, b"), ("listen", "c")])
        #expect(values.list("listen") == ["a", "b", "c"])
    }

    @Test func ignoresWhatKubernetesSetsForAServiceCalledMartlet() throws {
        let environment = ["MARTLET_PORT": "tcp://10.0.0.7:11211", "MARTLET_SERVICE_HOST": "10.0.0.7"]
        let resolved = try schema.resolve(file: nil, environment: environment, flags: [])
        #expect(resolved.values.integer("port") == 11211)
        #expect(resolved.notes == ["MARTLET_PORT: ignored, because it is the address of a service"])
    }

    @Test func notesVariablesThatLookLikeSettings() throws {
        let environment = ["MARTLET_MEMROY": "1g", "MARTLET_SEED": "5", "HOME": "/"]
        let resolved = try schema.resolve(file: nil, environment: environment, flags: [])
        #expect(resolved.notes == ["MARTLET_MEMROY: ignored, because it is no setting; did you mean MARTLET_MEMORY?"])
    }

    @Test func tellsWhatAReloadChanges() throws {
        let changes = schema.changes(from: try resolve(), to: try resolve("memory: 1g\nport: 5\n"))
        #expect(changes.live == ["memory"])
        #expect(changes.restart == ["port"])
    }

    @Test func describesValuesWithoutSecrets() throws {
        let values = try resolve("storage: {password: hunter2, path: \"\"}\n", flags: [("memory", "1536k")])
        let lines = schema.describe(values)
        #expect(lines.contains("memory: 1536KiB  # --memory"))
        #expect(lines.contains("storage.password: (secret)  # node.yaml:1"))
        #expect(lines.contains("storage.cacheTTL: 1d  # the default"))
        #expect(lines.contains("listen: [127.0.0.1]  # the default"))
        #expect(!lines.joined().contains("hunter2"))
    }

    @Test func helpNamesEverySetting() {
        let help = schema.help()
        for setting in schema.settings {
            #expect(help.contains(setting.isScalar ? "--\(setting.flagName)=" : "\(setting.name): […]"))
        }
        #expect(help.contains("default: 64m; reloaded by SIGHUP"))
        #expect(help.contains("One of none, rocksdb, postgres."))
        #expect(help.split(separator: "\n").allSatisfy { $0.count <= 100 })
    }
}

/// A file that must be refused, and the problem that must be named.
struct Refusal: Sendable, CustomTestStringConvertible {
    let file: String
    let problem: String

    init(_ file: String, _ problem: String) {
        self.file = file
        self.problem = problem
    }

    var testDescription: String { file }
}

@Suite struct SettingsRefusalTests {
    static let refusals: [Refusal] = [
        Refusal(
            "memroy: 1g\n",
            """
            node.yaml:1: memroy: unknown setting (did you mean memory?); allowed here: listen, port, memory, \
            evictions, name, storage, pools
            """),
        Refusal(
            "port: 1\nstorage:\n  paht: x\n",
            """
            node.yaml:3: storage.paht: unknown setting (did you mean storage.path?); allowed here: path, \
            cacheTTL, backend, password, pin
            """),
        Refusal(
            "path: x\n",
            """
            node.yaml:1: path: unknown setting (did you mean storage.path?); allowed here: listen, port, \
            memory, evictions, name, storage, pools
            """),
        Refusal(
            "zzzzzzzz: 1\n",
            """
            node.yaml:1: zzzzzzzz: unknown setting; allowed here: listen, port, memory, evictions, name, \
            storage, pools
            """),
        Refusal("port: x\n", "node.yaml:1: port: \"x\" is not valid; expected a whole number from -1 to 65535"),
        Refusal("port: 65536\n", "node.yaml:1: port: \"65536\" is not valid; expected a whole number from -1 to 65535"),
        Refusal("port: 1.5\n", "node.yaml:1: port: \"1.5\" is not valid; expected a whole number from -1 to 65535"),
        Refusal("port:\n", "node.yaml:1: port: no value; expected a whole number from -1 to 65535"),
        Refusal("port: [1]\n", "node.yaml:1: port: expected a whole number from -1 to 65535"),
        Refusal("evictions: maybe\n", "node.yaml:1: evictions: \"maybe\" is not valid; expected true or false"),
        Refusal(
            "\n\nmemory: 4GB\n",
            "node.yaml:3: memory: \"4GB\" is not valid; GB can mean two things; write GiB (a power of 1024)"),
        Refusal(
            "memory: 1k\n",
            """
            node.yaml:1: memory: "1k" is not valid; expected a size from 1MiB to 1024TiB, such as 64m or 4GiB
            """),
        Refusal(
            "storage: {cacheTTL: 5}\n",
            """
            node.yaml:1: storage.cacheTTL: "5" is not valid; expected a duration from 0 to 7d, such as 250ms, \
            5s or 1d; the unit is missing
            """),
        Refusal(
            "storage: {backend: {kind: rocksbd}}\n",
            """
            node.yaml:1: storage.backend.kind: "rocksbd" is not valid; expected one of none, rocksdb, postgres; \
            did you mean rocksdb?
            """),
        Refusal("storage: data\n", "node.yaml:1: storage: expected a mapping of settings (key: value)"),
        Refusal("- a\n", "node.yaml:1: the configuration: expected a mapping of settings (key: value)"),
        Refusal("listen: {a: b}\n", "node.yaml:1: listen: expected a list of texts"),
        Refusal("listen:\n  - a\n  - [b]\n", "node.yaml:3: listen: expected a list of texts"),
        Refusal(
            "pools: 5\n",
            """
            node.yaml:1: pools: "5" is not valid; expected a list of mappings with prefix, cacheTTL, storage, \
            tags, in the configuration file
            """),
        Refusal("pools: [5]\n", "node.yaml:1: pools[0]: expected a mapping (key: value)"),
        Refusal("pools:\n  - {storage: true}\n", "node.yaml:2: pools[0].prefix: missing; expected a text"),
        Refusal(
            "pools:\n  - prefix: a\n  - prefix: b\n    cachTTL: 5s\n",
            """
            node.yaml:4: pools[1].cachTTL: unknown setting (did you mean cacheTTL?); allowed here: prefix, \
            cacheTTL, storage, tags
            """),
        Refusal("port: 1\nport: 2\n", "node.yaml:2: port twice; it stands on line 1 already"),
        Refusal("port: 1\n---\nport: 2\n", "node.yaml:2: a second document; only one is allowed"),
        Refusal("name: &x y\n", "node.yaml:1: an anchor (&name); anchors are not allowed"),
        Refusal("name: *x\n", "node.yaml:1: an alias (*name); aliases are not allowed"),
        Refusal("name: !!str y\n", "node.yaml:1: a tag (!name); tags are not allowed"),
        Refusal("? [a]\n: b\n", "node.yaml:1: a key that is not a text"),
    ]

    @Test(arguments: refusals)
    func refusesAFile(_ refusal: Refusal) {
        #expect(problems(refusal.file) == [refusal.problem])
    }

    @Test(arguments: ["port: [1\n", "port: \"1\n", "a:\n\tb: 1\n", "\u{1}: 1\n"])
    func refusesWhatIsNotYAML(_ text: String) throws {
        let found = problems(text)
        #expect(found.count == 1)
        #expect(try #require(found.first).hasPrefix("node.yaml:"))
        #expect(try #require(found.first).contains(": not valid YAML: "))
    }

    @Test func refusesBytesThatAreNotUTF8() {
        let file = (path: "node.yaml", bytes: [0x6E, 0x61, 0x6D, 0x65, 0x3A, 0x20, 0xFF, 0xFE] as [UInt8])
        #expect(throws: SettingsError.self) { try schema.resolve(file: file, environment: [:], flags: []) }
    }

    @Test func refusesAFileThatIsTooDeepOrTooLarge() {
        let deep = "name: " + String(repeating: "[", count: 100) + String(repeating: "]", count: 100)
        #expect(problems(deep) == ["node.yaml:1: nested more than 32 levels deep"])
        let large = "#" + String(repeating: "x", count: 4 << 20)
        #expect(problems(large) == ["node.yaml: larger than 4MiB"])
    }

    @Test func reportsEverythingThatIsWrongAtOnce() {
        let found = problems(
            "port: x\nmemroy: 1\n", environment: ["MARTLET_MEMORY": "much"], flags: [("evictions", "2")])
        #expect(found.count == 4)
        #expect(found[2].hasPrefix("MARTLET_MEMORY: \"much\" is not valid; expected a size"))
        #expect(found[3] == "--evictions: \"2\" is not valid; expected true or false")
    }

    @Test func hidesASecretThatIsWrong() {
        let found = problems("storage: {pin: 4711}\n", environment: ["MARTLET_STORAGE_PIN": "4712"])
        #expect(
            found == [
                "node.yaml:1: storage.pin: the value is not valid; expected a whole number from 1 to 9",
                "MARTLET_STORAGE_PIN: the value is not valid; expected a whole number from 1 to 9",
            ])
    }

    @Test func suggestsTheNearestFlag() {
        #expect(schema.suggestedFlag(for: "storage-pahts") == "storage-path")
        #expect(schema.suggestedFlag(for: "xyzzy") == nil)
    }
}

@Suite struct SettingTypeTests {
    private func size(_ text: String) -> UInt64? {
        if case .size(let value) = try? SettingType.size(0...UInt64.max).parse(text) { return value }
        return nil
    }

    private func duration(_ text: String) -> UInt64? {
        if case .duration(let value) = try? SettingType.duration(0...UInt64.max).parse(text) { return value }
        return nil
    }

    static let sizes: [(String, UInt64)] = [
        ("0", 0), ("1", 1), ("7b", 7), ("64m", 67_108_864), ("64M", 67_108_864), ("1k", 1024), ("1KiB", 1024),
        ("2Gi", 2_147_483_648), ("4GiB", 4_294_967_296), ("1.5g", 1_610_612_736), ("3t", 3_298_534_883_328),
        ("18446744073709551615", .max),
    ]

    @Test(arguments: sizes)
    func readsSizes(_ text: String, _ bytes: UInt64) {
        #expect(size(text) == bytes)
    }

    @Test(arguments: [
        "", "m", "-1", "1 m", "1e3", "1..5m", ".5m", "5.m", "0x10", "1mm", "1MB", "1gb", "18446744073709551616",
        "99999999999t", "٣", "1m ", "nan", "inf",
    ])
    func refusesWhatIsNoSize(_ text: String) {
        #expect(size(text) == nil)
    }

    static let durations: [(String, UInt64)] = [
        ("0", 0), ("0s", 0), ("250ms", 250_000_000), ("5s", 5_000_000_000), ("1.5s", 1_500_000_000),
        ("10us", 10_000), ("10µs", 10_000), ("3ns", 3), ("1h30m", 5_400_000_000_000), ("1d", 86_400_000_000_000),
        ("2w", 1_209_600_000_000_000),
    ]

    @Test(arguments: durations)
    func readsDurations(_ text: String, _ nanoseconds: UInt64) {
        #expect(duration(text) == nanoseconds)
    }

    @Test(arguments: ["", "5", "s", "-1s", "1 s", "1h 30m", "1y", "1S", "99999999w", "1h30", "nan", "1ms2"])
    func refusesWhatIsNoDuration(_ text: String) {
        #expect(duration(text) == nil)
    }

    @Test func spellsWhatItReads() {
        for value in [0, 1, 1023, 1024, 1536, 64 << 20, 5 << 30, 3 << 50] as [UInt64] {
            #expect(size(spell(size: value)) == value)
        }
        for value in [0, 1, 1500, 1_000_000, 90_000_000_000, 86_400_000_000_000] as [UInt64] {
            #expect(duration(spell(duration: value)) == value)
        }
        #expect(spell(size: 64 << 20) == "64MiB")
        #expect(spell(duration: 90_000_000_000) == "90s")
    }

    @Test(arguments: ["true", "yes", "on", "TRUE", "On"])
    func readsTruth(_ text: String) throws {
        #expect(try SettingType.boolean.parse(text) == .boolean(true))
    }

    @Test func splitsListsAtCommas() throws {
        #expect(try SettingType.list.parse(" a, b ,,c") == .list(["a", "b", "c"]))
        #expect(try SettingType.list.parse("") == .list([]))
    }

    @Test func suggestsWordsThatAreNear() {
        #expect(suggestion(for: "memroy", among: ["memory", "members"]) == "memory")
        #expect(suggestion(for: "MEMORY", among: ["memory"]) == "memory")
        #expect(suggestion(for: "ab", among: ["xy"]) == nil)
        #expect(suggestion(for: "portt", among: ["port", "ports"]) == "port")
    }
}
