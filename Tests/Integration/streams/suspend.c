// Martlet: a machine that was suspended, and a name with two addresses, for tests. Preloaded into a process
// (LD_PRELOAD).
// SPDX-License-Identifier: Apache-2.0
//
// MARTLET_SUSPENDED names a file that holds a 64-bit number of seconds: the clock that goes on during a suspend
// (CLOCK_BOOTTIME) is so much later, the others are not. MARTLET_STEPPED names one that holds milliseconds: the time of day
// (CLOCK_REALTIME) is so much later. MARTLET_DEAF_ADDRESS is an address that "localhost" has besides
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

static const volatile int64_t *seconds, *milliseconds;

static const volatile int64_t *shared(const char *variable) {
    const char *path = getenv(variable);
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return NULL;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    return page == MAP_FAILED ? NULL : page;
}

__attribute__((constructor)) static void begin(void) {
    seconds = shared("MARTLET_SUSPENDED");
    milliseconds = shared("MARTLET_STEPPED");
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_BOOTTIME && seconds) time->tv_sec += *seconds;
    if (result == 0 && milliseconds && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t nanoseconds = time->tv_sec * 1000000000 + time->tv_nsec + *milliseconds * 1000000;
        time->tv_sec = nanoseconds / 1000000000;
        time->tv_nsec = nanoseconds % 1000000000;
    }
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
