# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A Kafka cluster of three brokers to test with: librdkafka's mock, in a process of its own.

    python -m streams.brokers         # speaks JSON, a line for each command and each answer, until standard input ends

Its brokers speak Kafka's protocol over TCP and keep messages in memory: of each partition some 5 MiB, then the oldest go.
It has no TLS, no login, no replicas that could lag, and no disk.
"""

import ctypes
import json
import random
import subprocess
import sys
import threading
from pathlib import Path

PARTITIONS = 64
LIBRARY = "librdkafka.so.1"
# Kinds of requests, and errors, by Kafka's numbers.
PRODUCE, FETCH, METADATA = 0, 1, 3
TRANSPORT, UNKNOWN, NOT_LEADER, TIMED_OUT, TOO_LARGE, UNAUTHORIZED, OUT_OF_ORDER = -195, -1, 6, 7, 10, 29, 45


class Brokers:
    """The cluster, as a test moves it."""

    def __init__(self, topics=("inv.main",), partitions=PARTITIONS):
        # Troubles may come two at a time.
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streams.brokers"], cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.addresses = self.ask("addresses")
        self.partitions = partitions
        for topic in topics:
            self.ask("topic", topic, partitions)

    def ask(self, command, *arguments):
        with self.lock:
            self.process.stdin.write(json.dumps([command, *arguments]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        assert line, "the brokers are gone"
        answer = json.loads(line)
        assert "error" not in answer, answer
        return answer["result"]

    def down(self, number):
        """A broker ends all connections and takes no more; nobody takes its partitions over by himself."""
        self.ask("down", number)

    def up(self, number):
        self.ask("up", number)

    def lead(self, *numbers, topic="inv.main"):
        """Shares the partitions out between some brokers."""
        for partition in range(self.partitions):
            self.ask("leader", topic, partition, numbers[partition % len(numbers)])

    def fail(self, kind, *codes):
        """The next requests of a kind are answered with these errors."""
        self.ask("errors", kind, list(codes))

    def slow(self, milliseconds):
        for number in (1, 2, 3):
            self.ask("slow", number, milliseconds)

    def put(self, partition, value, key=None, topic="inv.main"):
        """Puts a message of the test's own into a partition; a value of None is a tombstone."""
        self.put_all(partition, [(key, value)], topic)

    def put_all(self, partition, messages, topic="inv.main"):
        """Puts messages, each a key and a value, that a consumer is given together."""
        digits = [[part and part.hex() for part in message] for message in messages]
        self.ask("put", topic, partition, digits)

    def double(self, count, topic="inv.main"):
        """Puts the last so many messages of each partition into it once more, in any order, without those that are large;
        how many."""
        return self.ask("double", topic, self.partitions, count)

    def messages(self, topic="inv.main"):
        """All that the brokers have: (partition, offset, key, value), in the order of each partition; None is null."""
        return [
            (partition, offset, *(part if part is None else bytes.fromhex(part) for part in (key, value)))
            for partition, offset, key, value in self.ask("messages", topic, self.partitions)]  # fmt: skip

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


class Message(ctypes.Structure):
    """rd_kafka_message_t."""

    _fields_ = [
        ("err", ctypes.c_int), ("rkt", ctypes.c_void_p), ("partition", ctypes.c_int32), ("payload", ctypes.c_void_p),
        ("length", ctypes.c_size_t), ("key", ctypes.c_void_p), ("key_length", ctypes.c_size_t), ("offset", ctypes.c_int64),
        ("private", ctypes.c_void_p)]  # fmt: skip


class Partition(ctypes.Structure):
    """rd_kafka_topic_partition_t."""

    _fields_ = [
        ("topic", ctypes.c_char_p), ("partition", ctypes.c_int32), ("offset", ctypes.c_int64), ("metadata", ctypes.c_void_p),
        ("metadata_size", ctypes.c_size_t), ("opaque", ctypes.c_void_p), ("err", ctypes.c_int), ("private", ctypes.c_void_p)]  # fmt: skip


class Mock:
    """The cluster itself, by the library's functions for tests."""

    def __init__(self):
        self.library = ctypes.CDLL(LIBRARY)
        for name in ("conf_new", "new", "topic_new", "mock_cluster_new", "topic_partition_list_new", "consumer_poll"):
            getattr(self.library, f"rd_kafka_{name}").restype = ctypes.c_void_p
        self.library.rd_kafka_topic_partition_list_add.restype = ctypes.POINTER(Partition)
        self.library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        self.producer = self.handle(0, ())
        self.cluster = ctypes.c_void_p(self.library.rd_kafka_mock_cluster_new(self.producer, 3))
        self.addresses = self.library.rd_kafka_mock_cluster_bootstraps(self.cluster).decode()
        self.writer = self.handle(0, (("bootstrap.servers", self.addresses),))

    def handle(self, kind, settings):
        conf = ctypes.c_void_p(self.library.rd_kafka_conf_new())
        text = ctypes.create_string_buffer(512)
        for name, value in (("log_level", "0"), *settings):
            if self.library.rd_kafka_conf_set(conf, name.encode(), value.encode(), text, 512) != 0:
                raise ValueError(text.value.decode())
        return ctypes.c_void_p(self.library.rd_kafka_new(kind, conf, text, 512))

    def check(self, code):
        if code != 0:
            raise ValueError(f"the library answers {code}")

    def run(self, command, *arguments):
        if command == "addresses":
            return self.addresses
        return getattr(self, f"do_{command}")(*arguments)

    def do_topic(self, name, partitions):
        self.check(self.library.rd_kafka_mock_topic_create(self.cluster, name.encode(), partitions, 3))

    def do_down(self, number):
        self.check(self.library.rd_kafka_mock_broker_set_down(self.cluster, number))

    def do_up(self, number):
        self.check(self.library.rd_kafka_mock_broker_set_up(self.cluster, number))

    def do_slow(self, number, milliseconds):
        self.check(self.library.rd_kafka_mock_broker_set_rtt(self.cluster, number, milliseconds))

    def do_leader(self, topic, partition, number):
        self.check(self.library.rd_kafka_mock_partition_set_leader(self.cluster, topic.encode(), partition, number))

    def do_errors(self, kind, codes):
        array = (ctypes.c_int * len(codes))(*codes)
        self.library.rd_kafka_mock_push_request_errors_array(
            self.cluster, ctypes.c_int16(kind), ctypes.c_size_t(len(codes)), array)

    def do_put(self, topic, partition, messages):
        handle = ctypes.c_void_p(self.library.rd_kafka_topic_new(self.writer, topic.encode(), None))
        for message in messages:
            key, value = (bytes.fromhex(part) if part else None for part in message)
            self.check(self.library.rd_kafka_produce(
                handle, partition, 2, value, ctypes.c_size_t(len(value or b"")), key, ctypes.c_size_t(len(key or b"")), None))  # fmt: skip
        self.check(self.library.rd_kafka_flush(self.writer, 10_000))

    def do_double(self, topic, partitions, count):
        found = [one for one in self.read(topic, partitions, count) if len(one[3] or "") < 100_000]
        random.shuffle(found)
        for partition in range(partitions):
            if messages := [(key, value) for place, _, key, value in found if place == partition]:
                self.do_put(topic, partition, messages)
        return len(found)

    def do_messages(self, topic, partitions):
        return self.read(topic, partitions)

    def read(self, topic, partitions, count=None):
        """The messages of a topic: of each partition all of them, or the last so many."""
        settings = (("bootstrap.servers", self.addresses), ("group.id", "test"), ("fetch.wait.max.ms", "10"),
                    ("enable.auto.commit", "false"))  # fmt: skip
        reader = self.handle(1, settings)
        low, high, ends = ctypes.c_int64(), ctypes.c_int64(), {}
        wanted = ctypes.c_void_p(self.library.rd_kafka_topic_partition_list_new(partitions))
        for partition in range(partitions):
            self.check(self.library.rd_kafka_query_watermark_offsets(
                reader, topic.encode(), partition, ctypes.byref(low), ctypes.byref(high), 10_000))  # fmt: skip
            if low.value < high.value:
                ends[partition] = high.value
                place = self.library.rd_kafka_topic_partition_list_add(wanted, topic.encode(), partition)
                place.contents.offset = low.value if count is None else max(low.value, high.value - count)
        self.check(self.library.rd_kafka_assign(reader, wanted))
        found = []
        while ends:
            address = self.library.rd_kafka_consumer_poll(reader, 10_000)
            if not address:
                raise ValueError(f"these do not come to their end: {ends}")
            message = Message.from_address(address)
            if message.err == 0:
                key = ctypes.string_at(message.key, message.key_length).hex() if message.key else None
                value = ctypes.string_at(message.payload, message.length).hex() if message.payload else None
                if message.partition in ends:
                    found.append((message.partition, message.offset, key, value))
                    if message.offset >= ends[message.partition] - 1:
                        del ends[message.partition]
            self.library.rd_kafka_message_destroy(ctypes.c_void_p(address))
        self.library.rd_kafka_topic_partition_list_destroy(wanted)
        self.library.rd_kafka_destroy_flags(reader, 8)
        return found


def serve():
    mock = Mock()
    for line in sys.stdin:
        try:
            answer = {"result": mock.run(*json.loads(line))}
        except (ValueError, TypeError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
