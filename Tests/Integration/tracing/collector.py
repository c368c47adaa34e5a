# Martlet
# SPDX-License-Identifier: Apache-2.0
"""A collector that takes OTLP over HTTP and holds what comes against the published schema."""

import base64
import copy
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bed import until

IDS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}


def check(document):
    """Whether a request is what the schema says; raises where it is not."""
    plain = copy.deepcopy(document)
    for resource in plain["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                # OTLP writes ids in hexadecimal digits, where protobuf's own mapping has base64.
                for name, length in IDS.items():
                    if name in span:
                        assert re.fullmatch(f"[0-9a-f]{{{length}}}", span[name]), (name, span[name])
                        assert int(span[name], 16) != 0
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
                assert isinstance(span["kind"], int) and 1 <= span["kind"] <= 5, span
                for name in ("startTimeUnixNano", "endTimeUnixNano"):
                    assert isinstance(span[name], str) and span[name].isdigit(), span
                assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
                keys = [one["key"] for one in span["attributes"]]
                assert len(keys) == len(set(keys)), keys
    # An unknown field, or one of another type, is an error.
    message = json_format.ParseDict(plain, ExportTraceServiceRequest())
    assert message.resource_spans and message.resource_spans[0].scope_spans[0].spans


def attributes(pairs):
    """A list of attributes as a mapping."""
    found = {}
    for one in pairs:
        [(kind, value)] = one["value"].items()
        found[one["key"]] = int(value) if kind == "intValue" else value
    return found


class Span:
    """A span as it came."""

    def __init__(self, span, resource):
        self.trace, self.id, self.parent = span["traceId"], span["spanId"], span.get("parentSpanId")
        self.name, self.kind, self.flags = span["name"], span["kind"], span["flags"]
        self.start, self.end = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
        self.attributes, self.resource = attributes(span["attributes"]), resource
        self.failed = span.get("status", {}).get("code") == 2

    @property
    def service(self):
        return self.resource["service.name"]

    @property
    def milliseconds(self):
        return (self.end - self.start) / 1e6

    def encloses(self, other):
        return self.start <= other.start and other.end <= self.end

    def __repr__(self):
        times = f"{self.start}+{self.end - self.start}"
        return f"{self.service}:{self.name} {self.id} below {self.parent} {times} {self.attributes}"


class Collector:
    """Listens on a port of its own. `answer(number)` gives a status and headers for the request of that number, from 0
    on; a status of 0 never answers."""

    def __init__(self, answer=None, body=b"{}"):
        self.requests, self.problems, self.lock = [], [], threading.Lock()
        self.answer, self.taken = answer or (lambda number: (200, {})), []
        self.is_open = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                data = self.rfile.read(int(self.headers["Content-Length"]))
                with collector.lock:
                    number = len(collector.requests)
                    collector.requests.append((time.monotonic(), self.path, dict(self.headers), data))
                status, headers = collector.answer(number)
                try:
                    assert self.headers["Content-Type"] == "application/json"
                    document = json.loads(data)
                    check(document)
                    if 200 <= status < 300:
                        with collector.lock:
                            collector.taken.append(document)
                except Exception as problem:  # pylint: disable=broad-except
                    collector.problems.append(f"{problem!r} in {data[:2000]!r}")
                if status == 0:
                    collector.is_open.wait(60)
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                try:
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    # A process that ends waits no longer.
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self):
        """What was taken so far; fails where anything that came was wrong."""
        assert not self.problems, self.problems[0]
        with self.lock:
            taken = list(self.taken)
        found = []
        for document in taken:
            for resource in document["resourceSpans"]:
                named = attributes(resource["resource"]["attributes"])
                for scope in resource["scopeSpans"]:
                    assert scope["scope"]["name"] == "martlet"
                    found += [Span(span, named) for span in scope["spans"]]
        assert len(found) == len({(span.trace, span.id) for span in found}), "a span came twice"
        return found

    def of(self, trace):
        return [span for span in self.spans if span.trace == trace]

    def eventually(self, wanted, seconds=20):
        """The spans, once they pass a test."""
        def look():
            found = self.spans
            return (found,) if wanted(found) else None

        return until(look, seconds, lambda: self.spans)[0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_open.set()
        self.server.shutdown()
        self.server.server_close()
