// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What a node has cached of a key, as its clients would see it.
package enum CopySight: Sendable, Equatable {
    /// Nothing, or the knowledge that there is no row.
    case nothing
    /// A copy that is not shown now: the stream is behind its bound, or the slot in quarantine.
    case hidden
    /// A copy of this version.
    case copy(UInt64)

    /// Versions of stores are times; smaller numbers are those that a cache without a store gives itself.
    package static let leastVersion: UInt64 = 1 << 56
}

/// What a look at a copy says of a change that it is held against.
package enum CopyVerdict: Int, CaseIterable, Sendable {
    /// The copy is as new as the change, or newer.
    case current
    /// It is older.
    case stale
    /// There is no copy.
    case absent
    /// The copy is not shown.
    case hidden
    /// A client put the copy into a plain cache: its version is no store's.
    case unversioned
    /// It is older than the change, which is not in the store any more.
    case refuted
    /// The node did not answer.
    case failed

    /// What `sight` says of a change of version `version`; nil is a node that did not answer.
    package init(_ sight: CopySight?, version: UInt64) {
        switch sight {
        case nil: self = .failed
        case .nothing: self = .absent
        case .hidden: self = .hidden
        case .copy(let shown) where shown < CopySight.leastVersion: self = .unversioned
        case .copy(let shown): self = shown < version ? .stale : .current
        }
    }

    /// Whether it tells something of consistency: clients see a copy of the store's, or none.
    package var isSample: Bool { self != .unversioned && self != .failed }
}

/// What became of a key's copy at a node, for explanations.
package struct CopyEvent: Sendable, Equatable {
    /// What happened.
    package enum Kind: UInt8, Sendable, CaseIterable {
        /// A record came and dropped the copy, and fills under way.
        case dropped
        /// A record came with its value, which was cached.
        case installed
        /// A record came and found a copy as new as it.
        case kept
        /// A row was cached that was read or written here.
        case filled
        /// Everything that was cached of the slot was given up.
        case quarantined
        /// Everything that was cached was removed.
        case flushed
    }

    /// What happened.
    package var kind: Kind
    /// The record's version, or the row's; 0 where there is none.
    package var version: UInt64
    /// The record's number in its slot; 0 where there is none.
    package var sequence: Int64
    /// How long ago, in microseconds.
    package var agoMicroseconds: UInt64

    /// An event.
    package init(_ kind: Kind, version: UInt64, sequence: Int64, agoMicroseconds: UInt64) {
        (self.kind, self.version, self.sequence) = (kind, version, sequence)
        self.agoMicroseconds = agoMicroseconds
    }
}

/// What a node remembers of one key's copy.
package struct CopyTrace: Sendable, Equatable {
    /// The epoch that the node follows, 0 for none, and the last number of the key's slot that it has.
    package var epoch: Int64 = 0
    /// The last number of the key's slot up to which it has everything.
    package var position: Int64 = 0
    /// For how long back it remembers everything that happened to the key, in microseconds.
    package var reachMicroseconds: UInt64 = 0
    /// What happened, oldest first.
    package var events: [CopyEvent] = []

    /// Of a node that remembers nothing.
    package init() {}
}

/// A node's answer about one key.
package struct CopyReport: Sendable, Equatable {
    /// What it has.
    package var sight: CopySight
    /// What it remembers, where that was asked for.
    package var trace: CopyTrace?

    /// An answer.
    package init(_ sight: CopySight, trace: CopyTrace? = nil) {
        self.sight = sight
        self.trace = trace
    }
}

/// Why a copy is older than a change.
package enum InconsistencyCause: Int, CaseIterable, Sendable {
    /// The node does not have the change yet: its stream is behind.
    case behind
    /// The node's stream is past the change, which never reached the key.
    case lost
    /// The change came, and an older row was cached behind it.
    case refilled
    /// The change came, and left the copy.
    case kept
    /// What the node remembers does not say.
    case unknown

    /// What `trace` says of a change, `ageMicroseconds` behind its commit.
    package init(
        _ trace: CopyTrace?, epoch: Int64, sequence: Int64, version: UInt64, ageMicroseconds: UInt64
    ) {
        guard let trace else {
            self = .unknown
            return
        }
        if trace.epoch == epoch, trace.position < sequence {
            self = .behind
            return
        }
        let came = trace.events.lastIndex { event in
            event.sequence != 0 && (event.sequence == sequence || event.version == version)
        }
        guard let came else {
            self = trace.epoch == epoch && trace.reachMicroseconds >= ageMicroseconds ? .lost : .unknown
            return
        }
        if trace.events[came...].contains(where: { $0.kind == .filled && $0.version < version }) {
            self = .refilled
        } else {
            self = trace.events[came].kind == .kept ? .kept : .unknown
        }
    }

    /// What it means, for people.
    package var meaning: String {
        switch self {
        case .behind: "the node's stream has not come to the change yet"
        case .lost: "the node's stream went past the change, and it never reached the key"
        case .refilled: "the change came, and an older row was cached behind it"
        case .kept: "the change came, and left the copy"
        case .unknown: "what the node remembers does not say"
        }
    }
}
