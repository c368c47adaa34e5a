// swift-tools-version: 6.2
// Martlet: an online serving cache and storage tier.
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

/// The settings of every Swift target, one array: see docs/style.md.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableExperimentalFeature("Lifetimes"),
]

/// Sanitizers bring an allocator of their own, which jemalloc must not replace: `Scripts/sanitize` sets
/// MARTLET_SANITIZE, and Memory then takes its arenas from malloc.
let linksAllocator = Context.environment["MARTLET_SANITIZE"] == nil

/// A system library of Debian 12, found by pkg-config.
func library(_ name: String, _ pkgConfig: String, _ package: String) -> Target {
    .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([package])])
}

let package = Package(
    name: "martlet",
    products: [
        .executable(name: "martlet-server", targets: ["martlet-server"]),
        .executable(name: "martlet-router", targets: ["martlet-router"]),
        .executable(name: "martletctl", targets: ["martletctl"]),
        .executable(name: "martlet-load", targets: ["martlet-load"]),
        // For Swift services: see docs/client.md.
        .library(name: "MartletClient", targets: ["MartletClient"]),
    ],
    targets: [
        // Level C: system libraries and shims, no logic.
        .target(name: "CPlatform"),
        .target(name: "CXXHash"),
        library("CJemalloc", "jemalloc", "libjemalloc-dev"),
        library("CCurl", "libcurl", "libcurl4-openssl-dev"),
        library("CAres", "libcares", "libc-ares-dev"),
        library("CMicroHTTPD", "libmicrohttpd", "libmicrohttpd-dev"),
        library("CYAML", "yaml-0.1", "libyaml-dev"),
        library("CZlib", "zlib", "zlib1g-dev"),
        library("CLZ4", "liblz4", "liblz4-dev"),
        library("CRDKafka", "rdkafka", "librdkafka-dev"),
        library("CRocksDB", "rocksdb", "librocksdb-dev"),
        library("CPostgres", "libpq", "libpq-dev"),
        // Loaded when the program runs, so that it builds and works without.
        .target(name: "CJavaScript"),
        .target(name: "COpenSSL", linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]),

        // Level 0
        .target(name: "Platform", dependencies: ["CPlatform"]),
        .target(
            name: "Memory", dependencies: (linksAllocator ? ["CJemalloc"] : []) + ["CXXHash", "CPlatform"],
            exclude: [linksAllocator ? "Arena+System.swift" : "Arena.swift"],
            // jemalloc replaces malloc for the whole process: linked by name, or nothing would pull it in.
            linkerSettings: linksAllocator ? [.linkedLibrary("jemalloc")] : []),
        .target(name: "Telemetry", dependencies: ["Platform", "Memory"]),

        // Level 1
        .target(name: "MemcacheProtocol", dependencies: ["Memory"]),
        .target(name: "CacheEngine", dependencies: ["Memory", "Platform"]),
        .target(name: "Settings", dependencies: ["CYAML"]),
        .target(name: "Storage", dependencies: ["Memory", "Platform"]),
        .target(name: "Routing", dependencies: ["Memory"]),
        .target(name: "Spool", dependencies: ["Memory", "Platform"]),
        .target(name: "Overload"),
        .target(name: "HTTPCalls", dependencies: ["CCurl"]),

        // Level 2
        .target(name: "RouteConfiguration", dependencies: ["Routing", "Settings"]),
        .target(name: "Discovery", dependencies: ["Routing", "Settings", "Platform", "Memory", "HTTPCalls", "CAres"]),
        .target(
            name: "Tracing",
            dependencies: ["MemcacheProtocol", "Settings", "Telemetry", "Memory", "Platform", "HTTPCalls"]),
        .target(name: "Reactor", dependencies: ["Platform", "Memory", "Telemetry", "CPlatform", "COpenSSL"]),
        .target(name: "Admin", dependencies: ["Platform", "Memory", "Telemetry", "CMicroHTTPD"]),
        .target(name: "StoragePostgres", dependencies: ["Storage", "Telemetry", "Memory", "Platform", "CPostgres"]),
        .target(name: "StorageRocksDB", dependencies: ["Storage", "Telemetry", "Memory", "Platform", "CRocksDB"]),

        .target(name: "Invalidation", dependencies: ["Storage", "Memory"]),
        .target(
            name: "StreamDirect",
            dependencies: ["Invalidation", "Reactor", "Storage", "Telemetry", "Memory", "Platform", "CLZ4"]),

        .target(
            name: "StreamKafka",
            dependencies: [
                "Invalidation", "Storage", "Settings", "Telemetry", "Memory", "Platform", "HTTPCalls", "CRDKafka",
            ]),

        .target(name: "ScriptEngine", dependencies: ["CJavaScript"]),
        .target(name: "LoadModel", dependencies: ["Settings", "Routing", "Memory", "Platform"]),

        // Ships in no product: what tests run the storage tier and streams in.
        .target(name: "SimulationKit", dependencies: ["Storage", "Invalidation", "Memory"]),

        // Level 3
        .target(
            name: "Hosting",
            dependencies: [
                "Platform", "Memory", "Telemetry", "MemcacheProtocol", "Settings", "Reactor", "Admin",
            ]),

        .target(
            name: "StorageRegion",
            dependencies: [
                "Storage", "MartletClient", "MemcacheProtocol", "Reactor", "Discovery", "Telemetry", "Memory",
                "Platform",
            ]),

        .target(
            name: "MartletClient",
            dependencies: ["MemcacheProtocol", "Memory", "Platform", "Reactor", "Routing", "Discovery", "Telemetry"]),

        // Level 4
        .target(
            name: "NodeServer",
            dependencies: [
                "Platform", "Memory", "Telemetry", "MemcacheProtocol", "CacheEngine", "Settings", "Discovery",
                "Storage", "Routing", "Invalidation", "StreamDirect", "StreamKafka", "Overload", "Tracing", "Reactor",
                "Admin", "Hosting",
            ]),
        .target(
            name: "RouterProxy",
            dependencies: [
                "Platform", "Memory", "Telemetry", "MemcacheProtocol", "Routing", "RouteConfiguration", "Settings",
                "Discovery", "Spool", "Overload", "Tracing", "Reactor", "Admin", "Hosting",
            ]),

        .target(
            name: "Control",
            dependencies: [
                "HTTPCalls", "Platform", "Memory", "Settings", "Storage", "StorageRocksDB", "StoragePostgres",
                "Invalidation", "RouteConfiguration", "Routing", "Discovery", "Reactor",
            ]),

        .target(
            name: "LoadRunner",
            dependencies: [
                "LoadModel", "ScriptEngine", "MemcacheProtocol", "Reactor", "Routing", "Settings", "Memory", "Platform",
                "HTTPCalls", "CZlib",
            ]),

        .executableTarget(
            name: "martlet-server",
            dependencies: [
                "NodeServer", "Hosting", "Storage", "StorageRocksDB", "StoragePostgres", "StorageRegion", "Settings",
                "Platform",
            ]),
        .executableTarget(name: "martlet-router", dependencies: ["RouterProxy", "Hosting", "Platform"]),
        .executableTarget(name: "martletctl", dependencies: ["Control", "Platform"]),
        .executableTarget(name: "martlet-load", dependencies: ["LoadRunner", "Platform"]),

        // What is measured and crashed, not shipped.
        .target(name: "CStorageBench", dependencies: ["CRocksDB", "CPostgres"], path: "Benchmarks/storage/bare"),
        .executableTarget(
            name: "storage-bench",
            dependencies: ["StorageRocksDB", "StoragePostgres", "Storage", "Platform", "CStorageBench"],
            path: "Benchmarks/storage/bench"),
        .executableTarget(
            name: "storage-crash-writer", dependencies: ["StorageRocksDB", "Storage", "Platform"],
            path: "Tests/StorageCrash/writer"),
        .executableTarget(
            name: "placement", dependencies: ["Routing", "Memory", "Platform"],
            path: "Tests/Integration/placement/program"),

        .executableTarget(
            name: "client-probe", dependencies: ["MartletClient", "Platform"],
            path: "Tests/Integration/client/program"),

        .testTarget(name: "PlatformTests", dependencies: ["Platform"]),
        .testTarget(name: "MemoryTests", dependencies: ["Memory"]),
        .testTarget(name: "TelemetryTests", dependencies: ["Telemetry", "Memory", "Platform"]),
        .testTarget(name: "MemcacheProtocolTests", dependencies: ["MemcacheProtocol", "Memory"]),
        .testTarget(name: "CacheEngineTests", dependencies: ["CacheEngine", "Memory", "Platform"]),
        .testTarget(name: "SettingsTests", dependencies: ["Settings"]),
        .testTarget(name: "SpoolTests", dependencies: ["Spool", "Platform"]),
        .testTarget(name: "RoutingTests", dependencies: ["Routing", "Memory"]),
        .testTarget(name: "DiscoveryTests", dependencies: ["Discovery", "Routing", "Platform"]),
        .testTarget(
            name: "RouteConfigurationTests", dependencies: ["RouteConfiguration", "Routing", "Settings", "Memory"]),
        .testTarget(name: "OverloadTests", dependencies: ["Overload"]),
        .testTarget(
            name: "TracingTests", dependencies: ["Tracing", "MemcacheProtocol", "Settings", "Memory", "Platform"]),
        .testTarget(name: "StorageTests", dependencies: ["Storage", "SimulationKit", "Memory", "Platform"]),
        .testTarget(name: "SimulationTests", dependencies: ["SimulationKit", "Storage", "Invalidation"]),
        .testTarget(
            name: "StreamDirectTests",
            dependencies: ["StreamDirect", "Invalidation", "Memory", "Platform", "Reactor", "Storage"]),
        .testTarget(
            name: "StreamKafkaTests",
            dependencies: ["StreamKafka", "Invalidation", "Storage", "Settings", "Telemetry", "Memory", "Platform"],
            exclude: ["avro-fixtures.json"]),
        .testTarget(
            name: "InvalidationTests", dependencies: ["Invalidation", "SimulationKit", "Storage", "Memory"]),
        .testTarget(name: "ReactorTests", dependencies: ["Reactor", "Platform", "Memory"]),
        .testTarget(name: "AdminTests", dependencies: ["Admin", "Memory", "Telemetry", "Platform"]),
        .testTarget(
            name: "HostingTests",
            dependencies: ["Hosting", "MemcacheProtocol", "Memory", "Platform", "Settings", "Telemetry"]),
        .testTarget(
            name: "RouterProxyTests",
            dependencies: ["RouterProxy", "MemcacheProtocol", "Memory", "Hosting", "Routing"]),
        .testTarget(
            name: "NodeServerTests",
            dependencies: [
                "NodeServer", "Hosting", "CacheEngine", "MemcacheProtocol", "Memory", "Platform", "Settings",
                "Storage", "Telemetry", "Reactor", "Invalidation",
            ]),
        .testTarget(
            name: "StoragePostgresTests",
            dependencies: ["StoragePostgres", "SimulationKit", "Storage", "Telemetry", "Memory", "Platform"]),
        .testTarget(
            name: "StorageRegionTests",
            dependencies: ["StorageRegion", "Storage", "Discovery", "MemcacheProtocol", "Memory", "Platform"]),
        .testTarget(name: "StorageRocksDBTests", dependencies: ["StorageRocksDB", "Storage", "Memory", "Platform"]),
        .testTarget(
            name: "AllocationTests",
            dependencies: [
                "NodeServer", "Hosting", "RouterProxy", "Reactor", "Routing", "Tracing", "Memory", "Platform",
            ]),
        .testTarget(name: "ScriptEngineTests", dependencies: ["ScriptEngine"]),
        .testTarget(name: "LoadModelTests", dependencies: ["LoadModel", "Settings", "Memory"]),
        .testTarget(
            name: "MartletClientTests", dependencies: ["MartletClient", "Discovery", "MemcacheProtocol", "Memory"]),
        .testTarget(name: "RepositoryTests"),
    ]
)

// Release builds cannot have the tests that import testably: MARTLET_ONLY_TESTS names the targets that are wanted, with
// commas between, and nothing is built but what they stand on.
if let wanted = Context.environment["MARTLET_ONLY_TESTS"] {
    var (needed, queue) = (Set<String>(), wanted.split(separator: ",").map(String.init))
    while let name = queue.popLast() {
        guard needed.insert(name).inserted else { continue }
        for dependency in package.targets.first(where: { $0.name == name })?.dependencies ?? [] {
            if case .byNameItem(let name, _) = dependency { queue.append(name) }
        }
    }
    package.targets.removeAll { !needed.contains($0.name) }
    package.products = []
}

for target in package.targets where [.regular, .executable, .test].contains(target.type) {
    guard !target.name.hasPrefix("C") || target.name.hasPrefix("Cache") else { continue }
    target.swiftSettings = strict
}
