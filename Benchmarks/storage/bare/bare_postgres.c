// Martlet
// SPDX-License-Identifier: Apache-2.0
#include "CStorageBench.h"
#include <libpq-fe.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct bare_session {
    PGconn *connection;
};

static const char upsert[] =
    "INSERT INTO martlet_kv (k, ver, exp, flags, del, val) VALUES ($1, $2, 0, 0, false, $3) ON CONFLICT (k) DO UPDATE "
    "SET ver = GREATEST(martlet_kv.ver + 1, EXCLUDED.ver), exp = EXCLUDED.exp, flags = EXCLUDED.flags, "
    "del = EXCLUDED.del, val = EXCLUDED.val RETURNING ver";
static const char lookup[] = "SELECT k, ver, exp, flags, del, val FROM martlet_kv WHERE k = $1";

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

bare_session *bare_connect(const char *url) {
    PGconn *connection = PQconnectdb(url);
    const Oid write[3] = {17, 20, 17}, read[1] = {17};
    PGresult *first = PQprepare(connection, "upsert", upsert, 3, write);
    PGresult *second = PQprepare(connection, "lookup", lookup, 1, read);
    int good = PQresultStatus(first) == PGRES_COMMAND_OK && PQresultStatus(second) == PGRES_COMMAND_OK;
    PQclear(first);
    PQclear(second);
    if (!good || PQsetnonblocking(connection, 1) != 0 || PQenterPipelineMode(connection) != 1) {
        fprintf(stderr, "bare: %s\n", PQerrorMessage(connection));
        PQfinish(connection);
        return NULL;
    }
    bare_session *session = malloc(sizeof *session);
    session->connection = connection;
    return session;
}

void bare_disconnect(bare_session *session) {
    PQfinish(session->connection);
    free(session);
}

// Sends what is queued and takes `count` results and the end of the transaction; 0 when something went wrong.
static int take(PGconn *connection, int count) {
    if (PQpipelineSync(connection) != 1) return 0;
    int rows = 0;
    for (;;) {
        int left = PQflush(connection);
        if (left < 0) return 0;
        while (PQisBusy(connection)) {
            struct pollfd one = {.fd = PQsocket(connection), .events = (short)(POLLIN | (left ? POLLOUT : 0))};
            if (poll(&one, 1, 10000) <= 0 || PQconsumeInput(connection) != 1) return 0;
            left = PQflush(connection);
        }
        PGresult *result = PQgetResult(connection);
        if (result == NULL) continue;
        ExecStatusType status = PQresultStatus(result);
        if (status == PGRES_TUPLES_OK && PQntuples(result) == 1) {
            // What a client would do with it: a copy.
            int column = PQnfields(result) - 1, length = PQgetlength(result, 0, column);
            char *copy = malloc((size_t)length + 1);
            memcpy(copy, PQgetvalue(result, 0, column), (size_t)length);
            free(copy);
            rows++;
        }
        PQclear(result);
        if (status == PGRES_PIPELINE_SYNC) return rows == count;
        if (status != PGRES_TUPLES_OK) {
            fprintf(stderr, "bare: %s\n", PQerrorMessage(connection));
            return 0;
        }
    }
}

uint64_t bare_upsert_loop(bare_session *session, int count, int batch, uint64_t first, uint64_t keys, size_t value) {
    char key[bare_key_bytes], version[8], *data = malloc(value);
    memset(data, 'v', value);
    const char *values[3] = {key, version, data};
    const int lengths[3] = {bare_key_bytes, 8, (int)value}, formats[3] = {1, 1, 1};
    uint64_t begin = now();
    int good = 1;
    for (int done = 0; good && done < count; done += batch) {
        for (int index = 0; good && index < batch; index++) {
            bare_key((first + (uint64_t)(done + index)) % keys, key);
            for (int byte = 0; byte < 8; byte++) version[byte] = (char)(begin >> (56 - 8 * byte));
            good = PQsendQueryPrepared(session->connection, "upsert", 3, values, lengths, formats, 1);
        }
        good = good && take(session->connection, batch);
    }
    uint64_t end = now();
    free(data);
    return good ? end - begin : 0;
}

uint64_t bare_lookup_loop(bare_session *session, int count, int batch, uint64_t keys, uint64_t seed) {
    char key[bare_key_bytes];
    const char *values[1] = {key};
    const int lengths[1] = {bare_key_bytes}, formats[1] = {1};
    uint64_t begin = now();
    int good = 1;
    for (int done = 0; good && done < count; done += batch) {
        for (int index = 0; good && index < batch; index++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            bare_key((seed >> 33) % keys, key);
            good = PQsendQueryPrepared(session->connection, "lookup", 1, values, lengths, formats, 1);
        }
        good = good && take(session->connection, batch);
    }
    uint64_t end = now();
    return good ? end - begin : 0;
}
