// Martlet: a disk that does not answer, for tests. Preloaded into a process (LD_PRELOAD), it holds calls up for as long
// as a file exists.
// SPDX-License-Identifier: Apache-2.0
//
// STALL_SYNC   while this file exists, fsync and fdatasync do not return
// STALL_READ   while this file exists, pread does not return
// STALL_LOG    while this file exists, writes to standard error do not return
// STALL_SLOW   while this file exists, fsync and fdatasync take 300 ms
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void hold(const char *name) {
    const char *path = getenv(name);
    while (path != NULL && access(path, F_OK) == 0) usleep(2000);
}

static void dawdle(void) {
    const char *path = getenv("STALL_SLOW");
    if (path != NULL && access(path, F_OK) == 0) usleep(300000);
}

int fsync(int fd) {
    hold("STALL_SYNC");
    dawdle();
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    hold("STALL_SYNC");
    dawdle();
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset) {
    hold("STALL_READ");
    return syscall(SYS_pread64, fd, bytes, count, offset);
}

ssize_t pread64(int fd, void *bytes, size_t count, off64_t offset) {
    hold("STALL_READ");
    return syscall(SYS_pread64, fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (fd == 2) hold("STALL_LOG");
    return syscall(SYS_write, fd, bytes, count);
}
