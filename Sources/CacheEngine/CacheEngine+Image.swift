// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory
package import Platform
internal import Synchronization

/// Why an image was not written or not read.
package enum ImageError: Error, CustomStringConvertible {
    /// The system refused.
    case system(SystemError)
    /// The file does not hold what its header says.
    case damaged(String)
    /// It is of a cache with a higher limit.
    case tooLarge

    package var description: String {
        switch self {
        case .system(let error): error.description
        case .damaged(let what): "the file is damaged: \(what)"
        case .tooLarge: "the memory limit was higher"
        }
    }
}

/// The cache in a file, so that the next process goes on with it.
///
/// An image is a header, the segments as they lie in memory, and a list of them. Segments hold positions relative to
/// themselves only, and the index is made anew from them. Both ways go shard by shard on several threads, and what has
/// been moved is given back at once: cache and image together take little more than one of them. For a cache that
/// nobody uses meanwhile.
extension CacheEngine {
    /// What of the engine must be the same for an image to be used.
    package var imageConditions: [String: String] {
        [
            "layout": "1", "memory": "\(configuration.limitBytes)", "shards": "\(shardCount)",
            "segment": "\(segmentBytes)", "itemSizeMax": "\(configuration.itemSizeMax)",
            "linger": "\(configuration.lingerSeconds)",
        ]
    }

    /// Writes the cache to `file` and empties it. `header` gets the engine's part. The header is written last: until
    /// then the file says that it is open. Returns the items that were written. Blocks.
    package func save(to file: SharedFile, _ header: ImageHeader, threads: Int) throws(ImageError) -> Int {
        var header = header
        let (offsets, end) = imageOffsets()
        let lists = Guarded<[[ImageSegment]]>(Array(repeating: [], count: shardCount))
        try inParallel(threads) { [self] (number) throws(ImageError) in
            let list = try saveShard(number, at: offsets[number], to: file)
            lists.withLock { $0[number] = list }
            withShard(number: number) { $0.removeAll() }
            releaseDroppedMemory()
        }
        let segments = lists.withLock { $0.flatMap { $0 } }
        let directory = ImageDirectory.encode(segments)
        let items = segments.reduce(0) { $0 + Int($1.liveItems) }
        header.state = .whole
        header.conditions.merge(imageConditions) { _, own in own }
        header.numbers.merge([
            "seed": Int64(bitPattern: hashSeed), "version": Int64(bitPattern: currentVersion), "items": Int64(items),
            "limit": Int64(limitBytes),
            "directoryOffset": Int64(end), "directoryBytes": Int64(directory.count),
            "directoryHash": Int64(bitPattern: stableHash(directory.span)),
        ]) { _, own in own }
        try Self.system { () throws(SystemError) in
            try file.write(directory.span, at: end)
            try file.resize(to: end + directory.count)
            try file.write(header.page.span, at: 0)
        }
        return items
    }

    /// Reads the image that `header` describes into the empty cache, which has its seed; what was read leaves the file.
    /// Returns the items. After an error the cache is empty again. Blocks.
    package func load(from file: SharedFile, _ header: ImageHeader, threads: Int) throws(ImageError) -> Int {
        guard header.numbers["limit"] ?? 0 <= limitBytes else { throw .tooLarge }
        do throws(ImageError) {
            let shards = try readDirectory(file, header)
            try inParallel(threads) { [self] (number) throws(ImageError) in
                try loadShard(number, shards[number], from: file)
            }
        } catch {
            removeAll()
            releaseDroppedMemory()
            throw error
        }
        currentVersion = UInt64(bitPattern: header.numbers["version"] ?? 0)
        return (0..<shardCount).reduce(0) { sum, number in
            sum + withShard(number: number) { $0.statistics.items }
        }
    }

    /// Where each shard's segments begin in the file, and where the last one's end.
    private func imageOffsets() -> (offsets: [Int], end: Int) {
        var offsets: [Int] = []
        var end = ImageHeader.byteCount
        for number in 0..<shardCount {
            offsets.append(end)
            withShard(number: number) { shard in
                shard.forEachImageSegment { _, _, _, block in end += block.count }
            }
        }
        return (offsets, end)
    }

    private func saveShard(_ number: Int, at start: Int, to file: SharedFile) throws(ImageError) -> [ImageSegment] {
        var list: [ImageSegment] = []
        var failure: SystemError?
        var offset = start
        withShard(number: number) { shard in
            shard.forEachImageSegment { isMain, isLarge, liveItems, block in
                guard failure == nil else { return }
                block.withSpan { span in
                    list.append(
                        ImageSegment(
                            shard: UInt32(number), usedBytes: UInt32(span.count), liveItems: liveItems, isMain: isMain,
                            isLarge: isLarge, offset: UInt64(offset), hash: stableHash(span)))
                    do throws(SystemError) { try file.write(span, at: offset) } catch { failure = error }
                    offset += span.count
                }
            }
        }
        if let failure { throw .system(failure) }
        return list
    }

    private func readDirectory(_ file: SharedFile, _ header: ImageHeader) throws(ImageError) -> [[ImageSegment]] {
        let start = Int(header.numbers["directoryOffset"] ?? 0)
        let count = Int(header.numbers["directoryBytes"] ?? 0)
        let length = try Self.system { () throws(SystemError) in try file.length() }
        guard start >= ImageHeader.byteCount, count >= 0, count <= length, start <= length - count else {
            throw .damaged("its list lies outside")
        }
        let bytes = try Self.read(file, at: start, count: count)
        guard let bytes, stableHash(bytes.span) == UInt64(bitPattern: header.numbers["directoryHash"] ?? 0),
            let segments = ImageDirectory.decode(bytes)
        else { throw .damaged("its list is another") }
        var shards: [[ImageSegment]] = Array(repeating: [], count: shardCount)
        for segment in segments {
            guard segment.shard < shardCount, segment.offset >= ImageHeader.byteCount,
                segment.offset <= start, Int(segment.usedBytes) <= start - Int(segment.offset)
            else { throw .damaged("its list names what is not there") }
            shards[Int(segment.shard)].append(segment)
        }
        return shards
    }

    private func loadShard(_ number: Int, _ list: [ImageSegment], from file: SharedFile) throws(ImageError) {
        for segment in list {
            guard let block = withShard(number: number, { $0.blockForImage(segment) }) else {
                throw .damaged("a segment of shard \(number) does not fit")
            }
            let content = block.slice(0, Int(segment.usedBytes))
            let isWhole: Bool
            do throws(SystemError) {
                isWhole = try content.withMutableSpan { (span) throws(SystemError) in
                    try file.read(into: &span, at: Int(segment.offset))
                }
            } catch {
                segmentMemory.free(SegmentMemory.Freed(block: block, isLarge: segment.isLarge))
                throw .system(error)
            }
            guard isWhole, content.withSpan({ stableHash($0) }) == segment.hash else {
                segmentMemory.free(SegmentMemory.Freed(block: block, isLarge: segment.isLarge))
                throw .damaged("a segment of shard \(number) is another")
            }
            let isTaken = withShard(number: number) { shard in
                shard.adoptImage(segment, block) { shardNumber($0) == number }
            }
            guard isTaken else { throw .damaged("a segment of shard \(number) holds no items") }
        }
        if let first = list.first, let last = list.last {
            file.discard(
                from: Int(first.offset), count: Int(last.offset) + Int(last.usedBytes) - Int(first.offset))
        }
    }

    private static func read(_ file: SharedFile, at offset: Int, count: Int) throws(ImageError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        do throws(SystemError) {
            var span = bytes.mutableSpan
            guard try file.read(into: &span, at: offset) else { return nil }
        } catch {
            throw .system(error)
        }
        return bytes
    }

    /// Calls `body` for every shard's number, on `threads` threads; the first error ends the others soon.
    private func inParallel(
        _ threads: Int, _ body: @escaping @Sendable (Int) throws(ImageError) -> Void
    ) throws(ImageError) {
        let state = Guarded<(next: Int, error: ImageError?)>((0, nil))
        let count = shardCount
        let work: @Sendable () -> Void = {
            while true {
                let number = state.withLock { state -> Int? in
                    guard state.error == nil, state.next < count else { return nil }
                    defer { state.next += 1 }
                    return state.next
                }
                guard let number else { return }
                do throws(ImageError) { try body(number) } catch { state.withLock { $0.error = $0.error ?? error } }
            }
        }
        let helpers = (1..<max(1, threads)).compactMap { number in
            try? Thread(name: "martlet-image\(number)", work)
        }
        work()
        for helper in helpers { helper.join() }
        if let error = state.withLock({ $0.error }) { throw error }
    }

    private static func system<R>(_ body: () throws(SystemError) -> R) throws(ImageError) -> R {
        do throws(SystemError) { return try body() } catch { throw .system(error) }
    }
}
