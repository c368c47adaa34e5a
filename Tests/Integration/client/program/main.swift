// Martlet
// SPDX-License-Identifier: Apache-2.0

// What the client does, for the tests beside this program: see test_client.py.

import MartletClient
import Platform

let arguments = CommandLine.arguments

/// The value of an option; nil when it is not there.
func option(_ name: String) -> String? {
    arguments.firstIndex(of: "--" + name).flatMap { $0 + 1 < arguments.count ? arguments[$0 + 1] : nil }
}

func number(_ name: String, _ standard: Int) -> Int { option(name).flatMap { Int($0) } ?? standard }

/// The client that the options describe.
func makeConfiguration() -> ClientConfiguration {
    var configuration: ClientConfiguration
    if let cluster = option("cluster") {
        configuration = ClientConfiguration(.cluster(cluster))
    } else if let source = option("source") {
        configuration = ClientConfiguration(.discovered(source))
    } else {
        configuration = ClientConfiguration(servers: (option("servers") ?? "").split(separator: ",").map(String.init))
    }
    configuration.placement = option("placement").flatMap { .init(rawValue: $0) } ?? .martlet
    configuration.wireProtocol = option("protocol") == "classic" ? .classic : .meta
    configuration.timeout = .milliseconds(number("timeout", 1000))
    configuration.attemptTimeout = .milliseconds(number("attempt-timeout", 400))
    configuration.connectTimeout = .milliseconds(number("connect-timeout", 400))
    configuration.retries = number("retries", 2)
    configuration.retriesPerSecond = Double(number("retries-per-second", 5))
    configuration.connectionsPerServer = number("connections", 2)
    configuration.hedgesReads = arguments.contains("--hedge")
    configuration.refreshInterval = .milliseconds(number("refresh", 30_000))
    if let authority = option("tls-authority") {
        var tls = ClientConfiguration.TLS()
        tls.authorityPath = authority
        configuration.tls = tls
    }
    return configuration
}

do {
    switch arguments.count > 1 ? arguments[1] : "" {
    case "commands": try await runCommands(makeConfiguration())
    case "example": print(try await example((option("servers") ?? "").split(separator: ",").map(String.init)))
    case "speed": try await measureSpeed(makeConfiguration())
    case "load": try await runLoad(makeConfiguration())
    case "compute": try await runCompute(makeConfiguration())
    case "cancel": try await runCancel(makeConfiguration())
    case "owners": try await showOwners(makeConfiguration())
    default:
        print("client-probe commands|example|speed|load|compute|cancel|owners --servers A,B …")
        exitProcess(2)
    }
} catch {
    print("{\"error\": \"\(error)\"}")
    exitProcess(1)
}
