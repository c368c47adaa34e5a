// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import CacheEngine
internal import Memory
internal import Platform
internal import Storage
internal import Synchronization

/// The file that keeps a node's items from one process to the next (`-e`).
///
/// The process that ends writes its cache into it, the next one reads it. While one runs the file says that it is
/// open, so that a process which ended in any other way leaves nothing to be read.
final class MemoryFile: Sendable {
    /// Where it is.
    var path: String { file.path }
    let file: SharedFile
    /// What it says; nil where it is empty.
    let header: ImageHeader?
    /// Why its header cannot be read.
    private let problem: String?

    /// Opens the file, or makes it. Refuses what is no memory file, so that nothing else is overwritten.
    init(_ path: String) throws(NodeStartError) {
        do throws(SystemError) {
            let file = try SharedFile(path)
            let page = try Self.firstPage(of: file)
            self.file = file
            do throws(ImageHeader.Problem) {
                header = try ImageHeader(page)
                problem = nil
            } catch {
                guard error == .damaged else {
                    throw SystemError("open", code: SystemError.existsCode, subject: path)
                }
                header = nil
                problem = "the file is damaged: its first page is another"
            }
        } catch {
            let reason =
                switch error.code {
                case SystemError.wouldBlockCode: "another process uses it"
                case SystemError.existsCode: "it is no memory file of Martlet; name a new one"
                case SystemError.notPermittedCode: "it is no file of the node's own user"
                default: error.reason
                }
            throw NodeStartError("the memory file \(path): \(reason)")
        }
    }

    private static func firstPage(of file: SharedFile) throws(SystemError) -> [UInt8] {
        var page = [UInt8](repeating: 0, count: min(try file.length(), ImageHeader.byteCount))
        var span = page.mutableSpan
        _ = try file.read(into: &span, at: 0)
        return page
    }

    /// Why the items cannot be used by a node with these conditions, at this time, whatever is in them; nil when they
    /// can. `isExpected` is false where there never were any.
    func refusal(
        _ conditions: [String: String], nowMilliseconds: Int64, ageLimitMilliseconds: Int64
    ) -> (reason: String, isExpected: Bool)? {
        if let problem { return (problem, true) }
        guard let header else { return ("there is none yet", false) }
        guard header.state == .whole else {
            return ("the process before did not end gracefully", true)
        }
        if let mismatch = header.mismatch(conditions) { return (mismatch, true) }
        let (age, overflow) = nowMilliseconds.subtractingReportingOverflow(header.numbers[Self.savedAt] ?? 0)
        if overflow || age < -Self.clockToleranceMilliseconds {
            return ("the system's clock is behind the file's", true)
        }
        if age > ageLimitMilliseconds { return ("the items are \(age / 1000) seconds old", true) }
        return nil
    }

    /// Says that a process has the file, durably.
    func markOpen(_ conditions: [String: String]) throws(SystemError) {
        var header = ImageHeader()
        header.conditions = conditions
        try file.write(header.page.span, at: 0)
        try file.sync()
    }

    /// Names of numbers in the header: when it was written (milliseconds of Unix time), the Unix time of the clock's
    /// second 0, and the second of a flush to come.
    static let savedAt = "savedAt"
    static let epoch = "epoch"
    static let flushSecond = "flushSecond"
    /// What a clock may be set back by without a doubt about expiry, in milliseconds.
    private static let clockToleranceMilliseconds: Int64 = 1000
}

extension Node {
    /// What must be the same in two processes for one to use the items of the other: the cache, and what decides which
    /// keys have storage and what is in it. Nil for a store that others may write to meanwhile.
    var imageConditions: [String: String]? {
        var conditions = engine.imageConditions
        conditions["storage"] = configuration.storage.backend.rawValue
        conditions["pools"] = hashedName(Array("\(configuration.storage.pools)".utf8).span)
        // What other regions say while nobody listens would be missed.
        if configuration.regions.isOn { return nil }
        guard let storage else { return conditions }
        guard let mark = storage.backend.contentMark else { return nil }
        conditions["store"] = mark
        return conditions
    }

    /// What happened to the items of the process before.
    enum Restoration: Sendable, Equatable {
        /// There is no memory file.
        case notAsked
        /// So many are there again.
        case restored(items: Int)
        /// The cache begins empty, and why. `isExpected` is false where there never were any items.
        case cold(reason: String, isExpected: Bool)
    }

    /// Brings the items of the process before back, if they are as they must be. Blocks. Once, before anybody is served
    /// and after the store is open.
    func restoreItems() throws(SystemError) -> Restoration {
        guard let memoryFile else { return .notAsked }
        let now = Int64(Clock.realtimeNanoseconds() / 1_000_000)
        var refusal: (reason: String, isExpected: Bool)?
        if let conditions = imageConditions {
            refusal = memoryFile.refusal(
                conditions, nowMilliseconds: now, ageLimitMilliseconds: configuration.memoryFileAgeMilliseconds)
        } else {
            refusal = ("others may have written to the store meanwhile", true)
        }
        // From here on nobody else may use them, not even after a power loss.
        try memoryFile.markOpen(engine.imageConditions)
        defer { try? memoryFile.file.resize(to: ImageHeader.byteCount) }
        if let refusal { return .cold(reason: refusal.reason, isExpected: refusal.isExpected) }
        guard let header = memoryFile.header else { return .cold(reason: "there is none yet", isExpected: false) }
        // Expiry is in seconds of the clock.
        guard clock.goesOn, !clock.wasSet else {
            return .cold(reason: "the system's clock was set meanwhile", isExpected: true)
        }
        do throws(ImageError) {
            let items = try engine.load(from: memoryFile.file, header, threads: imageThreads)
            setPendingFlush(UInt32(truncatingIfNeeded: header.numbers[MemoryFile.flushSecond] ?? 0))
            restoredItems.store(items, ordering: .relaxed)
            return .restored(items: items)
        } catch {
            return .cold(reason: error.description, isExpected: true)
        }
    }

    /// Writes the items into the memory file for the next process. Returns how many there are; nil where the store may
    /// change meanwhile. What cannot be written whole is taken back. Blocks. Once, when nobody is served any more and
    /// the store is closed.
    func saveItems() throws(ImageError) -> Int? {
        guard let memoryFile, let conditions = imageConditions else { return nil }
        var header = ImageHeader()
        header.conditions = conditions
        header.numbers[MemoryFile.savedAt] = Int64(Clock.realtimeNanoseconds() / 1_000_000)
        header.numbers[MemoryFile.epoch] = clock.currentEpoch
        header.numbers[MemoryFile.flushSecond] = Int64(pendingFlush)
        do throws(ImageError) {
            return try engine.save(to: memoryFile.file, header, threads: imageThreads)
        } catch {
            try? memoryFile.file.resize(to: ImageHeader.byteCount)
            throw error
        }
    }

    private var imageThreads: Int { min(ProcessControl.processors, 8) }
}
