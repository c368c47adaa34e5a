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

/// Sanitizers bring an allocator of their own, which jemalloc must not replace: `Scripts/sanitize` sets MARTLET_SANITIZE,
/// and Memory then takes its arenas from malloc.
let linksAllocator = Context.environment["MARTLET_SANITIZE"] == nil

/// A system library of Debian 12, found by pkg-config.
func library(_ name: String, _ pkgConfig: String, _ package: String) -> Target {
    .systemLibrary(name: name, pkgConfig: pkgConfig, providers: [.apt([package])])
}

let package = Package(
    name: "martlet",
    products: [
        .executable(name: "martlet-server", targets: ["martlet-server"])
    ],
    targets: [
        // Level C: system libraries and shims, no logic.
        .target(name: "CPlatform"),
        .target(name: "CXXHash"),
        library("CJemalloc", "jemalloc", "libjemalloc-dev"),
        library("CMicroHTTPD", "libmicrohttpd", "libmicrohttpd-dev"),
        library("CYAML", "yaml-0.1", "libyaml-dev"),
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

        // Level 2
        .target(name: "Reactor", dependencies: ["Platform", "Memory", "Telemetry", "CPlatform", "COpenSSL"]),
        .target(name: "Admin", dependencies: ["Platform", "Telemetry", "CMicroHTTPD"]),

        // Level 3
        .target(
            name: "NodeServer",
            dependencies: [
                "Platform", "Memory", "Telemetry", "MemcacheProtocol", "CacheEngine", "Settings", "Reactor", "Admin",
            ]),

        .executableTarget(name: "martlet-server", dependencies: ["NodeServer", "Settings", "Platform"]),

        .testTarget(name: "PlatformTests", dependencies: ["Platform"]),
        .testTarget(name: "MemoryTests", dependencies: ["Memory"]),
        .testTarget(name: "TelemetryTests", dependencies: ["Telemetry", "Memory"]),
        .testTarget(name: "MemcacheProtocolTests", dependencies: ["MemcacheProtocol", "Memory"]),
        .testTarget(name: "CacheEngineTests", dependencies: ["CacheEngine", "Memory", "Platform"]),
        .testTarget(name: "SettingsTests", dependencies: ["Settings"]),
        .testTarget(name: "ReactorTests", dependencies: ["Reactor", "Platform", "Memory"]),
        .testTarget(name: "AdminTests", dependencies: ["Admin", "Telemetry", "Platform"]),
        .testTarget(
            name: "NodeServerTests",
            dependencies: [
                "NodeServer", "CacheEngine", "MemcacheProtocol", "Memory", "Platform", "Settings", "Telemetry",
                "Reactor",
            ]),
        .testTarget(name: "AllocationTests", dependencies: ["NodeServer", "Reactor", "Memory", "Platform"]),
        .testTarget(name: "RepositoryTests"),
    ]
)

// Release builds cannot have the tests that import testably: MARTLET_ONLY_TESTS names the one target that is wanted.
if let wanted = Context.environment["MARTLET_ONLY_TESTS"] {
    package.targets.removeAll { $0.type == .test && $0.name != wanted }
}

for target in package.targets where [.regular, .executable, .test].contains(target.type) {
    guard !target.name.hasPrefix("C") || target.name.hasPrefix("Cache") else { continue }
    target.swiftSettings = strict
}
