// Martlet: a machine that was suspended, and a name with two addresses, for tests. Preloaded into a process
// (LD_PRELOAD).
// SPDX-License-Identifier: Apache-2.0
//
// MARTLET_SUSPENDED names a file that holds a 64-bit number of seconds: the clock that goes on during a suspend
// (CLOCK_BOOTTIME) is so much later, the others are not. MARTLET_DEAF_ADDRESS is an address that "localhost" has besides
// its own, and before it.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *seconds;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("MARTLET_SUSPENDED");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) seconds = page;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_BOOTTIME && seconds) time->tv_sec += *seconds;
    return result;
}

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real) real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
    const char *deaf = getenv("MARTLET_DEAF_ADDRESS");
    int result = real(name, service, hints, found);
    if (result != 0 || !deaf || !name || strcmp(name, "localhost") != 0) return result;
    struct addrinfo *first = NULL;
    if (real(deaf, service, hints, &first) != 0) return result;
    struct addrinfo *last = first;
    while (last->ai_next) last = last->ai_next;
    last->ai_next = *found;
    *found = first;
    return 0;
}
