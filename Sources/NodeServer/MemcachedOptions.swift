// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Hosting

/// A configuration while its parts come together: settings first, then memcached's options, then the checks.
struct NodeConfigurationDraft {
    var configuration = NodeConfiguration()
    /// TLS's files and rules, used only when it is enabled.
    var tls = ServerTLS()
    var isTLSEnabled = false
    /// Whether somebody said which TCP port, UDP port or protocol; whether somebody gave a certificate.
    var hasPort = false
    var hasDatagramPort = false
    var hasProtocol = false
    /// Whether `-o slab_chunk_max` was given, and `-o slab_sizes`.
    var hasSlabChunkMaximum = false
    var slabSizes: String?
    /// Listeners as `-l` spells them, with commas or semicolons between.
    var interface: String?
    /// The UDP setting of -o temporary_ttl and friends.
    var warnings: [String] = []
}

/// memcached's options on a command line, checked one by one and not applied yet.
struct MemcachedOptions {
    /// What the options change, in order.
    private(set) var edits: [(inout NodeConfigurationDraft) -> Void] = []
    /// The options as they were given, but for those that each node of a fleet has of its own.
    private(set) var shared: [String] = []
    /// `-l`, put together as memcached does.
    private var interface: String?

    /// The short options as getopt spells them.
    static let shorts = "a:AZp:s:U:m:Mc:khiVrvdl:u:P:f:n:t:D:LR:Cb:B:I:SFXWY:e:o:N:"

    /// The long options and the short ones that they stand for.
    static let longs: [(name: String, short: Character)] = [
        ("unix-mask", "a"), ("enable-shutdown", "A"), ("enable-ssl", "Z"), ("port", "p"), ("unix-socket", "s"),
        ("udp-port", "U"), ("memory-limit", "m"), ("disable-evictions", "M"), ("conn-limit", "c"),
        ("lock-memory", "k"), ("help", "h"), ("license", "i"), ("version", "V"), ("enable-coredumps", "r"),
        ("verbose", "v"), ("daemon", "d"), ("listen", "l"), ("user", "u"), ("pidfile", "P"),
        ("slab-growth-factor", "f"), ("slab-min-size", "n"), ("threads", "t"), ("enable-largepages", "L"),
        ("max-reqs-per-event", "R"), ("disable-cas", "C"), ("listen-backlog", "b"), ("protocol", "B"),
        ("max-item-size", "I"), ("enable-sasl", "S"), ("disable-flush-all", "F"), ("disable-dumping", "X"),
        ("disable-watch", "W"), ("auth-file", "Y"), ("memory-file", "e"), ("extended", "o"), ("napi-ids", "N"),
    ]

    /// Applies all options to a draft.
    func apply(to draft: inout NodeConfigurationDraft) {
        for edit in edits { edit(&draft) }
        if let interface { draft.interface = interface }
    }

    /// Takes an option with its value. `-h`, `-i` and `-V` are the caller's.
    mutating func take(_ option: Character, _ value: String?) throws(StartRefusal) {
        let text = String((value ?? "").drop { $0.isASCII && $0.isWhitespace })
        if !"apsUludPeA".contains(option) { shared.append("-\(option)\(text.isEmpty ? "" : " ")\(text)") }
        if takeSwitch(option) { return }
        if try takeNetwork(option, text) { return }
        if try takeLimit(option, text) { return }
        if option == "o" { return try takeExtended(text) }
        try takeOther(option, text)
    }

    mutating func edit(_ change: @escaping (inout NodeConfigurationDraft) -> Void) { edits.append(change) }

    /// Notes an option that has no effect here.
    mutating func ignore(_ name: String) { edit { $0.configuration.tuning.ineffective.append(name) } }

    /// The options without a value.
    private mutating func takeSwitch(_ option: Character) -> Bool {
        switch option {
        case "A": edit { $0.configuration.allowsShutdown = true }
        case "Z": edit { $0.isTLSEnabled = true }
        case "M": edit { $0.configuration.evicts = false }
        case "k": edit { $0.configuration.process.locksMemory = true }
        case "v": edit { $0.configuration.verbosity += 1 }
        case "d": edit { $0.configuration.process.daemonizes = true }
        case "r": edit { $0.configuration.process.raisesCoreLimit = true }
        case "L": ignore("-L")
        case "C": edit { $0.configuration.usesCAS = false }
        case "F": edit { $0.configuration.allowsFlush = false }
        case "X": edit { $0.configuration.allowsDump = false }
        case "W": edit { $0.configuration.allowsWatch = false }
        default: return false
        }
        return true
    }

    private mutating func takeNetwork(_ option: Character, _ text: String) throws(StartRefusal) -> Bool {
        switch option {
        case "a":
            let mode = cOctal(text)
            edit { $0.configuration.unixSocketMode = mode }
        case "s": edit { $0.configuration.unixSocketPath = text }
        case "p":
            let port = Int(cInteger(text))
            edit {
                $0.configuration.port = port
                $0.hasPort = true
            }
        case "U":
            let port = Int(cInteger(text))
            edit {
                $0.configuration.datagramPort = port
                $0.hasDatagramPort = true
            }
        case "l":
            // memcached leaves out what is part of what it already has.
            guard let known = interface else {
                interface = text
                break
            }
            if !known.contains(text) { interface = "\(known),\(text)" }
        case "b":
            let backlog = Int(cInteger(text))
            edit { $0.configuration.backlog = backlog }
        case "B":
            guard let restriction = ProtocolRestriction(rawValue: text) else {
                throw StartRefusal(
                    code: StartRefusal.Code.usage,
                    errors: "Invalid value for binding protocol: \(text)\n"
                        + " -- should be one of auto, binary, or ascii\n")
            }
            edit {
                $0.configuration.restriction = restriction
                $0.hasProtocol = true
            }
        default: return false
        }
        return true
    }

    /// The options that are numbers with a least value.
    private mutating func takeLimit(_ option: Character, _ text: String) throws(StartRefusal) -> Bool {
        let number = cInteger(text)
        switch option {
        case "c":
            try refuse("Maximum connections must be greater than 0", unless: number > 0)
            edit { $0.configuration.connectionLimit = Int(number) }
        case "R":
            try refuse("Number of requests per event must be greater than 0", unless: number > 0)
            edit { $0.configuration.requestsPerTurn = Int(number) }
        case "t":
            try refuse("Number of threads must be greater than 0", unless: number > 0)
            edit { $0.configuration.threads = Int(number) }
        case "f":
            let factor = cDouble(text)
            try refuse("Factor must be greater than 1", unless: factor > 1)
            edit { $0.configuration.tuning.growthFactor = factor }
            ignore("-f")
        case "n":
            try refuse("Chunk size must be greater than 0", unless: number > 0)
            edit { $0.configuration.tuning.chunkSize = Int(number) }
            ignore("-n")
        case "N":
            try refuse("Maximum number of NAPI IDs must be greater than 0", unless: number > 0)
            edit { $0.configuration.tuning.napiIDs = Int(number) }
            ignore("-N")
        case "m":
            edit { $0.configuration.memoryBytes = Int(number) << 20 }
        case "I":
            let bytes = Self.itemSize(text)
            edit { $0.configuration.maximumItemBytes = Int(bytes) }
        default: return false
        }
        return true
    }

    private mutating func takeOther(_ option: Character, _ text: String) throws(StartRefusal) {
        switch option {
        case "u": edit { $0.configuration.process.user = text }
        case "P": edit { $0.configuration.process.pidFilePath = text }
        case "e":
            edit { $0.configuration.tuning.memoryFilePath = text }
        case "D":
            guard let delimiter = text.utf8.first else { throw Self.failure("No delimiter specified") }
            edit {
                $0.configuration.prefixDelimiter = delimiter
                $0.configuration.collectsPrefixStatistics = true
            }
        case "S":
            throw StartRefusal(
                code: StartRefusal.Code.usage, errors: "This server is not built with SASL support.\n")
        case "Y": edit { $0.configuration.authenticationPath = text }
        default: preconditionFailure("no handler for -\(option)")
        }
    }

    /// `-I`: a number with k or m behind it, in 32 bits.
    private static func itemSize(_ text: String) -> Int32 {
        switch text.last {
        case "k", "K": cInteger(String(text.dropLast())) &* 1024
        case "m", "M": cInteger(String(text.dropLast())) &* (1024 * 1024)
        default: cInteger(text)
        }
    }

    func refuse(_ message: String, unless holds: Bool) throws(StartRefusal) {
        if !holds { throw Self.failure(message) }
    }

    static func failure(_ message: String) -> StartRefusal {
        StartRefusal(code: StartRefusal.Code.failure, errors: message + "\n")
    }
}
