"""The random fleet is the same for a seed, and each of its devices gets one rung or a refusal."""

from pathlib import Path

from tests.bench.fit.fleet import devices, timed
from tests.bench.fit.rungs import MIXES, ladder


def test_a_fleet_is_made_from_its_seed() -> None:
    assert devices(50) == devices(50)
    assert devices(50) != devices(50, seed=2)
    assert len({device.ram_free for device in devices(50)}) == 50


def test_each_device_gets_a_rung_or_a_refusal(tmp_path: Path) -> None:
    candidates = ladder(("llama-3.2-1b",), tmp_path)
    assert [each.facts.file_type for each in candidates] == list(MIXES)
    found = timed(candidates, devices(30))
    assert (found.devices, found.rungs) == (30, len(MIXES))
    assert sum(found.outcomes.values()) == 30
    labels = {each.label.removesuffix(".gguf") for each in candidates}
    assert set(found.outcomes) <= labels | {"refused"}
