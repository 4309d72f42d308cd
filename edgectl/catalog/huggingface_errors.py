"""The one seam where what the hub's client raises becomes a sentence.

None of the client's own texts is passed on: they may hold a signed URL, a header or the token.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from urllib.parse import urlsplit

from edgectl.catalog.refs import HfRef
from edgectl.errors import CatalogError

_STATUS_HINTS = {
    401: "check HF_TOKEN: the hub does not accept it",
    403: "set HF_TOKEN to a token that may read this repository",
    429: "the hub limits requests: wait, or set HF_TOKEN for a higher limit",
}


class HubRefusal(CatalogError):
    """The hub did not give what was asked for; `offline` when it could not be asked at all."""

    def __init__(self, message: str, hint: str | None = None, *, offline: bool = False) -> None:
        super().__init__(message, hint)
        self.offline = offline


@contextmanager
def explained(ref: HfRef, endpoint: str, errors: ModuleType) -> Iterator[None]:
    """Turn exceptions of the client (`errors` is huggingface_hub.errors) and its HTTP into HubRefusal."""
    try:
        yield
    except CatalogError:
        raise
    except Exception as error:
        refusal = _refusal(error, ref, endpoint, errors)
        if refusal is None:
            raise
        raise refusal from None


def _refusal(error: Exception, ref: HfRef, endpoint: str, errors: ModuleType) -> HubRefusal | None:
    import httpx2

    host = _host(endpoint)
    repo = f"hf://{ref.repo}"
    if isinstance(error, errors.GatedRepoError):
        page = f"{_page(endpoint)}/{ref.repo}"
        return HubRefusal(
            f"{repo} is gated: its owner gives access per account",
            f"accept its licence at {page}, then set HF_TOKEN to a token of that account",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubRefusal(f"{repo} has no revision {ref.revision or 'main'} at {host}")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return HubRefusal(f"{repo} has no file {ref.path} at {ref.revision or 'main'}")
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return HubRefusal(
            f"{repo}: there is no such repository at {host}, or it is private",
            "check the spelling; for a private one set HF_TOKEN",
        )
    if isinstance(error, errors.DisabledRepoError):
        return HubRefusal(f"{repo} has been disabled at {host}")
    if status in (500, 502, 503, 504):
        return HubRefusal(f"{ref}: {host} answered with status {status}", "try again later", offline=True)
    if status:
        return HubRefusal(f"{ref}: {host} refused with status {status}", _STATUS_HINTS.get(status))
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubRefusal(
            f"{ref}: not in the Hugging Face cache, and HF_HUB_OFFLINE keeps edgectl from asking {host}",
            "unset HF_HUB_OFFLINE, or fetch the model once while connected",
            offline=True,
        )
    if isinstance(error, httpx2.LocalProtocolError | UnicodeError):
        return HubRefusal(f"{ref}: the request cannot be sent", "check HF_TOKEN for stray characters")
    if isinstance(error, httpx2.TransportError | errors.LocalEntryNotFoundError | errors.FileMetadataError):
        return HubRefusal(
            f"{ref}: {host} cannot be reached, and the model is not complete in the Hugging Face cache",
            "check the connection, HF_ENDPOINT and proxy settings; what has arrived is kept",
            offline=True,
        )
    if isinstance(error, OSError) and error.errno:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return HubRefusal(
            f"{ref}: the Hugging Face cache cannot be written: {error.strerror}",
            "free space, or set HF_HOME to a larger disk" if full else "check HF_HOME and its permissions",
        )
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | ValueError | KeyError | TypeError | OSError):
        return HubRefusal(
            f"{ref}: {host} did not answer as a Hugging Face hub does",
            "check HF_ENDPOINT; a proxy or a sign-in page may be answering in its place",
        )
    return None


def _host(endpoint: str) -> str:
    """The endpoint's host for messages: a URL may hold a password."""
    return urlsplit(endpoint).hostname or "the hub"


def _page(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"
