// Martlet: Linux system calls and processor hints that Swift cannot spell. No logic.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/file.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <grp.h>
#include <pwd.h>
#include <linux/futex.h>
#include <linux/sockios.h>

static inline int martlet_errno(void) { return errno; }

static inline void martlet_prefetch(const void *address) { __builtin_prefetch(address, 0, 3); }
static inline void martlet_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline int martlet_futex_wait(const void *word, uint32_t expected) {
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}
static inline int martlet_futex_wake(const void *word, int count) {
    return (int)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

// As martlet_futex_wait, giving up after a relative time.
static inline int martlet_futex_wait_for(const void *word, uint32_t expected, uint64_t nanoseconds) {
    struct timespec limit = {.tv_sec = (time_t)(nanoseconds / 1000000000u)};
    limit.tv_nsec = (long)(nanoseconds % 1000000000u);
    return (int)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, &limit, NULL, 0);
}

// The calls of a reactor's every turn, without glibc's cancellation points, which cost more than the way into them.
static inline ssize_t martlet_receive(int fd, void *target, size_t count) {
    return syscall(SYS_recvfrom, fd, target, count, 0, NULL, NULL);
}
static inline ssize_t martlet_send(int fd, const void *source, size_t count) {
    return syscall(SYS_sendto, fd, source, count, MSG_NOSIGNAL, NULL, 0);
}
static inline int martlet_epoll_wait(int epoll, struct epoll_event *events, int capacity, int milliseconds) {
    return (int)syscall(SYS_epoll_pwait, epoll, events, capacity, milliseconds, NULL, 8);
}

// As martlet_epoll_wait, to the nanosecond; -1 with ENOSYS on a kernel before 5.11.
static inline int martlet_epoll_wait_for(int epoll, struct epoll_event *events, int capacity, uint64_t nanoseconds) {
#ifdef SYS_epoll_pwait2
    struct timespec limit = {.tv_sec = (time_t)(nanoseconds / 1000000000u)};
    limit.tv_nsec = (long)(nanoseconds % 1000000000u);
    return (int)syscall(SYS_epoll_pwait2, epoll, events, capacity, &limit, NULL, 8);
#else
    errno = ENOSYS;
    return -1;
#endif
}
// Lets the calling thread's timed waits end as near to their time as the kernel can.
static inline void martlet_sharpen_timers(void) { prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); }

static inline int martlet_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t user) {
    struct epoll_event event = {.events = events, .data = {.u64 = user}};
    return epoll_ctl(epoll, operation, fd, &event);
}
static inline uint64_t martlet_event_user(const struct epoll_event *event) { return event->data.u64; }
static inline uint32_t martlet_event_bits(const struct epoll_event *event) { return event->events; }

static inline int martlet_fcntl_get(int fd, int command) { return fcntl(fd, command); }
static inline int martlet_fcntl_set(int fd, int command, int value) { return fcntl(fd, command, value); }
/* glibc hides fallocate's flags from sources without _GNU_SOURCE: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE. */
static inline void martlet_punch_hole(int fd, long offset, long count) {
    syscall(SYS_fallocate, fd, 3, offset, count);
}
static inline int martlet_open(const char *path, int flags, unsigned mode) { return open(path, flags, (mode_t)mode); }

#ifndef TCP_INQ
#define TCP_INQ 36
#endif
static const uint32_t MARTLET_EPOLLIN = (uint32_t)EPOLLIN;
static const uint32_t MARTLET_EPOLLOUT = (uint32_t)EPOLLOUT;
static const uint32_t MARTLET_EPOLLERR = (uint32_t)EPOLLERR;
static const uint32_t MARTLET_EPOLLHUP = (uint32_t)EPOLLHUP;
static const uint32_t MARTLET_EPOLLRDHUP = (uint32_t)EPOLLRDHUP;
static const uint32_t MARTLET_EPOLLEXCLUSIVE = (uint32_t)EPOLLEXCLUSIVE;
static const uint32_t MARTLET_EPOLLET = (uint32_t)EPOLLET;

// Bytes that wait in a socket's receive queue, or -1.
static inline int martlet_unread_bytes(int fd) {
    int count = 0;
    return ioctl(fd, SIOCINQ, &count) == 0 ? count : -1;
}
// Bytes in a socket's send queue that the peer has not acknowledged, or -1.
static inline int martlet_unacknowledged_bytes(int fd) {
    int count = 0;
    return ioctl(fd, SIOCOUTQ, &count) == 0 ? count : -1;
}

// Columns of the terminal, or its rows; 0 when the descriptor is none.
static inline int martlet_terminal_columns(int fd) {
    struct winsize size;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}
static inline int martlet_terminal_rows(int fd) {
    struct winsize size;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_row : 0;
}
// The calling thread's name, cut to 15 bytes.
static inline void martlet_name_thread(const char *name) { prctl(PR_SET_NAME, name, 0, 0, 0); }
static inline int martlet_is_socket(unsigned mode) { return S_ISSOCK(mode); }

// Constants that glibc has as enumerations of different types.
static const int martlet_stream = SOCK_STREAM;
static const int martlet_datagram = SOCK_DGRAM;
static const int martlet_nonblocking = SOCK_NONBLOCK | SOCK_CLOEXEC;
static const int martlet_tcp = IPPROTO_TCP;
static const int martlet_ipv6 = IPPROTO_IPV6;
// accept4, which glibc shows with _GNU_SOURCE only.
static inline int martlet_accept(int fd) { return (int)syscall(SYS_accept4, fd, NULL, NULL, martlet_nonblocking); }

// Swift hides fork: it is for going into the background while there is one thread.
static inline int martlet_fork(void) { return (int)fork(); }
extern char **environ;
static inline char **martlet_environment(void) { return environ; }
static inline int martlet_close_on_exec(void) { return SOCK_CLOEXEC; }

static inline uint64_t martlet_load64_relaxed(const void *address) {
    return __atomic_load_n((const uint64_t *)address, __ATOMIC_RELAXED);
}
static inline uint32_t martlet_load32_relaxed(const void *address) {
    return __atomic_load_n((const uint32_t *)address, __ATOMIC_RELAXED);
}
static inline void martlet_store64_relaxed(void *address, uint64_t value) {
    __atomic_store_n((uint64_t *)address, value, __ATOMIC_RELAXED);
}
static inline void martlet_store32_relaxed(void *address, uint32_t value) {
    __atomic_store_n((uint32_t *)address, value, __ATOMIC_RELAXED);
}
static inline void martlet_store16_relaxed(void *address, uint16_t value) {
    __atomic_store_n((uint16_t *)address, value, __ATOMIC_RELAXED);
}
