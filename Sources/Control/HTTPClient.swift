// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import HTTPCalls
internal import Storage

/// Asks a node's admin port. One request at a time, from one thread.
final class HTTPClient {
    private let call: HTTPCall
    private let base: String
    private let token: String?
    private let timeoutSeconds: Int

    /// An answer.
    struct Answer {
        var status: Int
        var body: [UInt8]

        var text: String { String(decoding: body, as: UTF8.self) }
    }

    /// For the admin port at `base`, such as `http://127.0.0.1:9150`.
    init(base: String, token: String?, timeoutSeconds: Int = 60) throws(ControlError) {
        do throws(HTTPCall.Failure) { call = try HTTPCall() } catch { throw ControlError(.system, error.reason) }
        self.base = base.hasSuffix("/") ? String(base.dropLast()) : base
        self.token = token
        self.timeoutSeconds = timeoutSeconds
    }

    /// Bytes of an answer at most: a page of a dump ends with the row that fills it, which may be of any size.
    private static var answerBytesMax: Int { StoragePoolPolicy.valueLimitMax + (64 << 20) }

    /// Asks for `path` with its query. An answer that is not of the 200s is an error with the node's own words.
    func send(_ method: String, _ path: String) throws(ControlError) -> Answer {
        var request = HTTPRequest(method, url: base + path, timeoutMilliseconds: timeoutSeconds * 1000)
        if let token { request.headers.append("Authorization: Bearer \(token)") }
        let answer: Answer
        do throws(HTTPCall.Failure) {
            let (status, body) = try call.fetch(request, limit: Self.answerBytesMax)
            answer = Answer(status: status, body: body)
        } catch {
            throw ControlError(
                .unavailable, "\(base): \(error.reason); is the node running, and --node its admin address?")
        }
        guard (200..<300).contains(answer.status) else {
            throw ControlError(.unavailable, "\(base)\(path.prefix { $0 != "?" }): \(answer.status) \(answer.reason)")
        }
        return answer
    }
}

extension HTTPClient.Answer {
    /// What the node says is wrong: the text of its JSON error, or the whole answer.
    var reason: String { field("error") ?? String(text.prefix(200)) }

    /// The text of a field of a flat JSON object; nil when it is not there or null.
    func field(_ name: String) -> String? {
        guard let start = text.range(of: "\"\(name)\":") else { return nil }
        let rest = text[start.upperBound...]
        guard rest.first == "\"" else {
            let word = rest.prefix { $0 != "," && $0 != "}" }
            return word == "null" ? nil : String(word)
        }
        var result = ""
        var isEscaped = false
        for character in rest.dropFirst() {
            if isEscaped {
                result.append(character == "n" ? "\n" : character)
                isEscaped = false
            } else if character == "\\" {
                isEscaped = true
            } else if character == "\"" {
                return result
            } else {
                result.append(character)
            }
        }
        return nil
    }
}

extension String {
    /// Where `needle` is, as Foundation's would say.
    fileprivate func range(of needle: String) -> Range<String.Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(needle) { return start..<index(start, offsetBy: needle.count) }
            start = index(after: start)
        }
        return nil
    }
}
