// Martlet
// SPDX-License-Identifier: Apache-2.0
#include "CStorageBench.h"
#include <fcntl.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { head_bytes = 25, outbox_key_bytes = 9 };

struct bare_store {
    rocksdb_t *database;
    rocksdb_column_family_handle_t *rows, *outbox, *unused;
    rocksdb_readoptions_t *reading;
    rocksdb_writeoptions_t *synced, *unsynced;
    uint64_t sequence;
};

static uint64_t clock_nanoseconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t bare_processor_time(void) { return clock_nanoseconds(CLOCK_PROCESS_CPUTIME_ID); }

uint64_t bare_append_loop(const char *path, size_t bytes, int count) {
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0) return 0;
    char *block = malloc(bytes);
    memset(block, 7, bytes);
    uint64_t begin = clock_nanoseconds(CLOCK_MONOTONIC);
    int done = 0;
    for (; done < count; done++) {
        if (write(fd, block, bytes) != (ssize_t)bytes || fdatasync(fd) != 0) break;
    }
    uint64_t end = clock_nanoseconds(CLOCK_MONOTONIC);
    free(block);
    close(fd);
    unlink(path);
    return done == count ? end - begin : 0;
}

static rocksdb_options_t *family_options(size_t buffer, rocksdb_cache_t *cache, int lookups) {
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_write_buffer_size(options, buffer);
    rocksdb_options_set_max_write_buffer_number(options, 3);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_compression(options, rocksdb_lz4_compression);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
    rocksdb_block_based_options_set_format_version(table, 5);
    if (lookups) {
        rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
        rocksdb_block_based_options_set_data_block_index_type(
            table, rocksdb_block_based_table_data_block_index_type_binary_search_and_hash);
        rocksdb_block_based_options_set_data_block_hash_ratio(table, 0.75);
    }
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    return options;
}

bare_store *bare_open(const char *path, size_t cache_bytes, size_t buffer_bytes) {
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_create_missing_column_families(options, 1);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_bytes_per_sync(options, 1 << 20);
    rocksdb_cache_t *cache = rocksdb_cache_create_lru(cache_bytes);
    const rocksdb_options_t *all[3] = {options, family_options(buffer_bytes, cache, 1), family_options(16 << 20, cache, 0)};
    const char *names[3] = {"default", "kv", "outbox"};
    rocksdb_column_family_handle_t *handles[3];
    char *error = NULL;
    rocksdb_t *database = rocksdb_open_column_families(options, path, 3, names, all, handles, &error);
    if (error != NULL) {
        fprintf(stderr, "bare: %s\n", error);
        return NULL;
    }
    bare_store *store = calloc(1, sizeof *store);
    *store = (bare_store){.database = database, .unused = handles[0], .rows = handles[1], .outbox = handles[2]};
    store->reading = rocksdb_readoptions_create();
    store->synced = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(store->synced, 1);
    store->unsynced = rocksdb_writeoptions_create();
    return store;
}

void bare_close(bare_store *store) {
    rocksdb_cancel_all_background_work(store->database, 1);
    rocksdb_column_family_handle_destroy(store->rows);
    rocksdb_column_family_handle_destroy(store->outbox);
    rocksdb_column_family_handle_destroy(store->unused);
    rocksdb_close(store->database);
    free(store);
}

void bare_key(uint64_t number, char *key) {
    // Spread over the key space, the same in every run.
    uint64_t mixed = number * 0x9e3779b97f4a7c15u;
    static const char digits[] = "0123456789abcdef";
    memcpy(key, "bench:", 6);
    for (int index = 0; index < 16; index++) key[6 + index] = digits[(mixed >> (60 - 4 * index)) & 15];
    key[22] = ':';
    key[23] = 'v';
}

uint64_t bare_write_loop(
    bare_store *store, int count, int batch, int sync, uint64_t first, uint64_t keys, size_t value, size_t record) {
    char *row = malloc(head_bytes + value), *entry = malloc(record), key[bare_key_bytes], place[outbox_key_bytes];
    memset(row, 'v', head_bytes + value);
    memset(entry, 'r', record);
    rocksdb_writebatch_t *changes = rocksdb_writebatch_create();
    char *error = NULL;
    uint64_t begin = clock_nanoseconds(CLOCK_MONOTONIC);
    for (int done = 0; done < count && error == NULL; done += batch) {
        rocksdb_writebatch_clear(changes);
        for (int index = 0; index < batch; index++) {
            bare_key((first + (uint64_t)(done + index)) % keys, key);
            uint64_t sequence = ++store->sequence;
            place[0] = (char)(sequence % 64);
            for (int byte = 0; byte < 8; byte++) place[1 + byte] = (char)(sequence >> (56 - 8 * byte));
            rocksdb_writebatch_put_cf(changes, store->rows, key, bare_key_bytes, row, head_bytes + value);
            rocksdb_writebatch_put_cf(changes, store->outbox, place, outbox_key_bytes, entry, record);
        }
        rocksdb_write(store->database, sync ? store->synced : store->unsynced, changes, &error);
    }
    uint64_t end = clock_nanoseconds(CLOCK_MONOTONIC);
    rocksdb_writebatch_destroy(changes);
    free(row);
    free(entry);
    if (error != NULL) fprintf(stderr, "bare: %s\n", error);
    return error == NULL ? end - begin : 0;
}

uint64_t bare_read_loop(bare_store *store, int count, int batch, uint64_t keys, uint64_t seed) {
    char *names = malloc((size_t)batch * bare_key_bytes);
    const char **list = malloc((size_t)batch * sizeof *list);
    size_t *sizes = malloc((size_t)batch * sizeof *sizes);
    rocksdb_pinnableslice_t **values = calloc((size_t)batch, sizeof *values);
    char **errors = calloc((size_t)batch, sizeof *errors);
    int missing = 0;
    uint64_t begin = clock_nanoseconds(CLOCK_MONOTONIC);
    for (int done = 0; done < count; done += batch) {
        for (int index = 0; index < batch; index++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            bare_key((seed >> 33) % keys, names + index * bare_key_bytes);
            list[index] = names + index * bare_key_bytes;
            sizes[index] = bare_key_bytes;
        }
        rocksdb_batched_multi_get_cf(
            store->database, store->reading, store->rows, (size_t)batch, list, sizes, values, errors, 0);
        for (int index = 0; index < batch; index++) {
            if (values[index] == NULL) {
                missing++;
                continue;
            }
            size_t length;
            const char *start = rocksdb_pinnableslice_value(values[index], &length);
            char *copy = malloc(length);
            memcpy(copy, start, length);
            rocksdb_pinnableslice_destroy(values[index]);
            free(copy);
        }
    }
    uint64_t end = clock_nanoseconds(CLOCK_MONOTONIC);
    free(names);
    free(list);
    free(sizes);
    free(values);
    free(errors);
    if (missing > 0) fprintf(stderr, "bare: %d rows are missing\n", missing);
    return missing == 0 ? end - begin : 0;
}

void bare_flush(bare_store *store) {
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    char *error = NULL;
    rocksdb_flush_cf(store->database, options, store->rows, &error);
    rocksdb_flushoptions_destroy(options);
    rocksdb_compact_range_cf(store->database, store->rows, NULL, 0, NULL, 0);
}
