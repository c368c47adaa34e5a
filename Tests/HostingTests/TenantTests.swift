// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Settings
import Telemetry
import Testing

@testable import Hosting

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

private func allows(_ permissions: TenantPermissions, _ classes: CommandClasses, _ key: String = "") -> Bool {
    let key = bytes(key)
    return permissions.allows(classes, key: key.span)
}

private func admits(_ tenant: Tenant, _ classes: CommandClasses, reactor: Int = 0, isWhole: Bool = true) -> Bool {
    let key = bytes("k")
    return tenant.admits(classes, key: key.span, reactor: reactor, isWhole: isWhole)
}

private func permissions(
    _ commands: CommandClasses = .all, prefixes: [String] = [], read: [String] = []
) -> TenantPermissions {
    TenantPermissions(commands: commands, prefixes: prefixes.map(bytes), readPrefixes: read.map(bytes))
}

private func read(_ yaml: String) throws -> (tenants: [TenantSettings], problems: [String]) {
    let schema = SettingsSchema([TenantSettings.setting])
    let values = try schema.resolve(file: ("file", bytes(yaml)), environment: [:], flags: []).values
    var problems: [String] = []
    return (TenantSettings.read(values, problems: &problems), problems)
}

@Suite struct TenantPermissionsTests {
    @Test func withoutPrefixesEveryKeyIsAllowed() {
        let all = permissions()
        for (_, value) in CommandClasses.named { #expect(allows(all, value, "any")) }
        #expect(allows(all, [.read, .write], "any"))
    }

    @Test func nobodyMayDoAnything() {
        for (_, value) in CommandClasses.named { #expect(!allows(.none, value, "any")) }
        #expect(allows(.none, []))
    }

    @Test func onlyKeysOfAPrefixAreAllowed() {
        let one = permissions(prefixes: ["app:", "b"])
        for key in ["app:", "app:1", "b", "bcd"] { #expect(allows(one, .write, key)) }
        for key in ["", "app", "ap", "App:1", "xapp:1", "a", "c"] { #expect(!allows(one, .read, key)) }
    }

    @Test func theLongestPrefixCounts() {
        let one = permissions(prefixes: ["a", "a:b:c:"], read: ["a:b:", "z"])
        #expect(allows(one, .write, "a:x"))
        #expect(!allows(one, .write, "a:b:x"))
        #expect(!allows(one, .delete, "a:b:x"))
        #expect(allows(one, .read, "a:b:x"))
        #expect(allows(one, [.read, .write], "a:b:c:x"))
        #expect(allows(one, .read, "z1"))
        #expect(!allows(one, [.read, .write], "z1"))
    }

    @Test func onlyCommandsOfItsClassesAreAllowed() {
        let one = permissions([.read, .flush], prefixes: ["p"])
        #expect(allows(one, .read, "p1"))
        #expect(!allows(one, .write, "p1"))
        #expect(!allows(one, [.read, .write], "p1"))
        #expect(!allows(one, .admin))
        // flush_all has no key.
        #expect(allows(one, .flush))
    }

    @Test func keysMayHoldAnyByte() {
        let one = TenantPermissions(commands: .all, prefixes: [[0xff, 0x00]], readPrefixes: [])
        for (key, isAllowed) in [([0xff, 0x00, 0x01], true), ([0xff, 0x01], false)] as [([UInt8], Bool)] {
            let outcome = one.allows(.read, key: key.span)
            #expect(outcome == isAllowed)
        }
    }

    /// Beside a model that looks at every rule.
    @Test func agreesWithTheModel() {
        var random = SystemRandomNumberGenerator()
        let letters = ["a", "b"]
        func word(_ limit: Int) -> String {
            (0..<Int.random(in: 1...limit, using: &random)).map { _ in letters[Int.random(in: 0...1)] }.joined()
        }
        for _ in 0..<500 {
            let prefixes = Set((0..<3).map { _ in word(4) })
            let reads = Set((0..<3).map { _ in word(4) }).subtracting(prefixes)
            let one = permissions(prefixes: prefixes.sorted(), read: reads.sorted())
            for _ in 0..<20 {
                let key = word(6)
                let longest = prefixes.union(reads).filter(key.hasPrefix).max { $0.count < $1.count }
                #expect(allows(one, .read, key) == (longest != nil))
                #expect(allows(one, .write, key) == longest.map(prefixes.contains) ?? false)
            }
        }
    }
}

@Suite struct CommandClassesTests {
    @Test func everyVerbHasAClassOrIsEverybodys() {
        let free: Set<Verb> = [.version, .quit, .metaNoop, .noop, .config, .protocolError]
        for verb in Verb.allCases {
            var request = Request()
            request.verb = verb
            #expect(request.commandClasses.isEmpty == free.contains(verb), "\(verb)")
        }
    }

    @Test func aMetaGetThatChangesItemsWrites() {
        for (letter, writes) in [("v", false), ("N", true), ("T", true), ("R", false), ("E", true), ("k", false)] {
            var request = Request()
            request.verb = .metaGet
            request.form = .meta
            request.options = MetaOptions(letter: bytes(letter)[0])
            #expect(request.commandClasses == (writes ? [.read, .write] : .read), "\(letter)")
        }
    }

    @Test func countsWithTheLastClass() {
        #expect(CommandClasses.read.counted == 0)
        #expect((CommandClasses.read.union(.write)).counted == 1)
        #expect(CommandClasses.admin.counted == 4)
        #expect(CommandClasses().counted == nil)
    }
}

@Suite struct TenantSettingsTests {
    @Test func readsTenants() throws {
        let (tenants, problems) = try read(
            """
            tenants:
              - {name: shop, users: [alice, bob], prefixes: ["shop:"], readPrefixes: ["shared:"]}
              - {name: ops, certificates: [ops.example.org], commands: [read, admin, flush]}
              - {name: rest, others: true, prefixes: ["public:"]}
            """)
        #expect(problems == [])
        #expect(tenants.map(\.name) == ["shop", "ops", "rest"])
        #expect(tenants[0].users == ["alice", "bob"])
        #expect(tenants[0].permissions == permissions(.data, prefixes: ["shop:"], read: ["shared:"]))
        #expect(tenants[1].certificates == ["ops.example.org"])
        #expect(tenants[1].permissions == permissions([.read, .admin, .flush]))
        #expect(tenants[2].includesOthers && !tenants[0].includesOthers)
    }

    static let wrong: [(String, String)] = [
        ("{name: \"\"}", "name: \"\" is not valid"),
        ("{name: \"a b\"}", "is not valid; expected 1 to 64 letters"),
        ("{name: unknown}", "who are no tenant"),
        ("{name: a, commands: [reed]}", "commands: \"reed\" is not valid; expected read, write, delete, flush, admin"),
        ("{name: a, prefixes: [\"\"]}", "prefixes: \"\" is not valid"),
        ("{name: a, prefixes: [\"a b\"]}", "no spaces"),
        ("{name: a, prefixes: [x, x]}", "one is there twice"),
        ("{name: a, prefixes: [x], readPrefixes: [x]}", "one is there twice"),
        ("{name: a, users: [\"\"]}", "users: an empty name"),
        ("{name: a}\n  - {name: a}", "name: \"a\" is there twice"),
        ("{name: a, users: [u]}\n  - {name: b, users: [u]}", "users: \"u\" is a's"),
        ("{name: a, certificates: [u]}\n  - {name: b, certificates: [u]}", "certificates: \"u\" is a's"),
        ("{name: a, others: true}\n  - {name: b, others: true}", "others: a has them already"),
    ]

    @Test(arguments: wrong)
    func refusesWhatCannotBe(_ entry: String, _ reason: String) throws {
        let problems = try read("tenants:\n  - \(entry)\n").problems
        #expect(problems.contains { $0.contains(reason) }, "\(problems)")
        #expect(problems.allSatisfy { $0.hasPrefix("file:") }, "\(problems)")
    }

    @Test func anUnnamedCommandListDiffersFromAnEmptyOne() throws {
        #expect(try read("tenants:\n  - {name: a, commands: []}\n").tenants[0].permissions.commands == [])
        #expect(try read("tenants:\n  - {name: a}\n").tenants[0].permissions.commands == .all)
    }
}

@Suite struct TenantDirectoryTests {
    private func settings(_ name: String, users: [String] = [], certificates: [String] = []) -> TenantSettings {
        var settings = TenantSettings(name: name, permissions: permissions())
        settings.users = users
        settings.certificates = certificates
        return settings
    }

    private func name(_ directory: TenantDirectory, _ user: String?, _ certificates: String...) -> String? {
        directory.membership(user: user.map(bytes), certificates: certificates.map(bytes)).tenant?.name
    }

    @Test func withoutTenantsNobodyIsOne() {
        let directory = TenantDirectory([], reactors: 1)
        #expect(directory.epoch == 0)
        #expect(name(directory, "alice", "one") == nil)
        #expect(directory.all.isEmpty)
    }

    @Test func theUserCountsBeforeTheCertificateAndItsNamesInOrder() {
        let directory = TenantDirectory(
            [
                settings("a", users: ["alice"]), settings("b", certificates: ["one"]),
                settings("c", certificates: ["two"]),
            ],
            reactors: 1)
        #expect(name(directory, "alice", "one") == "a")
        #expect(name(directory, "eve", "one") == "b")
        #expect(name(directory, nil, "zero", "two", "one") == "c")
        #expect(name(directory, "one") == "unknown")
        #expect(name(directory, nil, "alice") == "unknown")
        #expect(name(directory, nil) == "unknown")
    }

    @Test func replacingChangesTheEpochOnceAndKeepsWhatWasCounted() throws {
        let directory = TenantDirectory([settings("a", users: ["u"])], reactors: 2)
        let first = directory.membership(user: bytes("u"), certificates: [])
        let tenant = try #require(first.tenant)
        #expect(admits(tenant, .read, reactor: 1))
        #expect(admits(tenant, .write, isWhole: false))
        directory.replace([settings("a", users: ["u"])])
        #expect(directory.epoch == first.epoch)
        directory.replace([settings("b", users: ["u"]), settings("a")])
        #expect(directory.epoch == first.epoch + 1)
        #expect(name(directory, "u") == "b")
        let totals = try #require(directory.all.first { $0.name == "a" }).totals
        #expect((totals[.read], totals[.write], totals.denied) == (1, 0, 0))
        directory.replace([])
        #expect(name(directory, "u") == nil)
        #expect(directory.epoch == first.epoch + 2)
    }

    @Test func denialsAreCountedByClass() throws {
        let directory = TenantDirectory([settings("a")], reactors: 1)
        let unknown = try #require(directory.membership(user: nil, certificates: []).tenant)
        #expect(!admits(unknown, .readWrite, isWhole: false))
        #expect(!admits(unknown, .admin))
        #expect(admits(unknown, []))
        #expect(unknown.totals.denied == 2)
        #expect(unknown.totals[.deniedWrite] == 1)
        #expect(unknown.totals[.deniedAdmin] == 1)
    }

    @Test func tenantsShareNoPlaceInOverloadControl() {
        let many = (0..<TenantSettings.limit).map { settings("t\($0)") }
        let shares = TenantDirectory(many, reactors: 1).all.map { $0.share & 0xff }
        #expect(Set(shares).count == TenantSettings.limit + 1)
    }
}
