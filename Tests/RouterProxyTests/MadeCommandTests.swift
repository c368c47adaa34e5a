// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Routing
import Testing

@testable import RouterProxy

/// What a server makes of what it is sent: its commands, with their keys and values; nil where it is no command.
private func commands(_ bytes: [UInt8]) -> [(request: Request, key: [UInt8], value: [UInt8])]? {
    var parser = RequestParser()
    var found: [(Request, [UInt8], [UInt8])] = []
    var offset = 0
    while offset < bytes.count {
        var request = Request()
        var decoded = OutputBuffer(capacity: 64)
        guard parser.next(bytes.span, at: &offset, into: &request, decodedKeys: &decoded) == .complete,
            request.verb != .protocolError, request.error.isNone
        else { return nil }
        let range = request.keyOffset..<request.keyOffset + request.keyLength
        let key =
            request.keyIsDecoded
            ? decoded.withSpan { [UInt8](copying: $0.extracting(range)) } : Array(bytes[range])
        let value = request.valueOffset..<request.valueOffset + request.valueLength
        found.append((request, key, request.verb.stores ? Array(bytes[value]) : []))
    }
    return found
}

private func written(_ body: (inout OutputBuffer) -> Void) -> [UInt8] {
    var output = OutputBuffer(capacity: 64)
    body(&output)
    return output.withSpan { [UInt8](copying: $0) }
}

/// Keys that would be something else if they were written as they are.
private let keys: [[UInt8]] =
    ["k", "a b", "a\tb", "a\rb", "a\nb", "a\0b", " a", "a ", "a\r\n", "x\r\nset victim 0 0 3\r\nBIN\r\nget y"]
    .map { Array($0.utf8) } + [[0x80, 0xff], Array(repeating: 0x61, count: 250), Array(repeating: 0x20, count: 186)]
private let longKeys: [[UInt8]] = [
    Array(repeating: 0x20, count: 187), Array(repeating: 0x0a, count: 250),
    Array("x\r\nset victim 0 0 3\r\nBIN\r\nget ".utf8) + Array(repeating: 0x79, count: 200),
]

@Suite struct MadeCommandTests {
    private static func made(_ operation: RouteOperation, _ key: CommandKey) -> MadeCommand {
        MadeCommand(
            operation: operation, key: key, value: Array("get y\r\n".utf8), exptime: -1, flags: 7, casToken: .max,
            delta: 3)
    }

    @Test(arguments: RouteOperation.allCases)
    func aKeyIsNeverAnythingElse(_ operation: RouteOperation) throws {
        for bytes in keys {
            let key = CommandKey(made: bytes)
            let form = try #require(key.form(operation))
            let sent = written { $0.append(Self.made(operation, key)) }
            let found = try #require(commands(sent), "\(operation) \(bytes)")
            #expect(found.count == 1)
            #expect(found[0].key == bytes && found[0].request.form == form)
            #expect(found[0].value == (operation.group == .update ? Array("get y\r\n".utf8) : []))
        }
    }

    @Test(arguments: RouteOperation.allCases)
    func itDoesTheSameUnderWhateverKey(_ operation: RouteOperation) throws {
        let plain = try #require(commands(written { $0.append(Self.made(operation, CommandKey(made: [0x6b]))) }))[0]
        let coded = try #require(commands(written { $0.append(Self.made(operation, CommandKey(made: [0x20]))) }))[0]
        #expect(coded.request.form == .meta)
        let operations = [plain.request.routeOperation, coded.request.routeOperation]
        switch operation {
        // A meta command touches as a get that asks for nothing, and takes a lease with a flag that nobody sets here.
        case .touch: #expect(coded.request.verb == .metaGet && coded.request.options.contains(.setTTL))
        case .leaseGet: #expect(operations == [.gets, .gets])
        case .leaseSet: #expect(operations == [.cas, .cas])
        default: #expect(operations == [operation, operation])
        }
        if operation.group == .update {
            #expect(coded.request.clientFlags == 7 && coded.request.exptime == -1)
        }
        if operation.group == .arithmetic { #expect(coded.request.delta == 3) }
        if [.cas, .leaseSet].contains(operation) { #expect(coded.request.cas == .max) }
        if [.touch, .gat, .gats].contains(operation) { #expect(coded.request.exptime == -1) }
    }

    @Test func whatNoCommandSaysIsNotSentButDeleted() throws {
        for bytes in longKeys {
            let key = CommandKey(made: bytes)
            for operation in RouteOperation.allCases where operation != .delete {
                #expect(key.form(operation) == nil)
            }
            #expect(key.form(.delete) == .binary)
            let found = try #require(commands(written { $0.appendDelete(key) }))
            #expect(found.count == 1 && found[0].key == bytes && found[0].request.verb == .delete)
        }
        // Of other control characters servers make nothing.
        let tabs = CommandKey(made: [UInt8](repeating: 9, count: 250))
        #expect(tabs.form(.get) == .classic)
    }

    /// What a server is sent for a client's own command under another key, or with another expiry.
    private static func own(
        _ text: String, key: String? = nil, exptime: Int64? = nil, added: [UInt8] = []
    ) throws -> [UInt8] {
        let routed = try routed(text)
        let other = key.flatMap { CommandKey(Array($0.utf8), asIn: routed.request) }
        #expect(key == nil || other != nil)
        return written { $0.appendOwn(routed, key: other, exptime: exptime, added: added) }
    }

    @Test(arguments: [
        ("ms a\tb 23 q\r\nset victim 0 0 5\r\nOWNED\r\n", "ms a\tb 23 T9\r\nset victim 0 0 5\r\nOWNED\r\n"),
        ("ms  a\rb  02  Oq\u{1}\r\nhi\r\n", "ms a\rb 2 Oq\u{1} T9\r\nhi\r\n"),
        ("ms k 2 T1 I\nhi\r\n", "ms k 2 I T9\r\nhi\r\n"), ("mg k O1\t2 T5 k\r\n", "mg k O1\t2 k T9\r\n"),
        ("ma k\u{7f} N0 q\r\n", "ma k\u{7f} N0 T9\r\n"),
    ])
    func nothingButASpaceEndsAToken(_ sent: String, _ expected: String) throws {
        #expect(String(decoding: try Self.own(sent, exptime: 9), as: UTF8.self) == expected)
    }

    @Test func anotherKeyIsSaidAsTheClientSaidItsOwn() throws {
        #expect(try Self.own("mg YSBi b v\r\n", key: "p:a b") == Array("mg cDphIGI= b v\r\n".utf8))
        #expect(try Self.own("mg a\tb v k\r\n", key: "p:a\tb") == Array("mg p:a\tb v k\r\n".utf8))
        #expect(try Self.own("set k 1 2 2\r\nhi\r\n", key: "p:k") == Array("set p:k 1 2 2\r\nhi\r\n".utf8))
        for text in ["mg k v\r\n", "set k 1 2 2\r\nhi\r\n"] {
            let request = try routed(text).request
            for key in ["", " ", "\n", "\0"] {
                #expect(CommandKey(Array("a\(key)b".utf8), asIn: request) == nil || key.isEmpty)
            }
            #expect(CommandKey([UInt8](repeating: 0x61, count: 251), asIn: request) == nil)
        }
        let coded = try routed("mg YSBi b v\r\n").request
        #expect(CommandKey([UInt8](repeating: 0x61, count: 186), asIn: coded) != nil)
        #expect(CommandKey([UInt8](repeating: 0x61, count: 187), asIn: coded) == nil)
    }

    @Test func aKeyThatWouldEndALineIsNotAskedForAndGivenAllTheSame() throws {
        #expect(try Self.own("mg YQpi b k v Ok\r\n") == Array("mg YQpi b v Ok\r\n".utf8))
        #expect(try Self.own("mg YSBi b k v\r\n") == Array("mg YSBi b k v\r\n".utf8))
        let said = written { output in
            let reply = Array("VA 2 Ok\r\nhi\r\n".utf8)
            output.append(metaReply: reply.span, key: nil, without: [], withheldKey: Array("a\nb".utf8))
        }
        #expect(said == Array("VA 2 Ok kYQpi b\r\nhi\r\n".utf8))
    }
}

/// A client's request as it is kept.
private func routed(_ text: String) throws -> RoutedRequest {
    let bytes = Array(text.utf8)
    let found = try #require(commands(bytes))
    try #require(found.count == 1)
    let routed = RoutedRequest()
    let key = found[0].key
    routed.keep(found[0].request, key: key.span, bytes.span)
    return routed
}

@Suite struct RoutedReplyTests {
    @Test(arguments: [
        ("EN kzz O1\r2\r\n", "EN kk O1\r2\r\n"), ("HD O1\r2 f0\r\n", "HD O1\r2\r\n"),
        ("VA 2 kzz f0\r\nhi\r\n", "VA 2 kk\r\nhi\r\n"), ("ME zz exp=-1\r\n", "ME k exp=-1\r\n"),
    ])
    func nothingButALineEndEndsAReply(_ reply: String, _ expected: String) {
        let bytes = Array(reply.utf8)
        let said = written { $0.append(metaReply: bytes.span, key: Array("k".utf8), without: [UInt8(ascii: "f")]) }
        #expect(String(decoding: said, as: UTF8.self) == expected)
    }

    @Test func aKeyThatCameInBase64GoesBackInIt() {
        let said = written { output in
            let reply = Array("ME cDphCg== exp=-1\r\n".utf8)
            output.append(metaReply: reply.span, key: Array("a\r\nX".utf8), isDecoded: true, without: [])
        }
        #expect(String(decoding: said, as: UTF8.self) == "ME YQ0KWA== exp=-1\r\n")
    }

    /// What came back for a meta get, to routes: memcached's own replies.
    private static func read(_ text: String, _ reply: String) throws -> RouteReply {
        let request = try routed(text).request
        var part = RoutedRequest.Part(
            operation: .leaseGet, form: .meta, isVerbatim: true, isSame: true, key: nil, destination: 0)
        part.bytes = Array(reply.utf8)
        part.read(request)
        return part.reply
    }

    @Test func whoGetsTheLeaseOfAMissMissed() throws {
        let won = try Self.read("mg k v c N30\r\n", "VA 0 c8 W\r\n\r\n")
        #expect(won.result == .notFound && won.hasLease && won.casToken == 8)
        #expect(try Self.read("mg k c N30\r\n", "HD c8 W\r\n").result == .notFound)
        // Whoever is to make a value anew has the old one; so has who only looks on.
        #expect(try Self.read("mg k v c R30\r\n", "VA 0 c8 W\r\n\r\n").result == .found)
        #expect(try Self.read("mg k v c N30 R30\r\n", "VA 2 c8 W\r\nhi\r\n").result == .found)
        #expect(try Self.read("mg k c N30 R30\r\n", "HD c8 W\r\n").result == .found)
        #expect(try Self.read("mg k v c N30\r\n", "VA 0 c8 W X\r\n\r\n").result == .foundStale)
        #expect(try Self.read("mg k v c N30\r\n", "VA 0 c8 Z\r\n\r\n").result == .notFoundHot)
        #expect(try Self.read("mg k v c N30\r\n", "VA 0 c8\r\n\r\n").result == .found)
    }

    @Test func theLeaseOfAMissIsGivenToTheClient() throws {
        for (text, expected) in [
            ("mg k v c N30 q\r\n", "VA 0 c8 W\r\n\r\n"), ("mg k c f N30 Oa\r\n", "HD c8 f0 Oa W\r\n"),
        ] {
            let routed = try routed(text)
            let writer = ReplyWriter(result: .notFound, flags: 0, casToken: 8, hasLease: true, text: nil)
            #expect(!writer.isHidden(routed.request))
            let value: [UInt8] = []
            let said = written { writer.append(to: &$0, routed, value: value.span, isPartOfGet: false) }
            #expect(String(decoding: said, as: UTF8.self) == expected)
        }
    }

    private static func isGone(_ reply: [UInt8], _ shape: ReplyShape) -> Bool {
        RouterHandler.isGone(reply.span, at: 0, shape)
    }

    private static func isError(_ line: [UInt8]) -> Bool { ReplyScanner.isError(line.span, at: 0) }

    @Test(arguments: [
        ("DELETED\r\n", true), ("NOT_FOUND\r\n", true), ("HD\r\n", true), ("NF\r\n", true), ("ERROR\r\n", false),
        ("SERVER_ERROR busy\r\n", false), ("CLIENT_ERROR bad command line format\r\n", false), ("OK\r\n", false),
    ])
    func onlyWhoSaysSoHasDeleted(_ reply: String, _ isGone: Bool) {
        #expect(Self.isGone(Array(reply.utf8), .line) == isGone)
    }

    @Test(arguments: [(BinaryStatus.success, true), (.notFound, true), (.busy, false), (.unknownCommand, false)])
    func onlyWhoSaysSoHasDeletedInBinary(_ status: BinaryStatus, _ isGone: Bool) {
        let reply = written {
            $0.appendBinaryHeader(
                opcode: BinaryOpcode.delete, status: status, extrasLength: 0, keyLength: 0, bodyLength: 0, opaque: 0,
                cas: 0)
        }
        #expect(Self.isGone(reply, .binary) == isGone)
    }

    @Test func onlyErrorsEndTheValuesOfAGetBesideItsEnd() {
        for line in ["ERROR\r\n", "SERVER_ERROR busy\r\n", "CLIENT_ERROR bad\r\n"] {
            #expect(Self.isError(Array(line.utf8)))
        }
        for line in [[0xff, 0xfe, 0x0d, 0x0a], Array("STORED\r\n".utf8), Array("E\r\n".utf8)] as [[UInt8]] {
            #expect(!Self.isError(line))
        }
    }
}
