// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import Routing
import Testing

@testable import RouterProxy

private func configuration(
    _ arguments: [String], file: String? = nil, environment: [String: String] = [:]
) throws(StartRefusal) -> RouterConfiguration {
    let line = RouterCommandLine(
        program: "martlet-router", arguments: (file == nil ? [] : ["--config=f.yaml"]) + arguments,
        environment: environment
    ) { path in
        guard path == "f.yaml", let file else { return .failure(.init("No such file or directory")) }
        return .success(.init(Array(file.utf8), stamp: [1]))
    }
    return try line.configuration().configuration
}

@Suite struct RouterCommandLineTests {
    @Test func startsWithNothingButServers() throws {
        let found = try configuration(["10.0.0.1", "10.0.0.2:11212:3", "/run/m.sock=2", "[::1]:5"])
        let servers = found.routes.pools.flatMap(\.servers).map(\.server)
        #expect(servers.map(\.host) == ["10.0.0.1", "10.0.0.2", "/run/m.sock", "::1"])
        #expect(servers.map(\.port) == [11211, 11212, 0, 5])
        #expect(servers.map(\.weight) == [1, 3, 2, 1])
        #expect(found.listeners.map(\.host) == ["127.0.0.1", "::1"])
        #expect(found.listeners.map(\.port) == [11211, 11211])
        #expect(found.routes.pools.map(\.hash) == [HashChoice()])
    }

    /// What changes between the reading of a file and the first look at it is noticed then.
    @Test func remembersWhatAFileWasBeforeItWasRead() throws {
        var reads = 0
        let line = RouterCommandLine(
            program: "martlet-router", arguments: ["--config=f.yaml"], environment: [:]
        ) { _ in
            reads += 1
            return .success(.init(Array("pools: {p: {servers: [a]}}\nroute: p\n".utf8), stamp: [reads]))
        }
        let files = try line.configuration().files
        #expect(files == [RouterCommandLine.WatchedFile(path: "f.yaml", stamp: [1])])
        #expect(reads > 1, "for the settings and for the routes")
    }

    @Test func takesASourceOfMembersForServers() throws {
        let pool = try #require(try configuration(["dnssrv+_m._tcp.example"]).routes.pools.first)
        #expect(pool.members == "dnssrv+_m._tcp.example" && pool.servers.isEmpty)
    }

    @Test func readsAFile() throws {
        let file = """
            listen: [127.0.0.1:5000, /tmp/r.sock]
            servers:
              - a:1
              - b:2
            hash: ketama
            hashTag: "{}"
            upstream: {timeout: 250ms, connectTimeout: 100ms}
            commands: {flushAll: true}
            """
        let found = try configuration([], file: file)
        #expect(found.unixSocketPaths == ["/tmp/r.sock"])
        #expect(found.listeners.map(\.port) == [5000])
        #expect(found.defaults.requestTimeoutMilliseconds == 250)
        #expect(found.routes.pools.map(\.connectTimeoutMilliseconds) == [100])
        let tag = HashedPart.tag(open: UInt8(ascii: "{"), close: UInt8(ascii: "}"))
        #expect(found.routes.pools.map(\.hash) == [HashChoice(.ketama(.libmemcached, .md5), part: tag)])
        #expect(found.limits.allowsFlush)
    }

    @Test(arguments: [
        ("servers: [a:1]\nlissen: [x]\n", "f.yaml:2: lissen: unknown setting (did you mean listen?)"),
        ("servers: [\"a:b\"]\n", "f.yaml:1: servers: \"a:b\" is not valid; expected host:port[:weight]"),
        ("servers: [a:1]\nhash: kettle\n", "f.yaml:2: hash: \"kettle\" is not valid"),
        ("servers: [a:1, a:1]\nhash: ketama\n", "two servers are called 'a:1'"),
        ("threads: 2\n", "servers: missing"),
        ("servers: [a:1]\nroute: b\npools: {b: {servers: [c:1]}}\n", "f.yaml: servers cannot go with routes"),
        ("pools: {b: {servers: [c:1]}}\nroute: nobody\n", "f.yaml:2"),
        ("servers: [a:1]\nhashTag: abc\n", "f.yaml:2: hashTag: \"abc\" is not valid"),
        ("servers: [a:1]\nadmin: nowhere\n", "f.yaml:2: admin: \"nowhere\" is not valid"),
        ("servers: [a:1]\nstaleness: 1s\n", "servers: consistency and staleness are of pools with storage: true"),
        ("servers: [a:1]\nstorage: true\nstaleness: 1s\n", "servers: consistency: bounded and staleness belong"),
        ("servers: [a:1]\nstorage: true\nconsistency: loose\n", "f.yaml:3: consistency: \"loose\" is not valid"),
        ("servers: [a:1]\nstorage: true\nspool: {directory: /s}\n", "servers: spool.directory: they have storage"),
        (
            "servers: [a:1]\nstorage: true\nhotKeys: {cacheTTL: 1ms}\n",
            "hotKeys.cacheTTL: the pool servers has storage"
        ),
        (
            "servers: [a:1]\nstorage: true\nconsistency: bounded\nstaleness: 20ms\nhotKeys: {cacheTTL: 21ms}\n",
            "hotKeys.cacheTTL: the pool servers allows copies to be old by 20 ms"
        ),
        (
            "pools: {b: {servers: [c:1], storage: true}}\nroute: b\nhotKeys: {cacheTTL: 1ms}\n",
            "hotKeys.cacheTTL: the pool b has storage"
        ),
        ("pools: {b: {servers: [c:1]}}\nroute: b\nstorage: true\n", "f.yaml: storage cannot go with routes"),
    ])
    func saysWhatIsWrongAndWhere(_ file: String, _ expected: String) {
        do throws(StartRefusal) {
            _ = try configuration([], file: file)
            Issue.record("accepted")
        } catch {
            #expect(error.code == StartRefusal.Code.configuration)
            #expect(error.errors.contains(expected), "\(error.errors)")
        }
    }

    @Test func aSwitchIsOffWhereTheNextWordSaysSo() throws {
        let found = try configuration(["a:1", "--commands-flush-all", "false", "--storage", "no"])
        #expect(!found.limits.allowsFlush)
        #expect(found.routes.pools.flatMap(\.servers).count == 1)
        #expect(found.routes.pools.first?.consistency == .lookAside)
        #expect(try configuration(["--commands-flush-all", "yes", "a:1"]).limits.allowsFlush)
    }

    @Test(arguments: ["maybe", "false", ":11211", "a:1,maybe", ","])
    func refusesWordsThatNameNoServer(_ word: String) {
        do throws(StartRefusal) {
            _ = try configuration(["a:1", word])
            Issue.record("accepted")
        } catch {
            #expect(error.code == StartRefusal.Code.usage)
            #expect(error.errors.contains("\"\(word)\" is no option, and names no server"), "\(error.errors)")
        }
    }

    @Test func serversMayHaveStorage() throws {
        func pool(_ arguments: String...) throws -> RoutePool {
            try #require(try configuration(["a:1"] + arguments).routes.pools.first)
        }
        let plain = try pool("--spool-directory=/s", "--hot-keys-cache-ttl=20ms")
        #expect(plain.consistency == .lookAside && plain.spool == "servers")
        let strict = try pool("--storage")
        #expect(strict.consistency == .strict && strict.spool == nil)
        #expect(try pool("--storage", "--consistency=strict").consistency == .strict)
        let bounded = try pool(
            "--storage", "--consistency=bounded", "--staleness=20ms", "--hot-keys-cache-ttl=20ms")
        #expect(bounded.consistency == .bounded(stalenessMilliseconds: 20) && bounded.spool == nil)
        let looked = try #require(try configuration(["dns+nodes.example:11211", "--storage"]).routes.pools.first)
        #expect(looked.consistency == .strict && looked.members != nil)
    }

    @Test func readsRoutesBesideItsOwnSettings() throws {
        let file = """
            threads: 3
            pools:
              a: {servers: [127.0.0.1:1]}
              b: {servers: [127.0.0.1:2], timeout: 20ms}
            route: {failover: [a, b]}
            upstream: {timeout: 300ms}
            """
        let found = try configuration([], file: file)
        #expect(found.threads == 3)
        #expect(found.routes.pools.map(\.name) == ["a", "b"])
        #expect(found.defaults.requestTimeoutMilliseconds == 300)
        #expect(found.listensByDefault)
    }

    @Test func checksWithoutStarting() {
        do throws(StartRefusal) {
            _ = try configuration(["--check-config", "a:1"])
            Issue.record("started")
        } catch {
            #expect(error.code == 0)
            #expect(error.output.hasPrefix("the configuration is valid"))
        }
    }
}
