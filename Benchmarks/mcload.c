// Martlet
// SPDX-License-Identifier: Apache-2.0
//
// mcload: a small load generator for memcached-protocol servers, for side-by-side measurement.
// One thread, epoll, C connections, P requests in flight on each. Closed loop by default; --rate R makes the
// arrivals open loop (Poisson), with latency taken from each request's intended start.
// With --pid it also prints the server's own user and system CPU per operation, from /proc/PID/stat: on a small
// shared machine that figure is far steadier than throughput.
//
//   cc -O2 -o mcload mcload.c -lm
//   ./mcload --port 11211 --pid $(pidof memcached) --conns 50 --pipeline 32 --seconds 5 --sets 0.1
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char *host = "127.0.0.1";
static int port = 11211, pid = 0, conns = 50, pipeline = 1, value = 100, keylen = 0, mget = 1, meta = 0, json = 0;
static long keys = 1000000, load = 0;
static double seconds = 5, sets = 0.1, zipf = 0, rate = 0, warmup = 0.5;

typedef struct {
    double due;
    uint8_t kind;
} Req; // kind: 0 get, 1 set
typedef struct {
    int fd, head, count, want_write; // ring of requests in flight
    Req *ring;
    char *out;
    size_t out_len, out_off, out_cap;
    char *in;
    size_t in_len, in_cap;
} Conn;

static uint64_t rng = 88172645463325252ull;
static inline uint64_t next(void) {
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}
static inline double uniform(void) { return (next() >> 11) * (1.0 / 9007199254740992.0); }
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

// Zipf by rejection inversion (Hormann & Derflinger).
static double z_hx0, z_hn, z_s;
static double zh(double x) { return (exp((1 - zipf) * log(x)) - 1) / (1 - zipf); }
static double zhi(double x) { return exp(log(1 + (1 - zipf) * x) / (1 - zipf)); }
static long pick(void) {
    if (zipf <= 0)
        return next() % keys;
    for (;;) {
        double u = z_hn + uniform() * (z_hx0 - z_hn), x = zhi(u);
        long k = (long)(x + 0.5);
        if (k < 1)
            k = 1;
        else if (k > keys)
            k = keys;
        if (k - x <= z_s || u >= zh(k + 0.5) - exp(-zipf * log(k)))
            return (long)(((uint64_t)k * 0x9E3779B97F4A7C15ull) % keys);
    }
}

// latency histogram: 64 sub-buckets per power of two of nanoseconds
static uint64_t hist[64 * 64], hist_n;
static void record(double s) {
    uint64_t v = s <= 0 ? 1 : (uint64_t)(s * 1e9);
    if (!v)
        v = 1;
    int e = 63 - __builtin_clzll(v), sub = e > 6 ? (v >> (e - 6)) & 63 : (v << (6 - e)) & 63;
    hist[e * 64 + sub]++;
    hist_n++;
}
static double quantile(double q) {
    uint64_t want = (uint64_t)ceil(q * hist_n), seen = 0;
    for (int i = 0; i < 64 * 64; i++)
        if ((seen += hist[i]) >= want && hist[i])
            return (double)(1ull << (i / 64)) * (1 + (i % 64 + 0.5) / 64) * 1e-3; // microseconds
    return 0;
}
static void server_cpu(double *u, double *s) {
    *u = *s = 0;
    if (!pid)
        return;
    char path[64], line[2048];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "r");
    if (!f)
        return;
    if (fgets(line, sizeof line, f)) {
        char *p = strrchr(line, ')');
        unsigned long a = 0, b = 0;
        if (p && sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &a, &b) == 2) {
            *u = a / (double)sysconf(_SC_CLK_TCK);
            *s = b / (double)sysconf(_SC_CLK_TCK);
        }
    }
    fclose(f);
}
static void put(Conn *c, const char *s, size_t n) {
    if (c->out_len + n > c->out_cap) {
        c->out_cap = (c->out_len + n) * 2;
        c->out = realloc(c->out, c->out_cap);
    }
    memcpy(c->out + c->out_len, s, n);
    c->out_len += n;
}
static char *payload;
static int key_text(char *to, long k) {
    int n = sprintf(to, "key:%012ld", k);
    while (n < keylen && n < 250)
        to[n++] = 'k';
    return n;
}
static void request(Conn *c, double due, int set, long key) {
    char line[512], k[256];
    int n, kl = key_text(k, key);
    if (set) {
        n = meta ? sprintf(line, "ms %.*s %d\r\n", kl, k, value) : sprintf(line, "set %.*s 0 0 %d\r\n", kl, k, value);
        put(c, line, n);
        put(c, payload, value);
        put(c, "\r\n", 2);
    } else if (meta) {
        n = sprintf(line, "mg %.*s v\r\n", kl, k);
        put(c, line, n);
    } else {
        put(c, "get", 3);
        for (int i = 0; i < mget; i++) {
            if (i)
                kl = key_text(k, pick());
            put(c, " ", 1);
            put(c, k, kl);
        }
        put(c, "\r\n", 2);
    }
    c->ring[(c->head + c->count++) % pipeline] = (Req){due, (uint8_t)set};
}
static long done, hits, misses, errors;
static int measuring;
static void flush_out(Conn *c, int ep) {
    while (c->out_off < c->out_len) {
        ssize_t r = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
        if (r > 0)
            c->out_off += r;
        else if (errno == EAGAIN) {
            if (!c->want_write) {
                struct epoll_event e = {EPOLLIN | EPOLLOUT, {.ptr = c}};
                epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
                c->want_write = 1;
            }
            return;
        } else {
            perror("send");
            exit(1);
        }
    }
    c->out_off = c->out_len = 0;
    if (c->want_write) {
        struct epoll_event e = {EPOLLIN, {.ptr = c}};
        epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
        c->want_write = 0;
    }
}
// Consumes whole replies; returns how many.
static int replies(Conn *c) {
    int got = 0;
    size_t o = 0;
    while (c->count) {
        size_t at = o;
        int finished = 0, h = 0, err = 0;
        Req r = c->ring[c->head];
        for (;;) {
            char *nl = memchr(c->in + at, '\n', c->in_len - at);
            if (!nl)
                break;
            char *l = c->in + at;
            size_t next_line = nl - c->in + 1;
            if (!strncmp(l, "VALUE ", 6) || !strncmp(l, "VA ", 3)) {
                char *p = l;
                int sp = l[2] == ' ' ? 1 : 3;
                long n;
                while (sp && p < nl)
                    if (*p++ == ' ')
                        sp--;
                n = strtol(p, 0, 10);
                if (c->in_len < next_line + n + 2)
                    break;
                next_line += n + 2;
                h++;
                at = next_line;
                if (meta) {
                    finished = 1;
                    break;
                }
                continue;
            }
            if (strncmp(l, "END", 3) && strncmp(l, "EN", 2) && strncmp(l, "STORED", 6) && strncmp(l, "HD", 2) &&
                strncmp(l, "NS", 2))
                err = 1;
            at = next_line;
            finished = 1;
            break;
        }
        if (!finished)
            break;
        o = at;
        c->head = (c->head + 1) % pipeline;
        c->count--;
        got++;
        if (measuring) {
            done++;
            errors += err;
            if (!r.kind && !err) {
                hits += h;
                misses += mget - h;
            }
            record(now() - r.due);
        }
    }
    if (o) {
        memmove(c->in, c->in + o, c->in_len - o);
        c->in_len -= o;
    }
    return got;
}
static Conn *dial(void) {
    Conn *c = calloc(1, sizeof *c);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    inet_pton(AF_INET, host, &a.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&a, sizeof a)) {
        perror("connect");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->ring = calloc(pipeline, sizeof *c->ring);
    c->in_cap = 1 << 20;
    c->in = malloc(c->in_cap);
    return c;
}
static void preload(void) {
    Conn *c = dial();
    fcntl(c->fd, F_SETFL, 0);
    char line[512], k[256];
    for (long i = 0; i < load; i++) {
        int kl = key_text(k, i), n = sprintf(line, "set %.*s 0 0 %d noreply\r\n", kl, k, value);
        put(c, line, n);
        put(c, payload, value);
        put(c, "\r\n", 2);
        if (c->out_len > (1 << 18) || i == load - 1) {
            if (i == load - 1)
                put(c, "version\r\n", 9);
            for (size_t o = 0; o < c->out_len;) {
                ssize_t r = send(c->fd, c->out + o, c->out_len - o, MSG_NOSIGNAL);
                if (r <= 0) {
                    perror("send");
                    exit(1);
                }
                o += r;
            }
            c->out_len = 0;
        }
    }
    if (recv(c->fd, line, sizeof line, 0) <= 0) {
        fprintf(stderr, "preload: no reply\n");
        exit(1);
    }
    close(c->fd);
}
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
#define OPT(name, set)                                                                                                 \
    if (!strcmp(a, "--" name)) {                                                                                       \
        set;                                                                                                           \
        i++;                                                                                                           \
        continue;                                                                                                      \
    }
        OPT("host", host = v)
        OPT("port", port = atoi(v)) OPT("pid", pid = atoi(v)) OPT("conns", conns = atoi(v))
            OPT("pipeline", pipeline = atoi(v)) OPT("value", value = atoi(v)) OPT("keylen", keylen = atoi(v))
                OPT("keys", keys = atol(v)) OPT("mget", mget = atoi(v)) OPT("seconds", seconds = atof(v))
                    OPT("sets", sets = atof(v)) OPT("zipf", zipf = atof(v)) OPT("rate", rate = atof(v))
                        OPT("load", load = atol(v)) OPT("warmup", warmup = atof(v)) if (!strcmp(a, "--meta")) {
            meta = 1;
            continue;
        }
        if (!strcmp(a, "--json")) {
            json = 1;
            continue;
        }
        fprintf(stderr,
                "mcload: unknown option %s\noptions: --host --port --pid --conns --pipeline --value --keylen --keys "
                "--load N --mget --seconds --warmup --sets FRACTION --zipf S --rate OPS --meta --json\n",
                a);
        return 2;
    }
    if (zipf == 1)
        zipf = 1.0001;
    if (zipf > 0) {
        z_hx0 = zh(1.5) - 1;
        z_hn = zh(keys + 0.5);
        z_s = 2 - zhi(zh(2.5) - exp(-zipf * log(2)));
    }
    payload = malloc(value + 1);
    memset(payload, 'x', value + 1);
    if (load)
        preload();
    int ep = epoll_create1(0);
    Conn **all = calloc(conns, sizeof *all);
    for (int i = 0; i < conns; i++) {
        all[i] = dial();
        struct epoll_event e = {EPOLLIN, {.ptr = all[i]}};
        epoll_ctl(ep, EPOLL_CTL_ADD, all[i]->fd, &e);
    }
    double start = now(), begin = start + warmup, end = begin + seconds, due = start, u0 = 0, s0 = 0, u1, s1;
    long late = 0;
    int rr = 0;
    struct epoll_event ev[256];
    for (;;) {
        double t = now();
        if (!measuring && t >= begin) {
            measuring = 1;
            server_cpu(&u0, &s0);
            begin = t;
            end = t + seconds;
        }
        if (t >= end)
            break;
        if (rate > 0) {
            while (due <= t) {
                Conn *c = 0;
                for (int i = 0; i < conns; i++) {
                    Conn *x = all[rr = (rr + 1) % conns];
                    if (x->count < pipeline) {
                        c = x;
                        break;
                    }
                }
                if (!c) {
                    late++;
                    break;
                } // every connection is full: the request waits, its clock runs
                request(c, due, uniform() < sets, pick());
                due += -log(1 - uniform()) / rate;
            }
            for (int i = 0; i < conns; i++)
                if (all[i]->out_len)
                    flush_out(all[i], ep);
        } else
            for (int i = 0; i < conns; i++)
                if (!all[i]->count && !all[i]->out_len) {
                    while (all[i]->count < pipeline)
                        request(all[i], t, uniform() < sets, pick());
                    flush_out(all[i], ep);
                }
        int n = epoll_wait(ep, ev, 256, rate > 0 ? 0 : 10);
        for (int i = 0; i < n; i++) {
            Conn *c = ev[i].data.ptr;
            if (ev[i].events & EPOLLOUT)
                flush_out(c, ep);
            if (!(ev[i].events & EPOLLIN))
                continue;
            if (c->in_cap - c->in_len < 65536) {
                c->in_cap *= 2;
                c->in = realloc(c->in, c->in_cap);
            }
            ssize_t r = recv(c->fd, c->in + c->in_len, c->in_cap - c->in_len, 0);
            if (r == 0) {
                fprintf(stderr, "mcload: the server closed a connection\n");
                return 1;
            }
            if (r < 0)
                continue;
            c->in_len += r;
            replies(c);
        }
    }
    double took = now() - begin;
    server_cpu(&u1, &s1);
    double per = (done ? done : 1) / 1e6; // none on a machine that stood still
    if (json)
        printf(
            "{\"ops\":%ld,\"ops_per_s\":%.0f,\"hits\":%ld,\"misses\":%ld,\"errors\":%ld,\"p50_us\":%.1f,\"p99_us\":%."
            "1f,\"p999_us\":%.1f,\"user_us_per_op\":%.4f,\"sys_us_per_op\":%.4f,\"cpu_us_per_op\":%.4f,\"full\":%ld}\n",
            done, done / took, hits, misses, errors, quantile(.5), quantile(.99), quantile(.999), (u1 - u0) / per,
            (s1 - s0) / per, (u1 - u0 + s1 - s0) / per, late);
    else
        printf("%ld ops, %.0f/s, hits %ld, misses %ld, errors %ld; latency us p50 %.1f p99 %.1f p99.9 %.1f; server CPU "
               "us/op user %.3f sys %.3f total %.3f%s\n",
               done, done / took, hits, misses, errors, quantile(.5), quantile(.99), quantile(.999), (u1 - u0) / per,
               (s1 - s0) / per, (u1 - u0 + s1 - s0) / per, late ? "; not all requests could be sent on time" : "");
    return 0;
}
