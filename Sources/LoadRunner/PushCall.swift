// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CCurl

/// Posts messages to one address over HTTP or HTTPS, by libcurl: one at a time, from one thread. Blocks.
// SAFETY (file): the handle lives from init to deinit; libcurl copies the texts and the body that it is given, and
// calls back only within curl_easy_perform.
@safe
final class PushCall {
    /// Where to, and what goes with each message.
    struct Target: Sendable {
        var url = "http://localhost:9090/api/v1/write"
        /// `Name: value`, behind those of the protocol.
        var headers: [String] = []
        /// `user:password` of HTTP's basic authentication; nil for none.
        var credentials: String?
        /// Whether the receiver's certificate is not looked at.
        var skipsVerification = false
        /// Whether TLS 1.2 will do, and not 1.3 only.
        var allowsTLS12 = false
        /// Our certificate and its key, PEM; nil for none.
        var certificatePath: String?
        var keyPath: String?
    }

    private let handle: UnsafeMutableRawPointer
    private let target: Target
    private let timeoutSeconds: Int

    /// For `target`; a message may take so many seconds. nil when libcurl cannot be used.
    init?(_ target: Target, timeoutSeconds: Int) {
        guard let handle = unsafe curl_easy_init() else { return nil }
        unsafe self.handle = handle
        self.target = target
        self.timeoutSeconds = timeoutSeconds
    }

    deinit { unsafe curl_easy_cleanup(handle) }

    /// Posts a message. What is wrong with the answer, or why there is none; nil when all is well.
    func post(_ body: [UInt8], headers common: [String]) -> String? {
        unsafe curl_easy_reset(handle)
        unsafe martlet_curl_set_text(handle, CURLOPT_URL, target.url)
        unsafe martlet_curl_set_text(handle, CURLOPT_PROTOCOLS_STR, "http,https")
        unsafe martlet_curl_set_number(handle, CURLOPT_POST, 1)
        unsafe martlet_curl_set_number(handle, CURLOPT_POSTFIELDSIZE, body.count)
        // SAFETY: as many bytes as were said are copied within the call.
        unsafe body.withUnsafeBytes { bytes in
            let text = unsafe bytes.assumingMemoryBound(to: CChar.self).baseAddress
            unsafe martlet_curl_set_text(handle, CURLOPT_COPYPOSTFIELDS, text)
        }
        if let credentials = target.credentials {
            unsafe martlet_curl_set_text(handle, CURLOPT_USERPWD, credentials)
        }
        if let path = target.certificatePath { unsafe martlet_curl_set_text(handle, CURLOPT_SSLCERT, path) }
        if let path = target.keyPath { unsafe martlet_curl_set_text(handle, CURLOPT_SSLKEY, path) }
        if target.skipsVerification {
            unsafe martlet_curl_set_number(handle, CURLOPT_SSL_VERIFYPEER, 0)
            unsafe martlet_curl_set_number(handle, CURLOPT_SSL_VERIFYHOST, 0)
        }
        // CURL_SSLVERSION_TLSv1_2 and TLSv1_3.
        unsafe martlet_curl_set_number(handle, CURLOPT_SSLVERSION, target.allowsTLS12 ? 6 : 7)
        unsafe martlet_curl_set_number(handle, CURLOPT_CONNECTTIMEOUT, timeoutSeconds)
        unsafe martlet_curl_set_number(handle, CURLOPT_TIMEOUT, timeoutSeconds)
        unsafe martlet_curl_set_number(handle, CURLOPT_NOSIGNAL, 1)
        var list: UnsafeMutablePointer<curl_slist>?
        // Without Expect, which costs a round trip or a second.
        for header in common + ["Expect:"] + target.headers { unsafe list = curl_slist_append(list, header) }
        defer { unsafe curl_slist_free_all(list) }
        unsafe martlet_curl_set_headers(handle, list)
        unsafe martlet_curl_set_receiver(handle, { _, size, count, _ in size * count }, nil)
        let code = unsafe curl_easy_perform(handle)
        guard code == CURLE_OK else { return unsafe "\(target.url): \(String(cString: curl_easy_strerror(code)))" }
        let status = unsafe Int(martlet_curl_status(handle))
        return 200..<300 ~= status ? nil : "\(target.url): the answer is \(status)"
    }
}
