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
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
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

static inline int martlet_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t user) {
    struct epoll_event event = {.events = events, .data = {.u64 = user}};
    return epoll_ctl(epoll, operation, fd, &event);
}
static inline uint64_t martlet_event_user(const struct epoll_event *event) { return event->data.u64; }
static inline uint32_t martlet_event_bits(const struct epoll_event *event) { return event->events; }

static inline int martlet_fcntl_get(int fd, int command) { return fcntl(fd, command); }
static inline int martlet_fcntl_set(int fd, int command, int value) { return fcntl(fd, command, value); }
static inline int martlet_open(const char *path, int flags, unsigned mode) { return open(path, flags, (mode_t)mode); }

#ifndef TCP_INQ
#define TCP_INQ 36
#endif
#define MARTLET_EPOLLIN ((uint32_t)EPOLLIN)
#define MARTLET_EPOLLOUT ((uint32_t)EPOLLOUT)
#define MARTLET_EPOLLERR ((uint32_t)EPOLLERR)
#define MARTLET_EPOLLHUP ((uint32_t)EPOLLHUP)
#define MARTLET_EPOLLRDHUP ((uint32_t)EPOLLRDHUP)
#define MARTLET_EPOLLEXCLUSIVE ((uint32_t)EPOLLEXCLUSIVE)
