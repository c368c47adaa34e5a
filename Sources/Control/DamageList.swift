// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage

/// What a dump had to leave out, in a file beside it: a line for each damaged place, for people and for the run that
/// goes on with the dump. There is no such file where nothing is damaged.
///
/// Tabs part a line: how many rows of the dump come before the place, at which byte of the dump they end, `row` or
/// `rows`, the hash of the row's key (of several rows, whose keys cannot be read, of the key before them), the reason.
struct DamageList {
    let path: String
    private var lines: [String] = []

    /// The list of a dump, as far as it goes before row `rows`; what lies behind is met again.
    init(of dump: String, before rows: Int) throws(ControlError) {
        path = dump + ".damaged"
        guard rows > 0, fileLength(path) != nil else { return }
        let path = self.path
        let text = try system { () throws(SystemError) in try readFile(path, limitBytes: 64 << 20) }
        lines = String(decoding: text, as: UTF8.self).split(separator: "\n").map(String.init)
            .filter { line in line.split(separator: "\t").first.flatMap { Int($0) }.map { $0 < rows } ?? false }
    }

    /// Places so far.
    var count: Int { lines.count }

    /// Notes a place behind `rows` rows and `bytes` bytes of the dump; `lastKey` is the key before it.
    mutating func note(_ damage: ScanDamage, rows: Int, bytes: Int, lastKey: [UInt8]) {
        let key = damage.isOneRow ? damage.key : lastKey
        // As in logs.
        let hash = key.isEmpty ? "-" : Hexadecimal.digits(stableHash(key.span))
        let reason = String(damage.reason.map { $0 == "\t" || $0.isNewline ? " " : $0 })
        lines.append("\(rows)\t\(bytes)\t\(damage.isOneRow ? "row" : "rows")\t\(hash)\t\(reason)")
    }

    /// Puts the list in its file, or removes the file where there is nothing.
    func write() throws(ControlError) {
        if lines.isEmpty { return removeFile(path) }
        let bytes = Array(lines.map { $0 + "\n" }.joined().utf8)
        try system { () throws(SystemError) in try writeFile(path, bytes, mode: 0o600) }
    }

    /// What is said of it in the end.
    var summary: String {
        let shown = lines.prefix(3).map { line in
            let words = line.split(separator: "\t", maxSplits: 4).map(String.init)
            guard words.count == 5 else { return line }
            let what = words[2] == "row" ? "the row with key hash \(words[3])" : "rows after key hash \(words[3])"
            return "\(what), behind row \(words[0]): \(words[4])"
        }
        let more = lines.count > shown.count ? [", and \(lines.count - shown.count) more"] : [String]()
        let places = lines.count == 1 ? "1 damaged place" : "\(lines.count) damaged places"
        return "\(places), left out and listed in \(path): " + shown.joined(separator: "; ") + more.joined()
    }
}
