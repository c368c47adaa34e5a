// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting
internal import Settings
internal import Telemetry
internal import Tracing

extension NodeConfiguration {
    /// The settings of a node: the keys of its file, and with them its variables and long flags.
    static let schema = SettingsSchema(
        networkSettings + cacheSettings + storageSettings + RegionSettings.settings
            + RegionSettings.kafkaSettings + overloadSettings
            + commandSettings + statisticsSettings + TracingConfiguration.settings + ServerTLS.settings
            + FleetSettings.settings + OwnershipSettings.settings + WarmUpSettings.settings + processSettings
            + DrainConfiguration.settings)

    private static let networkSettings: [Setting] = [
        Setting("listen", .list, "Addresses to listen on, as -l takes them. Loopback when none is given."),
        Setting("port", .integer(-1...65535), default: "11211", "TCP port; 0 is off, -1 is any free one."),
        Setting("udp.port", .integer(0...65535), default: "0", "UDP port; 0 is off."),
        Setting("unix.socket", .text, "Path of a unix socket to listen on instead of the network."),
        Setting("unix.mask", .text, default: "700", "Access mask of the unix socket, in octal."),
        Setting("protocol", .enumeration(["auto", "ascii", "binary"]), default: "auto", "What connections speak."),
        Setting("threads", .integer(1...1024), default: "4", "Threads that serve connections."),
        Setting("connections.limit", .integer(1...10_000_000), default: "1024", "Connections at once."),
        Setting(
            "connections.refuse", .boolean, default: "true",
            "Whether connections beyond the limit are told so and closed, rather than left waiting."),
        Setting("connections.backlog", .integer(1...65535), default: "1024", "Length of the queue of new connections."),
        Setting(
            "connections.idleTimeout", .duration(0...31_536_000_000_000_000), default: "0",
            "Time without a request after which a connection is closed; 0 is never."),
        Setting(
            "connections.requestsPerTurn", .integer(1...1_000_000), default: "20",
            "Requests of one connection before others get their turn."),
        Setting(
            "connections.outputLimit", .size(64 << 10...64 << 30), default: "64MiB",
            "Reply bytes that may wait for a connection that does not read; beyond, it is closed."),
    ]

    private static let cacheSettings: [Setting] = [
        Setting("memory", .size(1 << 20...1 << 50), default: "64MiB", "Memory for items and their index."),
        Setting("items.maxSize", .size(1024...1 << 30), default: "1MiB", "Size of the largest item."),
        Setting("items.evict", .boolean, default: "true", "Whether full memory evicts, rather than refuses."),
        Setting("items.cas", .boolean, default: "true", "Whether items have CAS values."),
        Setting(
            "items.hugePages", .boolean, default: "true",
            "Whether huge pages map memory that is wholly in use, where the system allows them."),
        Setting(
            "memoryFile", .text,
            "File that keeps the items across a restart; on a memory file system such as /dev/shm for speed."),
        Setting(
            "memoryFileAge", .duration(0...31_536_000_000_000_000), default: "10m",
            "How old its items may be to be used: nobody could change or delete them meanwhile."),
        Setting("cluster", .text, default: "main", "Name of the cluster."),
        Setting(
            "members", .list,
            "The cluster's nodes for clients that ask, as host:port or host|address|port; or where to look them up."),
        Setting(
            "membersVersion", .integer(0...Int64.max), default: "0",
            "Version of that list; it must grow. 0 takes the time of loading."),
    ]

    private static let commandSettings: [Setting] = [
        Setting("commands.flushAll", .boolean, default: "true", "Whether flush_all is allowed."),
        Setting("commands.dump", .boolean, default: "true", "Whether dumps of keys are allowed."),
        Setting("commands.watch", .boolean, default: "true", "Whether watch is allowed."),
        Setting("commands.shutdown", .boolean, default: "false", "Whether shutdown is allowed."),
        Setting("auth.file", .text, "File of user:password lines; clients must then log in. SIGHUP reads it again."),
        TenantSettings.setting,
    ]

    private static let statisticsSettings: [Setting] = [
        Setting(
            "admin", .text, default: "127.0.0.1:9150",
            "Address of the admin server (/metrics, /livez, /readyz), or off."),
        Setting(
            "adminTokenFile", .text,
            "File whose first line is the token of the admin server's guarded pages; without one they are closed, and "
                + "/drain is open to programs of the same machine."),
        Setting(
            "log.format", .enumeration(Log.Format.allCases.map(\.rawValue)), default: "json", "Spelling of log lines."),
        Setting(
            "log.level", .enumeration(Log.Level.allCases.map(\.rawValue)), default: "info", reloadable: true,
            "Least level of log lines."),
        Setting("stats.prefixDelimiter", .text, default: ":", "What ends a key's prefix: one character."),
        Setting("stats.detail", .boolean, default: "false", "Whether statistics by prefix start at once."),
        Setting("hotKeys.enabled", .boolean, default: "true", "Whether hot keys are counted."),
        Setting("hotKeys.showKeys", .boolean, default: "false", "Whether hot keys are shown, rather than hashed."),
        Setting("hotKeys.top", .integer(1...1000), default: "20", "How many hot keys are shown."),
    ]

    private static let processSettings: [Setting] = [
        Setting("daemon", .boolean, default: "false", "Whether to go into the background."),
        Setting("pidfile", .text, "File for the process's id."),
        Setting("user", .text, "User to become, when started by root."),
        Setting("lockMemory", .boolean, default: "false", "Whether memory is kept from being swapped out."),
        Setting("coreDumps", .boolean, default: "false", "Whether the limit of core files is raised."),
    ]
}

extension NodeConfigurationDraft {
    /// A draft of settings. What a type alone cannot check is added to `problems`.
    init(_ values: SettingsValues, problems: inout [String]) {
        readNetwork(values, &problems)
        readCache(values, &problems)
        readStorage(values, &problems)
        configuration.regions = RegionSettings(
            values, storage: configuration.storage, problems: &problems)
        configuration.storage.changes = StorageSettings.Changes(
            configuration.regions, backend: configuration.storage.backend)
        configuration.storage.home = StorageSettings.Home(configuration.regions, storage: configuration.storage)
        configuration.ownership = OwnershipSettings(
            values, configuration.fleet, backend: configuration.storage.backend,
            hasMembers: !configuration.fleet.source.isEmpty || !configuration.members.isEmpty, problems: &problems)
        configuration.warmUp = WarmUpSettings(
            values, configuration.fleet, backend: configuration.storage.backend,
            hasMembers: !configuration.fleet.source.isEmpty || !configuration.members.isEmpty, problems: &problems)
        configuration.warmUp.check(configuration.regions, &problems)
        configuration.fleet.isWarming = configuration.warmUp.hash != nil
        configuration.storage.isShared = configuration.ownership.hash != nil
        if configuration.storage.isShared, let place = configuration.ownership.authority {
            configuration.storage.authority = StorageSettings.Authority(
                place: place, caFile: configuration.fleet.caFile,
                leaseMilliseconds: configuration.ownership.leaseMilliseconds)
        }
        configuration.storage.promotion = StorageSettings.Promotion(
            configuration.regions, storage: configuration.storage)
        checkSharing(&problems)
        checkLagPolicies(values, &problems)
        readOverload(values, &problems)
        readStatistics(values, &problems)
        configuration.drain = DrainConfiguration(values, problems: &problems)
        isTLSEnabled = values.boolean("tls.enabled")
        tls = ServerTLS(values)
        configuration.allowsFlush = values.boolean("commands.flushAll")
        configuration.allowsDump = values.boolean("commands.dump")
        configuration.allowsWatch = values.boolean("commands.watch")
        configuration.allowsShutdown = values.boolean("commands.shutdown")
        configuration.authenticationPath = values.text("auth.file")
        configuration.tenants = TenantSettings.read(values, problems: &problems)
        // What is passed on comes from the node, which is no tenant.
        if configuration.ownership.hash != nil, !configuration.tenants.isEmpty {
            configuration.ownership.forwards = false
        }
        if configuration.overload.tenant == .user, configuration.tenants.isEmpty {
            problems.append("overload.tenant: user: there are no tenants")
        }
        configuration.process.daemonizes = values.boolean("daemon")
        configuration.process.pidFilePath = values.text("pidfile")
        configuration.process.user = values.text("user")
        configuration.process.locksMemory = values.boolean("lockMemory")
        configuration.process.raisesCoreLimit = values.boolean("coreDumps")
    }

    private mutating func readNetwork(_ values: SettingsValues, _ problems: inout [String]) {
        let list = values.list("listen")
        if !list.isEmpty { interface = list.joined(separator: ",") }
        configuration.port = values.integer("port")
        hasPort = values.isSet("port")
        configuration.datagramPort = values.integer("udp.port")
        hasDatagramPort = values.isSet("udp.port")
        configuration.unixSocketPath = values.text("unix.socket")
        if let text = values.text("unix.mask") {
            if let mode = UInt32(text, radix: 8), mode <= 0o777 {
                configuration.unixSocketMode = mode
            } else {
                problems.append(Self.bad("unix.mask", text, "an access mask in octal, such as 700", values))
            }
        }
        if let text = values.text("protocol"), let restriction = ProtocolRestriction(rawValue: text) {
            configuration.restriction = restriction
        }
        hasProtocol = values.isSet("protocol")
        configuration.threads = values.integer("threads")
        configuration.connectionLimit = values.integer("connections.limit")
        configuration.refusesBeyondLimit = values.boolean("connections.refuse")
        configuration.backlog = values.integer("connections.backlog")
        let idle = values.duration("connections.idleTimeout")
        configuration.idleTimeoutSeconds = Int((idle + 999_999_999) / 1_000_000_000)
        configuration.requestsPerTurn = values.integer("connections.requestsPerTurn")
        configuration.outputLimitBytes = Int(values.size("connections.outputLimit"))
    }

    private mutating func readCache(_ values: SettingsValues, _ problems: inout [String]) {
        configuration.memoryBytes = Int(values.size("memory"))
        configuration.maximumItemBytes = Int(values.size("items.maxSize"))
        configuration.evicts = values.boolean("items.evict")
        configuration.usesHugePages = values.boolean("items.hugePages")
        configuration.usesCAS = values.boolean("items.cas")
        configuration.tuning.memoryFilePath = values.text("memoryFile")
        configuration.memoryFileAgeMilliseconds = Int64(values.duration("memoryFileAge") / 1_000_000)
        configuration.clusterName = values.text("cluster") ?? "main"
        configuration.membersVersion = values.integer("membersVersion")
        configuration.fleet = FleetSettings(values, problems: &problems)
        if let source = FleetSettings.source(in: values.list("members")) {
            configuration.fleet.source = [source]
            if let problem = FleetSettings.problem(ofSource: source) { problems.append("members: \(problem)") }
            return
        }
        for text in values.list("members") {
            if let member = ClusterMember(text) {
                configuration.members.append(member)
            } else {
                problems.append(Self.bad("members", text, "host:port or host|address|port", values))
            }
        }
    }

    private mutating func readStatistics(_ values: SettingsValues, _ problems: inout [String]) {
        if let text = values.text("admin") {
            if text == "off" {
                configuration.admin = nil
            } else if var endpoint = AdminEndpoint(text) {
                endpoint.isExplicit = values.isSet("admin")
                configuration.admin = endpoint
            } else {
                problems.append(Self.bad("admin", text, "address:port, a port, or off", values))
            }
        }
        configuration.adminTokenPath = values.text("adminTokenFile")
        configuration.logFormat = values.text("log.format").flatMap(Log.Format.init(rawValue:)) ?? .json
        configuration.logLevel = values.text("log.level").flatMap(Log.Level.init(rawValue:)) ?? .info
        let delimiter = values.text("stats.prefixDelimiter") ?? ":"
        if delimiter.utf8.count == 1, let byte = delimiter.utf8.first {
            configuration.prefixDelimiter = byte
        } else {
            problems.append(Self.bad("stats.prefixDelimiter", delimiter, "one ASCII character", values))
        }
        configuration.collectsPrefixStatistics = values.boolean("stats.detail")
        configuration.countsHotKeys = values.boolean("hotKeys.enabled")
        configuration.showsHotKeys = values.boolean("hotKeys.showKeys")
        configuration.hotKeysShown = values.integer("hotKeys.top")
    }

    private static func bad(_ name: String, _ text: String, _ allowed: String, _ values: SettingsValues) -> String {
        let place = values.source(name).map { "\($0): " } ?? ""
        return "\(place)\(name): \"\(text)\" is not valid; expected \(allowed)"
    }
}

extension ClusterMember {
    /// Reads `host:port`, `[v6]:port` or `host|address|port`; nil when it is neither.
    init?(_ text: String) {
        let parts = text.split(separator: "|", omittingEmptySubsequences: false)
        if parts.count == 3 {
            guard !parts[0].isEmpty, let port = UInt16(parts[2]), port > 0 else { return nil }
            self.init(host: String(parts[0]), address: String(parts[1]), port: port)
        } else {
            guard parts.count == 1, let endpoint = AdminEndpoint(text), text.contains(":") else { return nil }
            self.init(host: endpoint.host, address: "", port: endpoint.port)
        }
    }
}
