// Martlet: the loops that the storage benchmark measures itself against. No dependency on the product's code.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdint.h>
#include <stddef.h>

// Appends `count` times `bytes` bytes to the file `path` with write and fdatasync; nanoseconds, or 0 on an error.
uint64_t bare_append_loop(const char *path, size_t bytes, int count);

typedef struct bare_store bare_store;

// RocksDB with the column families and options that the backend has, without filters.
bare_store *bare_open(const char *path, size_t cache_bytes, size_t buffer_bytes);
void bare_close(bare_store *store);

// Commits `count` changes in batches of `batch`: each a row of `value` bytes under a key of `key_bytes`, numbered from
// `first` modulo `keys`, and a record of `record` bytes. Nanoseconds, or 0 on an error.
uint64_t bare_write_loop(
    bare_store *store, int count, int batch, int sync, uint64_t first, uint64_t keys, size_t value, size_t record);

// Looks `count` rows up, `batch` at once, and copies each; nanoseconds, or 0 when one is missing.
uint64_t bare_read_loop(bare_store *store, int count, int batch, uint64_t keys, uint64_t seed);

void bare_flush(bare_store *store);

typedef struct bare_session bare_session;

// A connection in pipeline mode to a database with our tables; null on an error.
bare_session *bare_connect(const char *url);
void bare_disconnect(bare_session *session);

// The same by single-row statements, `batch` of them in flight and in one transaction.
uint64_t bare_upsert_loop(bare_session *session, int count, int batch, uint64_t first, uint64_t keys, size_t value);
uint64_t bare_lookup_loop(bare_session *session, int count, int batch, uint64_t keys, uint64_t seed);

// The key that stands for a number: 24 bytes.
enum { bare_key_bytes = 24 };
void bare_key(uint64_t number, char *key);

typedef struct bare_client bare_client;

// Connections to a server of memcached's protocol on loopback; null on an error.
bare_client *bare_client_connect(int port, int connections);
void bare_client_close(bare_client *client);

// `count` commands, `depth` of them in flight on each connection, on keys that each come once before any comes again,
// where `keys` is no multiple of 7919. Nanoseconds, or 0 when a reply is another than the good one.
uint64_t bare_client_sets(bare_client *client, int count, int depth, uint64_t first, uint64_t keys, size_t value);
uint64_t bare_client_gets(bare_client *client, int count, int depth, uint64_t first, uint64_t keys, size_t value);

// Empties the server's cache; whether it did.
int bare_client_flush(bare_client *client);

// Processor time of this process in nanoseconds.
uint64_t bare_processor_time(void);
