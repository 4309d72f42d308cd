import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgectl.bundle import libraries, pins
from edgectl.errors import EdgectlError

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        (
            "WARNING: retrying\nERROR: first\nERROR: No matching distribution found for a==1\n",
            "No matching distribution found for a==1",
        ),
        ("something odd\n\n", "something odd"),
        ("", "pip gave no reason"),
        ("ERROR: 401 for https://me:secret@wheels.example/simple/", "401 for https://wheels.example/simple/"),
        ("ERROR: 401 for https://token@wheels.example/", "401 for https://wheels.example/"),
    ],
)
def test_the_reason_that_pip_gives(stderr: str, said: str) -> None:
    assert libraries.reason(stderr) == said


def test_no_index_to_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EdgectlError, match="No matching distribution found for annotated-types==") as refusal:
        libraries.install("3.12", "x86_64", tmp_path / "work" / "lib", pins.of_agent(swarm=False))
    assert "network" in str(refusal.value.hint)


def test_a_secret_in_the_index_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EdgectlError) as refusal:
        libraries.fetch_engine("3.12", "x86_64", "http://me:hunter2@127.0.0.1:9/simple", tmp_path)
    assert "hunter2" not in f"{refusal.value.message} {refusal.value.hint}"
    assert "could not be fetched from the engine's index" in refusal.value.message


def test_no_pip(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path;"
        "from edgectl.bundle import libraries; from edgectl.errors import EdgectlError\n"
        "try: libraries.fetch_engine('3.12', 'x86_64', 'http://127.0.0.1:9', Path('.'))\n"
        "except EdgectlError as error: print(error.message)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith(": this Python has no pip\n")
