// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform
internal import Synchronization

/// A cap on the requests that all threads of a script make in a second, k6's option `rps`: each request takes the next
/// place in an even row of them. A second without requests gives no more to the next one.
final class RequestCap: Sendable {
    private let next = Atomic<UInt64>(0)
    /// Between two requests.
    private let intervalNanoseconds: UInt64

    /// At most `rate` requests a second, of which this part of the test makes its share.
    init(rate: Int, _ segment: ExecutionSegment) {
        intervalNanoseconds = UInt64(1e9 * Double(segment.count) / Double(max(1, rate)))
    }

    /// When a request that is wanted at `now` may go: now, or later.
    func reserve(_ now: UInt64) -> UInt64 {
        var known = next.load(ordering: .relaxed)
        while true {
            let place = max(known, now)
            let (isTaken, found) = next.compareExchange(
                expected: known, desired: place + intervalNanoseconds, ordering: .relaxed)
            if isTaken { return place }
            known = found
        }
    }
}

/// A request that waits for its place under the cap, with what is sent of it.
struct PacedRequest {
    var request: ScriptRequest
    var client: Int
    var server: Int
    var bytes: [UInt8]
}

extension ScriptWorker {
    /// Whether a request that was written from `start` on must wait: it is taken out again then. Its clock runs from
    /// when it may go, as k6's does.
    func pace(_ request: ScriptRequest, _ connection: ScriptConnection, from start: Int) -> Bool {
        guard let cap = setup.requestCap else { return false }
        let due = cap.reserve(request.made)
        guard due > request.made else { return false }
        var later = request
        later.intended += due - request.made
        later.made = due
        let bytes = connection.takeBack(from: start)
        paced.append(PacedRequest(request: later, client: connection.client, server: connection.server, bytes: bytes))
        return true
    }

    /// Lets those go whose time has come. Returns when the next one's does.
    func releasePaced() -> UInt64 {
        guard !paced.isEmpty else { return .max }
        let now = Clock.monotonicNanoseconds()
        var count = 0
        for one in paced {
            guard one.request.made <= now else { break }
            put(one)
            count += 1
        }
        if count > 0 { paced.removeFirst(count) }
        return paced.first?.request.made ?? .max
    }
}
