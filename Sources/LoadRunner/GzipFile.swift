// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CZlib
internal import Platform

// SAFETY (file): the stream is made in init and freed in deinit, at one address; zlib reads the source and writes the
// target inside of the closures only, as far as it is told. One thread uses it.

/// A file that is written from its beginning on, compressed by gzip where its name ends in `.gz`. For one thread.
@safe
final class GzipFile {
    private static let chunkBytes = 64 << 10

    private let file: Descriptor
    private let path: String
    private let stream: UnsafeMutablePointer<z_stream>?

    /// Makes or empties the file.
    init(_ path: String) throws(SystemError) {
        file = try createFile(path)
        self.path = path
        guard path.hasSuffix(".gz") else {
            unsafe stream = nil
            return
        }
        unsafe stream = .allocate(capacity: 1)
        let code = unsafe stream.map { unsafe martlet_gzip_begin($0) }
        guard code == Z_OK else { throw SystemError("deflateInit", subject: path) }
    }

    deinit {
        guard let stream = unsafe stream else { return }
        unsafe deflateEnd(stream)
        unsafe stream.deallocate()
    }

    /// Writes `bytes`; what compression holds back comes later.
    func write(_ bytes: [UInt8]) throws(SystemError) { try write(bytes, isLast: false) }

    /// Writes what is held back. Nothing is written behind it.
    func finish() throws(SystemError) {
        guard unsafe stream != nil else { return }
        try write([], isLast: true)
    }

    private func write(_ bytes: [UInt8], isLast: Bool) throws(SystemError) {
        guard let stream = unsafe stream else { return try writeAll(bytes, to: file, subject: path) }
        var packed: [UInt8] = []
        var source = bytes
        var target = [UInt8](repeating: 0, count: Self.chunkBytes)
        unsafe source.withUnsafeMutableBufferPointer { input in
            unsafe stream.pointee.next_in = input.baseAddress
            unsafe stream.pointee.avail_in = UInt32(input.count)
            var isFull = true
            while isFull {
                let room = target.count
                unsafe target.withUnsafeMutableBufferPointer { output in
                    unsafe stream.pointee.next_out = output.baseAddress
                    unsafe stream.pointee.avail_out = UInt32(room)
                    _ = unsafe deflate(stream, isLast ? Z_FINISH : Z_NO_FLUSH)
                }
                let left = unsafe Int(stream.pointee.avail_out)
                packed += target[..<(room - left)]
                isFull = left == 0
            }
        }
        try writeAll(packed, to: file, subject: path)
    }
}
