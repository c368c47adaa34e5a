// Martlet: librdkafka, with its variadic functions and its macros as functions. No logic.
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <librdkafka/rdkafka.h>
#include <stdint.h>

// Copies key and value; a value of NULL is a tombstone, a header of NULL is none. `mark` comes back with the report.
static inline rd_kafka_resp_err_t martlet_kafka_produce(
    rd_kafka_t *handle, rd_kafka_topic_t *topic, int32_t partition, const void *key, size_t key_length,
    const void *value, size_t value_length, const char *header_name, const void *header, size_t header_length,
    uintptr_t mark) {
    if (header == NULL) {
        return rd_kafka_producev(
            handle, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY((void *)key, key_length), RD_KAFKA_V_VALUE((void *)value, value_length),
            RD_KAFKA_V_OPAQUE((void *)mark), RD_KAFKA_V_END);
    }
    return rd_kafka_producev(
        handle, RD_KAFKA_V_RKT(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)key, key_length), RD_KAFKA_V_VALUE((void *)value, value_length),
        RD_KAFKA_V_HEADER(header_name, header, header_length), RD_KAFKA_V_OPAQUE((void *)mark), RD_KAFKA_V_END);
}
static inline uintptr_t martlet_kafka_mark(const rd_kafka_message_t *message) {
    return (uintptr_t)message->_private;
}
// The last header of a name; NULL when there is none.
static inline const void *martlet_kafka_header(const rd_kafka_message_t *message, const char *name, size_t *length) {
    rd_kafka_headers_t *headers = NULL;
    const void *value = NULL;
    *length = 0;
    if (rd_kafka_message_headers(message, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) { return NULL; }
    if (rd_kafka_header_get_last(headers, name, &value, length) != RD_KAFKA_RESP_ERR_NO_ERROR) { return NULL; }
    return value;
}
static inline void martlet_kafka_purge(rd_kafka_t *handle) {
    rd_kafka_purge(handle, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
}
// A consumer is not in a group: there is nothing to leave.
static inline void martlet_kafka_destroy(rd_kafka_t *handle) {
    rd_kafka_destroy_flags(handle, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}
