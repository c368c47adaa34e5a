// Martlet
// SPDX-License-Identifier: Apache-2.0
//
// A server whose answers take a time that is known beforehand, so that a load runner's figures can be held against it.
// Answers every line with END.
//
//   truth PORT stall PERIOD_US STALL_US          answers at once, but for the first STALL_US of each PERIOD_US
//   truth PORT exponential MEAN_US SEED          each connection is a queue of its own with exponential service times
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 1024, WAITING = 65536 };

struct connection {
    int fd;
    double last;                        // when the queue's last departure is
    double due[WAITING];                // departures to come, a ring
    unsigned head, count;
};

static struct connection *connections[CONNECTIONS];
static uint64_t state;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static double uniform(void) {
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return (state >> 11) * 0x1p-53;
}

static void answer(struct connection *one, unsigned count) {
    static const char end[] = "END\r\nEND\r\nEND\r\nEND\r\nEND\r\nEND\r\nEND\r\nEND\r\n";
    while (count > 0) {
        unsigned part = count < 8 ? count : 8;
        if (send(one->fd, end, part * 5, MSG_NOSIGNAL) < 0) return;
        count -= part;
    }
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    int exponential = !strcmp(argv[2], "exponential"), one = 1;
    double first = atof(argv[3]), second = atof(argv[4]);
    state = (uint64_t)second * 2654435761u + 88172645463325252u;
    prctl(PR_SET_TIMERSLACK, 1);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 512)) { perror("listen"); return 1; }
    struct epoll_event event = {EPOLLIN, {.u32 = UINT32_MAX}}, events[256];
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    double start = now();
    for (int made = 0;;) {
        double time = now(), next = time + 5000;
        int stalled = 0;
        if (!exponential) {
            double offset = fmod(time - start, first);
            stalled = offset < second;
            next = time + (stalled ? second - offset : first - offset);
        }
        for (int i = 0; exponential && i < made; i++) {
            struct connection *it = connections[i];
            unsigned due = 0;
            while (it->count && it->due[it->head] <= time) { it->head = (it->head + 1) % WAITING; it->count--; due++; }
            if (due) answer(it, due);
            if (it->count && it->due[it->head] < next) next = it->due[it->head];
        }
        double rest = next - now() - 40;
        if (stalled) {
            struct timespec pause = {0, (long)(fmax(rest, 1) * 1000)};
            nanosleep(&pause, NULL);
            continue;
        }
        struct timespec limit = {0, (long)(fmax(rest, 0) * 1000)};
        int count = epoll_pwait2(poll, events, 256, &limit, NULL);
        time = now();
        for (int i = 0; i < count; i++) {
            if (events[i].data.u32 == UINT32_MAX) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0 || made == CONNECTIONS) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                connections[made] = calloc(1, sizeof **connections);
                connections[made]->fd = fd;
                event.data.u32 = (uint32_t)made++;
                epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            struct connection *it = connections[events[i].data.u32];
            char input[65536];
            ssize_t got = recv(it->fd, input, sizeof input, 0);
            if (got <= 0) {
                if (got == 0 || errno != EAGAIN) epoll_ctl(poll, EPOLL_CTL_DEL, it->fd, NULL);
                continue;
            }
            unsigned lines = 0;
            for (ssize_t at = 0; at < got; at++) lines += input[at] == '\n';
            if (!exponential) { answer(it, lines); continue; }
            for (; lines; lines--) {
                it->last = fmax(it->last, time) - log(1 - uniform()) * first;
                it->due[(it->head + it->count++) % WAITING] = it->last;
            }
        }
    }
}
