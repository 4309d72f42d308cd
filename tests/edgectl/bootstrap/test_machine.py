"""What speaks against giving a device an agent: from what it says of itself, in one sentence with a remedy."""

from dataclasses import replace

import pytest

from edgectl.bootstrap.machine import Interpreter, Machine, check, check_bundle, choose_interpreter
from edgectl.bundle.manifest import BundleManifest, Engine
from edgectl.errors import BootstrapError
from edgectl.layout import SYSTEM, user_layout

GIB = 1024**3
BARE = Machine(
    interpreter=Interpreter("/usr/bin/python3", (3, 11, 2)),
    arch="x86_64",
    glibc="2.36",
    systemd=True,
    user_manager=False,
    lingers=False,
    home="/root",
    missing_modules=(),
    free={"system": 20 * GIB, "user": 20 * GIB},
    installed={"system": (), "user": ()},
    settings={"system": "", "user": ""},
    gpus=(),
    clock=0.0,
)
BUNDLE = BundleManifest(
    agent_version="0.1.0",
    schema_version=1,
    python="3.11",
    arch="x86_64",
    backend="cpu",
    glibc="2.34",
    libstdcxx="3.4.30",
    libraries=(),
    engine=Engine("0.3.36", "sha256:" + "0" * 64),
    compiled=True,
    files=1000,
    unpacked_bytes=GIB,
)


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        ("/usr/bin/python3 3.11.2\n", "/usr/bin/python3"),
        (
            "/usr/bin/python3 3.9.18\n/usr/bin/python3.12 3.12.1\n/usr/bin/python3.11 3.11.7\n",
            "/usr/bin/python3.12",
        ),
        ("Welcome to dev1!\n/opt/py/python3 3.13.0\n", "/opt/py/python3"),
    ],
)
def test_the_first_python_that_is_new_enough_is_taken(lines: str, path: str) -> None:
    assert choose_interpreter(lines).path == path


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "it has no python3; 3.11 or newer is needed"),
        ("motd\n", "it has no python3"),
        (
            "/usr/bin/python3 3.9.18\n/usr/bin/python3.10 3.10.2\n",
            "its newest Python is 3.10.2 (/usr/bin/python3.10); 3.11 or newer is needed",
        ),
    ],
)
def test_a_python_too_old_is_named(lines: str, said: str) -> None:
    with pytest.raises(BootstrapError) as refused:
        choose_interpreter(lines)
    assert refused.value.message.startswith(said)
    assert "install" in str(refused.value.hint)


def test_a_bare_debian_can_have_an_agent() -> None:
    check(BARE, SYSTEM, "root")
    check_bundle(BARE, "system", BUNDLE, present=False)


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        ({"missing_modules": ("sqlite3",)}, "is not complete: it lacks sqlite3", "not only python3-minimal"),
        ({"systemd": False}, "service manager is not systemd", "under the service manager it has"),
    ],
)
def test_what_is_in_the_way_is_said(change: dict[str, object], said: str, remedy: str) -> None:
    with pytest.raises(BootstrapError) as refused:
        check(replace(BARE, **change), SYSTEM, "root")  # type: ignore[arg-type]
    assert said in refused.value.message
    assert remedy in str(refused.value.hint)


def test_a_person_s_service_needs_to_linger() -> None:
    mine = user_layout("/home/joe")
    with pytest.raises(BootstrapError) as refused:
        check(BARE, mine, "joe")
    assert "loginctl enable-linger joe" in str(refused.value.hint)
    check(replace(BARE, lingers=True, user_manager=True), mine, "joe")


def test_space_is_counted_before_anything_is_sent() -> None:
    small = replace(BARE, free={"system": GIB, "user": 20 * GIB})
    with pytest.raises(BootstrapError, match=r"1\.2 GiB needed, 1\.0 GiB free"):
        check_bundle(small, "system", BUNDLE, present=False)
    check_bundle(small, "system", BUNDLE, present=True)
    check_bundle(small, "user", BUNDLE, present=False)


@pytest.mark.parametrize(("glibc", "runs"), [("2.34", True), ("2.4", False), ("2.100", True), ("", False)])
def test_a_c_library_too_old_is_refused(glibc: str, runs: bool) -> None:
    machine = replace(BARE, glibc=glibc)
    if runs:
        check_bundle(machine, "system", BUNDLE, present=False)
        return
    with pytest.raises(BootstrapError, match="older than what the bundle's engine was built with"):
        check_bundle(machine, "system", BUNDLE, present=False)
