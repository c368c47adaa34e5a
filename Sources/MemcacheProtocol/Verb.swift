// Martlet
// SPDX-License-Identifier: Apache-2.0

/// Which of memcached's protocols a request came in, and its reply goes out in.
@usableFromInline
package enum ProtocolForm: UInt8, BitwiseCopyable, Sendable {
    /// The text commands of old: `get`, `set`, `incr`.
    case classic
    /// The two-letter text commands with flags: `mg`, `ms`, `md`, `ma`, `mn`, `me`.
    case meta
    /// 24-byte headers. Deprecated by memcached, still spoken by spymemcached and others.
    case binary
}

/// What a request asks for. Commands of the binary protocol that have a classic twin share its verb.
@usableFromInline
package enum Verb: UInt8, BitwiseCopyable, Sendable, CaseIterable {
    case get, gets, gat, gats
    case set, add, replace, append, prepend, cas
    case delete, incr, decr, touch
    case metaGet, metaSet, metaDelete, metaArithmetic, metaNoop, metaDebug
    case flushAll, version, verbosity, quit, stats
    /// Commands of operators. The executor cuts their line (``Request/lineOffset``) with a ``Tokenizer``.
    case shutdown, watch, cacheMemlimit, lruCrawler, lru, slabs, extstore, refreshCerts, debugtime
    /// `config get cluster`: node discovery as ElastiCache's clients expect it. memcached answers `ERROR`.
    case config
    /// The binary protocol's noop; text has `mn`.
    case noop
    /// Not a command, or one whose arguments are refused: ``Request/error`` says what to answer.
    case protocolError

    /// Whether a data block follows the command.
    @inlinable package var stores: Bool {
        @inline(__always) get {
            switch self {
            case .set, .add, .replace, .append, .prepend, .cas, .metaSet: true
            default: false
            }
        }
    }
}
