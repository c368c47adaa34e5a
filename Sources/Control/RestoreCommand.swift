// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage

/// `martletctl restore --input FILE`: writes a dump's rows through a node, as a client would. Rows get new versions.
/// What is expired is left out; what the node has already is replaced.
struct RestoreCommand {
    let path: String
    let host: String
    let port: UInt16
    let access: CacheAccess

    /// Rows that are on their way at once, at most.
    private static let window = 256
    /// Bytes of commands that are on their way at once, at most.
    private static let windowBytes = 4 << 20

    /// What became of a run.
    struct Result {
        var rows = 0
        var expired = 0
        var bytes = 0
        /// Rows that the server cannot be given: see ``BinarySets``.
        var left = 0
    }

    /// Where ``RestorePlace`` is kept.
    private var placePath: String { path + ".restored" }

    func run(resumes: Bool, progress: inout Progress) throws(ControlError) -> Result {
        let total = fileLength(path)
        let place = resumes ? try keptPlace() : nil
        let socket = try access.connect(host: host, port: port, timeoutSeconds: 30)
        let target = try target(socket)
        if let place, !(target.map { place.target.isSame(as: $0) } ?? false) {
            throw ControlError(
                .unavailable,
                "\(host):\(port) is not what the first \(place.offset) bytes of \(path) were written into: "
                    + "\(target.map { $0.text } ?? "it does not say what it is"), and not \(place.target.text). "
                    + "Without --resume everything is written")
        }
        var result = Result()
        var window = Window()
        var digest = DumpDigest()
        var isPast = place == nil
        var binary: BinarySets?
        let now = Int64(Clock.realtimeNanoseconds() / 1_000_000)
        var shown = progress
        let isWhole = try DumpFile.each(path, from: 0) { (key, row, next) throws(ControlError) in
            digest.add(key, row)
            if let place, next <= place.offset {
                isPast = next == place.offset
                guard !isPast || digest.value == place.digest else { throw foreign(place) }
                return
            }
            guard isPast else { throw foreign(place) }
            if row.isLive(at: now) {
                if window.add(key, row) {
                    result.rows += 1
                } else if access.isLoggedIn {
                    result.left += 1
                } else {
                    if binary == nil { binary = try BinarySets(host: host, port: port, access) }
                    try binary?.set(key, row)
                    result.rows += 1
                }
            } else {
                result.expired += 1
            }
            result.bytes = next
            if window.rows >= Self.window || window.bytes.count >= Self.windowBytes {
                try flush(&window, socket)
                // A run that goes on tells of all that it left.
                if let target, result.left == 0 {
                    try keep(RestorePlace(offset: next, digest: digest.value, target: target))
                }
                shown.show(rows: result.rows, bytes: next, of: total)
            }
        }
        guard isPast else { throw foreign(place) }
        try flush(&window, socket)
        progress = shown
        guard isWhole else {
            throw ControlError(
                .data,
                "\(path): cut or damaged behind byte \(result.bytes), after \(result.rows + result.expired) rows, "
                    + "which are restored; an interrupted dump goes on with dump --resume")
        }
        removeFile(placePath)
        guard result.left == 0 else {
            throw ControlError(
                .unavailable,
                "\(host):\(port): \(result.rows) rows are restored, and \(result.left) are not: their keys have spaces "
                    + "or control characters and more than 186 bytes, which only the binary protocol can say, and a "
                    + "server with a login (-Y) does not speak that. Restore through a server without one")
        }
        return result
    }

    /// Commands that are not sent yet.
    private struct Window {
        var bytes: [UInt8] = []
        var rows = 0

        /// A quiet meta set: only what goes wrong is answered. False when no line can hold the key: it has bytes that
        /// need base64, and is longer than a key's 250 bytes then.
        mutating func add(_ key: [UInt8], _ row: StoredRow) -> Bool {
            let isPlain = key.allSatisfy { $0 > 32 && $0 != 127 }
            let sent = isPlain ? key : Array(Base64.encoded(key).utf8)
            guard sent.count <= 250 else { return false }
            let flags = "\(isPlain ? "" : "b ")q F\(row.clientFlags) T\(row.expirySecond)"
            bytes += Array("ms ".utf8) + sent + Array(" \(row.value.count) \(flags)\r\n".utf8)
            bytes += row.value
            bytes += [13, 10]
            rows += 1
            return true
        }
    }

    /// Sends what is collected, and waits until the node has done all of it.
    private func flush(_ window: inout Window, _ socket: CacheConnection) throws(ControlError) {
        guard window.rows > 0 else { return }
        let answer = try exchange(window.bytes + Array("mn\r\n".utf8), socket)
        if answer.count > 4 {
            let line = String(decoding: answer.prefix { $0 != 13 }, as: UTF8.self)
            throw ControlError(.unavailable, "\(host):\(port) refused a row: \(line)")
        }
        window = Window()
    }

    /// Sends commands that end with `mn`, and returns what is answered up to its `MN`.
    private func exchange(_ commands: [UInt8], _ socket: CacheConnection) throws(ControlError) -> [UInt8] {
        try socket.write(commands)
        var answer: [UInt8] = []
        while !answer.ends(with: Array("MN\r\n".utf8)) { answer += try socket.read(limit: 64 << 10) }
        return answer
    }

    // MARK: The place

    private func keptPlace() throws(ControlError) -> RestorePlace? {
        guard fileLength(placePath) != nil else { return nil }
        let text = try system { () throws(SystemError) in try readFile(placePath, limitBytes: 1024) }
        guard let place = RestorePlace(text: String(decoding: text, as: UTF8.self)) else {
            throw ControlError(
                .data, "\(placePath) holds no place of a restore; without --resume everything is written")
        }
        return place
    }

    private func keep(_ place: RestorePlace) throws(ControlError) {
        try system { () throws(SystemError) in try writeFile(placePath, Array(place.text.utf8), mode: 0o600) }
    }

    private func foreign(_ place: RestorePlace?) -> ControlError {
        ControlError(
            .data,
            "\(path) is not the dump whose first \(place?.offset ?? 0) bytes were restored, by \(placePath): other "
                + "rows stand there. Without --resume everything is written")
    }

    /// What the server is, by its own words; nil where it has none.
    private func target(_ socket: CacheConnection) throws(ControlError) -> RestoreTarget? {
        var statistics: [String: String] = [:]
        for command in ["stats\r\nmn\r\n", "stats storage\r\nmn\r\n"] {
            let answer = String(decoding: try exchange(Array(command.utf8), socket), as: UTF8.self)
            for line in answer.split(whereSeparator: \.isNewline) {
                let words = line.split(separator: " ", maxSplits: 2)
                if words.count == 3, words[0] == "STAT" { statistics[String(words[1])] = String(words[2]) }
            }
        }
        return RestoreTarget(statistics: statistics, address: "\(host):\(port)")
    }
}

extension StoredRow {
    /// When it expires as a client says it, in seconds of Unix time; 0 is never. The protocol's numbers end in 2038:
    /// what another program had expire later does so then.
    fileprivate var expirySecond: Int64 {
        expiryMilliseconds == 0 ? 0 : min(max(1, expiryMilliseconds / 1000), Int64(Int32.max))
    }
}

/// Sets by the binary protocol, over a connection of their own, one at a time: for keys that no line of text can hold.
/// A server with a login does not speak it. Source: memcached's protocol.txt, "Authentication".
private final class BinarySets {
    private let socket: CacheConnection

    init(host: String, port: UInt16, _ access: CacheAccess) throws(ControlError) {
        socket = try access.unasked(host: host, port: port, timeoutSeconds: 30)
    }

    /// Source: memcached's protocol_binary.h, `set`.
    func set(_ key: [UInt8], _ row: StoredRow) throws(ControlError) {
        func big<T: FixedWidthInteger>(_ number: T) -> [UInt8] {
            (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> T(T.bitWidth - 8 - $0 * 8)) }
        }
        let expiry = UInt32(row.expirySecond)
        var request: [UInt8] = [0x80, 0x01] + big(UInt16(key.count)) + [8, 0, 0, 0]
        request += big(UInt32(8 + key.count + row.value.count)) + [UInt8](repeating: 0, count: 12)
        request += big(row.clientFlags) + big(expiry) + key + row.value
        try socket.write(request)
        var answer: [UInt8] = []
        var length = 24
        while answer.count < length {
            answer += try socket.read(limit: length - answer.count)
            if answer.count == 24 { length += answer[8..<12].reduce(0) { $0 << 8 | Int($1) } }
        }
        guard answer[0] == 0x81, answer[6] == 0, answer[7] == 0 else {
            let reason = String(decoding: answer.dropFirst(24), as: UTF8.self)
            throw ControlError(.unavailable, "\(socket.subject) refused a row: \(reason)")
        }
    }
}

extension [UInt8] {
    fileprivate func ends(with ending: [UInt8]) -> Bool { suffix(ending.count).elementsEqual(ending) }
}
