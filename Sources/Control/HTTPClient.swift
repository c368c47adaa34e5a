// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CCurl

/// Asks a node's admin port, by libcurl. One at a time, from one thread.
// SAFETY (file): the handle lives from init to deinit, and libcurl copies the strings it is given.
@safe
final class HTTPClient {
    private let handle: UnsafeMutableRawPointer
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
        guard let handle = unsafe curl_easy_init() else { throw ControlError(.system, "libcurl cannot be used") }
        unsafe self.handle = handle
        self.base = base.hasSuffix("/") ? String(base.dropLast()) : base
        self.token = token
        self.timeoutSeconds = timeoutSeconds
    }

    deinit { unsafe curl_easy_cleanup(handle) }

    /// Asks for `path` with its query. An answer that is not of the 200s is an error with the node's own words.
    func send(_ method: String, _ path: String) throws(ControlError) -> Answer {
        let body = Body()
        unsafe curl_easy_reset(handle)
        unsafe martlet_curl_set_text(handle, CURLOPT_URL, base + path)
        unsafe martlet_curl_set_text(handle, CURLOPT_PROTOCOLS_STR, "http,https")
        unsafe martlet_curl_set_text(handle, CURLOPT_CUSTOMREQUEST, method)
        // The token is the node's: no proxy of the environment gets it.
        unsafe martlet_curl_set_text(handle, CURLOPT_PROXY, "")
        unsafe martlet_curl_set_number(handle, CURLOPT_CONNECTTIMEOUT, 5)
        unsafe martlet_curl_set_number(handle, CURLOPT_TIMEOUT, timeoutSeconds)
        unsafe martlet_curl_set_number(handle, CURLOPT_NOSIGNAL, 1)
        var headers: UnsafeMutablePointer<curl_slist>?
        if let token { unsafe headers = curl_slist_append(nil, "Authorization: Bearer \(token)") }
        defer { unsafe curl_slist_free_all(headers) }
        unsafe martlet_curl_set_headers(handle, headers)
        // SAFETY: the body outlives the call of curl_easy_perform, the only one that calls back.
        unsafe martlet_curl_set_receiver(
            handle,
            { data, size, count, context in
                guard let data = unsafe data, let context = unsafe context else { return 0 }
                let body = unsafe Unmanaged<Body>.fromOpaque(context).takeUnretainedValue()
                let buffer = unsafe UnsafeRawBufferPointer(start: data, count: size * count)
                unsafe body.bytes.append(contentsOf: buffer)
                return size * count
            }, Unmanaged.passUnretained(body).toOpaque())
        let code = unsafe curl_easy_perform(handle)
        guard code == CURLE_OK else {
            throw ControlError(
                .unavailable,
                "\(base): \(unsafe String(cString: curl_easy_strerror(code))); is the node running, and "
                    + "--node its admin address?")
        }
        let answer = Answer(status: unsafe Int(martlet_curl_status(handle)), body: body.bytes)
        guard (200..<300).contains(answer.status) else {
            throw ControlError(.unavailable, "\(base)\(path.prefix { $0 != "?" }): \(answer.status) \(answer.reason)")
        }
        return answer
    }

    private final class Body {
        var bytes: [UInt8] = []
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
