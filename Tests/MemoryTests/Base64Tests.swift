// Martlet
// SPDX-License-Identifier: Apache-2.0

import Foundation
import Memory
import Testing

@Suite struct Base64Tests {
    @Test func isThatOfFoundation() {
        for length in 0..<70 {
            let bytes = (0..<length).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ length) }
            let text = Base64.encoded(bytes)
            #expect(text == Data(bytes).base64EncodedString())
            #expect(Base64.decoded(text) == bytes)
        }
    }

    @Test func unpaddedTextIsRead() { #expect(Base64.decoded("TWE") == Array("Ma".utf8)) }

    @Test(arguments: ["T!Q=", "TQ-_", "T Q="])
    func otherLettersAreNone(_ text: String) { #expect(Base64.decoded(text) == nil) }
}
