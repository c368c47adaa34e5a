// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Platform

/// Values that somebody computes when the cache has none.
extension MartletClient {
    /// The value of a key, from the cache or from `compute`, which runs once however many want it at the same time.
    ///
    /// Within the process, callers of one key share one read and one computation. Between processes the cache's leases
    /// see to it: whoever is told to computes and stores with `ttl`; others take a stale value if there is one
    /// (``invalidate(_:ttl:options:)``, ``LeaseOptions/renewsBefore``), or wait for ``LeaseOptions/patience`` and then
    /// compute for themselves. What was deleted or stored meanwhile is not overwritten. An empty value counts as none.
    ///
    /// A cache that fails is no reason to fail: then `compute` runs, once per process, and nothing is stored. So what
    /// is thrown is what `compute` throws, to everybody who waited for it, or a ``CacheError``:
    /// ``CacheError/cancelled``, ``CacheError/overloaded(server:)``, ``CacheError/invalidKey(_:)``,
    /// ``CacheError/needsMetaProtocol``, ``CacheError/shutDown``, or ``CacheError/deadlineExceeded(server:wasSent:)``
    /// to who waited longer for another task of the process than ``CallOptions/timeout``, if that is given. `compute`
    /// itself is not bounded: it is the caller's.
    public func getOrCompute(
        _ key: String, ttl: Duration?, lease: LeaseOptions = LeaseOptions(), options: CallOptions = CallOptions(),
        _ compute: @Sendable () async throws -> [UInt8]
    ) async throws -> CacheValue {
        guard configuration.wireProtocol == .meta else { throw CacheError.needsMetaProtocol }
        guard CacheRequest.isKey(key) else { throw CacheError.invalidKey(key) }
        let id = shared.makeID()
        let deadline = options.timeout.map { Clock.monotonicNanoseconds() &+ $0.wholeNanoseconds } ?? .max
        let queue = shared.queues[0]
        switch await shared.flights.join(key, id, deadline: deadline, alarm: { queue.put(.alarm($0)) }) {
        case .landed(let result):
            shared.count(.sharedComputations)
            return try result.get()
        case .refused: throw CacheError.overloaded(server: server(for: key) ?? "")
        case .late: throw CacheError.deadlineExceeded(server: server(for: key) ?? "", wasSent: false)
        case .cancelled: throw CacheError.cancelled
        case .lead: return try await lead(key, id, ttl, lease, options, compute)
        }
    }

    /// Gets the value for all who want it, and tells them.
    private func lead(
        _ key: String, _ id: UInt64, _ ttl: Duration?, _ lease: LeaseOptions, _ options: CallOptions,
        _ compute: @Sendable () async throws -> [UInt8]
    ) async throws -> CacheValue {
        do {
            let value = try await obtain(key, ttl, lease, options, compute)
            shared.flights.land(key, id, .success(value))
            return value
        } catch {
            // Cancelling one caller is no answer to the others.
            if Task.isCancelled {
                shared.flights.resign(key, id)
            } else {
                shared.flights.land(key, id, .failure(error))
            }
            throw error
        }
    }

    private func obtain(
        _ key: String, _ ttl: Duration?, _ lease: LeaseOptions, _ options: CallOptions,
        _ compute: @Sendable () async throws -> [UInt8]
    ) async throws -> CacheValue {
        var machine = LeaseStateMachine(
            LeaseStateMachine.Configuration(
                patienceNanoseconds: lease.patience.wholeNanoseconds,
                poll: Backoff(firstNanoseconds: 4_000_000, longestNanoseconds: 100_000_000),
                takesStale: lease.takesStale),
            nowNanoseconds: Clock.monotonicNanoseconds())
        var request = CacheRequest(operation: .lease, key: key)
        request.lease = min(max(lease.duration.roundedUpSeconds, 1), 3_600)
        request.number = UInt64(max(0, lease.renewsBefore?.roundedUpSeconds ?? 0))
        var action = machine.begin()
        var last = CacheReply(kind: .missing)
        while true {
            switch action {
            case .read:
                do throws(CacheError) {
                    last = try await perform(request, options)
                    action = machine.read(
                        last.reading, nowNanoseconds: Clock.monotonicNanoseconds(), random: .random(in: 0...1))
                } catch {
                    if error == .cancelled || error == .shutDown { throw error }
                    action = machine.readFailed()
                }
            case .give:
                shared.count(.hits)
                if last.isStale { shared.count(.staleTaken) }
                return CacheValue(bytes: last.bytes, flags: last.flags, cas: last.cas, isStale: last.isStale)
            case .rest(let nanoseconds):
                shared.count(.leaseRests)
                do { try await Task.sleep(nanoseconds: nanoseconds) } catch { throw CacheError.cancelled }
                action = machine.rested(nowNanoseconds: Clock.monotonicNanoseconds())
            case .compute(let cas):
                shared.count(.misses)
                return try await fill(key, ttl, cas, last, options, compute)
            }
        }
    }

    /// Computes, and stores what came out under the version that was read.
    private func fill(
        _ key: String, _ ttl: Duration?, _ cas: UInt64?, _ last: CacheReply, _ options: CallOptions,
        _ compute: @Sendable () async throws -> [UInt8]
    ) async throws -> CacheValue {
        let bytes: [UInt8]
        do {
            shared.count(.computed)
            bytes = try await compute()
        } catch {
            if let cas, last.hasWon { await giveBack(key, cas, hasValue: !last.bytes.isEmpty) }
            throw error
        }
        if let cas {
            // The caller has its value, whether or not the cache takes it.
            _ = try? await store(.set, key, bytes, ttl, 0, cas, options)
        }
        return CacheValue(bytes: bytes)
    }

    /// Lets the next who asks compute at once: a placeholder is removed, an old value stays and is marked again.
    private func giveBack(_ key: String, _ cas: UInt64, hasValue: Bool) async {
        var request = CacheRequest(operation: hasValue ? .invalidate : .delete, key: key)
        request.cas = cas
        // Also when this task was cancelled, which would end the request at once.
        let work = Task { [request] in _ = try? await self.perform(request, CallOptions(retries: 0)) }
        await work.value
    }
}

extension CacheReply {
    /// What it says of a lease.
    var reading: LeaseStateMachine.Reading {
        LeaseStateMachine.Reading(
            hasValue: kind == .value && !bytes.isEmpty, hasWon: hasWon, isTaken: isTaken, isStale: isStale, cas: cas)
    }
}
