// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation

/// What the direct transport is told, with its limits.
package struct StreamDirectConfiguration: Sendable, Equatable {
    /// An address to listen on or to connect to.
    package struct Endpoint: Sendable, Equatable {
        /// A name or an address.
        package var host: String
        /// Its port.
        package var port: UInt16

        /// An address.
        package init(host: String, port: UInt16) {
            self.host = host
            self.port = port
        }
    }

    /// Whose stream is followed.
    package struct Home: Sendable, Equatable {
        /// The region's name, which its certificate must have.
        package var region: String
        /// Where its nodes are; the first that answers is followed.
        package var endpoints: [Endpoint]

        /// A region and where it is.
        package init(region: String, endpoints: [Endpoint]) {
            self.region = region
            self.endpoints = endpoints
        }
    }

    /// The files of mutual TLS.
    package struct Security: Sendable, Equatable {
        /// Our certificate and those between it and its authority, PEM; its common name is our region's.
        package var certificatePath: String
        /// Our private key; the certificate's file when nil.
        package var keyPath: String?
        /// Authorities that peers' certificates must come from, PEM.
        package var authorityPath: String
        /// Lists of peers' certificates that are revoked, PEM; none when nil.
        package var revocationPath: String?

        /// Mutual TLS with these files.
        package init(
            certificatePath: String, keyPath: String?, authorityPath: String, revocationPath: String? = nil
        ) {
            self.certificatePath = certificatePath
            self.keyPath = keyPath
            self.authorityPath = authorityPath
            self.revocationPath = revocationPath
        }
    }

    /// The cluster's name, which peers must have too.
    package var cluster = "main"
    /// Our region.
    package var region = ""
    /// What names us among the consumers of our region.
    package var name = ""
    /// Regions that may follow us.
    package var regions: Set<String> = []
    /// Where others may follow us; nil when they may not.
    package var listen: Endpoint?
    /// Whom we follow at first; nil when nobody. See ``StreamService/turn(to:)``.
    package var home: Home?
    /// Regions that may be home, with our own where it may: they are asked which one is. Empty where that is fixed.
    package var candidates: [Home] = []
    /// Between questions which region is home, in nanoseconds.
    package var askNanoseconds: UInt64 = 1_000_000_000
    /// Whether ``home`` is only asked for what a broker's consumer misses: see ``StreamService/repair(_:)``.
    package var repairsOnly = false
    /// Whether the outbox may let go what all who follow us have; if not, it keeps records for their time.
    package var releasesEarly = true
    /// Whether we follow our own store's outbox.
    package var followsOwnStore = false
    /// Whether we want values.
    package var wantsValues = false
    /// Whether batches may come packed by LZ4.
    package var takesPacked = true
    /// Whether we say what we have cached, when we are asked.
    package var answersLooks = true
    /// TLS; nil is none.
    package var security: Security?
    /// Bounds of the stream itself.
    package var stream = InvalidationConfiguration()
    /// For how long a consumer that went away keeps its records, in nanoseconds.
    package var consumerMemoryNanoseconds: UInt64 = 3_600_000_000_000
    /// Consumers at most.
    package var consumersMax = 1024
    /// What other regions want of this one's database, at most at once.
    package var errandsMax = 16
    /// How long the end of the node waits for what is under way of it, in milliseconds: longer than a database is given
    /// for a statement.
    package var errandEndMilliseconds: UInt64 = 5_000
    /// Bytes that are sent to one consumer before the others have their turn.
    package var turnBytes = 512 << 10
    /// How long one consumer may hold the others up, in nanoseconds.
    package var turnNanoseconds: UInt64 = 20_000_000
    /// Between attempts to connect, in nanoseconds; doubled from the first on.
    package var firstRetryNanoseconds: UInt64 = 50_000_000
    /// Between attempts to connect at most, in nanoseconds.
    package var lastRetryNanoseconds: UInt64 = 1_000_000_000
    /// How long connecting may take, and a source may say nothing, in nanoseconds.
    package var silenceNanoseconds: UInt64 = 3_000_000_000
    /// How long a consumer waits for whether another one of its name is still there, in nanoseconds: longer than two
    /// probes of that one, and shorter than ``silenceNanoseconds``.
    package var contestNanoseconds: UInt64 = 2_500_000_000
    /// By how much the clocks of the source and of this node may differ, in milliseconds: versions and times to live
    /// are read from both.
    package var skewMaxMilliseconds: Int64 = 500
    /// The longest value that travels, in bytes; a longer one's record is an invalidation.
    package var valueMax = 1 << 20

    /// A node that neither follows nor is followed.
    package init() {}
}
