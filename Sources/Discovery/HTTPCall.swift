// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CCurl

/// HTTP, by libcurl: one call at a time, from one thread, whose answer is given piece by piece as it comes. Blocks.
// SAFETY (file): the handle lives from init to deinit; libcurl copies the texts it is given, and calls back only within
// curl_easy_perform, during which the transfer is alive.
@safe
final class HTTPCall {
    /// Why there was no answer.
    struct Failure: Error, Sendable {
        let reason: String
    }

    /// What is asked.
    struct Request {
        var method = "GET"
        var url: String
        var body: String?
        var headers: [String] = []
        var caFile: String?
        /// The whole call may take that long.
        var timeoutSeconds = 10
    }

    private let handle: UnsafeMutableRawPointer

    /// Bytes of an answer, or of a line of one, at most.
    static var limitBytes: Int { 64 << 20 }

    init() throws(Failure) {
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
    /// be broken off. Returns the status.
    func perform(
        _ request: Request, isStream: Bool = false, isStopped: () -> Bool, onData: ([UInt8]) -> Bool
    ) throws(Failure) -> Int {
        unsafe curl_easy_reset(handle)
        unsafe martlet_curl_set_text(handle, CURLOPT_URL, request.url)
        unsafe martlet_curl_set_text(handle, CURLOPT_PROTOCOLS_STR, "http,https")
        unsafe martlet_curl_set_text(handle, CURLOPT_CUSTOMREQUEST, request.method)
        // Who knows the fleet is asked directly, whatever the environment says about proxies.
        unsafe martlet_curl_set_text(handle, CURLOPT_PROXY, "")
        if let body = request.body { unsafe martlet_curl_set_text(handle, CURLOPT_COPYPOSTFIELDS, body) }
        if let file = request.caFile { unsafe martlet_curl_set_text(handle, CURLOPT_CAINFO, file) }
        unsafe martlet_curl_set_number(handle, CURLOPT_CONNECTTIMEOUT, 5)
        unsafe martlet_curl_set_number(handle, CURLOPT_TIMEOUT, request.timeoutSeconds)
        unsafe martlet_curl_set_number(handle, CURLOPT_TCP_KEEPALIVE, 1)
        unsafe martlet_curl_set_number(handle, CURLOPT_TCP_KEEPIDLE, 15)
        unsafe martlet_curl_set_number(handle, CURLOPT_TCP_KEEPINTVL, 5)
        unsafe martlet_curl_set_number(handle, CURLOPT_NOSIGNAL, 1)
        unsafe martlet_curl_set_number(handle, CURLOPT_NOPROGRESS, 0)
        var headers: UnsafeMutablePointer<curl_slist>?
        for header in request.headers { unsafe headers = curl_slist_append(headers, header) }
        defer { unsafe curl_slist_free_all(headers) }
        unsafe martlet_curl_set_headers(handle, headers)
        return try withoutActuallyEscaping(isStopped) { (isStopped) throws(Failure) in
            try withoutActuallyEscaping(onData) { (onData) throws(Failure) in
                try perform(Transfer(isStopped: isStopped, onData: onData), isStream: isStream)
            }
        }
    }

    private func perform(_ transfer: Transfer, isStream: Bool) throws(Failure) -> Int {
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
        return status
    }

    /// Asks for a whole answer.
    func fetch(_ request: Request, isStopped: () -> Bool) throws(Failure) -> (status: Int, body: [UInt8]) {
        var body: [UInt8] = []
        let status = try perform(request, isStopped: isStopped) { bytes in
            body += bytes
            return body.count <= Self.limitBytes
        }
        return (status, body)
    }

    /// Asks for lines; `onLine` gets each as it is whole, and says whether to go on. Returns the status, and of an
    /// error the beginning of the answer.
    func lines(
        _ request: Request, isStopped: () -> Bool, onLine: ([UInt8]) -> Bool
    ) throws(Failure) -> (status: Int, rest: [UInt8]) {
        var rest: [UInt8] = []
        let status = try perform(request, isStream: true, isStopped: isStopped) { bytes in
            rest += bytes
            var start = 0
            while let end = rest[start...].firstIndex(of: 10) {
                if end > start, !onLine(Array(rest[start..<end])) { return false }
                start = end + 1
            }
            rest.removeFirst(start)
            return rest.count <= Self.limitBytes
        }
        return (status, rest)
    }
}
