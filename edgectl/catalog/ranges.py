"""Parts of a file over HTTP: headers read without their weights, and transfers that go on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgectl.catalog.artifacts import Progress
from edgectl.errors import CatalogError

if TYPE_CHECKING:
    import httpx2

ATTEMPTS = 5


class RemoteFile:
    """One file behind a URL that answers range requests. Redirects are followed by `client`, which keeps
    credentials from any other origin; `check` turns a refusal into an exception."""

    def __init__(
        self,
        client: "httpx2.Client",
        url: str,
        size: int,
        *,
        headers: dict[str, str],
        timeout: float,
        check: Callable[["httpx2.Response"], None],
    ) -> None:
        self.size = size
        self._client = client
        self._url = url
        # A compressed answer would make ranges and sizes mean something else.
        self._headers = {**headers, "accept-encoding": "identity"}
        self._timeout = timeout
        self._check = check

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`, fewer at the end; a broken connection is tried again."""
        import httpx2

        end = min(offset + length, self.size)
        data = bytearray()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for chunk in self.stream(offset + len(data), end):
                    data += chunk
                break
            except (httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.ReadTimeout):
                if attempt == ATTEMPTS:
                    raise
        return bytes(data)

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`. A server that ignores ranges is read from its beginning."""
        if start >= end:
            return
        headers = {**self._headers, "range": f"bytes={start}-{end - 1}"}
        with self._client.stream("GET", self._url, headers=headers, timeout=self._timeout) as answer:
            self._check(answer)
            skip = start if answer.status_code != 206 else 0
            if answer.status_code == 206 and not _begins_at(answer.headers.get("content-range"), start):
                raise CatalogError(
                    f"{answer.url.host} answered with another part of the file than it was asked for"
                )
            left = end - start
            # Without a chunk size nothing waits in a buffer that a broken connection would take with it.
            for chunk in answer.iter_raw():
                piece = chunk[skip : skip + left]
                skip -= min(skip, len(chunk))
                left -= len(piece)
                if piece:
                    yield piece
                if not left:
                    return

    def save(self, path: Path, label: str, progress: Progress) -> None:
        """Bring the whole file to `path`, going on from what is there already. Raises what the connection
        raised when it broke several times in a row without bringing anything new."""
        import httpx2

        attempts = ATTEMPTS
        with path.open("ab") as sink:
            done = sink.tell()
            if done > self.size:
                sink.truncate(0)
                done = 0
            while done < self.size:
                before = done
                try:
                    for chunk in self.stream(done, self.size):
                        sink.write(chunk)
                        done += len(chunk)
                        progress(label, done, self.size)
                except (httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.ReadTimeout):
                    attempts = ATTEMPTS if done > before else attempts - 1
                    if not attempts:
                        raise
                else:
                    if done < self.size and done == before:
                        raise CatalogError(f"{label}: the server has {done} bytes, expected {self.size}")


def _begins_at(content_range: str | None, start: int) -> bool:
    return content_range is not None and content_range.startswith(f"bytes {start}-")
