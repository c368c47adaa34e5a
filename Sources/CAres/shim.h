// Martlet: c-ares, and one turn of its loop as a function. No logic.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ares.h>
#include <poll.h>
#include <stddef.h>
#include <sys/time.h>

// Waits for the channel's sockets or its timers, `milliseconds` at most, and lets it go on. Returns how many sockets it
// has: 0 when all queries are over. By poll, because select knows no descriptor from 1024 on.
static inline int martlet_ares_step(ares_channel channel, int milliseconds) {
    ares_socket_t sockets[ARES_GETSOCK_MAXNUM];
    struct pollfd entries[ARES_GETSOCK_MAXNUM];
    int mask = ares_getsock(channel, sockets, ARES_GETSOCK_MAXNUM), count = 0;
    for (int index = 0; index < ARES_GETSOCK_MAXNUM; index++) {
        short events = (ARES_GETSOCK_READABLE(mask, index) ? POLLIN : 0)
            | (ARES_GETSOCK_WRITABLE(mask, index) ? POLLOUT : 0);
        if (events == 0) continue;
        entries[count].fd = sockets[index];
        entries[count].events = events;
        entries[count].revents = 0;
        count++;
    }
    if (count == 0) return 0;
    struct timeval limit = {milliseconds / 1000, milliseconds % 1000 * 1000}, wait;
    struct timeval *next = ares_timeout(channel, &limit, &wait);
    poll(entries, (nfds_t)count, (int)(next->tv_sec * 1000 + (next->tv_usec + 999) / 1000));
    for (int index = 0; index < count; index++) {
        short seen = entries[index].revents;
        ares_process_fd(
            channel, seen & (POLLIN | POLLERR | POLLHUP) ? entries[index].fd : ARES_SOCKET_BAD,
            seen & POLLOUT ? entries[index].fd : ARES_SOCKET_BAD);
    }
    // What took too long.
    ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    return count;
}
