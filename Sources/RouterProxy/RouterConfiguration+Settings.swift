// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Discovery
internal import Hosting
internal import Overload
internal import Reactor
internal import Routing
internal import Settings
internal import Telemetry
internal import Tracing

extension RouterConfiguration {
    /// The settings of a router: the keys of its file, and with them its variables and long flags.
    static let schema = SettingsSchema(
        networkSettings + serverSettings + RouterDiscovery.settings + SpoolSettings.settings + limitSettings
            + processSettings + TracingConfiguration.settings + tracingSettings + ServerTLS.settings
            + DrainConfiguration.settings)

    private static let networkSettings: [Setting] = [
        Setting(
            "listen", .list,
            "Addresses that clients connect to: address:port, [v6]:port, or the path of a unix socket. Loopback when "
                + "none is given."),
        Setting("port", .integer(0...65535), default: "11211", "Port of addresses that name none."),
        Setting("unix.mask", .text, default: "700", "Access mask of unix sockets, in octal."),
        Setting("protocol", .enumeration(["auto", "ascii", "binary"]), default: "auto", "What clients speak."),
        Setting("threads", .integer(1...255), default: "2", "Threads that serve connections."),
        Setting("connections.limit", .integer(1...1_000_000), default: "10000", "Clients at once."),
        Setting(
            "connections.refuse", .boolean, default: "true",
            "Whether clients beyond the limit are told so and closed, rather than left waiting."),
        Setting("connections.backlog", .integer(1...65535), default: "1024", "Length of the queue of new connections."),
        Setting(
            "connections.idleTimeout", .duration(0...31_536_000_000_000_000), default: "0",
            "Time without a request after which a client is closed; 0 is never."),
        Setting(
            "connections.outputLimit", .size(1 << 20...64 << 30), default: "64MiB",
            "Reply bytes that may wait for a client that does not read; beyond, it is closed."),
        Setting("auth.file", .text, "File of user:password lines; clients must then log in. SIGHUP reads it again."),
        TenantSettings.setting,
        Setting("admin", .text, default: "127.0.0.1:9151", "Address of the admin server (/metrics, /readyz), or off."),
        Setting(
            "adminTokenFile", .text,
            "File whose first line is the token of the admin server's /drain; without one it is open to programs of "
                + "the same machine."),
    ]

    private static let serverSettings: [Setting] = [
        Setting(
            "servers", .list, reloadable: true,
            "The servers: host:port[:weight], [v6]:port[:weight], or /path[=weight]; or where they are looked up: "
                + "file:PATH, dns+HOST:PORT, dnssrv+NAME, etcd://HOST:PORT/PREFIX, k8s:///NAMESPACE/SERVICE."),
        Setting(
            "hash", .enumeration(HashName.allCases.map(\.rawValue)), default: "multiProbe", reloadable: true,
            "How keys are spread over the servers."),
        Setting(
            "hashTag", .text, reloadable: true,
            "Two characters: only what stands between them in a key is hashed; or |#|, which ends what is hashed."),
        Setting(
            "storage", .boolean, default: "false", reloadable: true,
            "Whether the servers are nodes with storage, whose reads are the newest write."),
        Setting(
            "consistency", .enumeration(["strict", "bounded"]), reloadable: true,
            "Of servers with storage: strict, unless bounded allows what weakens their reads."),
        Setting(
            "staleness", .duration(1_000_000...3_600_000_000_000), reloadable: true,
            "With consistency bounded: how old a read may be."),
        Setting(
            "routePrefix", .text, default: "/././", reloadable: true,
            "The routing prefix of keys that have none, with mcrouter's configurations."),
        Setting(
            "sendInvalidRouteToDefault", .boolean, default: "false", reloadable: true,
            "Whether keys of an unknown routing prefix go where those without one go."),
        Setting(
            "runtimeVariables", .text, reloadable: true,
            "A JSON file of the runtime variables that mcrouter's configurations name; read again when it changes."),
        Setting(
            "lastGoodFile", .text,
            "A file that keeps the last configuration that could be used, with all that it imports: a start with one "
                + "that cannot uses that instead."),
        Setting("upstream.timeout", .duration(1_000_000...3_600_000_000_000), default: "1s", "Time for a reply."),
        Setting(
            "upstream.connectTimeout", .duration(1_000_000...60_000_000_000), default: "1s", "Time for a connection."),
        Setting(
            "upstream.requestLimit", .integer(1...1_000_000), default: "16384",
            "Commands in flight to a server, of one thread; more are refused as busy."),
        Setting(
            "upstream.byteLimit", .size(64 << 10...4 << 30), default: "32MiB",
            "Bytes that wait to be sent to a server, of one thread; more are refused as busy."),
        Setting(
            "upstream.reconnectMinimum", .duration(1_000_000...60_000_000_000), default: "50ms",
            "The wait after a connection that failed; it doubles with each failure."),
        Setting(
            "upstream.reconnectMaximum", .duration(1_000_000...3_600_000_000_000), default: "2s",
            "The longest wait after a connection that failed."),
        Setting(
            "overload.target", .duration(0...1_000_000_000), default: "0",
            "The queue at a server, as time, beyond which fewer requests are sent to it at once; 0 limits nothing."),
        Setting(
            "overload.wait", .duration(0...10_000_000_000), default: "0",
            "How long requests wait for room with such a server until they are refused as busy; 0 is half of their "
                + "timeout."
        ),
        Setting(
            "overload.throttle", .boolean, default: "true",
            "Whether requests are refused at once that a busy server would probably refuse."),
        Setting(
            "overload.retries", .integer(0...100), default: "10", reloadable: true,
            "Of a hundred requests of a failover, how many may be sent again after a server failed at them; 100 is all."
        ),
        Setting("upstream.tls.enabled", .boolean, default: "false", "Whether servers are spoken to over TLS."),
        Setting("upstream.tls.ca", .text, "Certificates that sign servers' certificates; the system's otherwise."),
        Setting(
            "upstream.tls.crl", .text,
            "Certificate revocation lists, in PEM, one at least of each authority: who is in them is no server."),
        Setting("upstream.tls.certificate", .text, "Our certificate and those that signed it, for servers that ask."),
        Setting("upstream.tls.key", .text, "Our private key, when the certificate's file does not hold it."),
        Setting("upstream.tls.name", .text, "The name that servers' certificates have; a server's host otherwise."),
        Setting("upstream.tls.verify", .boolean, default: "true", "Whether servers' certificates are checked."),
    ]

    private static let limitSettings: [Setting] = [
        Setting(
            "health.enabled", .boolean, default: "true", "Whether servers that fail are taken out until they answer."),
        Setting(
            "health.timeouts", .integer(1...1000), default: "3",
            "Requests without an answer, one after the other, until a server is taken out."),
        Setting(
            "health.errorShare", .integer(1...100), default: "50",
            "Of a hundred requests, how many without an answer take a server out, though it answers others."),
        Setting(
            "health.errorSamples", .integer(1...1_000_000), default: "20",
            "Requests of which that many are without an answer, at least."),
        Setting(
            "health.errorWindow", .duration(100_000_000...3_600_000_000_000), default: "5s",
            "About how long a request counts for that."),
        Setting(
            "health.firstProbe", .duration(1_000_000...60_000_000_000), default: "250ms",
            "Time until a server that was taken out is asked whether it is back."),
        Setting(
            "health.longestProbe", .duration(1_000_000...3_600_000_000_000), default: "2s",
            "The longest time between such questions; each is half as long again as the one before."),
        Setting(
            "health.revival", .duration(0...60_000_000_000), default: "200ms",
            "The longest time, by chance, until a server that answered is used again."),
        Setting(
            "hotKeys.cacheTTL", .duration(0...10_000_000_000), default: "0",
            "How long a thread gives a hot key's value that a client read to others; 0 is not at all."),
        Setting(
            "hotKeys.threshold", .integer(1...1_000_000_000), default: "1000",
            "Gets a second, of one thread or by what its server says of all, that make a key hot."),
        Setting(
            "hotKeys.learn", .boolean, default: "true",
            "Whether nodes are asked once a second which keys all their clients together read most."),
        Setting(
            "hotKeys.copies", .integer(1...Int64(HotKeySettings.mostCopies)), default: "1",
            "Servers that a hot key of a look-aside pool is read from, its own among them; 1 is its own only."),
        Setting(
            "hotKeys.copyTTL", .duration(1_000_000_000...60_000_000_000), default: "1s",
            "How long a copy on another server lives, in whole seconds."),
        Setting("limits.value", .size(1024...64 << 20), default: "16MiB", "The largest value that clients may store."),
        Setting(
            "limits.incomingValues", .size(1 << 20...1 << 40), default: "256MiB",
            "Bytes of values that clients are sending and that are not all there; beyond, they are refused."),
        Setting(
            "limits.routed", .size(1 << 20...1 << 40), default: "256MiB",
            "Bytes that requests with more than one server keep; replies beyond are errors."),
        Setting(
            "limits.clientRequests", .integer(1...100_000), default: "1024",
            "Requests that a client may have outstanding before its input waits."),
        Setting("commands.flushAll", .boolean, default: "false", "Whether flush_all is passed on, to every server."),
    ]

    private static let processSettings: [Setting] = [
        Setting(
            "log.format", .enumeration(Log.Format.allCases.map(\.rawValue)), default: "json", "Spelling of log lines."),
        Setting(
            "log.level", .enumeration(Log.Level.allCases.map(\.rawValue)), default: "info", reloadable: true,
            "Least level of log lines."),
        Setting("pidfile", .text, "File for the process's id."),
        Setting("user", .text, "User to become, when started by root."),
    ]

    private static let tracingSettings: [Setting] = [
        Setting(
            "tracing.propagate", .boolean, default: "true",
            "Whether servers are told, in the L token of meta commands, which span their requests belong to.")
    ]

    /// What the settings say. What a type alone cannot check is added to `problems`.
    init(_ values: SettingsValues, problems: inout [String]) {
        readNetwork(values, &problems)
        readListeners(values, &problems)
        discovery = RouterDiscovery(values)
        spool = SpoolSettings(values)
        readServers(values, &problems)
        readLimits(values)
        tenants = TenantSettings.read(values, problems: &problems)
        adminTokenPath = values.text("adminTokenFile")
        drain = DrainConfiguration(values, problems: &problems)
        logFormat = values.text("log.format").flatMap(Log.Format.init(rawValue:)) ?? .json
        logLevel = values.text("log.level").flatMap(Log.Level.init(rawValue:)) ?? .info
        process.pidFilePath = values.text("pidfile")
        process.user = values.text("user")
    }

    private mutating func readNetwork(_ values: SettingsValues, _ problems: inout [String]) {
        threads = values.integer("threads")
        connectionLimit = values.integer("connections.limit")
        refusesBeyondLimit = values.boolean("connections.refuse")
        backlog = values.integer("connections.backlog")
        idleTimeoutSeconds = Int((values.duration("connections.idleTimeout") + 999_999_999) / 1_000_000_000)
        outputLimitBytes = Int(values.size("connections.outputLimit"))
        if values.boolean("tls.enabled") {
            let tls = ServerTLS(values)
            if tls.certificatePath.isEmpty { problems.append("tls.certificate: missing; tls.enabled needs it") }
            problems += tls.problems
            self.tls = tls
        }
        guard let text = values.text("admin") else { return }
        if text == "off" {
            admin = nil
        } else if var endpoint = AdminEndpoint(text) {
            endpoint.isExplicit = values.isSet("admin")
            admin = endpoint
        } else {
            problems.append(Self.bad("admin", text, "address:port, a port, or off", values))
        }
    }

    private mutating func readListeners(_ values: SettingsValues, _ problems: inout [String]) {
        if let text = values.text("unix.mask") {
            if let mode = UInt32(text, radix: 8), mode <= 0o777 {
                unixSocketMode = mode
            } else {
                problems.append(Self.bad("unix.mask", text, "an access mask in octal, such as 700", values))
            }
        }
        var restriction = values.text("protocol").flatMap(ProtocolRestriction.init(rawValue:)) ?? .automatic
        authenticationPath = values.text("auth.file")
        if authenticationPath != nil {
            if restriction == .binary { problems.append("protocol: binary cannot log in, as auth.file asks for") }
            restriction = .ascii
        }
        unixRestriction = restriction
        let rules = ListenerRules(
            port: values.integer("port"), isTLSEnabled: tls != nil,
            requiresAuthentication: authenticationPath != nil,
            restriction: restriction)
        for text in values.list("listen") {
            let path = text.hasPrefix("unix:") ? String(text.dropFirst(5)) : text
            if path.hasPrefix("/") {
                unixSocketPaths.append(path)
                continue
            }
            do throws(BadListener) {
                listeners += try ServerListener.parse(text, rules).listeners
            } catch {
                problems.append(Self.bad("listen", text, "address:port, [v6]:port or /path", values))
            }
        }
        guard listeners.isEmpty, unixSocketPaths.isEmpty else { return }
        listensByDefault = true
        var first = ServerListener(host: "127.0.0.1", port: UInt16(clamping: values.integer("port")))
        first.security = tls == nil ? .plain : .tls
        first.restriction = restriction
        var second = first
        second.host = "::1"
        second.isOptional = true
        listeners = [first, second]
        notes.append("listening on loopback only; listen: [\"0.0.0.0\"] opens every address")
    }

    private mutating func readServers(_ values: SettingsValues, _ problems: inout [String]) {
        if let text = values.text("routePrefix") {
            if (try? RoutingPrefix(text)) != nil {
                defaults.routingPrefix = text
            } else {
                problems.append(Self.bad("routePrefix", text, "/region/cluster/", values))
            }
        }
        defaults.sendsInvalidPrefixToDefault = values.boolean("sendInvalidRouteToDefault")
        defaults.variablesPath = values.text("runtimeVariables")
        lastGoodPath = values.text("lastGoodFile")
        defaults.requestTimeoutMilliseconds = Self.milliseconds(values, "upstream.timeout")
        let retries = values.integer("overload.retries")
        defaults.failoverLimit = retries < 100 ? FailoverLimit(rate: Double(retries) / 100, burst: 100) : nil
        var servers: [RouterServer] = []
        let listed = values.list("servers")
        let source = listed.count == 1 && (try? MemberSource(listed))?.isLookedUp == true ? listed.first : nil
        for text in listed where source == nil {
            // A source is no server, and its name no host's.
            guard (try? MemberSource([text]))?.isLookedUp != true, let server = RouterServer(text) else {
                problems.append(Self.bad("servers", text, "host:port[:weight] or /path[=weight]", values))
                continue
            }
            servers.append(server)
        }
        let scheme = values.text("hash").flatMap(HashName.init(rawValue:))?.scheme ?? .standard
        var part = HashedPart.whole
        if let text = values.text("hashTag") {
            let bytes = Array(text.utf8)
            if text == "|#|" {
                part = .beforeHashStop
            } else if bytes.count == 2 {
                part = .tag(open: bytes[0], close: bytes[1])
            } else {
                problems.append(Self.bad("hashTag", text, "two characters such as {}, or |#|", values))
            }
        }
        readServerTLS(values, &problems)
        guard !listed.isEmpty, problems.isEmpty else { return }
        do throws(RouteError) {
            let consistency = try PoolConsistency(
                hasStorage: values.boolean("storage"), consistency: values.text("consistency"),
                stalenessMilliseconds: values.isSet("staleness") ? Self.milliseconds(values, "staleness") : nil)
            if consistency != .lookAside, spool.directory != nil {
                throw RouteError("spool.directory: they have storage, and a delete that they missed is an error")
            }
            try usePool(
                servers, members: source, hash: HashChoice(scheme, part: part), consistency: consistency,
                connectTimeoutMilliseconds: Self.milliseconds(values, "upstream.connectTimeout"),
                usesTLS: values.boolean("upstream.tls.enabled"))
        } catch {
            problems.append("servers: \(error.description)")
        }
    }

    private mutating func readServerTLS(_ values: SettingsValues, _ problems: inout [String]) {
        var tls = TLSClientConfiguration()
        tls.authorityPath = values.text("upstream.tls.ca")
        tls.revocationPath = values.text("upstream.tls.crl")
        tls.chainPath = values.text("upstream.tls.certificate")
        tls.keyPath = values.text("upstream.tls.key")
        tls.serverName = values.text("upstream.tls.name")
        tls.verifiesPeer = values.boolean("upstream.tls.verify")
        if tls.revocationPath != nil, !tls.verifiesPeer {
            problems.append("upstream.tls.crl: is nothing without upstream.tls.verify")
        }
        serverTLS = tls
    }

    private mutating func readLimits(_ values: SettingsValues) {
        health.isEnabled = values.boolean("health.enabled")
        health.softFailures = values.integer("health.timeouts")
        health.errorShare = Double(values.integer("health.errorShare")) / 100
        health.errorSamples = values.integer("health.errorSamples")
        health.errorWindowMilliseconds = Self.milliseconds(values, "health.errorWindow")
        health.firstProbeMilliseconds = Self.milliseconds(values, "health.firstProbe")
        health.longestProbeMilliseconds = Self.milliseconds(values, "health.longestProbe")
        health.revivalMilliseconds = Self.milliseconds(values, "health.revival")
        hotKeys.cacheNanoseconds = values.duration("hotKeys.cacheTTL")
        hotKeys.copies = values.integer("hotKeys.copies")
        hotKeys.copySeconds = max(Int(values.duration("hotKeys.copyTTL") / 1_000_000_000), 1)
        hotKeys.threshold = values.integer("hotKeys.threshold")
        hotKeys.learns = values.boolean("hotKeys.learn")
        limits.laneRequests = values.integer("upstream.requestLimit")
        limits.backend.limit.targetNanoseconds = values.duration("overload.target")
        limits.backend.waitNanoseconds = values.duration("overload.wait")
        limits.backend.throttles = values.boolean("overload.throttle")
        limits.laneBytes = Int(values.size("upstream.byteLimit"))
        limits.reconnectMinimumNanoseconds = values.duration("upstream.reconnectMinimum")
        limits.reconnectMaximumNanoseconds = values.duration("upstream.reconnectMaximum")
        limits.valueBytes = Int(values.size("limits.value"))
        limits.incomingBytes = Int(values.size("limits.incomingValues"))
        limits.routedBytes = Int(values.size("limits.routed"))
        limits.clientRequests = values.integer("limits.clientRequests")
        limits.allowsFlush = values.boolean("commands.flushAll")
    }

    private static func milliseconds(_ values: SettingsValues, _ name: String) -> Int {
        Int(values.duration(name) / 1_000_000)
    }

    private static func bad(_ name: String, _ text: String, _ allowed: String, _ values: SettingsValues) -> String {
        let place = values.source(name).map { "\($0): " } ?? ""
        return "\(place)\(name): \"\(text)\" is not valid; expected \(allowed)"
    }
}
