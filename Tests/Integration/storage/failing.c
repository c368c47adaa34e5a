// Martlet: a disk that fails, for tests. Preloaded into a process (LD_PRELOAD), it makes writes and syncs of RocksDB's
// logs, or reads of its sorted files, fail for as long as a file exists.
// SPDX-License-Identifier: Apache-2.0
//
// FAILING_DISK  the file; its first word is what fails, and how often that still works before:
//   write N ERRNO  a write to a log fails, and nothing of it is there
//   torn N ERRNO   half of the bytes are written, then it fails
//   sync N ERRNO   a sync fails, and what was written stays
//   lost N ERRNO   a sync fails, and what was written since the last one is gone
//   read N ERRNO   a read of a sorted file fails
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { files = 4096 };
static const char *name;
static atomic_long calls;
// The length of each log as of its last sync.
static _Atomic off_t synced[files];

__attribute__((constructor)) static void begin(void) { name = getenv("FAILING_DISK"); }

// Whether the descriptor is a file of RocksDB's with this ending, of four characters.
static int ends(int fd, const char *ending) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 4) return 0;
    path[length] = 0;
    return strcmp(path + length - 4, ending) == 0;
}

static int is_log(int fd) { return ends(fd, ".log"); }

// What is to fail of this kind of call: the first letter of the word; 0 when nothing is. Sets errno.
static char due(int fd, const char *ending, const char *kinds) {
    if (name == NULL || !ends(fd, ending)) return 0;
    int control = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
    if (control < 0) {
        calls = 0;
        return 0;
    }
    char text[64] = "", word[16] = "";
    long first = 0;
    int number = EIO;
    if (read(control, text, sizeof text - 1) <= 0 || sscanf(text, "%15s %ld %d", word, &first, &number) != 3) _exit(97);
    syscall(SYS_close, control);
    if (strchr(kinds, word[0]) == NULL || atomic_fetch_add(&calls, 1) < first) return 0;
    errno = number;
    return word[0];
}

ssize_t write(int fd, const void *bytes, size_t count) {
    char kind = due(fd, ".log", "wt");
    if (kind == 0) return syscall(SYS_write, fd, bytes, count);
    int number = errno;
    if (kind == 't' && count > 1) {
        off_t half = (off_t)(count / 2);
        if (syscall(SYS_write, fd, bytes, half) != half) _exit(96);
    }
    errno = number;
    return -1;
}

static int flush(int fd, int call) {
    char kind = due(fd, ".log", "sl");
    if (kind == 0) {
        struct stat status;
        int counts = name != NULL && fd < files && is_log(fd) && fstat(fd, &status) == 0;
        int result = (int)syscall(call, fd);
        if (result == 0 && counts) synced[fd] = status.st_size;
        return result;
    }
    int number = errno;
    if (kind == 'l' && fd < files && ftruncate(fd, synced[fd]) != 0) _exit(95);
    errno = number;
    return -1;
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset) {
    if (due(fd, ".sst", "r") != 0) return -1;
    return syscall(SYS_pread64, fd, bytes, count, offset);
}

int fsync(int fd) { return flush(fd, SYS_fsync); }
int fdatasync(int fd) { return flush(fd, SYS_fdatasync); }
