"""A Hugging Face hub on loopback: the part of its protocol that the real client uses to look and to download.

It counts what it serves and keeps what it was asked, and it can misbehave: cut connections, refuse, lie.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """`files` by name; `lies` are served in place of the files that the listing describes."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    lfs: bool = True
    lies: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    authorization: str | None
    range: str | None


@dataclass
class HfEndpoint:
    """`cuts`: after how many bytes each of the next file answers breaks off. `cdn`: where files are redirected."""

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    file_bytes: int = 0
    cuts: list[int] = field(default_factory=list)
    cdn: str | None = None
    ranges: bool = True
    page: bytes | None = None
    status: int | None = None

    def gets(self) -> list[Asked]:
        """The requests for content, in order."""
        return [each for each in self.asked if each.method == "GET" and not each.path.startswith("/api/")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: HfEndpoint

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.endpoint.asked.append(
            Asked(self.command, path, self.headers.get("Authorization"), self.headers.get("Range"))
        )
        if self.endpoint.status is not None:
            self._send(self.endpoint.status, b"{}", {})
        elif self.endpoint.page is not None:
            self._send(200, self.endpoint.page, {"Content-Type": "text/html"})
        elif path.startswith("/api/models/"):
            self._info(path.removeprefix("/api/models/"))
        else:
            self._file(path)

    def _info(self, rest: str) -> None:
        name, _, revision = rest.partition("/revision/")
        repository = self.endpoint.repositories.get(name)
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        if revision not in ("", "main", repository.commit):
            return self._refuse(404, "RevisionNotFound")
        siblings: list[dict[str, Any]] = []
        for file, content in repository.files.items():
            sibling: dict[str, Any] = {"rfilename": file, "size": len(content), "blobId": "0" * 40}
            if repository.lfs:
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 134}
            siblings.append(sibling)
        info = {"id": name, "sha": repository.commit, "siblings": siblings}
        return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _file(self, path: str) -> None:
        via_cdn = path.startswith("/cdn/")
        name, _, rest = path.removeprefix("/cdn").strip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        repository = self.endpoint.repositories.get(name)
        if repository is None:
            return self._refuse(404, "RepoNotFound")
        if repository.gated and not self.headers.get("Authorization") and not via_cdn:
            return self._refuse(403, "GatedRepo")
        if revision not in ("main", repository.commit):
            return self._refuse(404, "RevisionNotFound")
        content = repository.files.get(file)
        if content is None:
            return self._refuse(404, "EntryNotFound", {"X-Repo-Commit": repository.commit})
        etag = hashlib.sha256(content).hexdigest() if repository.lfs else hashlib.sha1(content).hexdigest()
        headers = {
            "X-Repo-Commit": repository.commit,
            "ETag": f'"{etag}"',
            "X-Linked-Etag": f'"{etag}"',
            "X-Linked-Size": str(len(content)),
            "Accept-Ranges": "bytes",
        }
        if self.endpoint.cdn and not via_cdn:
            return self._send(302, b"", {**headers, "Location": f"{self.endpoint.cdn}/cdn{path}"})
        return self._content(repository.lies.get(file, content), headers)

    def _content(self, content: bytes, headers: dict[str, str]) -> None:
        wanted = self.headers.get("Range")
        if not wanted or not self.endpoint.ranges:
            return self._send(200, content, headers, counted=True)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) if last else len(content) - 1, len(content) - 1)
        if start >= len(content):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"}
        return self._send(206, content[start : end + 1], headers, counted=True)

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, counted: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if counted and self.endpoint.cuts:
            body = body[: self.endpoint.cuts.pop(0)]
            self.close_connection = True
        try:
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if counted:
            self.endpoint.file_bytes += len(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def hf_endpoint(host: str = "127.0.0.1", **repositories: Repository) -> Iterator[HfEndpoint]:
    """A running endpoint; `org__repo=Repository(…)` puts it at `org/repo`."""
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer((host, 0), handler)
    endpoint = HfEndpoint(f"http://{host}:{server.server_port}")
    endpoint.repositories = {name.replace("__", "/"): each for name, each in repositories.items()}
    handler.endpoint = endpoint
    # Connections that a client keeps open would otherwise hold the end of a test up.
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
