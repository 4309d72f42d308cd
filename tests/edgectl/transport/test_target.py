"""`--ssh` as people write it."""

from typing import Any

import pytest

from edgectl.errors import UsageError
from edgectl.transport.target import ssh_spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dev1", {"host": "dev1"}),
        ("root@dev1.example:2222", {"user": "root", "host": "dev1.example", "port": 2222}),
        ("ssh://joe@dev1/", {"user": "joe", "host": "dev1"}),
        ("[fe80::1%eth0]:22", {"host": "fe80::1%eth0", "port": 22}),
        ("joe@[::1]", {"user": "joe", "host": "::1"}),
    ],
)
def test_what_is_said_is_kept_and_nothing_else(text: str, said: dict[str, Any]) -> None:
    assert ssh_spec(text) == {"kind": "ssh", **said}


def test_an_identity_is_kept_with_it() -> None:
    assert ssh_spec("dev1", "/keys/id")["identity"] == "/keys/id"


@pytest.mark.parametrize(
    "text", ["", "a b", "root@", "dev1:ssh", "dev1:0", "dev1:70000", "-oProxyCommand=x", "::1"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--ssh"):
        ssh_spec(text)
