// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Hosting
internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor

/// Cuts input into batches of requests and executes them.
///
/// A batch is parsed whole first, its keys hashed and the index lines prefetched, then the items, then it is executed:
/// the cache misses of 64 requests overlap instead of adding up.
struct BatchRunner: ~Copyable {
    /// Requests of a batch.
    static var batchLimit: Int { 64 }
    /// Reply bytes after which a connection lets the others go on, between batches.
    static var outputHighWater: Int { 256 << 10 }
    /// Requests after which a connection lets the others go on: 50 for each of `-R`. memcached's default of 20 means 20
    /// system calls' worth of work; here a batch of 64 costs about as much as one of those.
    private let turnLimit: Int

    var executor: RequestExecutor
    private let requests = FixedArray<Request>(count: batchLimit) { _ in Request() }
    private var decodedKeys = OutputBuffer(capacity: 4096)

    init(_ node: Node, _ reactor: Reactor) {
        executor = RequestExecutor(node, reactor)
        turnLimit = max(Self.batchLimit, min(node.configuration.requestsPerTurn, 1_000_000) * 50)
    }

    /// What is to happen after a batch.
    enum Step {
        /// There may be another whole request in the input.
        case goOn
        /// The turn of the connection is over.
        case stop
        /// A large value follows that goes straight into its place.
        case receive(PendingValue)
    }

    /// Parses and executes one batch from `offset` on.
    @inline(__always)
    mutating func run(
        _ connection: inout Connection, _ parser: inout RequestParser, _ input: Span<UInt8>, at offset: inout Int,
        _ output: inout OutputBuffer, _ done: inout Int
    ) -> Step {
        var count = 0
        var stop = ParseOutcome.complete
        if decodedKeys.count > 0 { decodedKeys.removeAll() }
        let isCareful = executor.shedder.isCareful
        if isCareful, executor.shedder.refusedLast, executor.refusesLines {
            done &+= refuseReads(parser, input, at: &offset, &output)
            if offset == input.count { return .stop }
            if output.totalCount >= Self.outputHighWater || done >= turnLimit {
                connection.yield()
                return .stop
            }
        }
        let limit = isCareful ? executor.shedder.batchLimit : Self.batchLimit
        while count < limit {
            let outcome = Self.parse(&parser, input, at: &offset, into: requests, count, &decodedKeys)
            if outcome == .complete {
                count &+= 1
                // What may end or hold the connection is the last of its batch.
                if requests[count &- 1].verb.rawValue >= Verb.flushAll.rawValue { break }
                continue
            }
            stop = outcome
            break
        }
        var runnable = count
        if case .swallow = stop { runnable &+= 1 }
        // What is refused is not looked up.
        if count > 1, !(isCareful && executor.shedder.refusedLast) { prefetch(count, input) }
        let isRestricted = executor.isRestricted
        let traces = executor.traces
        for index in 0..<runnable {
            if traces { executor.beginSpan(requests[index], input, output) }
            if isRestricted, !allows(index, input, &output) {
                if traces { endSpan(index, input, output) }
                continue
            }
            if isCareful {
                executeCarefully(index, &connection, input, &output)
            } else {
                execute(index, &connection, input, &output)
            }
            if traces { endSpan(index, input, output) }
            if connection.isClosing || connection.isPaused { return .stop }
        }
        done &+= count
        if stop != .complete { return finish(stop, count, &connection, input, at: &offset, &output) }
        guard offset < input.count else { return .stop }
        if output.totalCount >= Self.outputHighWater || done >= turnLimit || (isCareful && executor.shedder.visitIsOver)
        {
            connection.yield()
            return .stop
        }
        return .goOn
    }

    @inline(__always)
    private static func parse(
        _ parser: inout RequestParser, _ input: Span<UInt8>, at offset: inout Int,
        into requests: borrowing FixedArray<Request>, _ index: Int, _ decodedKeys: inout OutputBuffer
    ) -> ParseOutcome {
        parser.next(input, at: &offset, into: &requests[index], decodedKeys: &decodedKeys)
    }

    /// Hashes the keys and brings index lines and items into the processor's caches.
    @inline(__always)
    private mutating func prefetch(_ count: Int, _ input: Span<UInt8>) {
        for index in 0..<count where requests[index].keyLength > 0 {
            let request = requests[index]
            let range = request.keyOffset..<request.keyOffset &+ request.keyLength
            let hash: UInt64
            if request.keyIsDecoded {
                hash = decodedKeys.withSpan { stableHash($0.extracting(range), seed: executor.engine.hashSeed) }
            } else {
                hash = stableHash(input.extracting(range), seed: executor.engine.hashSeed)
            }
            requests[index].hash = hash
            executor.engine.prefetchIndex(hash)
        }
        // A bit for each request whose item may be in an overflow line.
        var deeper: UInt64 = 0
        for index in 0..<count where requests[index].keyLength > 0 {
            if executor.engine.prefetchItem(requests[index].hash) { deeper |= 1 << UInt64(index) }
        }
        while deeper != 0 {
            executor.engine.prefetchOverflowItem(requests[deeper.trailingZeroBitCount].hash)
            deeper &= deeper &- 1
        }
    }

    @inline(__always)
    private mutating func execute(
        _ index: Int, _ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        let request = requests[index]
        if request.keyIsDecoded {
            Self.executeDecoded(request, decodedKeys, &executor, &connection, input, &output)
        } else {
            let key = input.extracting(request.keyOffset..<request.keyOffset &+ request.keyLength)
            executor.execute(request, key: key, input, &connection, &output)
        }
        if request.closesAfterReply { connection.closeAfterFlush() }
    }

    /// Ends a request's span.
    @inline(never)
    private mutating func endSpan(_ index: Int, _ input: Span<UInt8>, _ output: borrowing OutputBuffer) {
        let request = requests[index]
        if request.keyIsDecoded { return Self.endDecodedSpan(request, decodedKeys, &executor, output) }
        let key = input.extracting(request.keyOffset..<request.keyOffset &+ request.keyLength)
        executor.endSpan(request, key: key, output)
    }

    private static func endDecodedSpan(
        _ request: Request, _ keys: borrowing OutputBuffer, _ executor: inout RequestExecutor,
        _ output: borrowing OutputBuffer
    ) {
        let key = keys.span.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
        executor.endSpan(request, key: key, output)
    }

    /// Whether the tenant may have a request; answers it where not.
    @inline(never)
    private mutating func allows(_ index: Int, _ input: Span<UInt8>, _ output: inout OutputBuffer) -> Bool {
        let request = requests[index]
        if request.keyIsDecoded { return Self.allowsDecoded(request, decodedKeys, &executor, input, &output) }
        let key = input.extracting(request.keyOffset..<request.keyOffset &+ request.keyLength)
        return executor.allows(request, key: key, input, &output)
    }

    private static func allowsDecoded(
        _ request: Request, _ keys: borrowing OutputBuffer, _ executor: inout RequestExecutor, _ input: Span<UInt8>,
        _ output: inout OutputBuffer
    ) -> Bool {
        let key = keys.span.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
        return executor.allows(request, key: key, input, &output)
    }

    /// Refuses the plain reads that come next, up to the first that is served or the first of anything else; gives how
    /// many. Requests that nobody looks at are not taken apart.
    @inline(never)
    private mutating func refuseReads(
        _ parser: RequestParser, _ input: Span<UInt8>, at offset: inout Int, _ output: inout OutputBuffer
    ) -> Int {
        let isOutright = executor.shedder.refusesAllReads
        var count = 0
        var next = offset
        while output.totalCount < Self.outputHighWater, parser.skipPlainGet(input, at: &next) {
            if !isOutright, executor.shedder.admitsReadAhead() { break }
            executor.appendBusy(nil, &output)
            offset = next
            count &+= 1
        }
        if isOutright { executor.shedder.refusedReads(count) }
        return count
    }

    /// Executes a request that the node may not have the time for.
    @inline(never)
    private mutating func executeCarefully(
        _ index: Int, _ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        // Most of what is refused: as a whole, a request is more to move than to refuse.
        if requests[index].verb == .get, requests[index].form == .classic, requests[index].isLastKeyOfGet,
            requests[index].error.isNone, !executor.defers, executor.shedder.judgesPlainly
        {
            guard executor.shedder.admitsRead() else { return executor.appendBusy(nil, &output) }
            execute(index, &connection, input, &output)
            return executor.shedder.executed(.get)
        }
        let request = requests[index]
        if executor.skips(request) { return }
        let range = request.keyOffset..<request.keyOffset &+ request.keyLength
        if request.keyIsDecoded {
            guard Self.admitDecoded(request, decodedKeys, &executor, input, &output) else { return }
        } else if !executor.shedder.admits(request, key: input.extracting(range), input) {
            executor.returnQuota(request)
            return executor.refuseBusy(request, key: input.extracting(range), input, &output)
        }
        execute(index, &connection, input, &output)
        executor.shedder.executed(request.verb)
    }

    private static func admitDecoded(
        _ request: Request, _ keys: borrowing OutputBuffer, _ executor: inout RequestExecutor, _ input: Span<UInt8>,
        _ output: inout OutputBuffer
    ) -> Bool {
        let key = keys.span.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
        if executor.shedder.admits(request, key: key, input) { return true }
        executor.returnQuota(request)
        executor.refuseBusy(request, key: key, input, &output)
        return false
    }

    /// Executes a request whose key came in base64.
    @inline(never)
    private static func executeDecoded(
        _ request: Request, _ keys: borrowing OutputBuffer, _ executor: inout RequestExecutor,
        _ connection: inout Connection, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        // Not in a closure: a context that captures so much is allocated.
        let key = keys.span.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
        executor.execute(request, key: key, input, &connection, &output)
    }

    /// Acts on what ended a batch.
    private mutating func finish(
        _ outcome: ParseOutcome, _ count: Int, _ connection: inout Connection, _ input: Span<UInt8>,
        at offset: inout Int, _ output: inout OutputBuffer
    ) -> Step {
        switch outcome {
        case .complete: return .goOn
        case .incomplete(let needed):
            if needed > 0 { connection.minimumInput(needed) }
            return .stop
        case .swallow(let length): return swallow(length, &connection, input, at: &offset)
        case .close:
            connection.closeAfterFlush()
            return .stop
        case .valuePending:
            let request = requests[count]
            if request.keyIsDecoded {
                return Self.beginDecodedValue(request, decodedKeys, &executor, &connection, input, at: &offset, &output)
            }
            let key = input.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
            return Self.beginValue(request, key: key, &executor, &connection, input, at: &offset, &output)
        }
    }

    private func swallow(
        _ length: Int, _ connection: inout Connection, _ input: Span<UInt8>, at offset: inout Int
    ) -> Step {
        let here = min(length, input.count - offset)
        offset += here
        if here < length { connection.swallow(length - here) }
        return offset < input.count ? .goOn : .stop
    }

    private static func beginDecodedValue(
        _ request: Request, _ keys: borrowing OutputBuffer, _ executor: inout RequestExecutor,
        _ connection: inout Connection, _ input: Span<UInt8>, at offset: inout Int, _ output: inout OutputBuffer
    ) -> Step {
        keys.withSpan { span in
            let key = span.extracting(request.keyOffset..<request.keyOffset + request.keyLength)
            return beginValue(request, key: key, &executor, &connection, input, at: &offset, &output)
        }
    }

    /// Decides how the data block of a store comes in: by waiting for the rest, straight into an item, or not at all.
    private static func beginValue(
        _ request: Request, key: Span<UInt8>, _ executor: inout RequestExecutor, _ connection: inout Connection,
        _ input: Span<UInt8>, at offset: inout Int, _ output: inout OutputBuffer
    ) -> Step {
        let expected = request.valueLength + (request.form == .binary ? 0 : 2)
        let isAllowed = executor.allows(request, key: key, input, isWhole: false, &output)
        let admission =
            isAllowed
            ? executor.admitValue(request, key: key, input, waitsUpTo: RequestExecutor.waitLimit, &output) : .refuse
        switch admission {
        case .wait:
            connection.minimumInput(offset - request.lineOffset + expected)
            offset = request.lineOffset
            return .stop
        case .refuse:
            let here = min(expected, input.count - offset)
            offset += here
            if here < expected { connection.swallow(expected - here) }
            return offset < input.count ? .goOn : .stop
        case .fill(let target):
            executor.noteAllowed(request, key: key)
            let opaque = input.extracting(request.opaqueOffset..<request.opaqueOffset + request.opaqueLength)
            let pending = PendingValue(
                request: request, target: target, key: [UInt8](copying: key), opaque: [UInt8](copying: opaque))
            if executor.traces {
                executor.beginSpan(request, input, output)
                pending.span = executor.takeSpan()
            }
            return .receive(pending)
        }
    }

    /// Executes the requests of one datagram.
    mutating func runDatagram(_ tag: UInt64, _ input: Span<UInt8>, _ output: inout OutputBuffer) {
        var parser = RequestParser(parserConfiguration(listenerTag: tag))
        var offset = 0
        decodedKeys.removeAll()
        while offset < input.count {
            let outcome = Self.parse(&parser, input, at: &offset, into: requests, 0, &decodedKeys)
            switch outcome {
            case .complete, .swallow:
                Self.executeDatagram(requests[0], decodedKeys, &executor, input, &output)
                if case .swallow(let count) = outcome { offset = min(offset + count, input.count) }
                if requests[0].closesAfterReply { return }
            case .incomplete, .valuePending, .close: return
            }
        }
    }

    private static func executeDatagram(
        _ request: Request, _ keys: borrowing OutputBuffer, _ executor: inout RequestExecutor, _ input: Span<UInt8>,
        _ output: inout OutputBuffer
    ) {
        let range = request.keyOffset..<request.keyOffset + request.keyLength
        if request.keyIsDecoded {
            keys.withSpan { executor.executeDatagram(request, key: $0.extracting(range), input, &output) }
        } else {
            executor.executeDatagram(request, key: input.extracting(range), input, &output)
        }
    }
}
