// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Reactor

/// The replies of one connection from the first that waits for the store on: replies keep the order of their requests.
///
/// Between requests that wait lie bytes that are ready. Exists only while something waits, or while the rest of a get
/// that failed is still to be skipped. Owned by its reactor's thread.
final class ReplyQueue {
    /// Whose replies they are.
    let connection: ConnectionID
    private var entries: [Park] = []
    /// Entries that are done with.
    private var first = 0
    /// Ready bytes, in order; positions of entries count from ``start``.
    private var buffer: OutputBuffer
    /// How many own bytes and external pieces were before the buffer's first, ever.
    private var start = (bytes: 0, externals: 0)
    /// How many of them are sent.
    private var sent = (bytes: 0, externals: 0)
    /// Bytes of values on their way to the store.
    private var valueBytes = 0
    /// Bytes of rows that the store gave and that are not written yet.
    private(set) var rowBytes = 0
    /// A get that failed has said so: what is left of its reply is dropped, also what is yet to come.
    private var isSkipping = false
    /// Whether it waits to be drained in this turn.
    var isDue = false
    /// Whether it stopped the connection's input.
    var pausesInput = false

    /// Waiting replies from which on a connection's input is not read.
    static var entryLimit: Int { 512 }
    /// Bytes from which on it is not read: ready own bytes, or values on their way.
    static var byteLimit: Int { 1 << 20 }
    /// External pieces from which on it is not read: each keeps a large item alive.
    static var externalLimit: Int { 64 }
    /// Output from which on a drain leaves the rest for later.
    static var highWaterBytes: Int { 256 << 10 }

    init(_ connection: ConnectionID) {
        self.connection = connection
        buffer = OutputBuffer(capacity: 512)
    }

    /// Whether nothing waits, nor will be skipped.
    var isOver: Bool { first == entries.count && buffer.count == 0 && buffer.externals.isEmpty && !isSkipping }

    /// Whether no more input should be taken. `entryLimit` is for rows of the size that rows have lately.
    func isFull(entryLimit: Int) -> Bool {
        entries.count - first >= entryLimit || start.bytes + buffer.count - sent.bytes >= Self.byteLimit
            || valueBytes >= Self.byteLimit
            || start.externals + buffer.externals.count - sent.externals >= Self.externalLimit
    }

    /// Whether the reply at the head can go out.
    var isHeadReady: Bool {
        guard first < entries.count else { return true }
        if case .request(let parked) = entries[first].content { return parked.isReady }
        return true
    }

    /// Takes what `output` has from `mark` on, with what is parked in it, and cuts it off there.
    func take(_ output: inout OutputBuffer, from mark: (bytes: Int, externals: Int), _ parks: [Park]) {
        compact()
        let shift = (
            bytes: start.bytes + buffer.count - mark.bytes,
            externals: start.externals + buffer.externals.count - mark.externals
        )
        buffer.append(output, from: mark.bytes, externalStart: mark.externals)
        output.truncate(to: mark.bytes, externalCount: mark.externals)
        for park in parks {
            if case .request(let parked) = park.content {
                valueBytes += parked.valueBytes
                // One that shows a copy has its row already.
                rowBytes += parked.rowBytes
            }
            entries.append(
                Park(
                    content: park.content, position: park.position + shift.bytes,
                    externalCount: park.externalCount + shift.externals))
        }
    }

    /// Appends to `output` what is ready at the head, until that is much. `finish` writes a parked request's reply; it
    /// says false when that is an error which ends the reply of a get of several keys. `release` gets tokens of
    /// external pieces that are dropped.
    func drain(
        into output: inout OutputBuffer, finish: (ParkedRequest, inout OutputBuffer) -> Bool,
        release: (UInt64) -> Void
    ) {
        while first < entries.count {
            guard isHeadReady, output.count < Self.highWaterBytes else { return }
            let entry = entries[first]
            emit(to: (entry.position, entry.externalCount), into: &output, release)
            switch entry.content {
            case .request(let parked):
                valueBytes -= parked.valueBytes
                rowBytes -= parked.rowBytes
                if isSkipping {
                    if parked.request.isLastKeyOfGet { isSkipping = false }
                } else if !finish(parked, &output) {
                    isSkipping = !parked.request.isLastKeyOfGet
                }
                // Its row, which may be large, goes now.
                entries[first] = Park(content: .endOfGet, position: 0, externalCount: 0)
            case .endOfGet: isSkipping = false
            }
            first += 1
        }
        entries.removeAll(keepingCapacity: true)
        first = 0
        emit(to: (start.bytes + buffer.count, start.externals + buffer.externals.count), into: &output, release)
        buffer.removeAll()
        start = (0, 0)
        sent = (0, 0)
    }

    /// Counts an answer's row, which waits here from now on.
    func noteRow(of parked: ParkedRequest) { rowBytes += parked.rowBytes }

    /// Gives up rows, the newest first, until what is left has at most `limit` bytes. Returns how many.
    func giveUpRows(beyond limit: Int) -> Int {
        var count = 0
        for entry in entries[first...].reversed() {
            if rowBytes <= limit { break }
            guard case .request(let parked) = entry.content, parked.rowBytes > 0, parked.showsRow else { continue }
            rowBytes -= parked.rowBytes
            parked.giveUpRow()
            count += 1
        }
        return count
    }

    /// Gives up what waits; `release` gets the tokens of external pieces.
    func drop(release: (UInt64) -> Void) {
        for piece in buffer.externals[(sent.externals - start.externals)...] { release(piece.token) }
        buffer.removeAll()
        entries = []
        first = 0
        rowBytes = 0
    }

    private func emit(
        to end: (bytes: Int, externals: Int), into output: inout OutputBuffer, _ release: (UInt64) -> Void
    ) {
        let pieces = sent.externals - start.externals..<end.externals - start.externals
        if isSkipping {
            for index in pieces { release(buffer.externals[index].token) }
        } else {
            output.append(buffer, own: sent.bytes - start.bytes..<end.bytes - start.bytes, externals: pieces)
        }
        sent = end
    }

    /// Keeps a queue that never quite drains from growing for ever.
    private func compact() {
        if first >= Self.entryLimit / 4 {
            entries.removeFirst(first)
            first = 0
        }
        let done = sent.bytes - start.bytes
        guard done >= 64 << 10, done >= buffer.count / 2 else { return }
        buffer.discardFirst(done, externalCount: sent.externals - start.externals)
        start = sent
    }
}
