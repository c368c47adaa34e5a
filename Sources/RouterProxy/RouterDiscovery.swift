// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Discovery
internal import Settings

/// How a router looks up the servers of pools that name a source rather than servers.
package struct RouterDiscovery: Sendable, Equatable {
    /// How changes are taken over.
    package var membership = MembershipConfiguration()
    /// A file with the certificates that etcd's and Kubernetes's are checked by.
    package var caFile: String?
    /// DNS servers, `address:port` with commas between them; nil for the system's.
    package var dnsServers: String?
    /// How long a start or a reload waits for members of a source that was not asked before. Milliseconds.
    package var waitMilliseconds = 3_000
    /// The process's environment.
    package var environment: [String: String] = [:]

    /// The ordinary ones.
    package init() {}

    static let settings: [Setting] = [
        Setting("discovery.caFile", .text, "Certificates that etcd's and Kubernetes's are checked by."),
        Setting("discovery.dnsServers", .text, "DNS servers, as address:port with commas between; else the system's."),
        Setting(
            "discovery.wait", .duration(0...60_000_000_000), default: "3s",
            "Time that a start or a reload waits for the first members of a pool."),
        Setting(
            "discovery.settle", .duration(0...60_000_000_000), default: "500ms",
            "Time that members stay the same before they count; those that never do count after ten times that."),
        Setting(
            "discovery.lossConfirmation", .duration(0...3_600_000_000_000), default: "30s",
            "Time that more than half of the members stay away before they count as gone."),
        Setting(
            "discovery.fewestMembers", .integer(1...65_536), default: "1",
            "Members of a set at least: below that the last one is kept."),
    ]

    init(_ values: SettingsValues) {
        caFile = values.text("discovery.caFile")
        dnsServers = values.text("discovery.dnsServers")
        waitMilliseconds = Int(values.duration("discovery.wait") / 1_000_000)
        membership.debounceMilliseconds = Int(values.duration("discovery.settle") / 1_000_000)
        membership.longestDebounceMilliseconds = membership.debounceMilliseconds * 10
        membership.confirmationMilliseconds = Int(values.duration("discovery.lossConfirmation") / 1_000_000)
        membership.fewestMembers = values.integer("discovery.fewestMembers")
    }

    /// As sources take it.
    var configuration: DiscoveryConfiguration {
        var configuration = DiscoveryConfiguration()
        configuration.membership = membership
        configuration.caFile = caFile
        configuration.dnsServers = dnsServers
        configuration.environment = environment
        return configuration
    }
}
