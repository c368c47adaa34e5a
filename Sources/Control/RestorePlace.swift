// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Storage

/// How far a dump was written, and into what: what `restore --resume` goes on from, kept in a file beside the dump.
struct RestorePlace: Equatable {
    /// Where the next row stands in the dump.
    var offset: Int
    /// What the rows before it are: see ``DumpDigest``.
    var digest: UInt64
    /// What they were written into.
    var target: RestoreTarget

    private static let title = "martlet-restore 1"

    /// The text of the file.
    var text: String { "\(Self.title)\noffset \(offset)\ndigest \(digest)\ntarget \(target.text)\n" }

    init(offset: Int, digest: UInt64, target: RestoreTarget) {
        (self.offset, self.digest, self.target) = (offset, digest, target)
    }

    /// nil for what is not such a text, or only half of one.
    init?(text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        func value(_ index: Int, _ name: String) -> String? {
            lines[index].hasPrefix(name + " ") ? String(lines[index].dropFirst(name.count + 1)) : nil
        }
        guard lines.count == 5, lines[0] == Self.title, lines[4].isEmpty,
            let offset = value(1, "offset").flatMap({ Int($0) }), offset > 0,
            let digest = value(2, "digest").flatMap({ UInt64($0) }),
            let target = value(3, "target").flatMap(RestoreTarget.init(text:))
        else { return nil }
        self.init(offset: offset, digest: digest, target: target)
    }
}

/// What a server is, so that rows that it was given are not taken for there when it is another.
enum RestoreTarget: Equatable {
    /// A node with a store, which has a name of its own: the same over restarts, another one where earlier rows came
    /// back, as from a backup.
    case store(String)
    /// A process whose rows go with it: where it listens, its number, and when it began, in seconds of Unix time.
    case process(address: String, number: Int, started: Int)

    /// By what a server says in `stats` and `stats storage`; nil where it says neither.
    init?(statistics: [String: String], address: String) {
        if let name = statistics["store_identity"], !name.isEmpty {
            self = .store(name)
            return
        }
        func integer(_ name: String) -> Int? { statistics[name].flatMap { Int($0) } }
        if let number = integer("pid"), let time = integer("time"), let uptime = integer("uptime") {
            self = .process(address: address, number: number, started: time - uptime)
        } else {
            return nil
        }
    }

    var text: String {
        switch self {
        case .store(let name): "store \(name)"
        case .process(let address, let number, let started): "process \(number) \(started) \(address)"
        }
    }

    init?(text: String) {
        let words = text.split(separator: " ").map(String.init)
        switch words.first {
        case "store" where words.count == 2: self = .store(words[1])
        case "process" where words.count == 4:
            guard let number = Int(words[1]), let started = Int(words[2]) else { return nil }
            self = .process(address: words[3], number: number, started: started)
        default: return nil
        }
    }

    /// Whether rows that the one was given are in the other. Both times are whole seconds, read one after the other.
    func isSame(as other: RestoreTarget) -> Bool {
        guard case .process(let address, let number, let started) = self,
            case .process(address, number, let otherStarted) = other
        else { return self == other }
        return abs(started - otherStarted) <= 2
    }
}

/// Tells rows of a dump from others: a hash of all of them in their order.
struct DumpDigest {
    private(set) var value: UInt64 = 0

    mutating func add(_ key: [UInt8], _ row: StoredRow) {
        let numbers = [
            value, row.version, UInt64(bitPattern: row.expiryMilliseconds), UInt64(row.clientFlags),
            stableHash(key.span), stableHash(row.value.span),
        ]
        var bytes: [UInt8] = []
        for number in numbers { for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: number >> (shift * 8))) } }
        value = stableHash(bytes.span)
    }
}
