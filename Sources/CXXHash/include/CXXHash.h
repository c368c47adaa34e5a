// Martlet: XXH3 inlined into its callers. No logic.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#define XXH_INLINE_ALL
#include <xxhash.h>

static inline uint64_t martlet_xxh3(const void *bytes, size_t count, uint64_t seed) {
    return XXH3_64bits_withSeed(bytes, count, seed);
}
