// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import NodeServer
import Platform

let arguments = programArguments()
let commandLine = NodeCommandLine(
    program: arguments.first ?? "martlet-server", arguments: Array(arguments.dropFirst()),
    environment: Environment.all()
) { path in
    do throws(SystemError) {
        return .success(try readFile(path, limitBytes: 4 << 20))
    } catch {
        return .failure(NodeCommandLine.FileProblem(error.reason))
    }
}

do throws(StartRefusal) {
    try NodeProgram(commandLine, backend: makeBackend).run()
} catch {
    writeWhole(Array(error.output.utf8), to: 1)
    writeWhole(Array(error.errors.utf8), to: 2)
    exitProcess(error.code)
}
