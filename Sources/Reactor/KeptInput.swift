// Martlet
// SPDX-License-Identifier: Apache-2.0

internal import Memory

/// Input of one connection that its handler did not consume.
struct KeptInput {
    var count = 0
}
