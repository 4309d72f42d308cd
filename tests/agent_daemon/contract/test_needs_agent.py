"""Which agent understands a release: by cases in tests/cases/needs_agent, and what is sent to an older one."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.needs_agent import UNTOLD, known, lacks, uses
from agent_daemon.contract.release import DeviceRelease, ServedModel
from agent_daemon.contract.wire import StageRequest
from tests.support.inventory_messages import device_release

CASES = sorted((Path(__file__).parents[2] / "cases" / "needs_agent").glob("*.json"))


def made(case: dict[str, Any]) -> DeviceRelease:
    base = device_release()
    model = base.models[0].model_dump(mode="json") | case["model"]
    model["placement"] |= case.get("placement", {})
    return base.model_copy(update={"models": (ServedModel.model_validate(model),)})


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    release = made(case)
    assert sorted(uses(release)) == case["uses"]
    assert list(lacks(release, tuple(case["features"]))) == case["lacks"]


def test_there_are_cases() -> None:
    assert len(CASES) == 4


def test_an_agent_of_this_code_understands_whatever_this_code_can_say() -> None:
    told = {word.removeprefix("release:") for word in known()}
    assert told >= UNTOLD
    for path in CASES:
        assert lacks(made(json.loads(path.read_text())), known()) == ()


def test_a_release_is_sent_without_what_it_does_not_use_and_arrives_as_it_was() -> None:
    release = device_release()
    text = StageRequest(release=release).model_dump_json()
    assert StageRequest.model_validate_json(text).release == release
    (sent,) = json.loads(text)["release"]["models"]
    assert not {"adapters", "limits", "residency"} & sent.keys()
    assert not {"cells", "gpus"} & sent["placement"].keys()
    assert json.loads(text)["release"]["number"] == release.number
