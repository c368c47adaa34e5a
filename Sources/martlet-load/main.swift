// Martlet
// SPDX-License-Identifier: Apache-2.0

import LoadRunner
import Platform

let arguments = programArguments()
let path = arguments.first ?? "martlet-load"
let program = String(path.split(separator: "/").last ?? "martlet-load")
exitProcess(
    LoadProgram(
        program: program, arguments: Array(arguments.dropFirst()), environment: Environment.all()
    ).run())
