// Martlet
// SPDX-License-Identifier: Apache-2.0

import Hosting
import Platform
import RouterProxy

let arguments = programArguments()
let commandLine = RouterCommandLine(
    program: arguments.first ?? "martlet-router", arguments: Array(arguments.dropFirst()),
    environment: Environment.all()
) { path in
    do throws(SystemError) {
        let stamp = fileStamp(path)
        return .success(RouterCommandLine.File(try readFile(path, limitBytes: 16 << 20), stamp: stamp))
    } catch {
        return .failure(RouterCommandLine.FileProblem(error.reason))
    }
}

do throws(StartRefusal) {
    try RouterProgram(commandLine).run()
} catch {
    writeWhole(Array(error.output.utf8), to: 1)
    writeWhole(Array(error.errors.utf8), to: 2)
    exitProcess(error.code)
}
