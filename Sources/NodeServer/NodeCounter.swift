// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Telemetry

/// What each reactor counts of the commands it executes, under memcached's names.
enum NodeCounter: Int, CounterIndex {
    case cmdGet, cmdSet, cmdFlush, cmdTouch, cmdMeta
    case getHits, getMisses, touchHits, touchMisses
    case deleteHits, deleteMisses, incrHits, incrMisses, decrHits, decrMisses
    case casHits, casMisses, casBadValue
    case storeTooLarge, storeNoMemory
    case authCommands, authErrors
    /// Commands that the store failed.
    case storageErrors
    /// Reads that a copy behind its time answered because the store did not.
    case staleAnswers
    /// Reads that such a copy answered while the store was asked for a newer one.
    case staleHits
    /// Reads that the cache answered with the store's word that there is no row.
    case negativeHits
}

/// Kinds of commands whose latency is told apart.
enum CommandKind: Int, CaseIterable {
    case get, set, delete, arithmetic, touch, other

    /// The name in /metrics.
    var label: String {
        switch self {
        case .get: "get"
        case .set: "set"
        case .delete: "delete"
        case .arithmetic: "arithmetic"
        case .touch: "touch"
        case .other: "other"
        }
    }
}
