// Martlet
// SPDX-License-Identifier: Apache-2.0
#include "CStorageBench.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct bare_client {
    int connections;
    char *buffer;
    size_t room;
    int fds[];
};

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

bare_client *bare_client_connect(int port, int connections) {
    bare_client *client = calloc(1, sizeof *client + (size_t)connections * sizeof(int));
    client->room = 1 << 20;
    client->buffer = malloc(client->room);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (; client->connections < connections; client->connections++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        client->fds[client->connections] = fd;
        if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
            client->connections++;
            bare_client_close(client);
            return NULL;
        }
    }
    return client;
}

void bare_client_close(bare_client *client) {
    for (int index = 0; index < client->connections; index++) close(client->fds[index]);
    free(client->buffer);
    free(client);
}

static int send_all(int fd, const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        bytes += sent;
        count -= (size_t)sent;
    }
    return 1;
}

// Reads `count` replies that each are `bytes` long and begin with `head`.
static int expect(bare_client *client, int fd, int count, size_t bytes, const char *head) {
    size_t wanted = (size_t)count * bytes, there = 0;
    if (wanted > client->room) return 0;
    while (there < wanted) {
        ssize_t got = recv(fd, client->buffer + there, wanted - there, 0);
        if (got <= 0) return 0;
        there += (size_t)got;
    }
    for (int index = 0; index < count; index++) {
        if (memcmp(client->buffer + (size_t)index * bytes, head, strlen(head)) != 0) return 0;
    }
    return 1;
}

// Asks `depth` of each connection, and as many again as soon as it has answered them, until they are `count` in all.
static uint64_t run(
    bare_client *client, int count, int depth, size_t reply, const char *head,
    size_t (*request)(char *bytes, uint64_t number, size_t value), uint64_t first, uint64_t keys, size_t value) {
    char *bytes = malloc((size_t)depth * (value + 128));
    uint64_t began = now(), number = first;
    int left = count, waiting = 0, isGood = 1;
    int *asked = calloc((size_t)client->connections, sizeof(int));
    for (int index = 0; isGood && (left > 0 || waiting > 0); index = (index + 1) % client->connections) {
        isGood = expect(client, client->fds[index], asked[index], reply, head);
        waiting -= asked[index];
        asked[index] = left < depth ? left : depth;
        waiting += asked[index];
        left -= asked[index];
        size_t length = 0;
        for (int each = 0; each < asked[index]; each++) {
            length += request(bytes + length, number % keys, value);
            number += 7919;
        }
        isGood = isGood && send_all(client->fds[index], bytes, length);
    }
    uint64_t took = now() - began;
    free(asked);
    free(bytes);
    return isGood ? took : 0;
}

static size_t set_request(char *bytes, uint64_t number, size_t value) {
    char key[bare_key_bytes];
    bare_key(number, key);
    size_t length = (size_t)sprintf(bytes, "set %.*s 0 0 %zu\r\n", bare_key_bytes, key, value);
    memset(bytes + length, 'v', value);
    memcpy(bytes + length + value, "\r\n", 2);
    return length + value + 2;
}

static size_t get_request(char *bytes, uint64_t number, size_t value) {
    (void)value;
    char key[bare_key_bytes];
    bare_key(number, key);
    return (size_t)sprintf(bytes, "get %.*s\r\n", bare_key_bytes, key);
}

uint64_t bare_client_sets(
    bare_client *client, int count, int depth, uint64_t first, uint64_t keys, size_t value) {
    return run(client, count, depth, strlen("STORED\r\n"), "STORED\r\n", set_request, first, keys, value);
}

uint64_t bare_client_gets(bare_client *client, int count, int depth, uint64_t first, uint64_t keys, size_t value) {
    char head[96];
    size_t key = (size_t)snprintf(head, sizeof head, "VALUE %*s 0 %zu\r\n", bare_key_bytes, "", value);
    return run(
        client, count, depth, key + value + strlen("\r\nEND\r\n"), "VALUE ", get_request, first, keys, value);
}

int bare_client_flush(bare_client *client) {
    return send_all(client->fds[0], "flush_all\r\n", 11) && expect(client, client->fds[0], 1, 4, "OK\r\n");
}
