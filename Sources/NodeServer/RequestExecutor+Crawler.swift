// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import MemcacheProtocol
internal import Memory
internal import Platform
internal import Reactor
internal import Synchronization

/// `lru_crawler`: what needs memcached's crawler thread. Source: memcached protocol.txt, "LRU_Crawler".
extension RequestExecutor {
    /// Bytes of the list of classes that are looked at.
    private static var classListBytes: Int { 511 }
    /// The most microseconds of `lru_crawler sleep`.
    private static var sleepLimit: UInt32 { 1_000_000 }

    mutating func lruCrawler(
        _ request: Request, _ input: Span<UInt8>, _ connection: inout Connection, _ output: inout OutputBuffer
    ) {
        let line = input.extracting(request.lineOffset..<request.lineOffset + request.lineLength)
        let tokens = Tokenizer(line)
        switch tokens.count {
        case 3 where tokens.abbreviates(1, "crawl", in: line):
            answer(crawl(Self.classes(tokens, line)), request, &output)
        case 3 where tokens.abbreviates(1, "metadump", in: line):
            dump(.properties, Self.classes(tokens, line), request, &connection, &output)
        case 3 where tokens.abbreviates(1, "mgdump", in: line):
            dump(.commands, Self.classes(tokens, line), request, &connection, &output)
        case 3 where tokens.abbreviates(1, "tocrawl", in: line):
            guard let count = tokens.uint32(2, in: line) else { return refuse(.badCommandLine, request, &output) }
            node.baseline.crawler.choices.toCrawl = count
            answer("OK\r\n", request, &output)
        case 3 where tokens.abbreviates(1, "sleep", in: line):
            guard let microseconds = tokens.uint32(2, in: line) else {
                return refuse(.badCommandLine, request, &output)
            }
            guard microseconds <= Self.sleepLimit else {
                return answer("CLIENT_ERROR sleep must be one second or less\r\n", request, &output)
            }
            node.baseline.crawler.choices.sleepMicroseconds = microseconds
            answer("OK\r\n", request, &output)
        case 2 where tokens.abbreviates(1, "enable", in: line):
            let isOn = node.enableCrawler()
            answer(isOn ? "OK\r\n" : "ERROR failed to start lru crawler thread\r\n", request, &output)
        case 2 where tokens.abbreviates(1, "disable", in: line):
            node.crawlerDisabled.store(true, ordering: .relaxed)
            answer("OK\r\n", request, &output)
        default: refuse(.error, request, &output)
        }
    }

    private static func classes(_ tokens: Tokenizer, _ line: Span<UInt8>) -> String {
        var bytes: [UInt8] = []
        for index in tokens.range(2).prefix(classListBytes) { bytes.append(line[index]) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// Drops what is expired, in the background. Returns the answer.
    private func crawl(_ classes: String) -> StaticString {
        guard node.isCrawlerOn else { return "CLIENT_ERROR lru crawler disabled\r\n" }
        guard let scope = CrawlScope(classes) else { return "BADCLASS invalid class id\r\n" }
        if scope.isHash { return "ERROR an unknown error happened\r\n" }
        if scope.isEmpty { return "NOTSTARTED no items to crawl\r\n" }
        guard node.baseline.crawler.begin() else { return "BUSY currently processing crawler request\r\n" }
        do throws(SystemError) {
            _ = try Thread(name: "martlet-crawl") { [node] in node.crawl() }
            return "OK\r\n"
        } catch {
            node.baseline.crawler.end(checked: 0)
            return "ERROR an unknown error happened\r\n"
        }
    }

    private mutating func dump(
        _ form: ItemDump.Form, _ classes: String, _ request: Request, _ connection: inout Connection,
        _ output: inout OutputBuffer
    ) {
        guard node.isCrawlerOn else { return answer("CLIENT_ERROR lru crawler disabled\r\n", request, &output) }
        guard node.configuration.allowsDump else {
            return answer(
                form == .properties ? "ERROR metadump not allowed\r\n" : "ERROR key dump not allowed\r\n", request,
                &output)
        }
        guard output.isEmpty, !defers else {
            return answer(
                form == .properties
                    ? "ERROR cannot pipeline other commands before metadump\r\n"
                    : "ERROR cannot pipeline other commands before mgdump\r\n", request, &output)
        }
        guard let scope = CrawlScope(classes) else { return answer("BADCLASS invalid class id\r\n", request, &output) }
        if scope.isEmpty { return answer("NOTSTARTED no items to crawl\r\n", request, &output) }
        guard node.baseline.crawler.begin() else {
            return answer("BUSY currently processing crawler request\r\n", request, &output)
        }
        let stream = connection.makeStream(of: reactor, limitBytes: ItemDump.waitingLimitBytes)
        let dump = ItemDump(node: node, form: form, scope: scope, stream: stream)
        connection.pauseReading()
        do throws(SystemError) {
            _ = try Thread(name: "martlet-dump") { dump.run() }
            output.append("OK\r\n")
        } catch {
            node.baseline.crawler.end(checked: 0)
            stream.finish(closing: false)
            output.append("ERROR an unknown error happened\r\n")
        }
    }
}
