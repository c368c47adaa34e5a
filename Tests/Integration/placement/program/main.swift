// Martlet
// SPDX-License-Identifier: Apache-2.0

// Says who owns keys by the module Routing, or measures its schemes. See Tests/Integration/README.md.

import Platform

let arguments = CommandLine.arguments
switch arguments.dropFirst().first {
case "owners" where arguments.count >= 3:
    guard let scheme = Names.scheme(arguments[2]) else { end("no scheme '\(arguments[2])'") }
    guard let part = Names.part(arguments.count > 3 ? arguments[3] : "whole") else { end("no part '\(arguments[3])'") }
    printOwners(scheme, part)
case "measure" where arguments.count >= 4:
    guard let servers = Int(arguments[2]), let keys = Int(arguments[3]), servers > 1, keys > 0 else {
        end("measure takes two numbers")
    }
    Measurement(servers: servers, keys: keys).run(arguments.count > 4 ? arguments[4] : "")
default:
    end("usage: placement owners SCHEME [PART]\n       placement measure SERVERS KEYS [SCHEME]")
}
