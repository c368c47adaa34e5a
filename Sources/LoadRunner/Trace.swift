// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import LoadModel
internal import Platform

/// A trace of requests to replay: lines of `time,key,size,operation`, times in seconds, in rising order.
struct Trace: Sendable {
    /// Bytes of a trace file at most.
    static let sizeLimitBytes = 1 << 30

    var rows: [TraceRow] = []
    /// The keys by their numbers.
    var keys: [[UInt8]] = []

    /// The operations of its rows.
    private(set) var operations: Set<LoadModel.Operation> = []

    /// Reads the file at `path`. A first line that begins with a letter is a heading.
    init(path: String, _ files: TestFiles) throws(OptionProblem) {
        let bytes: [UInt8]
        do throws(SystemError) {
            bytes = try files.read(path, limitBytes: Self.sizeLimitBytes)
        } catch {
            throw OptionProblem("trace \(path): \(error.reason)")
        }
        var numbers: [[UInt8]: UInt64] = [:]
        var (first, last) = (Double?.none, UInt64(0))
        for (index, line) in bytes.split(separator: 10, omittingEmptySubsequences: false).enumerated() {
            let text = line.last == 13 ? line.dropLast() : line
            if text.isEmpty || (index == 0 && !(text.first.map { (48...57).contains($0) } ?? false)) { continue }
            func problem(_ what: String) -> OptionProblem { OptionProblem("\(path):\(index + 1): \(what)") }
            let fields = text.split(separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
            guard fields.count == 4 else { throw problem("expected time,key,size,operation") }
            guard let time = Double(String(decoding: fields[0], as: UTF8.self)), time >= 0 else {
                throw problem("the time is no number of seconds")
            }
            let key = Array(fields[1])
            guard (1...250).contains(key.count), key.allSatisfy({ $0 > 32 && $0 != 127 }) else {
                throw problem("the key is none that memcached takes")
            }
            guard let size = Int32(String(decoding: fields[2], as: UTF8.self)), (0...(128 << 20)).contains(size) else {
                throw problem("the size is no number of bytes up to 128 MiB")
            }
            let name = String(decoding: fields[3], as: UTF8.self)
            guard let operation = Operation.ofWorkloads.first(where: { $0.name == name }), operation != .mget else {
                throw problem("'\(name)' is no operation")
            }
            let begin = first ?? time
            first = begin
            guard time - begin < Double(longestDuration) / 1e9 else {
                throw problem("the time is more than a century after the first")
            }
            let offset = UInt64(max(0, time - begin) * 1e9)
            guard offset >= last else { throw problem("the time is before that of the line above") }
            last = offset
            let number = numbers[key] ?? UInt64(keys.count)
            if number == UInt64(keys.count) {
                numbers[key] = number
                keys.append(key)
            }
            operations.insert(operation)
            rows.append(TraceRow(time: offset, key: number, length: size, operation: operation))
        }
        guard !rows.isEmpty else { throw OptionProblem("trace \(path): there are no rows") }
    }
}
