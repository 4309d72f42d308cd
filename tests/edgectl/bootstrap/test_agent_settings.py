"""The agent's settings: what is said now, over what the device has."""

import tomllib

import pytest

from edgectl.bootstrap.agent_settings import merged, says
from edgectl.bootstrap.wanted import Wanted
from edgectl.errors import BootstrapError
from edgectl.layout import SYSTEM


def test_what_was_set_stays_unless_it_is_said_anew() -> None:
    first = merged("", {"listen": "0.0.0.0:80", "ram_limit": "4GiB"})
    second = merged(first, {"ram_limit": "8GiB"})
    assert tomllib.loads(second) == {"listen": "0.0.0.0:80", "ram_limit": "8GiB"}
    assert merged(second, {}) == second
    assert tomllib.loads(merged(second, {"listen": None})) == {"ram_limit": "8GiB"}


def test_what_a_file_says() -> None:
    assert says(merged("", {"swarm_rate": "5MiB"}), "swarm_rate")
    assert not says("", "swarm_rate")
    assert not says("swarm_rate = ", "swarm_rate")


def test_any_text_survives() -> None:
    odd = 'a "quoted" \\ thing\nwith ü'
    assert tomllib.loads(merged("", {"hub": odd})) == {"hub": odd}


def test_settings_that_somebody_broke_are_not_thrown_away() -> None:
    with pytest.raises(BootstrapError, match="not valid TOML"):
        merged("listen = ", {})


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        (Wanted(), {}),
        (
            Wanted(hub="https://hub.example:8770"),
            {"hub": "https://hub.example:8770", "hub_token_file": "/etc/edgectl-agent/hub-token"},
        ),
        (Wanted(swarm=True), {"swarm_rate": "20971520"}),
        (Wanted(swarm=False), {"swarm_rate": None}),
        (Wanted(hub=""), {"hub": None, "hub_token_file": None}),
        (
            Wanted(key_hashes="sha256:…\n", ram_limit="2GiB"),
            {"api_keys": "/etc/edgectl-agent/api-keys", "ram_limit": "2GiB"},
        ),
    ],
)
def test_flags_become_settings(wanted: Wanted, changes: dict[str, str | None]) -> None:
    assert wanted.changes(SYSTEM) == changes
