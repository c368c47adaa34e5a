// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Whether and how a process traces. A plain value; made from settings and OpenTelemetry's standard variables.
package struct TracingConfiguration: Sendable, Equatable {
    /// Where spans are posted, the path included; nil when nothing is traced.
    package var url: String?
    /// Headers of each request to the collector. Secrets: never shown.
    package var headers: [Header] = []
    /// Certificates that the collector's is checked by; the system's otherwise.
    package var caFile: String?
    /// How long one request to the collector may take.
    package var timeoutMilliseconds = 10_000
    /// How long a batch is tried to be sent, with all that is repeated.
    package var exportMilliseconds = 30_000

    /// Which traces are recorded from their beginning.
    package var sampler = TraceSampler(.parentOrRatio, ratio: TracingConfiguration.standardRatio)
    /// From how long on a request is recorded though nobody samples it, in nanoseconds; 0 is never.
    package var slowNanoseconds: UInt64 = 100_000_000
    /// Whether requests that fail are recorded though nobody samples them.
    package var recordsFailed = true
    /// How many slow and failed requests of one thread are recorded in a second.
    package var unsampledPerSecond = 100
    /// Whether keys are shown as they are, rather than hashed.
    package var showsKeys = false
    /// Whether servers are told the context of requests.
    package var propagates = true

    /// Spans of one thread that wait at most; more are dropped.
    package var queueLimit = 2048
    /// Spans in one request to the collector at most.
    package var batchLimit = 512
    /// How long spans wait for more, in milliseconds.
    package var delayMilliseconds = 5_000

    /// What the process is called.
    package var serviceName = "martlet"
    /// Its version.
    package var version = ""
    /// What its store is called, of a node with storage. Source: semantic conventions, db.system.name.
    package var storageSystem: String?
    /// What else is said of it.
    package var resource: [Attribute] = []

    /// The part of traces that is recorded unless somebody says otherwise.
    package static var standardRatio: Double { 0.001 }

    /// A name and a value.
    package struct Attribute: Sendable, Equatable {
        /// What it is.
        package let name: String
        /// What it says.
        package let value: String

        /// A name with its value.
        package init(_ name: String, _ value: String) {
            self.name = name
            self.value = value
        }
    }

    /// A header of HTTP.
    package typealias Header = Attribute

    /// Nothing is traced.
    package init() {}

    /// Whether anything is traced.
    package var isOn: Bool { url != nil }

    /// The collector as the log may show it: without a path, a user or a password.
    var shownURL: String {
        guard let url, let scheme = ["http://", "https://"].first(where: url.lowercased().hasPrefix) else { return "" }
        let authority = url.dropFirst(scheme.count).prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        return scheme + String(authority.split(separator: "@", omittingEmptySubsequences: false).last ?? authority)
    }
}
