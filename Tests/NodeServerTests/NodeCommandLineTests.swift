// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import Telemetry
import Testing

@testable import NodeServer

/// How a command line ends: with a configuration, or as the program would exit.
private func evaluate(
    _ arguments: [String], environment: [String: String] = [:], files: [String: String] = [:]
) -> Result<NodeConfiguration, StartRefusal> {
    let commandLine = NodeCommandLine(program: "memcached", arguments: arguments, environment: environment) { path in
        files[path].map { .success(Array($0.utf8)) } ?? .failure(.init("No such file or directory"))
    }
    do throws(StartRefusal) {
        return .success(try commandLine.configuration())
    } catch {
        return .failure(error)
    }
}

private func configuration(
    _ arguments: String..., environment: [String: String] = [:], files: [String: String] = [:]
) throws -> NodeConfiguration {
    try evaluate(arguments, environment: environment, files: files).get()
}

private func refusal(
    _ arguments: String..., environment: [String: String] = [:], files: [String: String] = [:]
) throws -> StartRefusal {
    switch evaluate(arguments, environment: environment, files: files) {
    case .success: throw Accepted()
    case .failure(let refusal): return refusal
    }
}

/// A command line that ought to have been refused.
private struct Accepted: Error {}

/// A command line that memcached 1.6.45 refuses, with its exit code and its words.
struct RefusedCommandLine: Sendable, CustomTestStringConvertible {
    let arguments: String
    let code: Int32
    let errors: String

    init(_ arguments: String, _ code: Int32, _ errors: String...) {
        self.arguments = arguments
        self.code = code
        self.errors = errors.joined()
    }

    var testDescription: String { arguments }
}

@Suite struct NodeCommandLineTests {
    @Test func aPlainStartIsMemcachedsButForLoopback() throws {
        let made = try configuration()
        #expect(made.listeners.map(\.host) == ["127.0.0.1", "::1"])
        #expect(made.listeners.map(\.port) == [11211, 11211])
        #expect(made.listeners.map(\.isOptional) == [false, true])
        #expect(made.interfaceText == nil)
        #expect(made.datagramListeners.isEmpty)
        #expect(made.memoryBytes == 64 << 20)
        #expect(made.maximumItemBytes == 1 << 20)
        #expect(made.connectionLimit == 1024)
        #expect(made.threads == 4)
        #expect(made.requestsPerTurn == 20)
        #expect(made.backlog == 1024)
        #expect(made.restriction == .automatic)
        #expect(made.evicts && made.usesCAS && made.allowsFlush && made.allowsDump && made.allowsWatch)
        #expect(!made.allowsShutdown && made.tls == nil && made.authenticationPath == nil)
        #expect(made.admin == AdminEndpoint())
        #expect(made.notes.contains { $0.contains("-l 0.0.0.0") })
        // Every default of the settings is the plain struct's, but for what is derived.
        var expected = NodeConfiguration()
        expected.listeners = made.listeners
        expected.notes = made.notes
        expected.summary = made.summary
        #expect(made == expected)
    }

    @Test func takesEveryShortOption() throws {
        let made = try configuration(
            "-p", "11311", "-U", "11312", "-l", "10.0.0.1", "-m", "256", "-M", "-c", "5000", "-t", "2", "-v", "-vv",
            "-d",
            "-P", "/run/pid", "-u", "cache", "-I", "2m", "-R", "7", "-C", "-b", "99", "-B", "ascii", "-F", "-A", "-D",
            "|",
            "-n", "64", "-f", "1.5", "-X", "-W", "-r", "-k", "-L", "-N", "1", "-e", "/mnt/x", "-a", "770")
        #expect(made.port == 11311)
        #expect(made.datagramPort == 11312)
        #expect(made.listeners.map(\.host) == ["10.0.0.1"])
        #expect(made.datagramListeners.map(\.port) == [11312])
        #expect(made.memoryBytes == 256 << 20)
        #expect(!made.evicts)
        #expect(made.connectionLimit == 5000)
        #expect(made.threads == 2)
        #expect(made.verbosity == 3)
        #expect(made.logLevel == .debug)
        #expect(made.process.daemonizes)
        #expect(made.process.pidFilePath == "/run/pid")
        #expect(made.process.user == "cache")
        #expect(made.maximumItemBytes == 2 << 20)
        #expect(made.requestsPerTurn == 7)
        #expect(!made.usesCAS)
        #expect(made.backlog == 99)
        #expect(made.restriction == .ascii)
        #expect(!made.allowsFlush && !made.allowsDump && !made.allowsWatch && made.allowsShutdown)
        #expect(made.prefixDelimiter == UInt8(ascii: "|"))
        #expect(made.collectsPrefixStatistics)
        #expect(made.process.raisesCoreLimit && made.process.locksMemory)
        #expect(made.unixSocketMode == 0o770)
        #expect(made.tuning.chunkSize == 64)
        #expect(made.tuning.growthFactor == 1.5)
        #expect(made.tuning.memoryFilePath == "/mnt/x")
        #expect(made.notes.contains("accepted and without effect here: -n, -f, -L, -N"))
    }

    @Test func takesEveryLongOption() throws {
        let values = [
            "unix-mask": "700", "port": "1", "unix-socket": "/tmp/s", "udp-port": "2", "memory-limit": "64",
            "conn-limit": "9", "listen": "127.0.0.1", "user": "x", "pidfile": "/p", "slab-growth-factor": "1.1",
            "slab-min-size": "50", "threads": "3", "max-reqs-per-event": "5", "listen-backlog": "6", "protocol": "auto",
            "max-item-size": "1m", "auth-file": "/a", "memory-file": "/m", "extended": "modern", "napi-ids": "1",
        ]
        for option in MemcachedOptions.longs where !["h", "i", "V", "S"].contains(option.short) {
            var arguments = values[option.name].map { ["--\(option.name)=\($0)"] } ?? ["--\(option.name)"]
            if option.name == "enable-ssl" { arguments += ["-o", "ssl_chain_cert=/c"] }
            if case .failure(let refusal) = evaluate(arguments) {
                Issue.record("--\(option.name): \(refusal.errors)")
            }
        }
        let made = try configuration("--memory-limit", "128", "--thre", "3", "--disable-cas", "--verbose")
        #expect(made.memoryBytes == 128 << 20)
        #expect(made.threads == 3)
        #expect(!made.usesCAS)
        #expect(made.verbosity == 1)
    }

    @Test func readsNumbersAsCDoes() throws {
        #expect(try configuration("-m", " 100MB").memoryBytes == 100 << 20)
        #expect(try configuration("-c", "12x").connectionLimit == 12)
        #expect(try configuration("-I", "512k").maximumItemBytes == 512 << 10)
        #expect(try configuration("-I", "2048").maximumItemBytes == 2048)
        #expect(cInteger("") == 0)
        #expect(cInteger(" -7x") == -7)
        #expect(cInteger("99999999999999999999") == -1)
        #expect(cInteger("4294967297") == 1)
        #expect(cOctal("0779") == 0o77)
        #expect(strictInteger("12 x") == 12)
        #expect(strictInteger("12x") == nil)
        #expect(strictInteger("") == nil)
        #expect(strictUnsigned("-1") == nil)
        #expect(strictUnsigned("+5") == 5)
        #expect(cDouble("1.25x") == 1.25)
        #expect(cDouble("x") == 0)
        #expect(strictDouble("0.5") == 0.5)
        #expect(strictDouble("0.5x") == nil)
    }

    @Test func takesExtendedOptions() throws {
        let made = try configuration(
            "-o", "no_maxconns_fast,idle_timeout=9,track_sizes,watcher_logbuf_size=1,worker_logbuf_size=2",
            "-o", "hash_algorithm=xxh3,slab_automove=2,hot_lru_pct=10,no_lru_crawler,relaxed_privileges",
            "-o", "ext_path=/x:1G,ext_item_size=5,temporary_ttl=30,read_buf_mem_limit=3,slab_sizes=100-200-300")
        #expect(!made.refusesBeyondLimit)
        #expect(made.idleTimeoutSeconds == 9)
        #expect(made.tuning.tracksSizes)
        #expect(made.watcherBufferBytes == 1024)
        #expect(made.workerLogBufferBytes == 2048)
        #expect(made.tuning.hashAlgorithm == "xxh3")
        #expect(made.tuning.slabAutomove == 2)
        #expect(made.tuning.hotPercent == 10)
        #expect(!made.tuning.runsCrawler)
        #expect(made.tuning.temporaryTTL == 30)
        #expect(made.tuning.readBufferLimitBytes == 3 << 20)
        #expect(
            made.notes.contains(
                "accepted and without effect here: hash_algorithm, slab_automove, hot_lru_pct, ext_path, "
                    + "ext_item_size, temporary_ttl, read_buf_mem_limit, slab_sizes"))
    }

    @Test func takesTLSOptions() throws {
        let made = try configuration(
            "-Z", "-l", "notls:127.0.0.1:1,mtls:127.0.0.1:2,btls:127.0.0.1:3,127.0.0.1", "-o",
            "ssl_chain_cert=/c,ssl_key=/k,ssl_ca_cert=/a,ssl_verify_mode=2,ssl_min_version=3,ssl_session_cache,"
                + "ssl_wbuf_size=32,ssl_keyformat=2,ssl_ciphers=HIGH:!MD5")
        let tls = try #require(made.tls)
        #expect(tls.certificatePath == "/c")
        #expect(tls.keyPath == "/k")
        #expect(tls.authorityPath == "/a")
        #expect(tls.verification == .require)
        #expect(tls.minimumVersion == .tls13)
        #expect(tls.cachesSessions && tls.isKeyDER)
        #expect(tls.writeBufferBytes == 32 << 10)
        #expect(tls.ciphers == "HIGH:!MD5")
        #expect(made.listeners.map(\.security) == [.plain, .mutualTLS, .tlsWithoutPeer, .tls])
        #expect(try configuration("-o", "ssl_chain_cert=/c").tls == nil)
    }

    @Test func turnsPortsOffAndLeavesThemToTheKernel() throws {
        #expect(try configuration("-p", "0").listeners.isEmpty)
        #expect(try configuration("-p", "-1").listeners.map(\.port) == [0, 0])
        let datagram = try configuration("-U", "11400")
        #expect(datagram.port == 11400)
        #expect(datagram.datagramListeners.map(\.port) == [11400, 11400])
        #expect(try configuration("-U", "11400", "-p", "11211").port == 11211)
        #expect(try configuration("-U", "0").port == 11211)
        let unix = try configuration("-s", "/tmp/s", "-a", "0777")
        #expect(unix.unixSocketPath == "/tmp/s")
        #expect(unix.listeners.isEmpty && unix.notes.isEmpty)
    }

    @Test func repeatedListenersAddUpAsMemcachedAddsThem() throws {
        let made = try configuration("-l", "127.0.0.1:1", "-l", "127.0.0.2", "-l", "127.0.0.1")
        #expect(made.interfaceText == "127.0.0.1:1,127.0.0.2")
        #expect(made.listeners.map(\.port) == [1, 11211])
    }

    @Test func authenticationMeansTextOnly() throws {
        #expect(try configuration("-Y", "/a").restriction == .ascii)
        #expect(try configuration("-Y", "/a", "-B", "ascii").restriction == .ascii)
        let negotiating = try configuration("-Y", "/a", "-l", "proto[negotiating]:127.0.0.1")
        #expect(negotiating.listeners.map(\.restriction) == [.ascii])
        #expect(negotiating.notes.contains { $0.hasPrefix("negotiating ports are ascii only") })
    }

    @Test func optionsWinOverFlagsThatWinOverTheEnvironmentThatWinsOverTheFile() throws {
        let files = ["/m.yaml": "memory: 1g\nport: 1\nthreads: 1\nconnections: {limit: 1}\n"]
        let environment = ["MARTLET_CONFIG": "/m.yaml", "MARTLET_PORT": "2", "MARTLET_CONNECTIONS_LIMIT": "2"]
        let made = try configuration(
            "-c", "4", "--connections-limit=3", "-t", "4", environment: environment, files: files)
        #expect(made.memoryBytes == 1 << 30)
        #expect(made.port == 2)
        #expect(made.threads == 4)
        #expect(made.connectionLimit == 4)
        #expect(try configuration("--connections-limit=3", environment: environment, files: files).connectionLimit == 3)
    }

    @Test func readsAFile() throws {
        let made = try configuration(
            "--config", "/n.yaml",
            files: [
                "/n.yaml": """
                listen: [10.0.0.1, "[::1]:11300"]
                udp: {port: 11211}
                admin: "[::1]:9999"
                connections: {idleTimeout: 1500ms, outputLimit: 1MiB}
                items: {maxSize: 4m, evict: false}
                commands: {flushAll: false}
                hotKeys: {top: 5, showKeys: true}
                log: {format: logfmt, level: error}
                cluster: blue
                members: [10.0.0.1:11211, "a.example|10.0.0.2|11212", "[::1]:7"]
                tls: {certificate: /c, verify: once, minVersion: "1.3"}
                user: nobody
                """
            ])
        #expect(made.listeners.map(\.host) == ["10.0.0.1", "::1"])
        #expect(made.listeners.map(\.port) == [11211, 11300])
        #expect(made.datagramListeners.map(\.port) == [11211, 11300])
        #expect(made.admin?.host == "::1")
        #expect(made.admin?.port == 9999)
        #expect(made.admin?.isExplicit == true)
        #expect(made.idleTimeoutSeconds == 2)
        #expect(made.outputLimitBytes == 1 << 20)
        #expect(made.maximumItemBytes == 4 << 20)
        #expect(!made.evicts && !made.allowsFlush && made.showsHotKeys)
        #expect(made.hotKeysShown == 5)
        #expect(made.logFormat == .logfmt)
        #expect(made.logLevel == .error)
        #expect(made.clusterName == "blue")
        #expect(
            made.members == [
                ClusterMember(host: "10.0.0.1", address: "", port: 11211),
                ClusterMember(host: "a.example", address: "10.0.0.2", port: 11212),
                ClusterMember(host: "::1", address: "", port: 7),
            ])
        #expect(made.tls == nil)
        #expect(made.process.user == "nobody")
    }

    @Test func adminMayBeOffOrElsewhere() throws {
        #expect(try configuration("--admin", "off").admin == nil)
        #expect(try configuration("--admin", "9000").admin?.port == 9000)
        #expect(try configuration("--admin=0.0.0.0:9000").admin?.host == "0.0.0.0")
        #expect(try configuration().admin?.isExplicit == false)
        for text in ["x", "1:2:3", "host:0", "host:70000", ""] {
            let refused = try refusal("--admin=\(text)")
            #expect(refused.code == 78)
            #expect(
                refused.errors
                    == "memcached: --admin: admin: \"\(text)\" is not valid; expected address:port, a port, or off\n")
        }
    }

    @Test func refusesSettingsWithTheirPlace() throws {
        let unknown = try refusal("--config=/n.yaml", files: ["/n.yaml": "port: 1\nthread: 5\n"])
        #expect(unknown.code == 78)
        #expect(unknown.errors.hasPrefix("memcached: /n.yaml:2: thread: unknown setting (did you mean threads?);"))
        let missing = try refusal("--config=/none.yaml")
        #expect(missing.errors == "memcached: /none.yaml: cannot be read: No such file or directory\n")
        let member = try refusal("--members=10.0.0.1")
        #expect(member.errors.contains("expected host:port or host|address|port"))
        for source in ["dnssrv+_memcached._tcp.example.org:11211", "dns+a:11211,dns+b:11211", "consul://a/b"] {
            #expect(try refusal("--members=\(source)").errors.hasPrefix("memcached: members: "))
        }
        #expect(try refusal("--members=etcd://h:2379").errors.contains("a prefix is missing"))
        let several = "etcd://a:2379,b:2379/martlet/main"
        #expect(try configuration("--members=\(several)").fleet.source == [several])
        let mask = try refusal(environment: ["MARTLET_UNIX_MASK": "9"])
        #expect(mask.errors.contains("MARTLET_UNIX_MASK: unix.mask: \"9\" is not valid"))
        #expect(try refusal("--hot-keys-top=x").errors.contains("--hot-keys-top: \"x\" is not valid"))
    }

    @Test(arguments: ["commands-shutdown", "commands-flush-all"])
    func aSwitchIsOffWhereTheNextWordSaysSo(_ flag: String) throws {
        func isOn(_ arguments: String...) throws -> Bool {
            let made = try evaluate(arguments).get()
            return flag == "commands-shutdown" ? made.allowsShutdown : made.allowsFlush
        }
        for word in ["false", "no", "Off"] {
            #expect(try !isOn("--\(flag)", word))
            #expect(try !isOn("--\(flag)=\(word)"))
        }
        #expect(try isOn("--\(flag)", "on"))
        #expect(try isOn("--\(flag)", "-m", "100"))
        #expect(try isOn("--\(flag)"))
    }

    @Test func refusesWordsBesideOurFlagsThatAreNoOptions() throws {
        let lines = ["--overload-dry-run maybe", "maybe --log-level=info", "--check-config -- maybe"]
        for arguments in lines.map({ $0.split(separator: " ").map(String.init) }) {
            guard case .failure(let refusal) = evaluate(arguments) else { throw Accepted() }
            #expect(refusal.code == StartRefusal.Code.usage)
            #expect(refusal.errors.contains("\"maybe\" is no option"))
        }
        #expect(try refusal("--overload-dry-run=maybe").errors.contains("expected true or false"))
    }

    @Test func ignoresWordsBesideMemcachedsOptionsAsMemcachedDoes() throws {
        let made = try configuration("-m", "100", "memcached", "-A", "false")
        #expect(made.allowsShutdown && made.memoryBytes == 100 << 20)
        #expect(made.notes.contains { $0.contains("\"memcached\" is ignored") })
        #expect(made.notes.contains { $0.contains("\"false\" is ignored") })
    }

    @Test func suggestsWhatAnUnknownFlagMightBe() throws {
        let refused = try refusal("--hot-key-top=5")
        #expect(refused.code == 1)
        #expect(
            refused.errors == """
                memcached: unrecognized option '--hot-key-top'
                Illegal argument "?"
                Did you mean --hot-keys-top?

                """)
        #expect(try refusal("--zzzzzz").errors.hasSuffix("Illegal argument \"?\"\n"))
    }

    @Test func checksAConfigurationWithoutStarting() throws {
        let good = try refusal("--check-config", "--threads", "2", "--log-level=debug")
        #expect(good.code == 0)
        #expect(good.output.hasPrefix("the configuration is valid\n"))
        #expect(good.output.contains("log.level: debug  # --log-level\n"))
        #expect(good.errors.isEmpty)
        #expect(try refusal("--check-config", "--log-level=loud").code == 78)
        #expect(try refusal("--check-config", "-I", "1").code == 64)
    }

    @Test func helpAndVersionBeginAsMemcacheds() throws {
        let help = try refusal("-h")
        #expect(help.code == 0)
        #expect(help.output.hasPrefix("memcached 1.6.45\nMartlet 0.1.0"))
        for word in ["enable-ssl", "unix-socket", "udp", "--hot-keys-top="] { #expect(help.output.contains(word)) }
        // Tools take these words for features that memcached was built with, and that we have not.
        for word in ["sasl", "ext_path", "proxy_config", "no_drop_privileges"] {
            #expect(!help.output.lowercased().contains(word))
        }
        for option in MemcachedOptions.longs where !["S", "f", "n", "L", "N", "e"].contains(option.short) {
            #expect(help.output.contains("--\(option.name)"))
        }
        #expect(try refusal("-V").output == "memcached 1.6.45\n")
        #expect(try refusal("--version").output == "memcached 1.6.45\n")
        #expect(try refusal("-i").output.contains("Apache License"))
        #expect(try refusal("-c", "0", "-h").errors == "Maximum connections must be greater than 0\n")
    }

    @Test func takesThePortFileFromTheEnvironment() throws {
        #expect(try configuration(environment: ["MEMCACHED_PORT_FILENAME": "/p"]).portFilePath == "/p")
    }

    @Test(arguments: refusedCommandLines)
    func refusesAsMemcachedDoes(_ wanted: RefusedCommandLine) throws {
        let arguments = wanted.arguments.split(separator: " ").map(String.init)
        guard case .failure(let refused) = evaluate(arguments) else { throw Accepted() }
        #expect(refused.code == wanted.code)
        #expect(refused.errors == wanted.errors)
        #expect(refused.output.isEmpty)
    }

    @Test func acceptsSizesThatOnlySlabsForbid() throws {
        for size in ["256k", "600k", "1500k"] { _ = try configuration("-I", size) }
    }
}
