// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Storage
internal import Synchronization
internal import Telemetry

/// Whose keys are served here: docs/contract.md, 3.
extension RequestExecutor {
    /// Whether a request may be executed, as far as a stream and the ring say: copies that may not be shown are
    /// forgotten before. False where the request was answered, or will be.
    @inline(never)
    mutating func passesGuards(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) -> Bool {
        var isMarked = false
        if request.form == .meta, request.options.contains(.proxyToken),
            let region = RegionMark.region(of: request, in: input)
        {
            guard passesRegion(request, key: key, input, region, output) else { return false }
            isMarked = true
        }
        if follows, namesVersion(request) {
            refuseVersion(request, &output)
            return false
        }
        if let ownership, key.count > 0, request.verb.rawValue < Verb.flushAll.rawValue, request.error.isNone,
            storagePool(key) != nil
        {
            let verdict = turn.view.verdict(of: key)
            guard verdict == .own else {
                leave(request, key: key, input, to: verdict, ownership, output)
                return false
            }
            if turn.withholds, turn.isLapsed || !turn.view.isClean(key) {
                ownership.counts.add(.withheld)
                withhold(request, key)
            } else if isMarked {
                confirm(request, key: key, input)
            }
        }
        return !follows || passesStream(request, key: key, input, isMarked: isMarked, &output)
    }

    /// Values up to this many bytes are passed on to other nodes.
    static var forwardLimit: Int { 32 << 20 }

    /// Whether requests for a key are passed on to another node.
    func passesOn(_ key: Span<UInt8>) -> Bool {
        guard let ownership, ownership.forwards, !knowsOwners, storagePool(key) != nil else { return false }
        if case .foreign = turn.view.verdict(of: key) { return true }
        return false
    }

    /// Has another node answer a request, or says which one would.
    private mutating func leave(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, to verdict: KeyVerdict,
        _ ownership: NodeOwnership, _ output: borrowing OutputBuffer
    ) {
        let opaque = input.extracting(request.opaqueOffset..<request.opaqueOffset &+ request.opaqueLength)
        var owner: String?
        if case .foreign(let place) = verdict { owner = turn.view.members[place].address }
        if let owner, ownership.forwards, !knowsOwners, request.valueLength <= Self.forwardLimit {
            ownership.counts.add(.forwarded)
            return forward(request, key: key, input, opaque: opaque, to: owner, output)
        }
        ownership.counts.add(.moved)
        parkFailed(request, key: key, opaque: opaque, .moved(epoch: turn.view.epoch, owner: owner), output)
    }

    /// Whether a request that a replica region passed on has come to the home region; refuses it elsewhere. Where other
    /// nodes write to the same store, and no ring says whose a key is, its reads are storage's to answer: that region
    /// may have had a newer change's record already, and would not hear of it again.
    private mutating func passesRegion(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ region: Span<UInt8>,
        _ output: borrowing OutputBuffer
    ) -> Bool {
        guard isServed(region) else {
            refuseRegion(request, key: key, input, output)
            return false
        }
        if ownership == nil, follows, request.verb == .metaGet {
            stream?.counts.add(.confirmed)
            withhold(request, key)
        }
        return true
    }

    /// Has storage answer what a replica region's node reads, unless all that it was told of the key has acted on the
    /// copies here. What the nodes themselves write, the copy of the key's owner shows; what other programs do, it
    /// hears of by the stream as others do, and perhaps later.
    private func confirm(_ request: Request, key: Span<UInt8>, _ input: Span<UInt8>) {
        guard let stream, request.verb == .metaGet, !request.options.contains(.setTTL) else { return }
        if let place = RegionPlace(of: request, in: input), stream.hasDone(place, of: key) { return }
        stream.counts.add(.confirmed)
        withhold(request, key)
    }

    /// Whether requests with the mark of this region are this node's to answer.
    private func isServed(_ region: Span<UInt8>) -> Bool {
        node.isHome.load(ordering: .acquiring) && region.equals(node.configuration.regions.own)
    }

    private mutating func refuseRegion(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: borrowing OutputBuffer
    ) {
        let reason = "this node is of the region \(node.configuration.regions.own), and does not answer for another"
        let opaque = input.extracting(request.opaqueOffset..<request.opaqueOffset &+ request.opaqueLength)
        parkFailed(request, key: key, opaque: opaque, StorageFailure(.refused, reason), output)
    }

    /// Forgets a copy that may be older than storage, and has nobody join a read that may be. What is cached from now
    /// on is forgotten at the next request again, until it may be shown.
    private func withhold(_ request: Request, _ key: Span<UInt8>) {
        guard let storage, key.count > 0, storage.pools.pool(of: key) != nil else { return }
        storage.tier.noteInvalidation(key: [UInt8](copying: key), hash: hash(request, key))
    }

    /// `config get owners`: tells the epoch; from now on the connection is told where keys are that are others'.
    mutating func tellOwners(_ request: Request, _ output: inout OutputBuffer) {
        guard ownership != nil else { return refuse(.error, request, &output) }
        knowsOwners = true
        output.append("OWNERS ")
        output.append(decimal: turn.view.epoch)
        output.append("\r\n")
    }
}

extension Span<UInt8> {
    /// Whether these are a text's bytes. Allocates nothing.
    fileprivate func equals(_ text: String) -> Bool {
        let bytes = text.utf8.span
        guard bytes.count == count else { return false }
        for index in indices where self[index] != bytes[index] { return false }
        return true
    }
}
