// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
internal import Platform
internal import Storage

/// `martletctl dump`: the rows of a node's store, in the order of their keys, into a file; goes on where an earlier run
/// stopped.
struct DumpCommand {
    let client: HTTPClient
    let path: String
    let prefix: [UInt8]

    /// Rows and bytes in the file. Damaged places of the store are left out and listed beside it; the error that says
    /// so comes when all else is done.
    func run(resumes: Bool, progress: inout Progress) throws(ControlError) -> (rows: Int, bytes: Int) {
        guard prefix.count <= 250 else { throw ControlError(.usage, "--prefix: keys have 250 bytes at most") }
        var kept = DumpFile.Place()
        if let length = fileLength(path), length > 0 {
            guard resumes else {
                throw ControlError(.usage, "\(path) exists; --resume goes on with it, or name another --output")
            }
            kept = try DumpFile.end(of: path)
            guard kept.prefix == prefix else {
                throw ControlError(
                    .usage,
                    "\(path) has the keys with --prefix '\(String(decoding: kept.prefix, as: UTF8.self))', "
                        + "and cannot go on with '\(String(decoding: prefix, as: UTF8.self))'")
            }
            // A whole one goes on behind its last row: keys may have come since.
        }
        // Asked before the file is made: a node that says no leaves nothing behind.
        var page = try page(after: kept.key)
        let offset = kept.offset
        var damage = try DamageList(of: path, before: kept.rows)
        let file = try system { () throws(SystemError) in try OpenFile(appending: path, keeping: offset) }
        if kept.offset == 0 {
            let header = DumpRecord.header(prefix: prefix)
            try append(header, to: file)
            kept.offset = header.count
        }
        while !page.isEmpty {
            // The page says where the next one begins, by its last key; a page that is not whole is not written.
            try append(try take(page, &kept, &damage), to: file)
            progress.show(rows: kept.rows, bytes: kept.offset)
            page = try self.page(after: kept.key)
        }
        var end: [UInt8] = []
        DumpRecord.appendEnd(rows: kept.rows, to: &end)
        try append(end, to: file)
        kept.offset += end.count
        do throws(SystemError) { try file.sync() } catch { throw ControlError(.system, error.description) }
        try damage.write()
        if damage.count > 0 {
            throw ControlError(
                .damaged, "\(kept.rows) rows are in \(path), \(kept.offset) bytes; the store has \(damage.summary)")
        }
        return (kept.rows, kept.offset)
    }

    /// What of a page goes into the file; its damaged places go into the list, before the rows behind them do.
    private func take(
        _ page: [UInt8], _ kept: inout DumpFile.Place, _ damage: inout DamageList
    ) throws(ControlError) -> [UInt8] {
        var rows: [UInt8] = []
        var (position, hasDamage) = (0, false)
        while position < page.count {
            switch DumpRecord.read(page.span, at: position) {
            case .row(let key, _, let next):
                rows += page[position..<next]
                kept.rows += 1
                kept.offset += next - position
                kept.key = key
                position = next
            case .damage(let place, let next) where place.isOnlyPlace:
                kept.key = place.key
                position = next
            case .damage(let place, let next):
                damage.note(place, rows: kept.rows, bytes: kept.offset, lastKey: kept.key)
                hasDamage = true
                kept.key = place.key
                position = next
            case .end, .incomplete, .damaged:
                throw ControlError(.data, "the node's answer is damaged at byte \(position)")
            }
        }
        if hasDamage { try damage.write() }
        return rows
    }

    private func page(after key: [UInt8]) throws(ControlError) -> [UInt8] {
        let query = "prefix=\(Hexadecimal.digits(prefix))&after=\(Hexadecimal.digits(key))&limit=5000"
        return try client.send("GET", "/storage/rows?\(query)").body
    }

    private func append(_ bytes: [UInt8], to file: borrowing OpenFile) throws(ControlError) {
        do throws(SystemError) { try file.append(bytes) } catch { throw ControlError(.system, error.description) }
    }
}
