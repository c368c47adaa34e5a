// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Output of one connection that its socket did not take.
final class Backlog {
    var remaining: Int { 0 }
}
