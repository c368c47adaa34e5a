// Martlet
// SPDX-License-Identifier: Apache-2.0

import Glibc
import Memory
import Synchronization

private let pathNumber = Atomic<Int>(0)

/// A path that no other test has.
func temporaryPath(_ name: String) -> String {
    let directory = unsafe getenv("TMPDIR").map { unsafe String(cString: $0) } ?? "/tmp"
    return "\(directory)/martlet-\(getpid())-\(pathNumber.add(1, ordering: .relaxed).newValue)-\(name)"
}

/// A file's permissions; nil when it is not there.
func fileMode(_ path: String) -> UInt32? {
    var found = stat()
    return unsafe stat(path, &found) == 0 ? found.st_mode & 0o777 : nil
}

/// Two connected sockets; the second does not block.
func socketPair() throws -> (Int32, Int32) {
    var pair: [Int32] = [0, 0]
    guard unsafe socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0 else {
        throw TestFailure("socketpair")
    }
    _ = fcntl(pair[1], F_SETFL, O_NONBLOCK)
    return (pair[0], pair[1])
}

/// Resident memory of this process in bytes.
func residentBytes() -> Int {
    guard let file = unsafe fopen("/proc/self/statm", "r") else { return 0 }
    defer { unsafe fclose(file) }
    var line = [CChar](repeating: 0, count: 128)
    guard unsafe fgets(&line, 128, file) != nil else { return 0 }
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return (Int(text.split(separator: " ")[1]) ?? 0) * Int(getpagesize())
}

/// What is allocated in this process, as jemalloc counts it.
func allocatedBytes() -> Int {
    refreshStatistics()
    return AllocatorStatistics.current().allocatedBytes
}

/// Processor time of this process in nanoseconds.
func processorNanoseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Raises the limit on descriptors as far as it goes and returns it.
func raiseDescriptorLimit() -> Int {
    var limit = rlimit()
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    return Int(limit.rlim_cur)
}

/// Whether a sanitizer watches: it takes memory and time of its own.
let isSanitized = unsafe dlsym(nil, "__tsan_init") != nil || dlsym(nil, "__asan_init") != nil

/// A generator with the seed of MARTLET_SEED or a new one, which is printed.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init() {
        let given = unsafe getenv("MARTLET_SEED").map { unsafe String(cString: $0) }
        state = given.flatMap { UInt64($0) } ?? UInt64.random(in: 1...UInt64.max)
        print("MARTLET_SEED=\(state)")
    }

    /// One that another one seeded.
    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
        return word ^ word >> 31
    }
}

/// Lets other threads run, so that what was sent arrives on its own.
func usleepBriefly() { usleep(300) }

func usleepMilliseconds(_ count: UInt32) { usleep(count * 1_000) }

/// The names of this process's threads.
func threadNames() -> [String] {
    guard let directory = unsafe opendir("/proc/self/task") else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
        let task = unsafe withUnsafeBytes(of: entry.pointee.d_name) { bytes in
            unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        guard let file = unsafe fopen("/proc/self/task/\(task)/comm", "r") else { continue }
        var line = [CChar](repeating: 0, count: 64)
        if unsafe fgets(&line, 64, file) != nil {
            names.append(
                String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
        }
        unsafe fclose(file)
    }
    return names
}

/// Runs `body` while no more than `sparing` descriptors can be opened.
func withDescriptorsUsedUp<R>(sparing: Int, _ body: () throws -> R) throws -> R {
    var limit = rlimit()
    unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    let previous = limit.rlim_cur
    let probe = dup(0)
    // Descriptors up to the highest in use stay; the gaps below are filled.
    var gaps: [Int32] = []
    limit.rlim_cur = rlim_t(probe) + 64
    close(probe)
    unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    while true {
        let fd = dup(0)
        guard fd >= 0 else { break }
        gaps.append(fd)
    }
    for _ in 0..<min(sparing, gaps.count) { close(gaps.removeLast()) }
    defer {
        for fd in gaps { close(fd) }
        limit.rlim_cur = previous
        unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    }
    return try body()
}
