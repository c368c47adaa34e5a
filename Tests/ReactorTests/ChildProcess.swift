// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Runs a program of the PATH to its end: what it wrote, and how it ended.
struct ChildProcess {
    let output: [UInt8]
    let errors: String
    let status: Int32

    /// `input` is written while output is read. Output is not read before `mayRead` says so, or a minute has passed.
    init(
        _ arguments: [String], input: [UInt8] = [], directory: String = ".", mayRead: () -> Bool = { true }
    ) throws {
        let errorPath = temporaryPath("errors")
        var (stdin, stdout): ([Int32], [Int32]) = ([0, 0], [0, 0])
        guard unsafe pipe(&stdin) == 0, unsafe pipe(&stdout) == 0 else { throw TestFailure("pipe: errno \(errno)") }
        // The child would keep its own input open.
        for fd in stdin + stdout { _ = fcntl(fd, F_SETFD, FD_CLOEXEC) }
        let process = try Self.spawn(arguments, stdin[0], stdout[1], errorPath, directory)
        close(stdin[0])
        close(stdout[1])
        output = Self.exchange(input, stdin[1], stdout[0], mayRead)
        close(stdout[0])
        var ending: Int32 = 0
        unsafe waitpid(process, &ending, 0)
        status = ending >> 8 & 0xFF
        errors = String(decoding: (try? fileContent(errorPath)) ?? [], as: UTF8.self)
        unsafe _ = unlink(errorPath)
    }

    private static func spawn(
        _ arguments: [String], _ input: Int32, _ output: Int32, _ errorPath: String, _ directory: String
    ) throws -> pid_t {
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_adddup2(&actions, input, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, output, 1)
        unsafe posix_spawn_file_actions_addopen(&actions, 2, errorPath, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        let command = "cd \"$0\" && exec \"$@\""
        var words: [UnsafeMutablePointer<CChar>?] = unsafe (["sh", "-c", command, directory] + arguments).map {
            unsafe strdup($0)
        }
        unsafe words.append(nil)
        defer { for index in unsafe words.indices { unsafe free(words[index]) } }
        var process = pid_t()
        let code = unsafe posix_spawnp(&process, "sh", &actions, nil, &words, environ)
        guard code == 0 else { throw TestFailure("posix_spawn: errno \(code)") }
        return process
    }

    /// Writes `input` and reads until the other side ends.
    private static func exchange(
        _ input: [UInt8], _ writing: Int32, _ reading: Int32, _ mayRead: () -> Bool
    ) -> [UInt8] {
        var (received, offset, chunk) = ([UInt8](), 0, [UInt8](repeating: 0, count: 1 << 16))
        // A child that has gone must not end the test with a signal.
        _ = signal(SIGPIPE, SIG_IGN)
        _ = fcntl(writing, F_SETFL, O_NONBLOCK)
        var (isWriting, isReading, pauses) = (true, false, 0)
        while true {
            if isWriting, offset == input.count {
                close(writing)
                isWriting = false
            }
            isReading = isReading || pauses > 12_000 || mayRead()
            var entries = [
                pollfd(fd: isReading ? reading : -1, events: Int16(POLLIN), revents: 0),
                pollfd(fd: isWriting ? writing : -1, events: Int16(POLLOUT), revents: 0),
            ]
            guard unsafe poll(&entries, 2, isReading ? 60_000 : 5) > 0 else {
                if isReading { break }
                pauses += 1
                continue
            }
            if isWriting, entries[1].revents != 0 {
                let count = unsafe input[offset...].withUnsafeBytes { unsafe write(writing, $0.baseAddress, $0.count) }
                offset = count > 0 ? offset + count : input.count
            }
            if entries[0].revents != 0 {
                let count = unsafe read(reading, &chunk, chunk.count)
                guard count > 0 else { break }
                received += chunk[..<count]
            }
        }
        if isWriting { close(writing) }
        return received
    }
}

/// All of a file.
func fileContent(_ path: String) throws -> [UInt8] {
    let fd = unsafe open(path, O_RDONLY)
    guard fd >= 0 else { throw TestFailure("open \(path): errno \(errno)") }
    defer { close(fd) }
    var (content, chunk) = ([UInt8](), [UInt8](repeating: 0, count: 1 << 16))
    while true {
        let count = unsafe read(fd, &chunk, chunk.count)
        guard count > 0 else { return content }
        content += chunk[..<count]
    }
}

/// Puts a copy of a file where no file or another one is.
func copyFile(_ source: String, to target: String) throws {
    let content = try fileContent(source)
    unsafe _ = unlink(target)
    let fd = unsafe open(target, O_WRONLY | O_CREAT | O_EXCL, 0o600)
    guard fd >= 0 else { throw TestFailure("create \(target): errno \(errno)") }
    defer { close(fd) }
    let count = unsafe content.withUnsafeBytes { unsafe write(fd, $0.baseAddress, $0.count) }
    guard count == content.count else { throw TestFailure("write \(target): errno \(errno)") }
}
