// Martlet
// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import MemcacheProtocol

@Suite struct MetaParsingTests {
    @Test func metaGetYieldsItsFlagsInOrder() {
        let event = only("mg key t v c k Oabc f s h l\r\n")
        #expect(event.verb == .metaGet && event.form == .meta && event.keyText == "key")
        #expect(event.steps == [.ttl, .cas, .key, .opaque, .clientFlags, .size, .hitBefore, .lastAccess])
        #expect(String(decoding: event.opaqueToken, as: UTF8.self) == "Oabc")
        #expect(MetaOptions(rawValue: event.options).contains([.value, .key, .hitBefore, .lastAccess]))
        #expect(only("mg key\r\n").steps.isEmpty)
        #expect(only("mg key\n").keyText == "key")
    }

    @Test func stepsKeepTheOrderOfFlagsThatAct() {
        #expect(only("mg k t T30 N5 R7\r\n").steps == [.ttl, .setTTL, .vivify, .recache])
        let event = only("mg k T-3 N-4 R5 E9 C8\r\n")
        #expect(event.exptime == -3 && event.vivifyTTL == -4 && event.recacheTTL == 5)
        #expect(event.casIn == 9 && event.cas == 8)
    }

    @Test func eachCommandAnswersOnlyItsOwnFlags() {
        #expect(only("md k t c O1 k s\r\n").steps == [.opaque, .key])
        #expect(only("ms k 0 t c O1 k s T5\r\n\r\n").steps == [.cas, .opaque, .key, .size])
        #expect(only("ma k t c O1 k s T5 N6 h\r\n").steps == [.ttl, .cas, .opaque, .key, .setTTL, .vivify])
    }

    @Test func quietHidesMissesOfGetOnly() {
        #expect(only("mg k q\r\n").traits == [.quiet, .hidesMiss])
        #expect(only("md k q\r\n").traits == .quiet)
        #expect(only("mg k q z\r\n").traits == [], "faults are never hidden")
    }

    @Test func metaSetTakesItsValueAndMode() {
        let event = only("ms key 3 T9 F5 I\r\nabc\r\n")
        #expect(event.valueText == "abc" && event.exptime == 9 && event.clientFlags == 5 && event.mode == 83)
        #expect(only("ms key S3\r\n").error == .badCommandLine)
        #expect(only("ms key\r\n").error == .badCommandLine)
        #expect(only("ms key -1\r\n").error == .badCommandLine)
        #expect(only("ms key 3\r\nabcd\n").error == .badDataChunk)
    }

    @Test(arguments: [
        ("", Verb.set), ("MS", .set), ("ME", .add), ("MA", .append), ("MP", .prepend), ("MR", .replace), ("C1", .cas),
        ("MR C1", .cas), ("ME C1", .add), ("MA C1", .append), ("MAppend", .append), ("M\0", .set),
    ])
    func modesOfMetaSetAreClassicVerbs(flags: String, verb: Verb) {
        let event = only("ms k 0 \(flags)\r\n\r\n")
        var request = Request()
        request.mode = event.mode
        request.options = MetaOptions(rawValue: event.options)
        #expect(request.storeVerb == verb)
    }

    @Test func refusedMetaSetSwallowsItsValue() {
        for (flags, error) in [
            ("MX", ErrorReply.invalidSetMode), ("M", .invalidSetMode), ("F", .badCommandLine), ("T", .badToken),
            ("v v", .duplicateFlag),
            ("z", .invalidFlag), ("b", .badKeyEncoding), ("O" + String(repeating: "o", count: 32), .opaqueTooLong),
        ] {
            let event = only("ms k 3 \(flags) q\r\nabc\r\n")
            #expect(event.error == error && event.swallowed == 5 && !event.isQuiet, "\(flags)")
        }
    }

    @Test func arithmeticHasDefaultsAndModes() {
        let plain = only("ma k\r\n")
        #expect(plain.delta == 1 && plain.initial == 0 && plain.mode == 73)
        let full = only("ma k N0 J13 D5 MD q\r\n")
        #expect(full.delta == 5 && full.initial == 13 && full.mode == 68 && full.isQuiet)
        #expect(only("ma k M+\r\n").mode == 73)
        #expect(only("ma k M-\r\n").mode == 68)
        #expect(only("ma k MX\r\n").error == .invalidArithmeticMode)
        #expect(only("ma k DX\r\n").error == .invalidOrDuplicateFlag)
        #expect(only("ma k q q\r\n").error == .invalidOrDuplicateFlag)
        #expect(only("mg k MX\r\n").error.isNone, "a mode means nothing to mg")
    }

    @Test func base64KeysAreDecoded() {
        let event = only("mg Zm9v b k v\r\n")
        #expect(event.keyText == "foo" && event.traits.contains(.keyIsDecoded))
        #expect(only("ms AAEC 1 b\r\nx\r\n").key == [0, 1, 2])
        #expect(only("mg abc b\r\n").error == .badKeyEncoding)
        #expect(only("mg A=== b\r\n").error == .badKeyEncoding)
        #expect(events("mg Zm9v b\r\nmg YmFy b\r\n").map(\.keyText) == ["foo", "bar"])
    }

    @Test func faultsComeInMemcachedsOrder() {
        #expect(only("mg k v - v\r\n").error == .badCommandLine, "a token that begins with no letter beats all")
        #expect(only("mg k Tx Cx\r\n").error == .badToken)
        #expect(only("mg k Tx Jx\r\n").error == .invalidInitialFlag, "the last argument's fault")
        #expect(only("mg k Jx F\r\n").error == .invalidInitialFlag, "F has no text of its own")
        #expect(only("mg k F\r\n").error == .badCommandLine)
        #expect(only("mg k Tx v v\r\n").error == .duplicateFlag)
        #expect(only("mg k 9\r\n").error == .invalidFlag)
        #expect(only("mg k A\r\n").error == .invalidFlag)
        #expect(only("mg k Tx z\r\n").error == .invalidFlag)
    }

    @Test func argumentsAreStrict() {
        #expect(only("mg k T2147483647\r\n").exptime == 2_147_483_647)
        for flag in ["T2147483648", "T+1", "T1x", "T", "N", "R", "C", "E", "C-1", "C18446744073709551616"] {
            #expect(only("mg k \(flag)\r\n").error == .badToken, "\(flag)")
        }
    }

    @Test func moreThan20TokensAreRefused() {
        let flags = "b c f h k l q s t u v x I P L O1 T1 N1"
        #expect(only("mg Zm9v \(flags)\r\n").error.isNone)
        #expect(only("mg Zm9v \(flags) R1\r\n").error == .optionsTooLong)
        let many = String(repeating: " v", count: 40)
        #expect(only("mg k\(many)\r\n").error == .optionsTooLong)
        #expect(
            only("mg k\(String(repeating: " v", count: 21)) -\r\n").error == .optionsTooLong,
            "the 24th is not looked at")
    }

    @Test func opaqueOf32BytesIsTheLongest() {
        let longest = "O" + String(repeating: "x", count: 31)
        #expect(only("mg k \(longest)\r\n").opaqueToken.count == 32)
        #expect(only("mg k \(longest)x\r\n").error == .opaqueTooLong)
        #expect(only("md k \(longest)x q\r\n").error == .opaqueTooLong)
    }

    @Test func debugDecodesOnlyBeforeAnotherFlag() {
        #expect(only("me Zm9v b q\r\n").keyText == "foo")
        #expect(only("me Zm9v b\r\n").keyText == "Zm9v")
        #expect(only("me\r\n").error == .badCommandLine)
        #expect(only("me abc b q\r\n").error == .badCommandLine)
        #expect(only("me !!!! b q\r\n").error == .badCommandLine && only("me !!!! b q\r\n").traits == [])
        #expect(only("me k -\r\n").error == .badCommandLine)
    }

    @Test func noopTakesAnything() {
        #expect(only("mn\r\n").verb == .metaNoop)
        #expect(only("mn q O1\r\n").verb == .metaNoop)
        #expect(only("mg\r\n").error == .badCommandLine)
        #expect(only("mg \r\n").error == .badCommandLine)
        #expect(events("mg \r\nmn\r\n").map(\.verb) == [.protocolError, .metaNoop])
    }
}
