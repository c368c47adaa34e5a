// Martlet
// SPDX-License-Identifier: Apache-2.0

// Durable writes and the way past the cache against bare loops: `storage-bench DIRECTORY [ROUNDS] [PART...]`. A line of
// JSON for each figure; `postgres` is measured at the URL in MARTLET_STORAGE_URL, `node` at nodes that listen on the ports
// in MARTLET_BENCH_SYNC and MARTLET_BENCH_ASYNC. DIRECTORY must be new or empty; it is left as it is.

import Platform

let arguments = CommandLine.arguments
guard arguments.count >= 2 else {
    writeWhole(Array("usage: storage-bench DIRECTORY [ROUNDS] [durable] [engine] [postgres] [node]\n".utf8), to: 2)
    exitProcess(2)
}
let bench = Bench(directory: arguments[1], rounds: arguments.count > 2 ? Int(arguments[2]) ?? 5 : 5)
let parts = arguments.count > 3 ? Array(arguments[3...]) : ["durable", "engine"]
do throws(SystemError) { try makeDirectory(bench.directory) } catch {
    writeWhole(Array("storage-bench: \(error)\n".utf8), to: 2)
    exitProcess(2)
}
if parts.contains("durable") { for line in bench.durable() { writeWhole(Array((line.json + "\n").utf8), to: 1) } }
if parts.contains("postgres") {
    let lines = bench.postgres(Environment.value("MARTLET_STORAGE_URL") ?? "")
    for line in lines { writeWhole(Array((line.json + "\n").utf8), to: 1) }
}
if parts.contains("engine") { for line in bench.engine() { writeWhole(Array((line.json + "\n").utf8), to: 1) } }
if parts.contains("node") {
    func port(_ name: String) -> Int32 { Int32(Environment.value(name) ?? "") ?? 0 }
    let lines = bench.durableNode(port("MARTLET_BENCH_SYNC")) + bench.node(port("MARTLET_BENCH_ASYNC"))
    for line in lines { writeWhole(Array((line.json + "\n").utf8), to: 1) }
}
