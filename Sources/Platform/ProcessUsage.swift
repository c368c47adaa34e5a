// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CPlatform

/// What this process has used of the machine.
package struct ProcessUsage: Sendable {
    /// Processor time in user mode, in microseconds.
    package var userMicroseconds: UInt64 = 0
    /// Processor time in the kernel, in microseconds.
    package var systemMicroseconds: UInt64 = 0
    /// Memory in use and memory mapped, in bytes; 0 without /proc.
    package var residentBytes: UInt64 = 0
    /// Memory mapped, in bytes; 0 without /proc.
    package var virtualBytes: UInt64 = 0

    package init() {}

    /// Reads the kernel's figures. Two system calls and a small file: for statistics.
    package static func current() -> ProcessUsage {
        var result = ProcessUsage()
        var usage = rusage()
        // SAFETY: the kernel fills the local structure.
        if unsafe getrusage(Int32(RUSAGE_SELF.rawValue), &usage) == 0 {
            result.userMicroseconds = microseconds(usage.ru_utime)
            result.systemMicroseconds = microseconds(usage.ru_stime)
        }
        // SAFETY: a terminated constant for the call.
        let fd = unsafe martlet_open("/proc/self/statm", O_RDONLY, 0)
        guard fd >= 0 else { return result }
        defer { close(fd) }
        var text = [UInt8](repeating: 0, count: 256)
        // SAFETY: the kernel writes inside the array, which lives during the call.
        let count = unsafe text.withUnsafeMutableBytes { unsafe read(fd, $0.baseAddress, $0.count) }
        let words = text.prefix(max(count, 0)).split(separator: UInt8(ascii: " "), maxSplits: 2)
        guard words.count == 3 else { return result }
        let page = UInt64(sysconf(Int32(_SC_PAGESIZE)))
        result.virtualBytes = number(words[0]) * page
        result.residentBytes = number(words[1]) * page
        return result
    }

    private static func microseconds(_ time: timeval) -> UInt64 {
        UInt64(clamping: time.tv_sec) * 1_000_000 + UInt64(clamping: time.tv_usec)
    }

    private static func number(_ digits: ArraySlice<UInt8>) -> UInt64 {
        digits.reduce(0) { $0 &* 10 &+ UInt64($1 &- 48) }
    }
}
