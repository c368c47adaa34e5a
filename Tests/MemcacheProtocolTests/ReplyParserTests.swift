// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Testing

@testable import MemcacheProtocol

@Suite struct ReplyParserTests {
    private func unit(_ text: String, at start: Int = 0) -> ReplyUnit? {
        let bytes = Array(text.utf8)
        guard case .unit(let unit) = ReplyParser.next(in: bytes.span, at: start) else { return nil }
        return unit
    }

    private func defect(_ text: String) -> ReplyDefect? {
        let bytes = Array(text.utf8)
        guard case .malformed(let defect) = ReplyParser.next(in: bytes.span, at: 0) else { return nil }
        return defect
    }

    @Test(arguments: [
        ("END\r\n", ReplyKind.end), ("STORED\r\n", .stored), ("NOT_STORED\r\n", .notStored), ("EXISTS\r\n", .exists),
        ("NOT_FOUND\r\n", .notFound), ("DELETED\r\n", .deleted), ("TOUCHED\r\n", .touched), ("OK\r\n", .ok),
        ("RESET\r\n", .reset), ("VERSION 1.6.45\r\n", .version), ("STAT pid 5\r\n", .stat), ("ERROR\r\n", .error),
        ("ERROR Too many open connections\r\n", .error), ("CLIENT_ERROR bad\r\n", .clientError),
        ("SERVER_ERROR busy\r\n", .serverError), ("42\r\n", .number), ("7 \r\n", .number), ("HD\r\n", .metaDone),
        ("HD c5 t-1\r\n", .metaDone), ("EN\r\n", .metaMiss), ("NS\r\n", .metaNotStored), ("EX\r\n", .metaExists),
        ("NF\r\n", .metaNotFound), ("MN\r\n", .metaNoop), ("ME key exp=-1\r\n", .metaDebug),
        ("HTTP/1.1 400\r\n", .other),
        ("\r\n", .other), ("ENDING\r\n", .other), ("END\n", .end),
    ])
    func knowsLines(_ text: String, _ kind: ReplyKind) {
        #expect(unit(text)?.kind == kind)
        #expect(unit(text)?.end == text.utf8.count)
        #expect(unit(String(text.dropLast())) == nil)
    }

    @Test func takesValuesApartBeforeTheirBlockIsThere() {
        let found = unit("xxVALUE some:key 12 5 99\r\n", at: 2)
        #expect(found?.kind == .value)
        #expect(found?.keyStart == 8 && found?.keyLength == 8)
        #expect(found?.clientFlags == 12 && found?.blockLength == 5 && found?.number == 99)
        #expect(found?.lineEnd == 26 && found?.end == 33)
        let meta = unit("VA 10 f5 c7\r\n")
        #expect(meta?.kind == .metaValue && meta?.blockLength == 10 && meta?.restStart == 6)
    }

    @Test func seesWhetherABlockEndsWhereItSays() throws {
        for (text, isRight) in [("VA 2\r\nab\r\n", true), ("VA 2\r\nabc\r\n", false)] {
            let bytes = Array(text.utf8)
            let found = try #require(unit(text))
            #expect(ReplyParser.isTerminated(found, in: bytes.span) == isRight)
        }
    }

    @Test(arguments: [
        ("VALUE k 0 x\r\n", ReplyDefect.badNumber), ("VALUE k 0\r\n", .badNumber), ("VALUE  0 5\r\n", .badNumber),
        ("VALUE k 4294967296 5\r\n", .badNumber), ("VALUE k 0 5 x\r\n", .badNumber), ("VA\r\n", .badNumber),
        ("VA x\r\n", .badNumber), ("VALUE k 0 1073741825\r\n", .blockTooLong), ("VA 99999999999\r\n", .blockTooLong),
        ("VA 99999999999999999999999\r\n", .badNumber),
    ])
    func refusesWhatNoServerSays(_ text: String, _ wanted: ReplyDefect) { #expect(defect(text) == wanted) }

    @Test func limitsLines() {
        #expect(defect(String(repeating: "x", count: ReplyParser.lineLimitBytes)) == .lineTooLong)
        #expect(defect(String(repeating: "x", count: ReplyParser.lineLimitBytes - 1)) == nil)
    }
}
