// Martlet
// SPDX-License-Identifier: Apache-2.0

package import MemcacheProtocol

/// What commands do, as far as permissions go: a command may be of two classes, such as `gat`, which reads and writes.
package struct CommandClasses: OptionSet, Sendable, Hashable, BitwiseCopyable {
    /// A bit for each class.
    package let rawValue: UInt8

    /// The classes of these bits.
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Shows items: `get`, `mg`, `me`.
    package static var read: CommandClasses { CommandClasses(rawValue: 1) }
    /// Makes or changes items: `set`, `incr`, `touch`.
    package static var write: CommandClasses { CommandClasses(rawValue: 2) }
    /// Takes items away or marks them stale: `delete`, `md`.
    package static var delete: CommandClasses { CommandClasses(rawValue: 4) }
    /// `flush_all`.
    package static var flush: CommandClasses { CommandClasses(rawValue: 8) }
    /// What is about the server, or shows the keys of all: `stats`, `watch`, `lru_crawler`, `shutdown`.
    package static var admin: CommandClasses { CommandClasses(rawValue: 16) }

    /// Shows and changes. In bits, as the next, because an array literal of classes may be allocated.
    package static var readWrite: CommandClasses { CommandClasses(rawValue: 3) }
    /// What is about one key.
    package static var data: CommandClasses { CommandClasses(rawValue: 7) }
    /// Everything.
    package static var all: CommandClasses { CommandClasses(rawValue: 31) }

    /// The classes by their names in settings and metrics, the least first.
    package static let named: [(name: String, value: CommandClasses)] = [
        ("read", .read), ("write", .write), ("delete", .delete), ("flush", .flush), ("admin", .admin),
    ]

    /// How many there are.
    static var count: Int { 5 }

    /// The class that a command of these counts with: the last of ``named`` that it is of. nil for one of none.
    package var counted: Int? { rawValue == 0 ? nil : 7 - rawValue.leadingZeroBitCount }
}

extension Request {
    /// What it does. Empty for what everybody may: `version`, `mn`, `noop`, `quit`, `config get cluster`, and what is
    /// refused anyway.
    package var commandClasses: CommandClasses {
        switch verb {
        case .get, .gets, .metaDebug: .read
        case .metaGet: options.isDisjoint(with: Self.changing) ? .read : .readWrite
        case .gat, .gats: .readWrite
        case .set, .add, .replace, .append, .prepend, .cas, .incr, .decr, .touch, .metaSet, .metaArithmetic: .write
        case .delete, .metaDelete: .delete
        case .flushAll: .flush
        case .verbosity, .stats, .shutdown, .watch, .cacheMemlimit, .lruCrawler, .lru, .slabs, .extstore, .refreshCerts,
            .debugtime:
            .admin
        case .version, .quit, .metaNoop, .noop, .config, .protocolError: CommandClasses(rawValue: 0)
        }
    }

    /// Flags by which `mg` makes or changes an item.
    private static var changing: MetaOptions {
        MetaOptions(rawValue: MetaOptions.vivify.rawValue | MetaOptions.setTTL.rawValue | MetaOptions.setCAS.rawValue)
    }

    /// Whether it is a key of a classic get, behind which more may come.
    package var isKeyOfGet: Bool { form == .classic && verb.rawValue <= Verb.gats.rawValue }

    /// What it counts for against a quota of bytes: its key and its value.
    package var quotaBytes: Int { keyLength &+ valueLength }
}
