// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Routing
internal import Telemetry

/// Keys that are read so often that one reply of their server is given to several clients.
extension RouterHandler {
    /// Answers a get of one key from memory, if it is hot and somebody read it a moment ago. Otherwise says whether the
    /// reply is to be kept.
    @inline(never)
    func answerHot(
        _ slot: Int, _ request: Request, key: Span<UInt8>, _ output: inout OutputBuffer
    ) -> (isAnswered: Bool, hash: UInt64) {
        let hash = stableHash(key)
        let index = hotCache[0].note(hash, key)
        guard index >= 0 else { return (false, 0) }
        if hotCache[0].isFresh(index, key, router.writes, now: now) {
            meter.counters.add(.hotHits)
            reply(slot, request, &output) { output in
                hotCache[0].append(index, to: &output)
                output.append("END\r\n")
            }
            return (true, 0)
        }
        return (false, hotCache[0].ask(index, key, router.writes) ? hash : 0)
    }

    /// A request that changes a key is sent: what was read before does not count any more, nor what is read until the
    /// reply comes, however late.
    @inline(__always)
    func noteWrite(_ call: Int, _ key: Span<UInt8>) {
        let hash = stableHash(key)
        router.writes.begin(hash)
        calls[call].hash = hash
    }

    /// A call of a hot key or of a write is over, however that went.
    @inline(never)
    func hotDone(_ call: Call) {
        if call.isHotRead {
            hotCache[0].answered(call.hash, Span(), router.writes, now: now)
        } else {
            router.writes.end(call.hash)
        }
    }

    /// The whole reply to a read of a hot key.
    @inline(never)
    func keepHot(_ call: Int, _ reply: Span<UInt8>) {
        hotCache[0].answered(calls[call].hash, reply, router.writes, now: now)
        (calls[call].hash, calls[call].isHotRead) = (0, false)
    }
}
