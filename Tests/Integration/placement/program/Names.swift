// Martlet
// SPDX-License-Identifier: Apache-2.0

import Memory
import Platform
import Routing

/// Says what is wrong and ends the program.
func end(_ complaint: String) -> Never {
    writeWhole(Array((complaint + "\n").utf8), to: 2)
    exitProcess(2)
}

/// What the command line calls schemes and parts of keys.
enum Names {
    /// `multiprobe`, `ch3`, …, `modulo:crc32_positive`, `ketama:libmemcached-weighted:md5`.
    static func scheme(_ text: String) -> HashScheme? {
        let parts = text.split(separator: ":").map(String.init)
        let hash = KeyHash(rawValue: parts.last ?? "") ?? .md5
        return switch parts.first {
        case "multiprobe": .multiProbe
        case "ch3": .ch3
        case "weighted-ch3": .weightedCh3
        case "rendezvous": .rendezvous
        case "weighted-rendezvous": .weightedRendezvous
        case "pymemcache": .pymemcacheRendezvous
        case "jump": .jump
        case "modulo": .modulo(hash)
        case "twemproxy-modula": .twemproxyModula(hash)
        case "ketama" where parts.count > 1: dialect(parts[1]).map { .ketama($0, hash) }
        default: nil
        }
    }

    private static func dialect(_ text: String) -> KetamaDialect? {
        switch text {
        case "libmemcached": .libmemcached
        case "libmemcached-weighted": .libmemcachedWeighted
        case "twemproxy": .twemproxy
        case "uhashring": .uhashring
        case "uhashring-ketama": .uhashringKetama
        default: nil
        }
    }

    /// `whole`, `hash-stop`, `tag:{}`, `before:` and a delimiter.
    static func part(_ text: String) -> HashedPart? {
        let bytes = Array(text.utf8)
        if text == "whole" { return .whole }
        if text == "hash-stop" { return .beforeHashStop }
        if text.hasPrefix("tag:"), bytes.count == 6 { return .tag(open: bytes[4], close: bytes[5]) }
        if text.hasPrefix("before:"), bytes.count > 7 { return .before(delimiter: Array(bytes[7...])) }
        return nil
    }
}

/// Reads the number of servers, a line `host port weight [alias]` for each, and keys; prints each key's owner.
func printOwners(_ scheme: HashScheme, _ part: HashedPart) {
    guard let count = Int(readLine() ?? "") else { end("the first line is the number of servers") }
    let servers = (0..<count).map { _ in
        let words = (readLine() ?? "").split(separator: " ").map(String.init)
        guard words.count >= 3, let port = Int(words[1]), let weight = Double(words[2]) else {
            end("a server is: host port weight [alias]")
        }
        return Server(host: words[0], port: port, weight: weight, alias: words.count > 3 ? words[3] : nil)
    }
    do throws(SelectorError) {
        let selector = try ServerSelector(servers, scheme: scheme, part: part)
        var output: [UInt8] = []
        while let key = readLine() {
            output += "\(selector.owner(of: Array(key.utf8).span))\n".utf8
        }
        writeWhole(output, to: 1)
    } catch {
        end(error.description)
    }
}
