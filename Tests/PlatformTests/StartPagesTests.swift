// Martlet
// SPDX-License-Identifier: Apache-2.0

import Platform
import Testing

@Suite(.serialized) struct StartPagesTests {
    /// Resident kilobytes that are pages of files.
    private func fileKilobytes() throws -> Int {
        let text = String(decoding: try readFile("/proc/self/status", limitBytes: 1 << 20), as: UTF8.self)
        let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("RssFile:") })
        return try #require(Int(line.split(separator: " ")[1]))
    }

    @Test func leaveResidentMemoryAndComeBack() throws {
        let before = try fileKilobytes()
        ProcessControl.releaseStartPages()
        let after = try fileKilobytes()
        #expect(after < before)
        // Relocated data, constants and code are as they were.
        ProcessControl.releaseStartPages()
        let words = (0..<1_000).map { "word \($0)" }.sorted().joined(separator: ",")
        #expect(words.hasPrefix("word 0,word 1,word 10,") && words.utf8.count == 8_889)
    }
}
