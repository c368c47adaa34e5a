// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CCurl

/// Posts to a collector by libcurl, over a connection that is kept. One thread's. Blocks.
// SAFETY (file): the handle lives from init to deinit; libcurl copies the texts it is given, and calls back only within
// curl_easy_perform, during which the transfer is alive. The headers live until they are taken off the handle.
@safe
final class OTLPCall {
    /// What came of a request.
    struct Answer {
        /// The status; 0 where there was no answer.
        var status = 0
        /// How long the collector wants to be left alone, in seconds; 0 where it does not say.
        var retryAfterSeconds = 0
        /// The beginning of the answer.
        var body: [UInt8] = []
        /// Why there was no answer.
        var failure = ""
    }

    /// Bytes of an answer that are kept.
    private static let bodyLimit = 64 << 10

    private final class Transfer {
        let isStopped: () -> Bool
        var body: [UInt8] = []

        init(isStopped: @escaping () -> Bool) { self.isStopped = isStopped }
    }

    private let handle: UnsafeMutableRawPointer?

    init() { unsafe handle = curl_easy_init() }

    deinit { if let handle = unsafe handle { unsafe curl_easy_cleanup(handle) } }

    /// Posts JSON. `isStopped` is asked again and again, and ends the request.
    func post(
        _ body: [UInt8], to configuration: TracingConfiguration, url: String, timeoutMilliseconds: Int,
        isStopped: @escaping () -> Bool
    ) -> Answer {
        var answer = Answer()
        guard let handle = unsafe handle else {
            answer.failure = "libcurl cannot be used"
            return answer
        }
        unsafe curl_easy_reset(handle)
        unsafe martlet_curl_set_text(handle, CURLOPT_URL, url)
        unsafe martlet_curl_set_text(handle, CURLOPT_PROTOCOLS_STR, "http,https")
        // Collectors are asked directly, whatever the environment says about proxies.
        unsafe martlet_curl_set_text(handle, CURLOPT_PROXY, "")
        unsafe martlet_curl_set_text(handle, CURLOPT_COPYPOSTFIELDS, String(decoding: body, as: UTF8.self))
        if let file = configuration.caFile { unsafe martlet_curl_set_text(handle, CURLOPT_CAINFO, file) }
        unsafe martlet_curl_set_number(handle, CURLOPT_TIMEOUT_MS, max(1, timeoutMilliseconds))
        unsafe martlet_curl_set_number(handle, CURLOPT_CONNECTTIMEOUT_MS, max(1, min(5000, timeoutMilliseconds)))
        unsafe martlet_curl_set_number(handle, CURLOPT_NOSIGNAL, 1)
        unsafe martlet_curl_set_number(handle, CURLOPT_NOPROGRESS, 0)
        var headers: UnsafeMutablePointer<curl_slist>?
        for header in ["Content-Type: application/json", "Expect:"] {
            unsafe headers = curl_slist_append(headers, header)
        }
        for header in configuration.headers {
            unsafe headers = curl_slist_append(headers, "\(header.name): \(header.value)")
        }
        defer { unsafe curl_slist_free_all(headers) }
        unsafe martlet_curl_set_headers(handle, headers)
        let transfer = Transfer(isStopped: isStopped)
        let context = unsafe Unmanaged.passUnretained(transfer).toOpaque()
        unsafe martlet_curl_set_receiver(
            handle,
            { data, size, count, context in
                guard let data = unsafe data, let context = unsafe context else { return 0 }
                let transfer = unsafe Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
                let bytes = unsafe UnsafeRawBufferPointer(start: data, count: size * count)
                unsafe transfer.body.append(contentsOf: bytes.prefix(OTLPCall.bodyLimit - transfer.body.count))
                return size * count
            }, context)
        unsafe martlet_curl_set_progress(
            handle,
            { context, _, _, _, _ in
                guard let context = unsafe context else { return 1 }
                return unsafe Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue().isStopped() ? 1 : 0
            }, context)
        let code = unsafe curl_easy_perform(handle)
        answer.body = transfer.body
        guard code == CURLE_OK else {
            answer.failure = unsafe String(cString: curl_easy_strerror(code))
            return answer
        }
        answer.status = unsafe Int(martlet_curl_status(handle))
        answer.retryAfterSeconds = unsafe Int(martlet_curl_retry_after(handle))
        return answer
    }
}
