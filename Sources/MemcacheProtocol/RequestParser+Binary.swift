// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// What a binary opcode asks for.
private struct BinaryCommand {
    /// What its extras, key and value must be.
    enum Shape {
        /// No body.
        case empty
        /// A key and nothing else.
        case key
        /// 8 bytes of flags and expiry, a key, a value.
        case store
        /// A key and a value.
        case append
        /// 20 bytes of delta, initial value and expiry, and a key.
        case count
        /// 4 bytes of expiry and a key.
        case touch
        /// No key; 0 or 4 bytes of expiry.
        case flush
        /// No extras; perhaps a key.
        case stat
        /// SASL: no extras, a mechanism as key, data.
        case login
    }

    var verb: Verb
    var shape: Shape
    var traits: RequestTraits

    init(_ verb: Verb, _ shape: Shape, _ traits: RequestTraits = []) {
        self.verb = verb
        self.shape = shape
        self.traits = traits
    }

    init?(opcode: UInt8) {
        switch opcode {
        case BinaryOpcode.get: self.init(.get, .key)
        case BinaryOpcode.getQuiet: self.init(.get, .key, [.quiet, .hidesMiss])
        case BinaryOpcode.getKey: self.init(.get, .key, .returnsKey)
        case BinaryOpcode.getKeyQuiet: self.init(.get, .key, [.quiet, .hidesMiss, .returnsKey])
        case BinaryOpcode.set: self.init(.set, .store)
        case BinaryOpcode.setQuiet: self.init(.set, .store, .quiet)
        case BinaryOpcode.add: self.init(.add, .store)
        case BinaryOpcode.addQuiet: self.init(.add, .store, .quiet)
        case BinaryOpcode.replace: self.init(.replace, .store)
        case BinaryOpcode.replaceQuiet: self.init(.replace, .store, .quiet)
        case BinaryOpcode.append: self.init(.append, .append)
        case BinaryOpcode.appendQuiet: self.init(.append, .append, .quiet)
        case BinaryOpcode.prepend: self.init(.prepend, .append)
        case BinaryOpcode.prependQuiet: self.init(.prepend, .append, .quiet)
        case BinaryOpcode.delete: self.init(.delete, .key)
        case BinaryOpcode.deleteQuiet: self.init(.delete, .key, .quiet)
        case BinaryOpcode.increment: self.init(.incr, .count)
        case BinaryOpcode.incrementQuiet: self.init(.incr, .count, .quiet)
        case BinaryOpcode.decrement: self.init(.decr, .count)
        case BinaryOpcode.decrementQuiet: self.init(.decr, .count, .quiet)
        case BinaryOpcode.touch: self.init(.touch, .touch)
        case BinaryOpcode.getAndTouch: self.init(.gat, .touch)
        case BinaryOpcode.getAndTouchQuiet: self.init(.gat, .touch, [.quiet, .hidesMiss])
        case BinaryOpcode.getAndTouchKey: self.init(.gat, .touch, .returnsKey)
        case BinaryOpcode.getAndTouchKeyQuiet: self.init(.gat, .touch, [.quiet, .hidesMiss, .returnsKey])
        case BinaryOpcode.quit: self.init(.quit, .empty, .closesAfterReply)
        case BinaryOpcode.quitQuiet: self.init(.quit, .empty, [.quiet, .closesAfterReply])
        case BinaryOpcode.flush: self.init(.flushAll, .flush)
        case BinaryOpcode.flushQuiet: self.init(.flushAll, .flush, .quiet)
        case BinaryOpcode.noop: self.init(.noop, .empty)
        case BinaryOpcode.version: self.init(.version, .empty)
        case BinaryOpcode.stat: self.init(.stats, .stat)
        case BinaryOpcode.saslMechanisms: self.init(.protocolError, .empty)
        case BinaryOpcode.saslStart, BinaryOpcode.saslStep: self.init(.protocolError, .login)
        default: return nil
        }
    }

    /// Whether memcached takes a body of these lengths. (It ignores what `touch` and `stat` have too much: those bytes
    /// are read as the next request.)
    func accepts(extras: Int, key: Int, body: Int) -> Bool {
        switch shape {
        case .empty: body == 0
        case .key: extras == 0 && key > 0 && body == key
        case .store: extras == 8 && key > 0
        case .append, .login: extras == 0 && key > 0
        case .count: extras == 20 && key > 0 && body == key + 20
        case .touch: extras == 4 && key > 0
        case .flush: key == 0 && body == extras && (extras == 0 || extras == 4)
        case .stat: extras == 0
        }
    }
}

extension RequestParser {
    /// The binary request at `offset`.
    func nextBinary(
        _ input: Span<UInt8>, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome {
        let start = offset
        let available = input.count - start
        guard available >= BinaryHeader.bytes else { return .incomplete(needed: BinaryHeader.bytes) }
        guard input[start] == BinaryHeader.requestMagic else { return .close }
        let keyLength = Int(input.bigEndian(at: start + 2, as: UInt16.self))
        let extrasLength = Int(input[start + 4])
        let bodyLength = Int(input.bigEndian(at: start + 8, as: UInt32.self))
        let fixed = BinaryHeader.bytes + extrasLength + keyLength
        guard available >= fixed else {
            // More than memcached's read buffer holds: it closes once that is full.
            if fixed <= ProtocolLimits.lineBytes { return .incomplete(needed: fixed) }
            return available >= ProtocolLimits.lineBytes ? .close : .incomplete(needed: ProtocolLimits.lineBytes)
        }
        request = Request()
        request.form = .binary
        request.lineOffset = start
        request.opcode = input[start + 1]
        request.opaque = input.bigEndian(at: start + 12, as: UInt32.self)
        request.cas = input.bigEndian(at: start + 16, as: UInt64.self)
        offset = start + fixed
        guard keyLength + extrasLength <= bodyLength else { return refuseAndClose(.unknownCommand, &request) }
        guard bodyLength <= ProtocolLimits.binaryBodyBytes, keyLength <= ProtocolLimits.keyBytes else {
            return refuseAndClose(.invalidArguments, &request)
        }
        guard let command = BinaryCommand(opcode: request.opcode) else {
            _ = refuse(.unknownCommand, &request)
            // As memcached: extras and key, already consumed, are counted once more.
            return .swallow(count: bodyLength)
        }
        guard command.accepts(extras: extrasLength, key: keyLength, body: bodyLength) else {
            return refuseAndClose(.invalidArguments, &request)
        }
        request.verb = command.verb
        request.traits = command.traits
        request.keyOffset = start + BinaryHeader.bytes + extrasLength
        request.keyLength = keyLength
        return finish(command, input, rest: bodyLength - keyLength - extrasLength, at: &offset, into: &request)
    }

    /// Reads the extras of `command` and looks for its value, the `rest` of its body.
    private func finish(
        _ command: BinaryCommand, _ input: Span<UInt8>, rest: Int, at offset: inout Int, into request: inout Request
    ) -> ParseOutcome {
        let extras = request.lineOffset + BinaryHeader.bytes
        switch command.shape {
        case .empty, .key, .stat: break
        case .count:
            request.delta = input.bigEndian(at: extras, as: UInt64.self)
            request.initial = input.bigEndian(at: extras + 8, as: UInt64.self)
            request.exptime = Int64(input.bigEndian(at: extras + 16, as: UInt32.self))
        case .touch:
            request.exptime = Int64(input.bigEndian(at: extras, as: UInt32.self))
        case .flush:
            if request.keyOffset > extras {
                request.exptime = Int64(input.bigEndian(at: extras, as: UInt32.self))
            }
        case .login:
            _ = refuse(.unknownCommand, &request)
            return .swallow(count: rest)
        case .store, .append:
            if command.shape == .store {
                request.clientFlags = input.bigEndian(at: extras, as: UInt32.self)
                request.exptime = Int64(input.bigEndian(at: extras + 4, as: UInt32.self))
                if request.cas != 0 { request.verb = .cas }
            }
            request.valueOffset = offset
            request.valueLength = rest
            guard rest <= input.count - offset else { return .valuePending }
            offset += rest
        }
        if command.verb == .protocolError { return refuse(.unknownCommand, &request) }
        return .complete
    }

    private func refuseAndClose(_ error: ErrorReply, _ request: inout Request) -> ParseOutcome {
        request.traits = .closesAfterReply
        return refuse(error, &request)
    }
}
