// Martlet
// SPDX-License-Identifier: Apache-2.0
//
// openloop: offers Poisson streams of requests to a memcached-protocol server, each request when it is due, whatever
// became of those before, and says of each when it was due, sent and answered. One thread, which does not sleep where
// it is told to spin, on the last of the processors it may use; on each processor another thread that sleeps for a
// millisecond at a time notes when it was held up.
//
//   cc -O2 -o openloop openloop.c -lpthread -lm
//   openloop < PLAN > RESULT
//
// PLAN:   `load PORT SECONDS SEED RETRIES RECONNECTS SPIN SOURCES`, then for each source
//         `source CONNECTIONS HOST NUMBERS LENGTH PIECES`, a line end, LENGTH bytes of request, and PIECES lines
//         `UNTIL RATE`: requests a second until so many seconds from the start. HOST is the last three bytes of the
//         address in 127/8 that connections come from. Where NUMBERS is not 0, the first %d in the request becomes a
//         number that counts up to it and begins anew.
// RESULT: when it began, by CLOCK_MONOTONIC; how many stalls over 5 ms there were, and how many answers; of each stall
//         begin and end; of each answer when it was due, sent and there, in seconds from the start, its source, and
//         what it was: 0 served, 1 refused, 2 neither, 3 never answered. Doubles, and integers of 64 and of 32 bits.
//
// A request that is refused is sent again at once, RETRIES times at most; where RECONNECTS is 1, on a new connection if
// nothing else is asked on the old one. Replies are a line each.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { served, refused, neither, unanswered };

typedef struct {
    double due, sent, answered;
    uint32_t source, kind;
} Answer;
typedef struct {
    double due, sent;
    uint64_t number;
    int retries;
} Request;
typedef struct {
    int fd, source, is_dirty, watches_output;
    uint32_t address;
    Request *ring; // of requests without an answer; a power of two long
    size_t head, count, room;
    char *out, *in;
    size_t out_length, out_room, in_length;
} Connection;
typedef struct {
    double until, rate;
} Piece;
typedef struct {
    int connections, first, pieces, piece;
    uint64_t numbers, number;
    uint32_t address;
    size_t length;
    char *line;
    Piece *piece_list;
    double due;
} Source;
typedef struct {
    double begin, end;
} Stall;

static const size_t input_room = 1 << 18;
static double stall_limit = 0.005, grace = 10;
static uint64_t state;
static Connection *connections;
static Answer *answers;
static size_t answer_count, answer_room;
static Stall stalls[65536];
static size_t stall_count;
static pthread_mutex_t stall_lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int is_over;
static int poll_fd, port, retries, reconnects, spins;
static double began, closing_time;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *sized(void *old, size_t bytes) {
    void *place = realloc(old, bytes);
    if (!place)
        fail("openloop: memory");
    return place;
}

// Marsaglia, "Xorshift RNGs", 2003.
static double uniform(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return ((state >> 11) + 0.5) / 9007199254740992.0;
}

static void pin(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void *watch(void *argument) {
    pin((int)(intptr_t)argument);
    prctl(PR_SET_TIMERSLACK, 1);
    double last = now();
    while (!is_over) {
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, 0);
        double time = now();
        if (time - last > stall_limit + 0.001) {
            pthread_mutex_lock(&stall_lock);
            if (stall_count < sizeof stalls / sizeof *stalls)
                stalls[stall_count++] = (Stall){last, time};
            pthread_mutex_unlock(&stall_lock);
        }
        last = time;
    }
    return 0;
}

static void note(double due, double sent, double answered, int source, int kind) {
    if (answer_count == answer_room) {
        answer_room = answer_room ? 2 * answer_room : 1 << 16;
        answers = sized(answers, answer_room * sizeof *answers);
    }
    answers[answer_count++] = (Answer){due - began, sent - began, answered - began, (uint32_t)source, (uint32_t)kind};
}

static void push(Connection *connection, Request request) {
    if (connection->count == connection->room) {
        size_t room = connection->room ? 2 * connection->room : 256;
        Request *ring = sized(0, room * sizeof *ring);
        for (size_t index = 0; index < connection->count; index++)
            ring[index] = connection->ring[(connection->head + index) & (connection->room - 1)];
        free(connection->ring);
        connection->ring = ring;
        connection->room = room;
        connection->head = 0;
    }
    connection->ring[(connection->head + connection->count++) & (connection->room - 1)] = request;
}

static void append(Connection *connection, const Source *source, uint64_t number) {
    if (connection->out_length + source->length + 24 > connection->out_room) {
        connection->out_room = 2 * (connection->out_length + source->length + 24);
        connection->out = sized(connection->out, connection->out_room);
    }
    char *end = connection->out + connection->out_length;
    const char *mark = source->numbers ? strstr(source->line, "%d") : 0;
    if (mark) {
        size_t before = (size_t)(mark - source->line), after = source->length - before - 2;
        memcpy(end, source->line, before);
        size_t digits = (size_t)sprintf(end + before, "%llu", (unsigned long long)number);
        memcpy(end + before + digits, mark + 2, after);
        connection->out_length += before + digits + after;
    } else {
        memcpy(end, source->line, source->length);
        connection->out_length += source->length;
    }
}

// Sends what there is to send; the rest waits until the server reads.
static void flush(Connection *connection) {
    size_t done = 0;
    while (done < connection->out_length) {
        ssize_t count = send(connection->fd, connection->out + done, connection->out_length - done, MSG_NOSIGNAL);
        if (count > 0)
            done += (size_t)count;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            fail("openloop: send");
    }
    memmove(connection->out, connection->out + done, connection->out_length - done);
    connection->out_length -= done;
    int watches = connection->out_length > 0;
    if (watches == connection->watches_output)
        return;
    connection->watches_output = watches;
    struct epoll_event event = {watches ? EPOLLIN | EPOLLOUT : EPOLLIN, {.u32 = (uint32_t)(connection - connections)}};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, connection->fd, &event);
}

// Connects, or gives up the connection there is for a new one, at once and without the kernel's remembering it.
static void dial(Connection *connection) {
    struct linger forgets = {1, 0};
    if (connection->in) {
        setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &forgets, sizeof forgets);
        close(connection->fd);
    } else
        connection->in = sized(0, input_room);
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    from.sin_addr.s_addr = htonl(connection->address);
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&from, sizeof from) || connect(fd, (struct sockaddr *)&to, sizeof to))
        fail("openloop: connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {EPOLLIN, {.u32 = (uint32_t)(connection - connections)}};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    connection->fd = fd;
    connection->watches_output = 0;
}

static void answered(Connection *connection, Source *source, const char *line, size_t length, double time) {
    if (!connection->count) {
        fprintf(stderr, "openloop: an answer to nothing: %.*s\n", (int)length, line);
        exit(1);
    }
    Request request = connection->ring[connection->head];
    connection->head = (connection->head + 1) & (connection->room - 1);
    connection->count--;
    int is_refusal = length >= 12 && !memcmp(line, "SERVER_ERROR", 12);
    int is_reply = length >= 2 && (!memcmp(line, "HD", 2) || !memcmp(line, "EN", 2));
    note(request.due, request.sent, time, connection->source, is_refusal ? refused : is_reply ? served : neither);
    if (is_refusal && reconnects && !connection->count && !connection->out_length)
        dial(connection);
    if (is_refusal && request.retries > 0) {
        request.retries--;
        push(connection, request);
        append(connection, source, request.number);
        connection->is_dirty = 1;
    }
}

static void receive(Connection *connection, Source *sources) {
    ssize_t count = recv(connection->fd, connection->in + connection->in_length, input_room - connection->in_length, 0);
    double time = now();
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        fprintf(stderr, "openloop: the server closed a connection\n");
        exit(1);
    }
    connection->in_length += (size_t)count;
    char *line = connection->in, *end = connection->in + connection->in_length, *stop;
    while ((stop = memchr(line, '\n', (size_t)(end - line)))) {
        answered(connection, &sources[connection->source], line, (size_t)(stop - line), time);
        line = stop + 1;
    }
    connection->in_length = (size_t)(end - line);
    memmove(connection->in, line, connection->in_length);
}

static double rate(Source *source, double at) {
    while (source->piece < source->pieces - 1 && at >= source->piece_list[source->piece].until)
        source->piece++;
    return source->piece_list[source->piece].rate;
}

// Gives requests that are due by `time` to their connections.
static void offer(Source *source, double time) {
    while (source->due <= time && source->due < closing_time) {
        Connection *connection = &connections[source->first + (int)(uniform() * source->connections)];
        uint64_t number = source->numbers ? source->number++ % source->numbers : 0;
        double pace = rate(source, source->due);
        // A silent source is asked again soon.
        if (pace > 0) {
            push(connection, (Request){began + source->due, began + time, number, retries});
            append(connection, source, number);
            connection->is_dirty = 1;
        }
        source->due += pace > 0 ? -log(uniform()) / pace : 0.001;
    }
}

static void open_connections(Source *source, int index) {
    for (int number = 0; number < source->connections; number++) {
        Connection *connection = &connections[source->first + number];
        connection->source = index;
        connection->address = source->address;
        dial(connection);
    }
}

static Source *read_plan(int *count, int *total) {
    unsigned long long seed;
    int read = scanf(
        "load %d %lf %llu %d %d %d %d", &port, &closing_time, &seed, &retries, &reconnects, &spins, count);
    if (read != 7)
        fail("openloop: plan");
    state = seed * 0x9E3779B97F4A7C15ull | 1;
    Source *sources = calloc((size_t)*count, sizeof *sources);
    *total = 0;
    for (int index = 0; index < *count; index++) {
        Source *source = &sources[index];
        unsigned long long numbers;
        unsigned host;
        read = scanf(
            " source %d %u %llu %zu %d", &source->connections, &host, &numbers, &source->length, &source->pieces);
        if (read != 5)
            fail("openloop: plan");
        getchar();
        source->numbers = numbers;
        source->address = INADDR_LOOPBACK - 1 + host;
        source->line = sized(0, source->length + 1);
        if (fread(source->line, 1, source->length, stdin) != source->length)
            fail("openloop: plan");
        source->line[source->length] = 0;
        source->piece_list = calloc((size_t)source->pieces, sizeof(Piece));
        for (int piece = 0; piece < source->pieces; piece++)
            if (scanf("%lf %lf", &source->piece_list[piece].until, &source->piece_list[piece].rate) != 2)
                fail("openloop: plan");
        source->first = *total;
        *total += source->connections;
    }
    return sources;
}

// Waits for input, but no longer than until the next request is due.
static int await(struct epoll_event *events, int limit, const Source *sources, int count) {
    if (spins)
        return epoll_wait(poll_fd, events, limit, 0);
    double next = 0.01, time = now() - began;
    for (int index = 0; index < count; index++)
        if (sources[index].due < closing_time && sources[index].due - time < next)
            next = sources[index].due - time;
    struct timespec pause = {0, next > 0 ? (long)(next * 1e9) : 0};
    return epoll_pwait2(poll_fd, events, limit, &pause, 0);
}

static int is_idle(int total) {
    for (int index = 0; index < total; index++)
        if (connections[index].count)
            return 0;
    return 1;
}

static void load(Source *sources, int count, int total) {
    struct epoll_event events[256];
    for (;;) {
        double time = now() - began;
        for (int index = 0; index < count; index++)
            offer(&sources[index], time);
        for (int index = 0; index < total; index++)
            if (connections[index].is_dirty) {
                connections[index].is_dirty = 0;
                flush(&connections[index]);
            }
        int ready = await(events, 256, sources, count);
        for (int index = 0; index < ready; index++) {
            Connection *connection = &connections[events[index].data.u32];
            if (events[index].events & ~(uint32_t)EPOLLOUT)
                receive(connection, sources);
            if (connection->out_length > 0)
                connection->is_dirty = 1;
        }
        if (time > closing_time && (time > closing_time + grace || is_idle(total)))
            return;
    }
}

int main(void) {
    int count, total, processors = 0;
    Source *sources = read_plan(&count, &total);
    poll_fd = epoll_create1(0);
    connections = calloc((size_t)total, sizeof *connections);
    for (int index = 0; index < count; index++)
        open_connections(&sources[index], index);
    if (spins == 2 && sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 2}))
        fail("openloop: SCHED_FIFO");
    pthread_t watches[CPU_SETSIZE];
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    int last = 0;
    for (int processor = 0; processor < CPU_SETSIZE; processor++)
        if (CPU_ISSET(processor, &set)) {
            pthread_create(&watches[processors++], 0, watch, (void *)(intptr_t)processor);
            last = processor;
        }
    prctl(PR_SET_TIMERSLACK, 1);
    if (spins)
        pin(last);
    // Before everything else on that processor, it may sleep: it is awake when a request is due.
    if (spins == 2)
        spins = 0;
    began = now();
    load(sources, count, total);
    is_over = 1;
    for (int index = 0; index < processors; index++)
        pthread_join(watches[index], 0);
    double end = now();
    for (int index = 0; index < total; index++)
        for (Connection *connection = &connections[index]; connection->count; connection->count--) {
            Request request = connection->ring[connection->head];
            connection->head = (connection->head + 1) & (connection->room - 1);
            note(request.due, request.sent, end, connection->source, unanswered);
        }
    uint64_t sizes[] = {stall_count, answer_count};
    fwrite(&began, sizeof began, 1, stdout);
    fwrite(sizes, sizeof sizes, 1, stdout);
    fwrite(stalls, sizeof *stalls, stall_count, stdout);
    fwrite(answers, sizeof *answers, answer_count, stdout);
    return fflush(stdout) ? 1 : 0;
}
