"""Digests of releases: what they cover, and that they outlive upgrades."""

from typing import Any

import pytest

from agent_daemon.contract.release import (
    Access,
    Adapter,
    Artifact,
    BlobRef,
    DeviceRelease,
    Limits,
    Placement,
    Predicted,
    Residency,
    Sampling,
    ServedModel,
)

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def artifact(digest: str = DIGEST) -> Artifact:
    file = BlobRef(digest=digest, size=5, name="z.gguf")
    return Artifact(ref="hf://x/y/z.gguf", digest=digest, files=(file,))


PLACEMENT = Placement(
    memory="ram",
    gpu_layers=0,
    layers=31,
    context=1024,
    parallel=2,
    kv_type="f16",
    predicted=Predicted(weights=1, kv_cache=2, compute=3, total=6),
)
MODEL = ServedModel(
    name="assistant",
    artifact=artifact(),
    placement=PLACEMENT,
    sampling=Sampling(temperature=0.2, seed=7),
    system_prompt="Be kind.",
)
RELEASE = DeviceRelease(
    number=3, manifest="office", models=(MODEL,), access=Access(origins=("http://localhost:3000",))
)


def changed(**model: Any) -> DeviceRelease:
    return RELEASE.model_copy(update={"models": (MODEL.model_copy(update=model),)})


def test_a_release_of_version_0_1_keeps_its_digests() -> None:
    """Taken from the code that came before adapters, limits, residency and shared caches."""
    assert MODEL.engine_key() == "sha256:b8a01db7c674dfc53d1508ff4f96fbf6c0ceafcac799ebf97537ea2ff2dc58ad"
    assert RELEASE.digest() == "sha256:6b2513a43f0c0c779e222513feba784216a53f506b0528fcc37b77c601e05896"


def test_the_number_is_not_covered() -> None:
    assert RELEASE.model_copy(update={"number": 4}).digest() == RELEASE.digest()


ADAPTER = Adapter(name="legal", artifact=artifact(OTHER))


@pytest.mark.parametrize(
    "model",
    [
        {"adapters": (ADAPTER,)},
        {"limits": Limits(queue=3)},
        {"residency": Residency(pinned=True)},
        {"residency": Residency(idle_ttl=60)},
        {"placement": PLACEMENT.model_copy(update={"cells": 1024})},
        {"sampling": MODEL.sampling.model_copy(update={"typical_p": 0.5})},
    ],
)
def test_everything_that_was_added_is_covered_once_it_says_something(model: dict[str, Any]) -> None:
    assert changed(**model).digest() != RELEASE.digest()


def test_what_the_worker_is_started_with_is_in_its_key_and_nothing_else() -> None:
    def key(**model: Any) -> str:
        return changed(**model).models[0].engine_key()

    started_with = [
        {"adapters": (ADAPTER,)},
        {"adapters": (ADAPTER.model_copy(update={"scale": 0.5}),)},
        {"placement": PLACEMENT.model_copy(update={"cells": 1024})},
    ]
    keys = {MODEL.engine_key(), *(key(**each) for each in started_with)}
    assert len(keys) == 4
    same = [
        {"limits": Limits(queue=3)},
        {"residency": Residency(pinned=True)},
        {"sampling": Sampling(temperature=0)},
        {"system_prompt": None},
    ]
    assert {key(**each) for each in same} == {MODEL.engine_key()}


def test_an_adapter_s_files_are_the_release_s_too() -> None:
    assert [blob.digest for blob in changed(adapters=(ADAPTER,)).blobs()] == [DIGEST, OTHER]
    twice = changed(adapters=(ADAPTER, ADAPTER.model_copy(update={"name": "again"})))
    assert len(twice.blobs()) == 2
