// Martlet
// SPDX-License-Identifier: Apache-2.0
#include "CPlatform.h"

// What jemalloc reads at its start: two arenas for small allocations (items and index have arenas of their own, and a
// reactor allocates next to nothing) rather than four per processor, each of which costs half a megabyte. MALLOC_CONF in
// the environment still wins.
const char *malloc_conf = "narenas:2";
