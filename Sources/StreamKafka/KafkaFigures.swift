// Martlet
// SPDX-License-Identifier: Apache-2.0

package import Invalidation

/// How the Kafka transport goes, for statistics.
package struct KafkaFigures: Sendable, Equatable {
    /// Putting a store's changes into a topic.
    package struct Publisher: Sendable, Equatable {
        /// Whether this node does it, rather than another with the same stream.
        package var leads = false
        /// Records that brokers have acknowledged.
        package var published: UInt64 = 0
        /// Bytes of them.
        package var publishedBytes: UInt64 = 0
        /// Heartbeats that brokers have acknowledged.
        package var heartbeats: UInt64 = 0
        /// Messages that could not be published and were given up with their producer.
        package var failures: UInt64 = 0
        /// Producers that were made anew after a failure.
        package var restarts: UInt64 = 0
        /// Messages that wait for a broker.
        package var waiting = 0
        /// Records that are committed and that brokers have not acknowledged.
        package var backlog: Int64 = 0
        /// Times that records of a slot were gone before they could be published.
        package var lost: UInt64 = 0
        /// Rows that were put into the topic of states again, behind another publisher's messages.
        package var restored: UInt64 = 0
        /// What the schema's number is in the registry; nil where there is none yet.
        package var schema: UInt32?
        /// Why nothing is published; empty while it is.
        package var reason = ""
    }

    /// Following a topic.
    package struct Follower: Sendable, Equatable {
        /// Whether messages come.
        package var isConnected = false
        /// Messages that came.
        package var messages: UInt64 = 0
        /// Messages that the brokers have and that did not come yet.
        package var behind: Int64 = 0
        /// Times that a partition's next messages had been let go by the brokers.
        package var overruns: UInt64 = 0
        /// Times that a partition was joined anew, because the brokers had lost or made it anew.
        package var rejoins: UInt64 = 0
        /// Times that the source was asked for what was missing.
        package var fetches: UInt64 = 0
        /// Records that were read again on an operator's behalf.
        package var replayed: UInt64 = 0
        /// Messages that could not be read.
        package var damaged: UInt64 = 0
        /// By how much a heartbeat came from the future at most, in milliseconds.
        package var aheadMilliseconds: Int64 = 0
        /// Heartbeats from further in the future than clocks may differ.
        package var skewed: UInt64 = 0
        /// Records that are known of and did not come yet.
        package var backlog: Int64 = 0
        /// Slots that wait for missing records.
        package var missingSlots = 0
        /// What the follower counted.
        package var counts = FollowerStatistics()
        /// Why nothing comes; empty while it does.
        package var reason = ""
    }

    /// The topic.
    package var topic = ""
    /// The topic of states; empty where there is none.
    package var stateTopic = ""
    /// Why the registry has not given a schema's number; empty where it has, or nobody asks it.
    package var registryReason = ""
    /// Publishing the stream; nil where this node does not.
    package var publisher: Publisher?
    /// Publishing states; nil where this node does not.
    package var state: Publisher?
    /// Following the stream; nil where this node does not.
    package var follower: Follower?
}
