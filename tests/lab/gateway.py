"""Asking a machine's gateway, which listens on the machine's own loopback, from the tests' process."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.lab.network import Link

PORT = 11500


@contextmanager
def request(
    link: Link, path: str, body: Any, headers: Mapping[str, str] | None, port: int, timeout: float
) -> Iterator[http.client.HTTPResponse]:
    """One HTTP request made inside the machine's network (POST with a body, else GET). Raises OSError when nobody
    listens; `timeout` is for each read, in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    connection.sock = link.connect(port, timeout)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, data, dict(headers or {}))
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def events(response: http.client.HTTPResponse) -> Iterator[Any]:
    """The JSON of each server-sent event, as it comes, up to `[DONE]`."""
    for line in response:
        name, _, data = line.strip().partition(b": ")
        if name == b"data" and data != b"[DONE]":
            yield json.loads(data)
