// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import MemcacheProtocol
internal import Memory
internal import Reactor
internal import Synchronization
internal import Telemetry

/// Commands of operators, and those that only answer.
extension RequestExecutor {
    mutating func executeAdministrative(
        _ request: Request, key: Span<UInt8>, _ input: Span<UInt8>, _ output: inout OutputBuffer
    ) {
        let line = input.extracting(request.lineOffset..<request.lineOffset + request.lineLength)
        switch request.verb {
        case .protocolError:
            refuse(request.error, request, &output)
            // It may have ended a get of several keys.
            noteEndOfGet(output)
        case .metaNoop: output.append("MN\r\n")
        case .noop: output.appendBinaryHeader(replyTo: request)
        case .version: version(request, &output)
        case .flushAll: flushAll(request, &output)
        case .verbosity:
            node.verbosity.store(Int(min(request.delta, 2)), ordering: .relaxed)
            answer("OK\r\n", request, &output)
        case .stats where request.form == .binary && ownership != nil && key.holds("owners", length: 6, at: 0):
            knowsOwners = true
            output.appendBinaryHeader(replyTo: request)
        case .stats: statistics(request, key: key, line, &output)
        case .cacheMemlimit: cacheMemlimit(request, line, &output)
        case .slabs: slabs(request, line, &output)
        case .lru: lru(request, line, &output)
        case .extstore, .debugtime: debugTime(request, line, &output)
        case .refreshCerts: refreshCertificates(request, &output)
        case .config: configuration(request, line, &output)
        default: refuse(.error, request, &output)
        }
    }

    private func version(_ request: Request, _ output: inout OutputBuffer) {
        if request.form == .binary {
            output.appendBinaryText(Node.protocolVersion, replyTo: request)
        } else if !request.isQuiet {
            output.append("VERSION ")
            output.append(Node.protocolVersion)
            output.append("\r\n")
        }
    }

    private func flushAll(_ request: Request, _ output: inout OutputBuffer) {
        node.warmUp?.keys.noteFlush()
        if request.form != .binary { counters.commands.add(.cmdFlush) }
        guard node.configuration.allowsFlush else { return refuse(.flushNotAllowed, request, &output) }
        guard request.error.isNone else { return refuse(request.error, request, &output) }
        if request.form == .binary { counters.commands.add(.cmdFlush) }
        node.flush(exptime: request.exptime, now: now)
        if request.isQuiet { return }
        if request.form == .binary { output.appendBinaryHeader(replyTo: request) } else { output.append("OK\r\n") }
    }

    private func cacheMemlimit(_ request: Request, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        guard let megabytes = Tokenizer(line).uint32(1, in: line) else { return refuse(.error, request, &output) }
        if megabytes < 8 {
            answer("MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n", request, &output)
        } else if megabytes > 1_000_000_000 {
            answer("MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n", request, &output)
        } else {
            engine.setLimit(bytes: Int(megabytes) << 20, now: now)
            answer("OK\r\n", request, &output)
        }
    }

    /// `slabs`: there are none; what tunes them is accepted, what moves them finds nothing to move.
    private func slabs(_ request: Request, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        let tokens = Tokenizer(line)
        if tokens.count == 4, tokens.abbreviates(1, "reassign", in: line) {
            guard let source = tokens.int32(2, in: line), let target = tokens.int32(3, in: line) else {
                return refuse(.badCommandLine, request, &output)
            }
            if source == target { return answer("SAME src and dst class are identical\r\n", request, &output) }
            let isKnown = (source == -1 || (1...2).contains(source)) && (1...2).contains(target)
            answer(
                isKnown
                    ? "NOSPARE source class has no spare pages\r\n" : "BADCLASS invalid src or dst class id\r\n",
                request, &output)
        } else if tokens.count >= 3, tokens.abbreviates(1, "automove", in: line) {
            automove(request, tokens, line, &output)
        } else {
            refuse(.error, request, &output)
        }
    }

    private func automove(_ request: Request, _ tokens: Tokenizer, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        if tokens.abbreviates(2, "ratio", in: line) || tokens.abbreviates(2, "freeratio", in: line) {
            guard tokens.count >= 4, tokens.double(3, in: line) != nil else { return refuse(.error, request, &output) }
        } else if tokens.abbreviates(2, "window", in: line) {
            guard let window = tokens.uint32(3, in: line) else { return refuse(.badCommandLine, request, &output) }
            guard (3...1800).contains(window) else {
                return answer("CLIENT_ERROR automove window too low or too high\r\n", request, &output)
            }
        } else {
            guard let level = tokens.uint32(2, in: line) else { return refuse(.badCommandLine, request, &output) }
            guard level <= 2 else { return refuse(.error, request, &output) }
        }
        answer("OK\r\n", request, &output)
    }

    /// `lru`: tunes queues that this cache does not have; checked and accepted.
    private func lru(_ request: Request, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        let tokens = Tokenizer(line)
        if tokens.abbreviates(1, "tune", in: line), tokens.count >= 6 {
            guard let hot = tokens.uint32(2, in: line), let warm = tokens.uint32(3, in: line),
                let hotFactor = tokens.double(4, in: line), let warmFactor = tokens.double(5, in: line)
            else { return refuse(.error, request, &output) }
            if hot &+ warm > 80 {
                answer("ERROR hot and warm pcts must not exceed 80\r\n", request, &output)
            } else if warmFactor <= 0 || hotFactor <= 0 {
                answer("ERROR hot/warm age factors must be greater than 0\r\n", request, &output)
            } else {
                answer("OK\r\n", request, &output)
            }
        } else if tokens.abbreviates(1, "mode", in: line), tokens.count >= 3 {
            let isKnown = tokens.abbreviates(2, "flat", in: line) || tokens.abbreviates(2, "segmented", in: line)
            if isKnown { answer("OK\r\n", request, &output) } else { refuse(.error, request, &output) }
        } else if tokens.abbreviates(1, "temp_ttl", in: line), tokens.count >= 3 {
            if tokens.int32(2, in: line) != nil {
                answer("OK\r\n", request, &output)
            } else {
                refuse(.error, request, &output)
            }
        } else {
            refuse(.error, request, &output)
        }
    }

    /// `debugtime`: moves the clock, where the node was started for tests; `extstore` is not there.
    private func debugTime(_ request: Request, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        let tokens = Tokenizer(line)
        guard request.verb == .debugtime, node.configuration.allowsClockChanges else {
            return refuse(.error, request, &output)
        }
        if tokens.equals(1, "p", in: line) || tokens.equals(1, "r", in: line) {
            node.clock.setPaused(tokens.equals(1, "p", in: line))
        } else if let seconds = tokens.int64(1, in: line) {
            node.clock.advance(by: seconds)
        } else {
            return refuse(.error, request, &output)
        }
        answer("OK\r\n", request, &output)
    }

    private func refreshCertificates(_ request: Request, _ output: inout OutputBuffer) {
        switch node.refreshCertificates() {
        // Said even to noreply, as by memcached.
        case .notConfigured: output.append("Error TLS not enabled\r\n")
        case .done: answer("OK\r\n", request, &output)
        case .failed(let reason):
            output.append("SERVER_ERROR ")
            output.append(string: reason)
            output.append("\r\n")
        }
    }

    mutating func watch(
        _ request: Request, _ input: Span<UInt8>, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        let line = input.extracting(request.lineOffset..<request.lineOffset + request.lineLength)
        guard node.configuration.allowsWatch else { return refuse(.watchNotAllowed, request, &output) }
        guard output.isEmpty, !defers else {
            return answer("ERROR cannot pipeline other commands before watch\r\n", request, &output)
        }
        let tokens = Tokenizer(line)
        var topics: WatchTopics = tokens.count > 1 ? [] : .fetchers
        for index in 1..<max(tokens.count, 1) {
            guard let topic = Self.topic(tokens, index, line) else { return refuse(.error, request, &output) }
            topics.formUnion(topic)
        }
        guard node.watchers.hasRoom else {
            return answer("WATCHER_TOO_MANY log watcher limit reached\r\n", request, &output)
        }
        node.watchers.add(
            connection.makeStream(of: reactor, limitBytes: node.configuration.watcherBufferBytes), topics)
        if topics.contains(.evictions) { engine.evictionLog.isOn = true }
        connection.pauseReading()
        output.append("OK\r\n")
    }

    private static func topic(_ tokens: Tokenizer, _ index: Int, _ line: Span<UInt8>) -> WatchTopics? {
        if tokens.abbreviates(index, "rawcmds", in: line) { return .rawCommands }
        if tokens.abbreviates(index, "evictions", in: line) { return .evictions }
        if tokens.abbreviates(index, "fetchers", in: line) { return .fetchers }
        if tokens.abbreviates(index, "mutations", in: line) { return .mutations }
        if tokens.abbreviates(index, "sysevents", in: line) { return .systemEvents }
        if tokens.abbreviates(index, "connevents", in: line) { return .connectionEvents }
        if tokens.abbreviates(index, "proxyreqs", in: line) { return .proxy }
        if tokens.abbreviates(index, "proxyevents", in: line) { return .proxy }
        if tokens.abbreviates(index, "proxyuser", in: line) { return .proxy }
        if tokens.abbreviates(index, "deletions", in: line) { return .deletions }
        return nil
    }

    mutating func shutdown(
        _ request: Request, _ input: Span<UInt8>, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        let line = input.extracting(request.lineOffset..<request.lineOffset + request.lineLength)
        guard node.configuration.allowsShutdown else { return refuse(.shutdownNotEnabled, request, &output) }
        let tokens = Tokenizer(line)
        let isGraceful = tokens.count == 2 && tokens.abbreviates(1, "graceful", in: line)
        guard tokens.count == 1 || isGraceful else { return refuse(.invalidShutdownMode, request, &output) }
        connection.closeNow()
        node.requestShutdown(isGraceful: isGraceful)
    }

    /// `config get cluster`, as ElastiCache's clients ask for the nodes; and `config get owners`.
    private mutating func configuration(_ request: Request, _ line: Span<UInt8>, _ output: inout OutputBuffer) {
        let tokens = Tokenizer(line)
        guard tokens.count == 3, tokens.equals(1, "get", in: line) else { return refuse(.error, request, &output) }
        if tokens.equals(2, "owners", in: line) { return tellOwners(request, &output) }
        guard tokens.equals(2, "cluster", in: line) else { return refuse(.error, request, &output) }
        guard let text = node.clusterText() else {
            return output.append("SERVER_ERROR the cluster's members are not known yet\r\n")
        }
        output.append("CONFIG cluster 0 ")
        output.append(decimal: UInt64(text.count))
        output.append("\r\n")
        output.append(text.span)
        output.append("\r\nEND\r\n")
    }
}
