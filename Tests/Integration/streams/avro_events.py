# Martlet
# SPDX-License-Identifier: Apache-2.0
"""Debezium's events about the table of rows as Confluent's AvroConverter writes them: the schemas that it derives, and what is
behind a registry's frame. Written by fastavro. Source: Debezium 2.7 documentation, connector for PostgreSQL."""

import base64
import io
import json
import struct

import fastavro

SPACE = "pg.public.martlet_kv"


def optional(kind):
    return ["null", kind]


def field(name, kind, **more):
    return {"name": name, "type": kind, **({"default": None} if isinstance(kind, list) and kind[0] == "null" else {}), **more}


ROW = {
    "type": "record", "name": "Value", "connect.name": f"{SPACE}.Value",
    "fields": [
        field("k", "bytes"), field("val", optional("bytes")), field("ver", {"type": "long", "connect.default": 0}, default=0),
        field("exp", {"type": "long", "connect.default": 0}, default=0), field("flags", {"type": "long", "connect.default": 0}, default=0),
        field("del", {"type": "boolean", "connect.default": False}, default=False),
    ],
}  # fmt: skip
SNAPSHOT = {"type": "string", "connect.version": 1, "connect.name": "io.debezium.data.Enum", "connect.default": "false",
            "connect.parameters": {"allowed": "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"}}  # fmt: skip
SOURCE = {
    "type": "record", "name": "Source", "namespace": "io.debezium.connector.postgresql",
    "connect.name": "io.debezium.connector.postgresql.Source",
    "fields": [
        field("version", "string"), field("connector", "string"), field("name", "string"), field("ts_ms", "long"),
        field("snapshot", [SNAPSHOT, "null"], default="false"), field("db", "string"), field("sequence", optional("string")),
        field("ts_us", optional("long")), field("ts_ns", optional("long")), field("schema", "string"), field("table", "string"),
        field("txId", optional("long")), field("lsn", optional("long")), field("xmin", optional("long")),
    ],
}  # fmt: skip
BLOCK = {"type": "record", "name": "block", "namespace": "event", "connect.version": 1, "connect.name": "event.block",
         "fields": [field("id", "string"), field("total_order", "long"), field("data_collection_order", "long")]}  # fmt: skip
ENVELOPE = {
    "type": "record", "name": "Envelope", "namespace": SPACE, "connect.version": 2, "connect.name": f"{SPACE}.Envelope",
    "fields": [
        field("before", optional(ROW)), field("after", optional("Value")), field("source", SOURCE),
        field("transaction", optional(BLOCK)), field("op", "string"), field("ts_ms", optional("long")),
        field("ts_us", optional("long")), field("ts_ns", optional("long")),
    ],
}  # fmt: skip
KEY = {"type": "record", "name": "Key", "namespace": SPACE, "connect.name": f"{SPACE}.Key", "fields": [field("k", "bytes")]}
# Of pg_logical_emit_message.
MESSAGE = {
    "type": "record", "name": "Envelope", "namespace": "io.debezium.connector.postgresql.MessageValue", "connect.version": 1,
    "fields": [
        field("op", "string"), field("ts_ms", optional("long")), field("source", SOURCE),
        field("message", {"type": "record", "name": "Message", "namespace": "io.debezium.connector.postgresql",
                          "fields": [field("prefix", optional("string")), field("content", optional("bytes"))]}),
    ],
}  # fmt: skip


def write(schema, value):
    """The bytes of a value, by fastavro."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), value)
    return out.getvalue()


def framed(number, body):
    """Behind a registry's frame."""
    return b"\0" + struct.pack(">I", number) + body


def row(image):
    """A row of an event in JSON, as Avro has it."""
    if image is None:
        return None
    return {name: base64.b64decode(part) if name in ("k", "val") and part is not None else part for name, part in image.items()}


def event(number, contents):
    """An event in JSON as a message in Avro, whose schema has this number."""
    return framed(number, write(ENVELOPE, {**contents, "before": row(contents["before"]), "after": row(contents["after"])}))
