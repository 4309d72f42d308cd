import re

import pytest

from edgectl.bundle import pins


@pytest.mark.parametrize("path", sorted(pins.FOLDER.glob("*.txt")), ids=lambda path: path.stem)
def test_pins_have_hashes_and_name_no_index(path: object) -> None:
    text = path.read_text()  # type: ignore[attr-defined]
    assert "://" not in text
    entries = pins.entries(text)
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[0-9]", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_every_wish_has_its_pins() -> None:
    for source in pins.FOLDER.glob("*.in"):
        wishes = [line for line in source.read_text().splitlines() if line and not line.startswith("#")]
        pinned = {entry.partition("==")[0] for entry in pins.entries(source.with_suffix(".txt").read_text())}
        assert {wish.partition("==")[0] for wish in wishes} <= pinned


def test_a_device_gets_the_versions_that_are_tested_here() -> None:
    def versions(text: str) -> set[str]:
        return {entry.split()[0] for entry in pins.entries(text)}

    requirements = pins.FOLDER.parents[2] / "requirements" / "dev.txt"
    tested = versions(requirements.read_text()) | versions(pins.text("engine"))
    assert versions(pins.of_agent(swarm=True)) <= tested


def test_what_swarms_take_is_in_the_bundles_that_are_to_have_it() -> None:
    assert "libtorrent==" in pins.of_agent(swarm=True)
    assert "libtorrent==" not in pins.of_agent(swarm=False)


@pytest.mark.parametrize(("python", "numpy"), [("3.11", "2.4."), ("3.12", "2.5."), ("3.14", "2.5.")])
def test_markers_are_judged_for_the_device(python: str, numpy: str) -> None:
    chosen = pins.for_target(pins.text("agent"), python, "x86_64")
    assert len(re.findall(rf"^numpy=={re.escape(numpy)}", chosen, re.MULTILINE)) == 1
    assert chosen.count("numpy==") == 1
    assert ";" not in chosen


def test_markers_see_the_platform() -> None:
    text = (
        "a==1 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
        "b==1 ; platform_machine == 'aarch64' and sys_platform == 'linux' \\\n    --hash=sha256:01\n"
        "c==1 \\\n    --hash=sha256:02\n"
    )
    assert pins.for_target(text, "3.12", "x86_64") == "c==1 \\\n    --hash=sha256:02\n"
    assert [e[:4] for e in pins.entries(pins.for_target(text, "3.12", "aarch64"))] == ["b==1", "c==1"]


def test_the_engine_has_one_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", pins.engine_version())
    assert pins.only(pins.text("engine"), pins.ENGINE).count("==") == 1
    assert pins.ENGINE not in pins.without(pins.text("engine"), pins.ENGINE)
