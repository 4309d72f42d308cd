"""Hooks, as real programs: what they are told, what they say, and what their failing does."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgectl.errors import EdgectlError
from edgectl.rollouts import hooks

DOCUMENT = {"rollout": 12, "manifest": "büro", "devices": [{"device": "desk", "outcome": "succeeded"}]}
Script = Callable[[str], str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes a hook into the folder of the manifest and gives its relative path."""

    def write(body: str) -> str:
        file = tmp_path / "hook.sh"
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)
        return "./hook.sh"

    return write


def test_a_hook_is_told_of_the_rollout_in_the_manifests_folder(
    tmp_path: Path, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    said: list[str] = []
    hook = script('cat > told.json; echo "$EDGECTL_HOOK of $EDGECTL_ROLLOUT: $1"; echo and this >&2; pwd')
    assert hooks.run("post_deploy", [hook, "two words"], DOCUMENT, tmp_path, must=False, say=said.append)
    assert json.loads((tmp_path / "told.json").read_text()) == DOCUMENT
    assert said == [
        "post_deploy: post_deploy of 12: two words",
        "post_deploy: and this",
        f"post_deploy: {tmp_path}",
    ]


def test_what_a_hook_says_goes_to_standard_error(
    tmp_path: Path, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hooks.run("on_failure", [script("echo called")], DOCUMENT, str(tmp_path), must=False)
    assert capsys.readouterr() == ("", "on_failure: called\n")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("exit 3", "the hook pre_deploy (./hook.sh) ended with 3"),
        ("kill -TERM $$", "the hook pre_deploy (./hook.sh) was ended by signal 15"),
        ("sleep 60", "the hook pre_deploy (./hook.sh) was stopped: it took longer than 0.3 s"),
    ],
)
def test_a_failing_hook_stops_what_must_not_go_on(
    tmp_path: Path, script: Script, body: str, problem: str
) -> None:
    said: list[str] = []
    hook = script(body)
    with pytest.raises(EdgectlError) as caught:
        hooks.run("pre_deploy", [hook], DOCUMENT, tmp_path, must=True, say=said.append, timeout=0.3)
    assert caught.value.message == f"{problem}; nothing was changed on a device"
    assert caught.value.hint == "mend it, or take it out of the manifest: hooks.pre_deploy"
    assert caught.value.exit_code == 1
    assert said == []
    assert not hooks.run("pre_deploy", [hook], DOCUMENT, tmp_path, must=False, say=said.append, timeout=0.3)
    assert said == [f"warning: {problem}; the rollout stands as it is"]


def test_a_hook_that_cannot_be_started_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(EdgectlError) as caught:
        hooks.run("pre_deploy", ["./nothing.sh"], DOCUMENT, tmp_path, must=True)
    assert caught.value.message == (
        f"the hook pre_deploy (./nothing.sh) was not found (looked for from {tmp_path}); "
        "nothing was changed on a device"
    )
    (tmp_path / "plain.txt").write_text("no program")
    with pytest.raises(EdgectlError, match=r"\(\./plain\.txt\) could not be started: Permission denied"):
        hooks.run("pre_deploy", ["./plain.txt"], DOCUMENT, tmp_path, must=True)
    with pytest.raises(EdgectlError, match="the hook pre_deploy names no command"):
        hooks.run("pre_deploy", [], DOCUMENT, tmp_path, must=True)


def test_a_name_without_a_slash_is_looked_for_in_the_path(tmp_path: Path) -> None:
    said: list[str] = []
    assert hooks.run("post_deploy", ["echo", "hello"], DOCUMENT, tmp_path, must=False, say=said.append)
    assert said == ["post_deploy: hello"]


def test_a_hook_need_not_read_what_it_is_told(tmp_path: Path, script: Script) -> None:
    large = {**DOCUMENT, "devices": [{"device": f"d{number}"} for number in range(50_000)]}
    assert hooks.run("post_deploy", [script("exit 0")], large, tmp_path, must=True)


def test_a_hook_may_say_more_than_a_pipe_holds(tmp_path: Path) -> None:
    said: list[str] = []
    code = "import sys; print('x' * 1_000_000); sys.stdin.read()"
    assert hooks.run(
        "post_deploy", [sys.executable, "-c", code], DOCUMENT, tmp_path, must=True, say=said.append
    )
    assert sum(len(line) - len("post_deploy: ") for line in said) == 1_000_000


def test_time_over_ends_what_the_hook_started_too(tmp_path: Path, script: Script) -> None:
    hook = script("sleep 60 & echo $! > child; wait")
    with pytest.raises(EdgectlError, match="took longer"):
        hooks.run("pre_deploy", [hook], DOCUMENT, tmp_path, must=True, timeout=0.5)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and _state(child) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_a_hook_leaves_in_the_background_is_not_waited_for(tmp_path: Path, script: Script) -> None:
    began = time.monotonic()
    assert hooks.run("post_deploy", [script("sleep 30 & echo $! > child")], DOCUMENT, tmp_path, must=True)
    assert time.monotonic() - began < 10
    os.kill(int((tmp_path / "child").read_text()), 9)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"
