// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CMicroHTTPD
internal import Glibc
package import Platform

/// An HTTP server for people and monitors, on two threads of its own, by libmicrohttpd: handlers run side by side.
///
/// It answers GET and HEAD, and POST without a body for actions. What is wrong gets a JSON error: 404 for an unknown
/// path, 405 for another method. A request that is malformed or too large gets libmicrohttpd's 400 or 431.
@safe
package final class AdminServer: @unchecked Sendable {
    // SAFETY (Sendable): `daemon` is touched only under `lock`; libmicrohttpd guards what is its own.
    private var daemon: OpaquePointer?
    /// The listening socket until the daemon has it.
    private var socket: Int32?
    private let lock = Lock()
    private let pages: Pages
    private let configuration: AdminConfiguration
    /// The port that the server listens on.
    package let port: UInt16
    /// The address that it listens on, as `tcp:127.0.0.1:9150`.
    package let address: String

    /// Binds the address; nothing is answered before ``start()``. Fails with the system's reason, such as EADDRINUSE.
    package init(_ configuration: AdminConfiguration, routes: [AdminRoute]) throws(SystemError) {
        pages = Pages(configuration, routes)
        self.configuration = configuration
        let addresses = try ListeningSocket.resolve(
            host: configuration.host, port: configuration.port, isDatagram: false)
        guard let first = addresses.first else {
            throw SystemError("getaddrinfo", code: SystemError.addressInUseCode, subject: configuration.host)
        }
        let socket = try ListeningSocket.tcp(first, backlog: configuration.connectionLimit)
        let local = SocketAddress.local(of: socket.number)
        port = local.port
        address = local.description(isDatagram: false)
        self.socket = socket.release()
    }

    deinit { stop() }

    /// Starts the threads. Once.
    package func start() throws(SystemError) {
        lock.lock()
        defer { lock.unlock() }
        guard let number = socket else { preconditionFailure("an admin server starts once") }
        // SAFETY: under the lock; the daemon is kept until `stop` ends it.
        guard let daemon = unsafe Self.start(configuration, pages, number) else {
            throw SystemError("MHD_start_daemon", subject: address)
        }
        socket = nil
        unsafe self.daemon = daemon
    }

    /// Closes the listener and every connection, and waits for the thread. May be called more than once.
    package func stop() {
        lock.lock()
        let (number, daemon) = unsafe (socket, self.daemon)
        socket = nil
        unsafe self.daemon = nil
        lock.unlock()
        if let number { _ = Descriptor(owning: number) }
        // SAFETY: the daemon is alive, and nobody else has it any more. It closes its socket and ends its threads
        // before it returns, so no callback uses `pages` afterwards.
        if let daemon = unsafe daemon { unsafe MHD_stop_daemon(daemon) }
    }

    private static func start(_ configuration: AdminConfiguration, _ pages: Pages, _ socket: Int32) -> OpaquePointer? {
        var options = unsafe [
            MHD_OptionItem(option: .LISTEN_SOCKET, value: Int(socket), ptr_value: nil),
            MHD_OptionItem(
                option: .CONNECTION_LIMIT, value: configuration.connectionLimit, ptr_value: nil),
            MHD_OptionItem(
                option: .CONNECTION_TIMEOUT, value: configuration.timeoutSeconds, ptr_value: nil),
            MHD_OptionItem(
                option: .CONNECTION_MEMORY_LIMIT, value: configuration.connectionMemoryBytes, ptr_value: nil),
            // A page that takes long, such as one of rows, must not keep the probes from their answers.
            MHD_OptionItem(option: .THREAD_POOL_SIZE, value: 2, ptr_value: nil),
            MHD_OptionItem(option: .END, value: 0, ptr_value: nil),
        ]
        let flags = MHD_USE_INTERNAL_POLLING_THREAD.rawValue | MHD_USE_EPOLL.rawValue | MHD_USE_ITC.rawValue
        // SAFETY: libmicrohttpd copies the options before it returns. The pages outlive the daemon: the server owns
        // both and stops the daemon in deinit at the latest.
        return unsafe options.withUnsafeMutableBufferPointer { buffer in
            guard let list = buffer.baseAddress else { return nil }
            let arguments: [any CVarArg] = unsafe [MHD_OPTION.ARRAY.rawValue, list, MHD_OPTION.END.rawValue]
            return unsafe withVaList(arguments) { list in
                unsafe MHD_start_daemon_va(
                    flags, 0, nil, nil, unsafe answer, Unmanaged.passUnretained(pages).toOpaque(), list)
            }
        }
    }
}

/// What libmicrohttpd calls for each request: when its headers are there, for each part of its body, and at its end.
///
/// An answer to the first call closes the connection afterwards, without reading a body: right for methods that are
/// refused, and for actions, which have none. Others are answered in the last call, and the connection goes on.
private func answer(
    _ context: UnsafeMutableRawPointer?, _ connection: OpaquePointer?, _ url: UnsafePointer<CChar>?,
    _ method: UnsafePointer<CChar>?, _ version: UnsafePointer<CChar>?, _ upload: UnsafePointer<CChar>?,
    _ uploadSize: UnsafeMutablePointer<Int>?, _ state: UnsafeMutablePointer<UnsafeMutableRawPointer?>?
) -> MHD_Result {
    guard let context = unsafe context, let connection = unsafe connection, let url = unsafe url,
        let method = unsafe method
    else { return .NO }
    // SAFETY: the context is the server's pages, which outlive the daemon; the strings are terminated and live during
    // the call; the state is a word of the request's own, the size one of the call's.
    if unsafe strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 {
        if let state = unsafe state, unsafe state.pointee == nil {
            unsafe state.pointee = context
            return .YES
        }
        if let uploadSize = unsafe uploadSize, unsafe uploadSize.pointee > 0 {
            unsafe uploadSize.pointee = 0
            return .YES
        }
    }
    let pages = unsafe Unmanaged<Pages>.fromOpaque(context).takeUnretainedValue()
    let response = unsafe pages.respond(String(cString: method), String(cString: url)) { name in
        unsafe queryValue(connection, name)
    } header: { name in
        unsafe MHD_lookup_connection_value(connection, .HEADER_KIND, name).map { unsafe String(cString: $0) }
    } isLocal: {
        unsafe isLoopback(connection)
    }
    return unsafe send(response, connection)
}

/// Whether the request comes from this machine, by its address.
private func isLoopback(_ connection: OpaquePointer) -> Bool {
    // SAFETY: libmicrohttpd keeps the peer's address as long as the connection.
    guard let peer = unsafe martlet_peer_address(connection) else { return false }
    let address = unsafe SocketAddress { target, length in
        let size =
            unsafe Int32(peer.pointee.sa_family) == AF_INET6
            ? MemoryLayout<sockaddr_in6>.size : MemoryLayout<sockaddr_in>.size
        // SAFETY: an address of either family has as many bytes, and the target has room for any address.
        unsafe target.copyMemory(from: peer, byteCount: size)
        unsafe length.pointee = UInt32(size)
    }
    let host = address.host
    // Not all of 127/8: proxies of a service mesh come from other addresses in it.
    return ["127.0.0.1", "::1", "::ffff:127.0.0.1"].contains(host)
}

/// The value of a name in the query: empty when the name stands alone, nil when it is not there.
private func queryValue(_ connection: OpaquePointer, _ name: String) -> String? {
    var value: UnsafePointer<CChar>?
    var length = 0
    // SAFETY: the name lives during the call; the value lives as long as the request, and is copied at once.
    let found = unsafe MHD_lookup_connection_value_n(
        connection, .GET_ARGUMENT_KIND, name, name.utf8.count, &value, &length)
    guard found == .YES else { return nil }
    return unsafe value.map { unsafe String(cString: $0) } ?? ""
}

private func send(_ response: AdminResponse, _ connection: OpaquePointer) -> MHD_Result {
    var body = response.body
    // SAFETY: libmicrohttpd copies the body and the headers, and counts its own references to the response.
    let made = unsafe body.withUnsafeMutableBytes { bytes in
        unsafe MHD_create_response_from_buffer(bytes.count, bytes.baseAddress, .RESPMEM_MUST_COPY)
    }
    guard let made = unsafe made else { return .NO }
    defer { unsafe MHD_destroy_response(made) }
    unsafe MHD_add_response_header(made, "Content-Type", response.contentType)
    unsafe MHD_add_response_header(made, "Cache-Control", "no-store")
    unsafe MHD_add_response_header(made, "X-Content-Type-Options", "nosniff")
    if let policy = response.securityPolicy {
        unsafe MHD_add_response_header(made, "Content-Security-Policy", policy)
        unsafe MHD_add_response_header(made, "Referrer-Policy", "no-referrer")
        unsafe MHD_add_response_header(made, "X-Frame-Options", "DENY")
    }
    // RFC 9110, 15.5.2.
    if response.status == 401 { unsafe MHD_add_response_header(made, "WWW-Authenticate", "Bearer") }
    if let allow = response.allow { unsafe MHD_add_response_header(made, "Allow", allow) }
    return unsafe MHD_queue_response(connection, UInt32(response.status), made)
}
