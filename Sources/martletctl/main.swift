// Martlet
// SPDX-License-Identifier: Apache-2.0

import Control
import Platform

let arguments = programArguments()
let program = arguments.first.map { String($0.split(separator: "/").last ?? "martletctl") } ?? "martletctl"
do throws(ControlError) {
    let text = try ControlProgram(
        program: program, arguments: Array(arguments.dropFirst()), environment: Environment.all()
    ).run()
    writeWhole(Array(text.utf8), to: 1)
} catch {
    writeWhole(Array(error.report(program: program, arguments: arguments).utf8), to: 2)
    exitProcess(error.code.rawValue)
}
