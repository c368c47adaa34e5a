// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting

extension NodeConfigurationDraft {
    /// Checks what belongs together, in memcached's order and words, and gives the configuration.
    func finished() throws(StartRefusal) -> NodeConfiguration {
        var draft = self
        try draft.checkSizes()
        try draft.checkTuning()
        try draft.checkProtocols()
        try draft.checkPorts()
        try draft.checkPeers()
        try draft.placeListeners()
        draft.addNotes()
        return draft.configuration
    }

    private static func usage(_ message: String) -> StartRefusal {
        StartRefusal(code: StartRefusal.Code.usage, errors: message + "\n")
    }

    private func checkSizes() throws(StartRefusal) {
        let napiIDs = configuration.tuning.napiIDs
        if napiIDs > configuration.threads {
            throw Self.usage(
                "Number of napi_ids(\(napiIDs)) cannot be greater than number of threads(\(configuration.threads))")
        }
        if configuration.threads > NodeConfiguration.threadLimit {
            throw Self.usage("Number of threads cannot be greater than \(NodeConfiguration.threadLimit)")
        }
        let item = configuration.maximumItemBytes
        if item < 1024 { throw Self.usage("Item max size cannot be less than 1024 bytes.") }
        if item > configuration.memoryBytes / 2 {
            throw Self.usage("Cannot set item size limit higher than 1/2 of memory max.")
        }
        if item > 1 << 30 { throw Self.usage("Cannot set item size limit higher than a gigabyte.") }
    }

    /// Checks what memcached's options say about slabs, as far as somebody said it: what only the defaults of slabs
    /// forbid, such as `-I 256k`, is fine here.
    private mutating func checkTuning() throws(StartRefusal) {
        let item = configuration.maximumItemBytes
        let page = 1 << 20
        let chunk = configuration.tuning.slabChunkMaximum
        if hasSlabChunkMaximum {
            if chunk > item {
                throw Self.usage(
                    "slab_chunk_max (bytes: \(chunk)) cannot be larger than -I (item_size_max \(item))")
            }
            if item % chunk != 0 {
                throw Self.usage(
                    "-I (item_size_max: \(item)) must be evenly divisible by slab_chunk_max (bytes: \(chunk))")
            }
            if page % chunk != 0 {
                throw Self.usage(
                    "slab_chunk_max (bytes: \(chunk)) must divide evenly into \(page) (slab_page_size)")
            }
        }
        if let slabSizes { try checkSlabSizes(slabSizes) }
        if configuration.tuning.hotPercent + configuration.tuning.warmPercent > 80 {
            throw Self.usage("hot_lru_pct + warm_lru_pct cannot be more than 80% combined")
        }
        if configuration.tuning.hasTemporaryLRU, !configuration.tuning.maintainsLRU {
            throw Self.usage("temporary_ttl requires lru_maintainer to be enabled")
        }
    }

    /// `-o slab_sizes`: rising sizes with dashes between.
    private func checkSlabSizes(_ text: String) throws(StartRefusal) {
        let classLimit = 63
        var last: UInt32 = 0
        var count = 0
        for part in text.split(separator: "-") {
            let size = strictUnsigned(String(part)) ?? 0
            if size < configuration.tuning.chunkSize || size > configuration.tuning.slabChunkMaximum {
                throw Self.usage("slab size \(size) is out of valid range")
            }
            if last >= size {
                throw Self.usage("slab size \(size) cannot be lower than or equal to a previous class size")
            }
            if size <= last + 8 {
                throw Self.usage("slab size \(size) must be at least 8 bytes larger than previous class")
            }
            last = size
            count += 1
            if count >= classLimit { throw Self.usage("too many slab classes specified") }
        }
        if count == 0 { throw StartRefusal(code: StartRefusal.Code.usage) }
    }

    private mutating func checkProtocols() throws(StartRefusal) {
        guard configuration.authenticationPath != nil else { return }
        if !hasProtocol { configuration.restriction = .ascii }
        if configuration.restriction != .ascii {
            throw Self.usage(
                "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.")
        }
    }

    /// Nodes speak with each other in the clear, and log in nowhere, however TLS and users were asked for.
    private mutating func checkPeers() throws(StartRefusal) {
        guard isTLSEnabled || configuration.authenticationPath != nil else { return }
        configuration.ownership.forwards = false
        if configuration.warmUp.hash != nil {
            throw StartRefusal(
                code: StartRefusal.Code.configuration,
                errors: "warmUp.hash: nodes fetch from each other in the clear, and log in nowhere; no TLS, no -Y\n")
        }
    }

    private mutating func checkPorts() throws(StartRefusal) {
        if hasDatagramPort, configuration.datagramPort != 0, !hasPort {
            configuration.port = configuration.datagramPort
        }
        for port in [configuration.port, configuration.datagramPort] where port > 65535 {
            throw Self.usage("ERROR: Invalid port number \(port).")
        }
        for (port, name) in [(configuration.port, "TCP"), (configuration.datagramPort, "UDP")] where port < -1 {
            throw StartRefusal(
                code: StartRefusal.Code.system,
                errors: "getaddrinfo(): Servname not supported for ai_socktype\n"
                    + "failed to listen on \(name) port \(port): Success\n")
        }
        if isTLSEnabled {
            if configuration.port == 0 { throw Self.usage("ERROR: You cannot enable SSL without a TCP port.") }
            if tls.certificatePath.isEmpty {
                throw Self.usage("Error loading the certificate chain: (null) : -o ssl_chain_cert is missing")
            }
            if let problem = tls.problems.first { throw Self.usage(problem) }
            configuration.tls = tls
        }
        if configuration.storage.backend != .none, configuration.process.daemonizes {
            throw Self.usage(
                "-d cannot go with storage.backend: whoever starts the node must learn whether its store opened; run "
                    + "it under a supervisor, such as systemd")
        }
        if configuration.storage.backend != .none, configuration.datagramPort != 0 {
            throw Self.usage("UDP must be off (-U 0) with storage.backend: its replies cannot wait for a store")
        }
        if configuration.storage.pools.contains(where: { $0.lagPolicy == .fail }), configuration.datagramPort != 0 {
            throw Self.usage(
                "UDP must be off (-U 0) with a pool's lagPolicy fail: its errors cannot wait for their turn")
        }
        if configuration.authenticationPath != nil, configuration.datagramPort != 0 {
            throw Self.usage("Cannot use UDP with ascii authentication enabled (-U 0 to disable)")
        }
    }

    /// Makes the listeners of the ports and `-l`.
    private mutating func placeListeners() throws(StartRefusal) {
        configuration.interfaceText = interface
        if configuration.unixSocketPath != nil { return }
        configuration.listeners = try listeners(port: configuration.port)
        configuration.datagramListeners = try listeners(port: configuration.datagramPort)
        // A datagram has no TLS.
        for index in configuration.datagramListeners.indices {
            configuration.datagramListeners[index].security = .plain
        }
    }

    private mutating func listeners(port: Int) throws(StartRefusal) -> [ServerListener] {
        if port == 0 { return [] }
        let rules = ListenerRules(
            port: port, isTLSEnabled: isTLSEnabled,
            requiresAuthentication: configuration.authenticationPath != nil, restriction: configuration.restriction)
        guard let interface else { return Self.loopback(rules) }
        do throws(BadListener) {
            let (listeners, found) = try ServerListener.parse(interface, rules)
            for warning in found where !warnings.contains(warning) { warnings.append(warning) }
            return listeners
        } catch {
            throw StartRefusal(
                code: StartRefusal.Code.system,
                errors: "\(error.message)failed to listen on one of interface(s) \(interface): Success\n")
        }
    }

    /// Where the node listens when nobody says: this machine only.
    private static func loopback(_ rules: ListenerRules) -> [ServerListener] {
        var first = ServerListener(host: "127.0.0.1", port: UInt16(clamping: rules.port))
        first.security = rules.isTLSEnabled ? .tls : .plain
        first.restriction = rules.restriction
        var second = first
        second.host = "::1"
        second.isOptional = true
        return [first, second]
    }

    private mutating func addNotes() {
        if interface == nil, configuration.unixSocketPath == nil {
            configuration.notes.append(
                "listening on loopback only; -l 0.0.0.0 (or listen: [0.0.0.0] in the configuration) opens every address"
            )
        }
        let ineffective = configuration.tuning.ineffective
        if !ineffective.isEmpty {
            var names: [String] = []
            for name in ineffective where !names.contains(name) { names.append(name) }
            configuration.notes.append("accepted and without effect here: \(names.joined(separator: ", "))")
        }
        if configuration.tuning.memoryFilePath != nil,
            [.postgres, .memory, .region].contains(configuration.storage.backend)
        {
            configuration.notes.append(
                "-e has no effect with this store: what is written while the node is away would not be known")
        }
        if configuration.threads > 64 {
            configuration.notes.append("more than 64 threads are seldom of use; one for each core is enough")
        }
        configuration.notes += warnings
    }
}

extension NodeConfiguration {
    /// The most threads there may be.
    package static let threadLimit = 1024
}
