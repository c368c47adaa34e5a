// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CCurl

/// HTTP, by libcurl: one call at a time, from one thread, over a connection that is kept. Blocks.
// SAFETY (file): the handle lives from init to deinit; libcurl copies the texts and the body that it is given, and
// calls back only within curl_easy_perform, during which the transfer is alive. Headers live until the call is over.
@safe
package final class HTTPCall {
    /// Why there was no answer.
    package struct Failure: Error, Sendable {
        /// In words.
        package let reason: String

        /// A failure with its reason.
        package init(reason: String) { self.reason = reason }
    }

    /// An answer's head.
    package struct Head: Sendable {
        /// The status.
        package let status: Int
        /// How long the server wants to be left alone, in seconds; 0 where it does not say.
        package let retryAfterSeconds: Int
    }

    private let handle: UnsafeMutableRawPointer

    /// Throws where libcurl cannot be used.
    package init() throws(Failure) {
        guard let handle = unsafe curl_easy_init() else { throw Failure(reason: "libcurl cannot be used") }
        unsafe self.handle = handle
    }

    deinit { unsafe curl_easy_cleanup(handle) }

    private final class Transfer {
        let isStopped: () -> Bool
        let onData: ([UInt8]) -> Bool

        init(isStopped: @escaping () -> Bool, onData: @escaping ([UInt8]) -> Bool) {
            self.isStopped = isStopped
            self.onData = onData
        }
    }

    /// Asks; `onData` gets what comes and says whether to go on, `isStopped` is looked at again and again. A stream may
    /// be broken off, by time too, and was answered all the same.
    package func perform(
        _ request: HTTPRequest, isStream: Bool = false, isStopped: () -> Bool, onData: ([UInt8]) -> Bool
    ) throws(Failure) -> Head {
        unsafe curl_easy_reset(handle)
        set(request)
        var headers: UnsafeMutablePointer<curl_slist>?
        // Without Expect, which costs a round trip or a second.
        for header in request.headers + ["Expect:"] { unsafe headers = curl_slist_append(headers, header) }
        defer { unsafe curl_slist_free_all(headers) }
        unsafe martlet_curl_set_headers(handle, headers)
        return try withoutActuallyEscaping(isStopped) { (isStopped) throws(Failure) in
            try withoutActuallyEscaping(onData) { (onData) throws(Failure) in
                try perform(Transfer(isStopped: isStopped, onData: onData), isStream: isStream)
            }
        }
    }

    private func set(_ request: HTTPRequest) {
        unsafe martlet_curl_set_text(handle, CURLOPT_URL, request.url)
        unsafe martlet_curl_set_text(handle, CURLOPT_PROTOCOLS_STR, "http,https")
        if let body = request.body {
            unsafe martlet_curl_set_number(handle, CURLOPT_POST, 1)
            unsafe martlet_curl_set_number(handle, CURLOPT_POSTFIELDSIZE, body.count)
            // SAFETY: as many bytes as were said are copied within the call.
            unsafe body.withUnsafeBytes { bytes in
                let text = unsafe bytes.assumingMemoryBound(to: CChar.self).baseAddress
                unsafe martlet_curl_set_text(handle, CURLOPT_COPYPOSTFIELDS, text)
            }
        }
        unsafe martlet_curl_set_text(handle, CURLOPT_CUSTOMREQUEST, request.method)
        if !request.usesProxy { unsafe martlet_curl_set_text(handle, CURLOPT_PROXY, "") }
        if let name = request.username {
            unsafe martlet_curl_set_text(handle, CURLOPT_USERNAME, name)
            unsafe martlet_curl_set_text(handle, CURLOPT_PASSWORD, request.password)
        }
        if let file = request.caFile { unsafe martlet_curl_set_text(handle, CURLOPT_CAINFO, file) }
        if let file = request.certificateFile { unsafe martlet_curl_set_text(handle, CURLOPT_SSLCERT, file) }
        if let file = request.keyFile { unsafe martlet_curl_set_text(handle, CURLOPT_SSLKEY, file) }
        if request.skipsVerification {
            unsafe martlet_curl_set_number(handle, CURLOPT_SSL_VERIFYPEER, 0)
            unsafe martlet_curl_set_number(handle, CURLOPT_SSL_VERIFYHOST, 0)
        }
        // CURL_SSLVERSION_TLSv1_2 and TLSv1_3.
        unsafe martlet_curl_set_number(handle, CURLOPT_SSLVERSION, request.needsTLS13 ? 7 : 6)
        let milliseconds = max(1, request.timeoutMilliseconds)
        unsafe martlet_curl_set_number(handle, CURLOPT_CONNECTTIMEOUT_MS, min(5000, milliseconds))
        unsafe martlet_curl_set_number(handle, CURLOPT_TIMEOUT_MS, milliseconds)
        unsafe martlet_curl_set_number(handle, CURLOPT_TCP_KEEPALIVE, 1)
        unsafe martlet_curl_set_number(handle, CURLOPT_TCP_KEEPIDLE, 15)
        unsafe martlet_curl_set_number(handle, CURLOPT_TCP_KEEPINTVL, 5)
        unsafe martlet_curl_set_number(handle, CURLOPT_NOSIGNAL, 1)
        unsafe martlet_curl_set_number(handle, CURLOPT_NOPROGRESS, 0)
    }

    private func perform(_ transfer: Transfer, isStream: Bool) throws(Failure) -> Head {
        let context = unsafe Unmanaged.passUnretained(transfer).toOpaque()
        unsafe martlet_curl_set_receiver(
            handle,
            { data, size, count, context in
                guard let data = unsafe data, let context = unsafe context else { return 0 }
                let transfer = unsafe Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
                let bytes = unsafe Array(UnsafeRawBufferPointer(start: data, count: size * count))
                // Fewer than came ends the transfer.
                return !transfer.isStopped() && transfer.onData(bytes) ? size * count : 0
            }, context)
        unsafe martlet_curl_set_progress(
            handle,
            { context, _, _, _, _ in
                guard let context = unsafe context else { return 1 }
                return unsafe Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue().isStopped() ? 1 : 0
            }, context)
        let code = unsafe curl_easy_perform(handle)
        withExtendedLifetime(transfer) {}
        let status = unsafe Int(martlet_curl_status(handle))
        // A stream that ended because its time was over, or because nobody wants more, was an answer.
        let brokenOff = [CURLE_OPERATION_TIMEDOUT, CURLE_WRITE_ERROR]
        let isOver = code == CURLE_OK || (isStream && status == 200 && brokenOff.contains(code))
        guard isOver else { throw Failure(reason: unsafe String(cString: curl_easy_strerror(code))) }
        return unsafe Head(status: status, retryAfterSeconds: Int(martlet_curl_retry_after(handle)))
    }
}

extension HTTPCall {
    /// Bytes of an answer, or of a line of one, at most, where nothing else is said.
    package static var limitBytes: Int { 64 << 20 }

    /// Asks for a whole answer of at most `limit` bytes.
    package func fetch(
        _ request: HTTPRequest, limit: Int = limitBytes, isStopped: () -> Bool = { false }
    ) throws(Failure) -> (status: Int, body: [UInt8]) {
        var body: [UInt8] = []
        do throws(Failure) {
            let head = try perform(request, isStopped: isStopped) { bytes in
                body += bytes
                return body.count <= limit
            }
            return (head.status, body)
        } catch {
            throw body.count > limit ? Failure(reason: "the answer has more than \(limit) bytes") : error
        }
    }

    /// Asks for lines; `onLine` gets each as it is whole, and says whether to go on. Returns the status, and of an
    /// error the beginning of the answer.
    package func lines(
        _ request: HTTPRequest, isStopped: () -> Bool, onLine: ([UInt8]) -> Bool
    ) throws(Failure) -> (status: Int, rest: [UInt8]) {
        var rest: [UInt8] = []
        let head = try perform(request, isStream: true, isStopped: isStopped) { bytes in
            rest += bytes
            var start = 0
            while let end = rest[start...].firstIndex(of: 10) {
                if end > start, !onLine(Array(rest[start..<end])) { return false }
                start = end + 1
            }
            rest.removeFirst(start)
            return rest.count <= Self.limitBytes
        }
        return (head.status, rest)
    }
}
