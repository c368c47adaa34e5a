// Martlet
// SPDX-License-Identifier: Apache-2.0

// Writes to a store until it is killed, and says what it asked for and what was answered; or says what is in a store.
// See Tests/StorageCrash/README.md for the lines that it writes.

import Platform
import Storage
import StorageRocksDB

let arguments = CommandLine.arguments
guard arguments.count >= 3, let command = Command(arguments) else {
    say(
        "usage: storage-crash-writer run DIRECTORY SEED DURABILITY FIRST-TOKEN CLOCK-OFFSET\n"
            + "       storage-crash-writer check DIRECTORY DURABILITY", to: 2)
    exitProcess(2)
}
command.perform()
