// Martlet
// SPDX-License-Identifier: Apache-2.0

/// What files of `Storage` that are fuzzed name beside what is: the whole module would take minutes to build.
package protocol StorageBackend {}

/// As above.
package struct StorageFailure: Error {}
