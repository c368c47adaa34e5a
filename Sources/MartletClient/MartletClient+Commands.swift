// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol

/// The operations. Keys have 1 to 250 bytes without spaces and control characters. A time to live is rounded up to
/// whole seconds; nil is for ever, zero and less is over at once.
extension MartletClient {
    /// The value of a key; nil on a miss. Tried again when a server fails.
    public func get(_ key: String, options: CallOptions = CallOptions()) async throws(CacheError) -> CacheValue? {
        value(try await perform(CacheRequest(operation: .get, key: key), options))
    }

    /// The value of a key, whose time to live begins anew; nil on a miss.
    public func getAndTouch(
        _ key: String, ttl: Duration?, options: CallOptions = CallOptions()
    ) async throws(CacheError) -> CacheValue? {
        var request = CacheRequest(operation: .getAndTouch, key: key)
        request.expiry = CacheRequest.expiry(ttl)
        return value(try await perform(request, options))
    }

    private func value(_ reply: CacheReply) -> CacheValue? {
        guard reply.kind == .value else {
            shared.count(.misses)
            return nil
        }
        shared.count(.hits)
        return CacheValue(bytes: reply.bytes, flags: reply.flags, cas: reply.cas, isStale: reply.isStale)
    }

    /// The values of many keys, asked for at once. A server that fails leaves its keys out and the others alone. Keys
    /// that are given twice are asked for once.
    public func get(_ keys: [String], options: CallOptions = CallOptions()) async -> MultiGetResult {
        await withTaskGroup(of: (String, Result<CacheValue?, CacheError>).self) { group in
            for key in Set(keys) {
                group.addTask {
                    do throws(CacheError) {
                        return (key, .success(try await self.get(key, options: options)))
                    } catch {
                        return (key, .failure(error))
                    }
                }
            }
            var result = MultiGetResult()
            for await (key, outcome) in group {
                switch outcome {
                case .success(let value): result.values[key] = value
                case .failure(let error): result.failures[key] = error
                }
            }
            return result
        }
    }

    /// Whether there is a value under a key.
    public func exists(_ key: String, options: CallOptions = CallOptions()) async throws(CacheError) -> Bool {
        try await perform(CacheRequest(operation: .exists, key: key), options).kind != .missing
    }

    /// Stores a value, whatever was there. `flags` are kept beside it. Not tried again once it may have been executed:
    /// it could undo what somebody stored since.
    public func set(
        _ key: String, _ value: [UInt8], ttl: Duration? = nil, flags: UInt32 = 0,
        options: CallOptions = CallOptions()
    ) async throws(CacheError) {
        let reply = try await store(.set, key, value, ttl, flags, 0, options)
        guard reply.kind == .done else { throw .rejected(server: server(for: key) ?? "", message: "not stored") }
    }

    /// Stores a text in UTF-8; as ``set(_:_:ttl:flags:options:)-(_,[UInt8],_,_,_)``.
    public func set(
        _ key: String, _ value: String, ttl: Duration? = nil, flags: UInt32 = 0,
        options: CallOptions = CallOptions()
    ) async throws(CacheError) {
        try await set(key, Array(value.utf8), ttl: ttl, flags: flags, options: options)
    }

    /// Stores a value where there is none; false when there is one.
    public func add(
        _ key: String, _ value: [UInt8], ttl: Duration? = nil, flags: UInt32 = 0,
        options: CallOptions = CallOptions()
    ) async throws(CacheError) -> Bool {
        try await store(.add, key, value, ttl, flags, 0, options).kind == .done
    }

    /// Stores a value where there is one; false when there is none.
    public func replace(
        _ key: String, _ value: [UInt8], ttl: Duration? = nil, flags: UInt32 = 0,
        options: CallOptions = CallOptions()
    ) async throws(CacheError) -> Bool {
        try await store(.replace, key, value, ttl, flags, 0, options).kind == .done
    }

    /// Puts bytes behind a value that is there; false when there is none.
    public func append(
        _ key: String, _ value: [UInt8], options: CallOptions = CallOptions()
    ) async throws(CacheError) -> Bool {
        try await store(.append, key, value, nil, 0, 0, options).kind == .done
    }

    /// Puts bytes before a value that is there; false when there is none.
    public func prepend(
        _ key: String, _ value: [UInt8], options: CallOptions = CallOptions()
    ) async throws(CacheError) -> Bool {
        try await store(.prepend, key, value, nil, 0, 0, options).kind == .done
    }

    /// Stores a value if what is there is still the version that was read: ``CacheValue/cas``.
    public func compareAndSwap(
        _ key: String, _ value: [UInt8], cas: UInt64, ttl: Duration? = nil, flags: UInt32 = 0,
        options: CallOptions = CallOptions()
    ) async throws(CacheError) -> SwapResult {
        switch try await store(.cas, key, value, ttl, flags, cas, options).kind {
        case .done: .stored
        case .missing, .notStored: .missing
        default: .changed
        }
    }

    /// Sets a key's time to live anew; false when there is no value.
    public func touch(
        _ key: String, ttl: Duration?, options: CallOptions = CallOptions()
    ) async throws(CacheError) -> Bool {
        var request = CacheRequest(operation: .touch, key: key)
        request.expiry = CacheRequest.expiry(ttl)
        return try await perform(request, options).kind == .done
    }

    /// Removes a value; false when there was none. A retry after a lost reply finds none, though the first removed it.
    @discardableResult
    public func delete(_ key: String, options: CallOptions = CallOptions()) async throws(CacheError) -> Bool {
        try await perform(CacheRequest(operation: .delete, key: key), options).kind == .done
    }

    /// Marks a value as stale: ``getOrCompute(_:ttl:lease:options:_:)`` lets one caller renew it, while others take it
    /// as it is for at most `ttl` (nil: as long as it was stored for). False when there is no value. Meta protocol
    /// only.
    @discardableResult
    public func invalidate(
        _ key: String, ttl: Duration? = nil, options: CallOptions = CallOptions()
    ) async throws(CacheError) -> Bool {
        guard configuration.wireProtocol == .meta else { throw .needsMetaProtocol }
        var request = CacheRequest(operation: .invalidate, key: key)
        request.expiry = CacheRequest.expiry(ttl)
        return try await perform(request, options).kind == .done
    }

    /// Adds to a counter, a number in decimal; the new number, nil when there is none. `initial` (meta protocol only)
    /// is what a counter begins with, and lives for `ttl`. Wraps at 2^64. Not tried again once it may have been
    /// executed.
    public func increment(
        _ key: String, by delta: UInt64 = 1, initial: UInt64? = nil, ttl: Duration? = nil,
        options: CallOptions = CallOptions()
    ) async throws(CacheError) -> UInt64? {
        try await count(.increment, key, delta, initial, ttl, options)
    }

    /// Subtracts from a counter, down to 0; otherwise as ``increment(_:by:initial:ttl:options:)``.
    public func decrement(
        _ key: String, by delta: UInt64 = 1, initial: UInt64? = nil, ttl: Duration? = nil,
        options: CallOptions = CallOptions()
    ) async throws(CacheError) -> UInt64? {
        try await count(.decrement, key, delta, initial, ttl, options)
    }

    private func count(
        _ operation: CacheRequest.Operation, _ key: String, _ delta: UInt64, _ initial: UInt64?, _ ttl: Duration?,
        _ options: CallOptions
    ) async throws(CacheError) -> UInt64? {
        guard initial == nil || configuration.wireProtocol == .meta else { throw .needsMetaProtocol }
        var request = CacheRequest(operation: operation, key: key)
        request.number = delta
        request.initial = initial
        request.lease = CacheRequest.expiry(ttl)
        let reply = try await perform(request, options)
        guard reply.kind == .value else { return nil }
        // Classic counters that became shorter are padded with spaces.
        return UInt64(String(decoding: reply.bytes.prefix { $0 != UInt8(ascii: " ") }, as: UTF8.self))
    }

    func store(
        _ verb: StoreVerb, _ key: String, _ value: [UInt8], _ ttl: Duration?, _ flags: UInt32, _ cas: UInt64,
        _ options: CallOptions
    ) async throws(CacheError) -> CacheReply {
        var request = CacheRequest(operation: .store(verb), key: key)
        request.value = value
        request.flags = flags
        request.expiry = CacheRequest.expiry(ttl)
        request.cas = cas
        return try await perform(request, options)
    }
}
