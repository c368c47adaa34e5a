// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Hosting
internal import Settings
package import StreamKafka

/// The regions of a cluster, which of them the node is in, and how it follows the home region's stream.
package struct RegionSettings: Sendable, Equatable {
    /// What a region is for.
    package enum Role: String, Sendable, CaseIterable {
        /// Its store takes the writes; there is one.
        case home
        /// It follows the home region.
        case replica
    }

    /// A region.
    package struct Region: Sendable, Equatable {
        /// Its name.
        package var name: String
        /// What it is for.
        package var role: Role
        /// Where its nodes give their stream: host and port.
        package var streams: [AdminEndpoint]
        /// Where nodes of replica regions read and write: host and port of its routers or nodes.
        package var serves: [AdminEndpoint]
    }

    /// The node's region; empty when there are none.
    package var own = ""
    /// All regions.
    package var regions: [Region] = []
    /// Where others may follow this node.
    package var listen: AdminEndpoint?
    /// What names the node among those of its region; nil for the host's name and the first address.
    package var name: String?
    /// Whether values come with the stream, rather than invalidations only.
    package var wantsValues = false
    /// Whether batches may come packed.
    package var takesPacked = true
    /// Changes a second that are followed up at the nodes that follow; 0 for none.
    package var monitorRate = 10
    /// How long behind the last proof that the stream is complete copies are shown, in nanoseconds.
    package var lagBoundNanoseconds: UInt64 = 5_000_000_000
    /// How long records are kept for those who follow, in milliseconds.
    package var keepMilliseconds: Int64 = 3_600_000
    /// How many bytes of records are kept for them at most.
    package var keepBytes = 4 << 30
    /// The brokers that carry the stream; nil where it goes from node to node.
    package var kafka: StreamKafkaConfiguration?
    /// The brokers, and the topic, that tell of changes of the store's rows; nil where none do.
    package var debezium: StreamKafkaConfiguration?
    /// Our certificate.
    package var certificatePath: String?
    /// Its key, when it is in another file.
    package var keyPath: String?
    /// Who signs peers' certificates.
    package var authorityPath: String?
    /// Lists of peers' certificates that are revoked.
    package var revocationPath: String?

    package init() {}

    /// Whether there are regions.
    package var isOn: Bool { !own.isEmpty }
    /// The node's region as listed.
    package var region: Region? { regions.first { $0.name == own } }
    /// The home region.
    package var home: Region? { regions.first { $0.role == .home } }
    /// The regions that may be home, where there are several: those whose nodes can be followed. Empty where the home
    /// region is always the same.
    package var candidates: [Region] {
        let followed = regions.filter { !$0.streams.isEmpty }
        return followed.count > 1 ? followed : []
    }
    /// Whether the node is in it.
    package var isHome: Bool { region?.role == .home }

    /// The settings.
    static let settings: [Setting] = [
        Setting("region", .text, "The node's region, one of `regions`."),
        Setting(
            "regions",
            .mappings([
                Setting("name", .text, required: true, "What the region is called; its certificates have this name."),
                Setting(
                    "role", .enumeration(Role.allCases.map(\.rawValue)), default: "replica",
                    "home: its store takes the writes; there is one. replica: it follows the home region."),
                Setting(
                    "stream", .list,
                    "Where its nodes give their stream: host:port, several with commas. A replica that has one may be "
                        + "promoted to home."),
                Setting(
                    "serve", .list,
                    "Where nodes of replica regions read and write (storage.backend region): host:port of routers or "
                        + "nodes, each of which answers for every key; several with commas."),
            ]), "The regions of the cluster."),
        Setting("stream.listen", .text, "Where nodes of other regions follow this one's stream: host:port."),
        Setting("stream.name", .text, "What names the node to the source; host name and first address when absent."),
        Setting(
            "stream.mode", .enumeration(["invalidate", "replicate"]), default: "invalidate",
            "What a record does to a copy that is older: drop it, or replace it by the new value."),
        Setting(
            "stream.compression", .enumeration(["none", "lz4"]), default: "lz4",
            "How batches of records may be packed that come from the home region."),
        Setting(
            "stream.monitorRate", .integer(0...1000), default: "10",
            "Changes a second that the consistency monitor follows up at each node, as their source and when asked; 0 "
                + "is off."),
        Setting(
            "stream.lagBound", .duration(1_000_000_000...3_600_000_000_000), default: "5s",
            "How long behind the last proof that the stream is complete copies are shown."),
        Setting(
            "stream.retention", .duration(1_000_000_000...2_592_000_000_000_000), default: "1h",
            "How long changes are kept for consumers that are away."),
        Setting(
            "stream.retentionSize", .size(1 << 20...1 << 50), default: "4GiB",
            "Bytes of changes that are kept at most; with PostgreSQL, about."),
        Setting("stream.certificate", .text, "Certificate of the node's region and those that signed it, in PEM."),
        Setting("stream.key", .text, "Private key, when the certificate's file does not hold it."),
        Setting("stream.ca", .text, "Certificates that sign those of regions."),
        Setting(
            "stream.crl", .text,
            "Certificate revocation lists, in PEM, one at least of each authority: who is in them is no peer."),
        Setting(
            "stream.transport", .enumeration(["direct", "kafka"]), default: "direct",
            "How changes get to other regions: from node to node, or through Kafka."),
    ]
}

extension RegionSettings {
    /// Reads the settings; adds what is wrong with them, or with the node's store beside them.
    init(_ values: SettingsValues, storage: StorageSettings, problems: inout [String]) {
        own = values.text("region") ?? ""
        for mapping in values.mappings("regions") {
            let name = mapping.text("name") ?? ""
            let role = mapping.text("role").flatMap(Role.init) ?? .replica
            let streams = Self.endpoints(mapping.list("stream"), "\(mapping.place): stream", &problems)
            let serves = Self.endpoints(mapping.list("serve"), "\(mapping.place): serve", &problems)
            if name.isEmpty || regions.contains(where: { $0.name == name }) {
                problems.append("\(mapping.place): name: \"\(name)\" is empty, or there twice")
            } else if name.utf8.count > 200 || !name.utf8.allSatisfy({ (33...126).contains($0) }) {
                problems.append(
                    "\(mapping.place): name: \"\(name)\" is not valid; expected up to 200 printable ASCII characters "
                        + "without spaces")
            }
            regions.append(Region(name: name, role: role, streams: streams, serves: serves))
        }
        if let text = values.text("stream.listen") {
            listen = Self.endpoints([text], "stream.listen", &problems).first
        }
        name = values.text("stream.name")
        wantsValues = values.text("stream.mode") == "replicate"
        takesPacked = values.text("stream.compression") != "none"
        monitorRate = values.integer("stream.monitorRate")
        lagBoundNanoseconds = values.duration("stream.lagBound")
        keepMilliseconds = Int64(values.duration("stream.retention") / 1_000_000)
        keepBytes = Int(values.size("stream.retentionSize"))
        certificatePath = values.text("stream.certificate")
        keyPath = values.text("stream.key")
        authorityPath = values.text("stream.ca")
        revocationPath = values.text("stream.crl")
        (kafka, debezium) = Self.kafka(values, &problems)
        check(storage, &problems)
    }

    private static func endpoints(
        _ texts: [String], _ name: String, _ problems: inout [String]
    ) -> [AdminEndpoint] {
        texts.compactMap { text in
            if let endpoint = AdminEndpoint(text), text.contains(":") { return endpoint }
            problems.append("\(name): \"\(text)\" is not valid; expected host:port")
            return nil
        }
    }

    private func check(_ storage: StorageSettings, _ problems: inout [String]) {
        let backend = storage.backend
        if backend != .region, storage.usesTLS {
            problems.append("storage.tls: storage.backend is \(backend.rawValue); it is of region")
        }
        if storage.serverName != nil, backend != .region, backend != .postgres || candidates.isEmpty {
            problems.append(
                "storage.tlsName: storage.backend is \(backend.rawValue); it is of region, and of postgres where "
                    + "several regions have a `stream` in `regions`")
        }
        if debezium != nil, backend != .postgres {
            problems.append(
                "stream.kafka.debezium: storage.backend is \(backend.rawValue); Debezium tells of rows of postgres")
        }
        guard isOn || !regions.isEmpty || listen != nil || kafka != nil || debezium != nil else {
            if storage.standbyURL != nil { problems.append("storage.standbyURL: needs `region` and `regions`") }
            if backend == .region {
                problems.append("storage.backend: region; it needs `region` and `regions`, which say where home is")
            }
            return
        }
        if own.isEmpty { return problems.append("region: missing; `regions` and `stream` need the node's own region") }
        if regions.isEmpty { return problems.append("regions: missing; `region` needs the list of all regions") }
        let homes = regions.filter { $0.role == .home }.map(\.name)
        if homes.count != 1 {
            let found = homes.isEmpty ? "no region has" : "\(homes.joined(separator: " and ")) have"
            problems.append("regions: \(found) the role home; exactly one region has it")
        }
        let known = regions.map(\.name).joined(separator: ", ")
        guard let region else {
            return problems.append("region: \"\(own)\" is none of the regions: \(known)")
        }
        checkStore(region, storage, &problems)
        checkSecurity(storage, &problems)
        if kafka?.stateTopic != nil, !candidates.isEmpty {
            problems.append(
                "stream.kafka.stateTopic: only the home region has a `stream` in `regions` then: what a promotion "
                    + "loses would stay in the topic")
        }
        if kafka != nil, !candidates.isEmpty, region.role == .replica, storage.backend == .postgres {
            problems.append(
                "stream.transport: kafka; regions that share one database have each other follow it, and one of them "
                    + "becomes home by direct streams only")
        }
        if debezium != nil, !candidates.isEmpty {
            problems.append(
                "stream.kafka.debezium: only the home region has a `stream` in `regions` then: the connector does not "
                    + "hear of another home")
        }
        if let kafka, kafka.skewNanoseconds > lagBoundNanoseconds / 2 {
            problems.append("stream.kafka.clockSkew: more than half of stream.lagBound; copies would hardly be shown")
        }
    }

    /// Which stores a region's nodes may have.
    private func checkStore(_ region: Region, _ storage: StorageSettings, _ problems: inout [String]) {
        let backend = storage.backend
        if region.role == .home, backend != .rocksdb, backend != .postgres {
            problems.append("storage.backend: \(backend.rawValue); nodes of the home region need rocksdb or postgres")
        }
        if region.role == .home, backend == .rocksdb, region.streams.count > 1 {
            // Each would be a stream of its own, and a replica follows one.
            problems.append("regions: \(own) has several addresses in `stream`, and an embedded store is one node's")
        }
        if region.role == .replica {
            if backend == .rocksdb || backend == .memory {
                problems.append(
                    "storage.backend: \(backend.rawValue); nodes of a replica region have no store of their own: none, "
                        + "region for the home region's nodes, or postgres for its database")
            }
            if backend == .none || backend == .region, kafka == nil, home?.streams.isEmpty ?? false {
                problems.append("regions: the home region has no `stream` to be followed at")
            }
            if backend == .region, let home, home.serves.isEmpty {
                problems.append(
                    "regions: \(home.name) has no `serve`, where nodes with storage.backend region read and write")
            }
            if listen != nil, region.streams.isEmpty {
                problems.append(
                    "stream.listen: only nodes of the home region, and of those with `stream` in `regions`, are "
                        + "followed; this one is in \(own)")
            }
        }
        checkStandby(region, storage, &problems)
    }

    /// A standby is for a region that can be followed once it is home.
    private func checkStandby(_ region: Region, _ storage: StorageSettings, _ problems: inout [String]) {
        guard storage.standbyURL != nil else { return }
        if storage.backend != .region {
            problems.append(
                "storage.standbyURL: storage.backend is \(storage.backend.rawValue); a standby is for region")
        }
        if region.streams.isEmpty || candidates.isEmpty {
            problems.append("storage.standbyURL: needs a `stream` of \(own) in `regions`, where others follow it then")
        }
        if listen == nil { problems.append("storage.standbyURL: needs stream.listen, where others follow \(own) then") }
    }

    /// Without TLS, nothing between regions leaves the machine.
    private func checkSecurity(_ storage: StorageSettings, _ problems: inout [String]) {
        let backend = storage.backend
        let homes = candidates.isEmpty ? [home].compactMap { $0 } : candidates
        let serves = homes.flatMap(\.serves)
        if backend == .region, !storage.usesTLS, let open = serves.first(where: { !Self.isLoopback($0.host) }) {
            problems.append(
                "storage.tls: false; without TLS the home region is spoken to at loopback addresses only, not "
                    + open.host)
        }
        if storage.usesTLS, backend == .region, certificatePath == nil {
            problems.append("storage.tls: needs stream.certificate and stream.ca")
        }
        if certificatePath != nil {
            if authorityPath == nil { problems.append("stream.ca: missing; peers' certificates are checked by it") }
            return
        }
        if keyPath != nil || authorityPath != nil || revocationPath != nil {
            problems.append("stream.certificate: missing; stream.key, stream.ca and stream.crl are nothing without it")
        }
        var followed = !isHome && backend != .postgres ? home?.streams ?? [] : []
        followed += candidates.filter { $0.name != own }.flatMap(\.streams)
        let open = ([listen].compactMap { $0 } + followed).first { !Self.isLoopback($0.host) }
        if let open {
            problems.append(
                "stream.certificate: missing; without TLS streams use loopback addresses only, not \(open.host)")
        }
    }

    static func isLoopback(_ host: String) -> Bool {
        // An address, not a name that looks like one: names lead anywhere.
        let parts = host.split(separator: ".", omittingEmptySubsequences: false).map { UInt8($0) }
        return host == "localhost" || host == "::1" || (parts.count == 4 && parts[0] == 127 && !parts.contains(nil))
    }
}
