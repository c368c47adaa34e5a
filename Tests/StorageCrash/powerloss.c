// Martlet: what a power loss would take, for tests. Preloaded into a process (LD_PRELOAD), it writes down what the
// process creates, renames, removes and syncs, so that the harness can take away what was never synced.
// SPDX-License-Identifier: Apache-2.0
//
// POWERLOSS_LOG        the file for the events, one a line
// POWERLOSS_ROOT       only what is below this directory counts
// POWERLOSS_GRAVEYARD  where a second link to what is removed or replaced goes, so that its inode stays
// POWERLOSS_LIE        1: syncs are written down, but not done (the page cache outlives the killed process anyway)
// POWERLOSS_FAIL_LOG   the number of the sync of a log file that fails with EIO, and all after it
//
// An event is written after the call it describes succeeded, and before the process learns that.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int log_fd = -1;
static char root[PATH_MAX], graveyard[PATH_MAX];
static int lies;
static long fail_after = -1;
static atomic_long log_syncs, graves;

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("POWERLOSS_LOG"), *below = getenv("POWERLOSS_ROOT"), *dead = getenv("POWERLOSS_GRAVEYARD");
    if (log == NULL || below == NULL || dead == NULL) return;
    snprintf(root, sizeof root, "%s/", below);
    snprintf(graveyard, sizeof graveyard, "%s", dead);
    lies = getenv("POWERLOSS_LIE") != NULL;
    if (getenv("POWERLOSS_FAIL_LOG") != NULL) fail_after = atol(getenv("POWERLOSS_FAIL_LOG"));
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void note(const char *format, ...) {
    char line[3 * PATH_MAX];
    va_list list;
    va_start(list, format);
    int length = vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (syscall(SYS_write, log_fd, line, (size_t)length) != length) _exit(99);
}

// The absolute form of a path below the root; 0 when it is elsewhere.
static int inside(int directory, const char *path, char *absolute) {
    if (log_fd < 0 || path == NULL) return 0;
    if (path[0] == '/') {
        snprintf(absolute, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX];
        if (directory == AT_FDCWD) {
            if (getcwd(base, sizeof base) == NULL) return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
            ssize_t length = readlink(link, base, sizeof base - 1);
            if (length < 0) return 0;
            base[length] = 0;
        }
        if (snprintf(absolute, PATH_MAX, "%.2000s/%.2000s", base, path) >= PATH_MAX) return 0;
    }
    // RocksDB doubles slashes here and there.
    char *to = absolute;
    for (char *from = absolute; *from; from++) {
        if (from[0] == '/' && from[1] == '/') continue;
        *to++ = *from;
    }
    *to = 0;
    return strncmp(absolute, root, strlen(root)) == 0;
}

static unsigned long inode(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 ? (unsigned long)status.st_ino : 0;
}

static int opened(int directory, const char *path, int flags, mode_t mode) {
    char absolute[PATH_MAX];
    int counts = (flags & O_CREAT) && inside(directory, path, absolute);
    unsigned long before = counts ? inode(absolute) : 0;
    int fd = (int)syscall(SYS_openat, directory, path, flags, mode);
    if (fd >= 0 && counts) {
        if (before == 0) {
            note("C %lu %s\n", inode(absolute), absolute);
        } else if (flags & O_TRUNC) {
            note("T %lu %s\n", before, absolute);
        }
    }
    return fd;
}

#define OPEN_MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) { OPEN_MODE(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { OPEN_MODE(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { OPEN_MODE(flags) return opened(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { OPEN_MODE(flags) return opened(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

static int synced(int fd, int call) {
    char link[64], path[PATH_MAX];
    struct stat status;
    int counts = 0;
    if (log_fd >= 0 && fstat(fd, &status) == 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path - 2);
        if (length > 0) {
            path[length] = 0;
            if (S_ISDIR(status.st_mode)) {
                path[length] = '/';
                path[length + 1] = 0;
            }
            counts = strncmp(path, root, strlen(root)) == 0;
        }
    }
    if (!counts) return (int)syscall(call, fd);
    if (fail_after >= 0 && strstr(path, ".log") != NULL && atomic_fetch_add(&log_syncs, 1) >= fail_after) {
        errno = EIO;
        return -1;
    }
    // The size is from before the call: what is appended meanwhile is not promised.
    if (!lies && syscall(call, fd) != 0) return -1;
    if (S_ISDIR(status.st_mode)) {
        path[strlen(path) - 1] = 0;
        note("D %s\n", path);
    } else {
        note("S %lu %lld\n", (unsigned long)status.st_ino, (long long)status.st_size);
    }
    return 0;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

// Keeps the inode behind a path that is about to lose its name.
static void bury(const char *path) {
    unsigned long number = inode(path);
    if (number == 0) return;
    char grave[PATH_MAX];
    snprintf(grave, sizeof grave, "%.2000s/%lu-%ld", graveyard, number, atomic_fetch_add(&graves, 1));
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, grave, 0) != 0 && errno != EEXIST) _exit(98);
}

static int renamed(const char *from, const char *to) {
    char source[PATH_MAX], target[PATH_MAX];
    int counts = inside(AT_FDCWD, from, source) && inside(AT_FDCWD, to, target);
    if (counts) bury(target);
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (result == 0 && counts) note("R %s\t%s\n", source, target);
    return result;
}

int rename(const char *from, const char *to) { return renamed(from, to); }

static int removed(int directory, const char *path, int flags) {
    char absolute[PATH_MAX];
    int counts = !(flags & AT_REMOVEDIR) && inside(directory, path, absolute);
    if (counts) bury(absolute);
    int result = (int)syscall(SYS_unlinkat, directory, path, flags);
    if (result == 0 && counts) note("U %s\n", absolute);
    return result;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int directory, const char *path, int flags) { return removed(directory, path, flags); }
int remove(const char *path) {
    struct stat status;
    if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) return removed(AT_FDCWD, path, AT_REMOVEDIR);
    return removed(AT_FDCWD, path, 0);
}
