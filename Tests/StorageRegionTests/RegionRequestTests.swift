// Martlet
// SPDX-License-Identifier: Apache-2.0

import MemcacheProtocol
import Memory
import Storage
import Testing

@testable import StorageRegion

@Suite struct RegionRequestTests {
    private func text(
        _ question: RegionRequest.Question, at now: Int64 = 1_000_000, place: RegionPlace? = nil
    ) -> String {
        var request = RegionRequest(token: 1, question: question, sinceNanoseconds: 0)
        request.askedMilliseconds = now
        var output = OutputBuffer(capacity: 64)
        output.append(request, mark: RegionMark.token("us-east"), place: place)
        return output.withSpan { String(decoding: [UInt8](copying: $0), as: UTF8.self) }
    }

    private func text(
        _ operation: StorageWrite.Operation, _ value: String = "", _ change: (inout StorageWrite) -> Void = { _ in }
    ) -> String {
        var write = StorageWrite(operation, key: Array("k".utf8))
        write.value = Array(value.utf8)
        change(&write)
        return text(.write(write))
    }

    @Test func readsAskForWhatARowIs() {
        #expect(text(.read(Array("key".utf8))) == "mg key v c f t Pmartlet-region=us-east\r\n")
        #expect(text(.read(Array("a b".utf8))) == "mg YSBi b v c f t Pmartlet-region=us-east\r\n")
    }

    @Test func readsSayHowFarTheStreamWasFollowed() {
        let place = RegionPlace(numbering: .max, sequence: 7)
        let expected = "mg key v c f t Lmartlet-at=18446744073709551615.7 Pmartlet-region=us-east\r\n"
        #expect(text(.read(Array("key".utf8)), place: place) == expected)
    }

    @Test(
        arguments: [
            ("mg k v Lmartlet-at=5.7 Pmartlet-region=us-east\r\n", RegionPlace(numbering: 5, sequence: 7)),
            ("mg k v Lmartlet-at=5.7\r\n", RegionPlace(numbering: 5, sequence: 7)),
            ("mg k Lmartlet-at=18446744073709551615.0\n", RegionPlace(numbering: .max, sequence: 0)),
            ("mg k La=b;martlet-at=5.7;c v\r\n", RegionPlace(numbering: 5, sequence: 7)),
            ("ms k 2 Lmartlet-at=1.2\r\nhi\r\n", RegionPlace(numbering: 1, sequence: 2)),
            ("mg k v\r\n", nil), ("mg k v Lother\r\n", nil), ("mg k v L\r\n", nil), ("mg k Lmartlet-at=\r\n", nil),
            ("mg k Lmartlet-at=5\r\n", nil), ("mg k Lmartlet-at=5.\r\n", nil), ("mg k Lmartlet-at=.7\r\n", nil),
            ("mg k Lmartlet-at=5.x\r\n", nil), ("mg k Lmartlet-at=-5.7\r\n", nil),
            ("mg k Lmartlet-at=18446744073709551616.7\r\n", nil), ("mg Lmartlet-at=5.7 v\r\n", nil),
        ] as [(String, RegionPlace?)])
    func whoReadsAPlaceFindsIt(line: String, place: RegionPlace?) {
        let bytes = Array(line.utf8)
        var parser = RequestParser()
        var offset = 0
        var decoded = OutputBuffer(capacity: 64)
        var request = Request()
        _ = parser.next(bytes.span, at: &offset, into: &request, decodedKeys: &decoded)
        #expect(RegionPlace(of: request, in: bytes.span) == place)
    }

    @Test func writesSayWhatTheyCompareAndForHowLong() {
        let mark = "Pmartlet-region=us-east\r\n"
        #expect(text(.set, "abc") == "ms k 3 c s \(mark)abc\r\n")
        let full = text(.set, "abc") {
            $0.clientFlags = 7
            $0.compare = 9
            $0.expiryMilliseconds = 1_000_000 + 60_005
        }
        #expect(full == "ms k 3 T60 F7 C9 c s \(mark)abc\r\n")
        #expect(text(.add) == "ms k 0 ME c s \(mark)\r\n")
        #expect(text(.replace) == "ms k 0 MR c s \(mark)\r\n")
        #expect(text(.append, "x") == "ms k 1 MA c s \(mark)x\r\n")
        #expect(text(.prepend, "x") == "ms k 1 MP c s \(mark)x\r\n")
        #expect(text(.appendOrCreate, "x") == "ms k 1 MA N0 c s \(mark)x\r\n")
        #expect(text(.prependOrCreate, "x") { $0.expiryMilliseconds = 1_005_005 } == "ms k 1 MP N5 c s \(mark)x\r\n")
        #expect(text(.delete) == "md k \(mark)")
        #expect(text(.delete) { $0.compare = .max } == "md k C18446744073709551615 \(mark)")
        #expect(text(.touch) { $0.expiryMilliseconds = 1_009_005 } == "mg k T9 v c f t \(mark)")
        #expect(text(.touch) == "mg k T0 v c f t \(mark)")
    }

    @Test func countersTellTheEarlierExpiryBeforeTheyChangeIt() {
        let mark = "Pmartlet-region=us-east\r\n"
        #expect(text(.increment) { $0.delta = 3 } == "ma k MI D3 v c \(mark)")
        let full = text(.decrement) {
            $0.delta = 1
            $0.initial = 12
            $0.initialExpiryMilliseconds = 1_030_005
            $0.expiryMilliseconds = 1_060_005
            $0.setsExpiry = true
            $0.tellsEarlierExpiry = true
            $0.compare = 4
        }
        #expect(full == "ma k MD D1 J12 N30 C4 v c t T60 \(mark)")
    }

    @Test(
        arguments: [
            (Int64(0), Int64(0)), (1_000_000 - 1, -1), (1_000_000, -1), (1_000_001, 1), (1_000_005, 1), (1_001_005, 1),
            (1_001_006, 2), (1_000_000 + 2_592_000_005, 2_592_000), (9_999_999_999, 10_000_000),
            (Int64.max / 2, Int64(Int32.max)),
        ] as [(Int64, Int64)])
    func noRowLivesForEverThatWasToLiveForAMoment(expiry: Int64, exptime: Int64) {
        #expect(RegionTime.exptime(expiry, at: 1_000_000) == exptime)
    }

    @Test func keysThatFitNoLineAreRefused() {
        var request = RegionRequest(token: 1, question: .read([UInt8](repeating: 65, count: 250)), sinceNanoseconds: 0)
        #expect(request.obstacle == nil)
        request.question = .read([UInt8](repeating: 1, count: 186))
        #expect(request.obstacle == nil)
        request.question = .read([UInt8](repeating: 1, count: 188))
        #expect(request.obstacle?.contains("186 bytes at most") == true)
    }

    @Test func whoReadsAMarkFindsTheRegion() throws {
        for (line, region) in [
            ("mg k v Pmartlet-region=us-east\r\n", "us-east"), ("md k Pmartlet-region=a\n", "a"),
            ("ms k 2 T5 Pmartlet-region=eu c\r\nhi\r\n", "eu"), ("mg k v Pother\r\n", nil), ("mg k v\r\n", nil),
            ("mg Pmartlet-region=no v P1\r\n", nil), ("mg k Pmartlet-region=\r\n", ""),
        ] as [(String, String?)] {
            let bytes = Array(line.utf8)
            var parser = RequestParser()
            var offset = 0
            var decoded = OutputBuffer(capacity: 64)
            var request = Request()
            _ = parser.next(bytes.span, at: &offset, into: &request, decodedKeys: &decoded)
            var found: String?
            if let name = RegionMark.region(of: request, in: bytes.span) {
                found = String(decoding: [UInt8](copying: name), as: UTF8.self)
            }
            #expect(found == region, "\(line)")
        }
    }
}
