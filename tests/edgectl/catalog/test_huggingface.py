"""The catalog against an endpoint that speaks the hub's protocol, through the real client, in processes of
their own: the client reads its environment when it is imported."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract import digest as digests
from tests.support import tiny_gguf
from tests.support.adapter_files import write_adapter
from tests.support.hf_endpoint import COMMIT, HfEndpoint, Repository, hf_endpoint

TOKEN = "hf_thisIsASecretToken"
MODEL = tiny_gguf.model()
OTHER = tiny_gguf.model(b"\x02")
PINNED = f"hf://org/repo@{COMMIT}/a-Q4_K_M.gguf"

PROGRAM = """
import json, sys
from pathlib import Path
from agent_daemon.contract.release import Artifact
from edgectl import catalog
from edgectl.errors import EdgectlError
seen = []
progress = lambda label, done, total: seen.append((label, done, total))
try:
    if sys.argv[1] == "resolve":
        found = catalog.resolve(sys.argv[2], base=Path("."), progress=progress)
        answer = [
            {"artifact": each.artifact.model_dump(mode="json"), "architecture": each.facts.architecture,
             "warnings": each.warnings} for each in found
        ]
    elif sys.argv[1] == "adapter":
        found = catalog.adapter(sys.argv[2], base=Path("."), progress=progress)
        answer = {"artifact": found.artifact.model_dump(mode="json"), "kind": found.facts.kind}
    else:
        paths = catalog.fetch(Artifact.model_validate_json(sys.argv[2]), progress)
        answer = {"paths": [str(path) for path in paths], "last": seen[-1:], "updates": len(seen)}
except EdgectlError as error:
    answer = {"error": error.message, "hint": error.hint}
print(json.dumps(answer))
"""


class Control:
    """The control side on a machine of its own: a home, and the endpoint in its environment."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home = home
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": endpoint,
            "PYTHONPATH": os.getcwd(),
            "NO_PROXY": "*",
        }

    def run(self, verb: str, argument: str, **environment: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, verb, argument],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        assert done.stderr == ""
        return json.loads(done.stdout)

    def resolve(self, ref: str, **environment: str) -> Any:
        return self.run("resolve", ref, **environment)

    def fetch(self, artifact: Any, **environment: str) -> Any:
        return self.run("fetch", json.dumps(artifact), **environment)

    def cached(self) -> list[str]:
        """Files of the cache that hold bytes of models."""
        blobs = (self.home / "hf" / "hub").glob("*/blobs/*")
        return sorted(path.name for path in blobs)


@pytest.fixture
def endpoint() -> Iterator[HfEndpoint]:
    with hf_endpoint(org__repo=Repository({"a-Q4_K_M.gguf": MODEL, "README.md": b"# a"})) as running:
        yield running


@pytest.fixture
def control(tmp_path: Path, endpoint: HfEndpoint) -> Control:
    return Control(tmp_path, endpoint.url)


def artifact_of(ref: str, name: str, content: bytes) -> dict[str, Any]:
    digest = digests.of_bytes(content)
    return {"ref": ref, "digest": digest, "files": [{"digest": digest, "size": len(content), "name": name}]}


def test_resolving_pins_the_commit_and_reads_the_header_only(control: Control, endpoint: HfEndpoint) -> None:
    (found,) = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    assert found["artifact"] == artifact_of(PINNED, "a-Q4_K_M.gguf", MODEL)
    assert found["architecture"] == "llama"
    assert found["warnings"] == []
    assert len(MODEL) > 2 * 1024 * 1024
    assert 0 < endpoint.file_bytes <= 512 * 1024
    assert control.cached() == []


def test_a_header_that_was_read_once_is_not_asked_for_again(control: Control, endpoint: HfEndpoint) -> None:
    first = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    before = endpoint.file_bytes
    assert control.resolve("hf://org/repo/a-Q4_K_M.gguf") == first
    assert endpoint.file_bytes == before


def test_a_fetch_brings_the_checked_file_into_the_hub_cache(control: Control, endpoint: HfEndpoint) -> None:
    (found,) = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    before = endpoint.file_bytes
    fetched = control.fetch(found["artifact"])
    (path,) = map(Path, fetched["paths"])
    assert path == control.home / f"hf/hub/models--org--repo/snapshots/{COMMIT}/a-Q4_K_M.gguf"
    assert path.read_bytes() == MODEL
    assert endpoint.file_bytes - before == len(MODEL)
    assert control.cached() == [hashlib.sha256(MODEL).hexdigest()]
    assert fetched["last"] == [["checking a-Q4_K_M.gguf", len(MODEL), len(MODEL)]]

    requests = len(endpoint.gets())
    assert control.fetch(found["artifact"])["paths"] == fetched["paths"]
    assert len(endpoint.gets()) == requests


def test_a_cut_connection_is_resumed_where_it_broke(control: Control, endpoint: HfEndpoint) -> None:
    endpoint.cuts = [1_000_000, 500_000]
    fetched = control.fetch(artifact_of(PINNED, "a-Q4_K_M.gguf", MODEL))
    assert Path(fetched["paths"][0]).read_bytes() == MODEL
    assert endpoint.file_bytes == len(MODEL)
    assert [each.range for each in endpoint.gets()] == [
        f"bytes=0-{len(MODEL) - 1}",
        f"bytes=1000000-{len(MODEL) - 1}",
        f"bytes=1500000-{len(MODEL) - 1}",
    ]


def test_a_transfer_that_failed_is_resumed_by_the_next_process(
    control: Control, endpoint: HfEndpoint
) -> None:
    artifact = artifact_of(PINNED, "a-Q4_K_M.gguf", MODEL)
    endpoint.cuts = [1_000_000, 0, 0, 0, 0, 0]
    failed = control.fetch(artifact)
    assert "cannot be reached" in failed["error"]
    assert "what has arrived is kept" in failed["hint"]
    assert endpoint.cuts == []
    assert control.fetch(artifact)["paths"]
    assert endpoint.file_bytes == len(MODEL)
    assert endpoint.gets()[-1].range == f"bytes=1000000-{len(MODEL) - 1}"


def test_a_server_without_ranges_still_serves_headers_and_files(
    control: Control, endpoint: HfEndpoint
) -> None:
    endpoint.ranges = False
    endpoint.cuts = [400_000]
    (found,) = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    assert Path(control.fetch(found["artifact"])["paths"][0]).read_bytes() == MODEL


def test_a_file_with_another_content_is_removed_and_both_digests_named(
    control: Control, endpoint: HfEndpoint
) -> None:
    endpoint.repositories["org/repo"].lies["a-Q4_K_M.gguf"] = OTHER
    answer = control.fetch(artifact_of(PINNED, "a-Q4_K_M.gguf", MODEL))
    assert answer["error"] == (
        f"{PINNED}: the downloaded file is not what was pinned: expected {digests.of_bytes(MODEL)}, "
        f"got {digests.of_bytes(OTHER)}; it was removed"
    )
    assert control.cached() == []


def test_a_damaged_file_in_the_cache_is_found_removed_and_fetched_again(control: Control) -> None:
    artifact = artifact_of(PINNED, "a-Q4_K_M.gguf", MODEL)
    path = Path(control.fetch(artifact)["paths"][0])
    path.resolve().write_bytes(OTHER)
    assert digests.of_bytes(OTHER) in control.fetch(artifact)["error"]
    assert Path(control.fetch(artifact)["paths"][0]).read_bytes() == MODEL


def test_a_gated_repository_says_what_to_do_and_opens_with_a_token(
    control: Control, endpoint: HfEndpoint
) -> None:
    endpoint.repositories["org/repo"].gated = True
    assert control.resolve("hf://org/repo/a-Q4_K_M.gguf") == {
        "error": "hf://org/repo is gated: its owner gives access per account",
        "hint": f"accept its licence at {endpoint.url}/org/repo, then set HF_TOKEN to a token of that account",
    }
    (found,) = control.resolve("hf://org/repo/a-Q4_K_M.gguf", HF_TOKEN=TOKEN)
    assert control.fetch(found["artifact"], HF_TOKEN=TOKEN)["paths"]
    assert endpoint.gets()[-1].authorization == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("ref", "error"),
    [
        ("hf://org/none/a.gguf", "hf://org/none: there is no such repository at 127.0.0.1, or it is private"),
        ("hf://org/repo@v9/a-Q4_K_M.gguf", "hf://org/repo has no revision v9 at 127.0.0.1"),
        ("hf://org/repo/b.gguf", "hf://org/repo has no file b.gguf"),
        ("hf://org/repo/*Q8_0.gguf", "hf://org/repo has no GGUF model that matches *Q8_0.gguf"),
    ],
)
def test_what_is_missing_is_named(control: Control, ref: str, error: str) -> None:
    assert control.resolve(ref)["error"] == error


def test_a_missing_file_of_a_repository_lists_those_there(control: Control) -> None:
    assert control.resolve("hf://org/repo/b.gguf")["hint"] == "there are: a-Q4_K_M.gguf"


def test_offline_uses_the_cache_and_otherwise_gives_one_error(control: Control, endpoint: HfEndpoint) -> None:
    assert control.resolve("hf://org/repo/a-Q4_K_M.gguf", HF_HUB_OFFLINE="1") == {
        "error": "hf://org/repo/a-Q4_K_M.gguf: not in the Hugging Face cache, "
        "and HF_HUB_OFFLINE keeps edgectl from asking 127.0.0.1",
        "hint": "unset HF_HUB_OFFLINE, or fetch the model once while connected",
    }
    assert endpoint.asked == []
    online = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    control.fetch(online[0]["artifact"])
    asked = len(endpoint.asked)
    for ref in ("hf://org/repo/a-Q4_K_M.gguf", "hf://org/repo", PINNED):
        assert control.resolve(ref, HF_HUB_OFFLINE="1") == online
    assert control.fetch(online[0]["artifact"], HF_HUB_OFFLINE="1")["paths"]
    assert len(endpoint.asked) == asked


def test_without_a_connection_the_cache_serves_and_else_one_error(control: Control) -> None:
    online = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    control.fetch(online[0]["artifact"])
    closed = {"HF_ENDPOINT": "http://127.0.0.1:1"}
    assert control.resolve("hf://org/repo/a-Q4_K_M.gguf", **closed) == online
    assert control.resolve("hf://org/other/a.gguf", **closed)["error"] == (
        "hf://org/other/a.gguf: 127.0.0.1 cannot be reached, "
        "and the model is not complete in the Hugging Face cache"
    )


def test_a_split_model_is_one_artifact(control: Control, endpoint: HfEndpoint) -> None:
    first, second = tiny_gguf.split_model()
    names = ("m-00001-of-00002.gguf", "m-00002-of-00002.gguf")
    endpoint.repositories["org/split"] = Repository({f"q/{names[0]}": first, f"q/{names[1]}": second})
    (found,) = control.resolve("hf://org/split")
    parts = [digests.of_bytes(first), digests.of_bytes(second)]
    assert found["artifact"] == {
        "ref": f"hf://org/split@{COMMIT}/q/{names[0]}",
        "digest": digests.of_parts(parts),
        "files": [
            {"digest": parts[0], "size": len(first), "name": names[0]},
            {"digest": parts[1], "size": len(second), "name": names[1]},
        ],
    }
    assert control.resolve(f"hf://org/split/q/{names[1]}") == [found]
    paths = control.fetch(found["artifact"])["paths"]
    assert [Path(path).read_bytes() for path in paths] == [first, second]

    del endpoint.repositories["org/split"].files[f"q/{names[1]}"]
    assert control.resolve("hf://org/split")["error"] == (
        f"hf://org/split lacks 1 of 2 parts of a split model: q/{names[1]}"
    )


def test_a_repository_without_a_file_gives_every_model_and_nothing_else(
    control: Control, endpoint: HfEndpoint
) -> None:
    endpoint.repositories["org/many"] = Repository(
        {
            "b-Q8_0.gguf": OTHER,
            "a-Q4_K_M.gguf": MODEL,
            "mmproj-f16.gguf": tiny_gguf.projector(),
            "vision.gguf": tiny_gguf.projector(),
            "config.json": b"{}",
        }
    )
    found = control.resolve("hf://org/many")
    assert [each["artifact"]["files"][0]["name"] for each in found] == ["a-Q4_K_M.gguf", "b-Q8_0.gguf"]
    assert [each["warnings"] for each in found[1:]] == [[]]
    assert found[0]["warnings"][0].startswith("left out: vision.gguf cannot be served: ")
    matched = control.resolve("hf://org/many/*Q8*")
    assert [each["artifact"]["digest"] for each in matched] == [digests.of_bytes(OTHER)]
    assert control.resolve("hf://org/many/vision.gguf")["error"].startswith(
        "hf://org/many: vision.gguf cannot be served: "
    )


def test_a_redirect_to_another_host_does_not_get_the_token(control: Control, endpoint: HfEndpoint) -> None:
    with hf_endpoint("localhost", org__repo=Repository({"a-Q4_K_M.gguf": MODEL})) as cdn:
        endpoint.cdn = cdn.url
        endpoint.repositories["org/repo"].gated = True
        (found,) = control.resolve("hf://org/repo/a-Q4_K_M.gguf", HF_TOKEN=TOKEN)
        fetched = control.fetch(found["artifact"], HF_TOKEN=TOKEN)
        assert Path(fetched["paths"][0]).read_bytes() == MODEL
        assert cdn.file_bytes >= len(MODEL)
        assert {each.authorization for each in cdn.asked} == {None}
    assert [each for each in endpoint.asked if each.authorization is None] == []
    assert endpoint.file_bytes == 0


def test_a_page_in_place_of_the_hub_or_of_the_file_is_told(control: Control, endpoint: HfEndpoint) -> None:
    page = b"<!DOCTYPE html><html>Sign in</html>" * 100
    endpoint.repositories["org/repo"].lies["a-Q4_K_M.gguf"] = page
    answer = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    assert answer["error"].startswith("hf://org/repo: a-Q4_K_M.gguf is not a usable GGUF file: ")
    assert "<!DO" in answer["error"]
    endpoint.page = page
    answer = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    assert (
        answer["error"] == "hf://org/repo/a-Q4_K_M.gguf: 127.0.0.1 did not answer as a Hugging Face hub does"
    )


def test_a_small_file_outside_lfs_is_fetched_to_be_known(control: Control, endpoint: HfEndpoint) -> None:
    endpoint.repositories["org/repo"].lfs = False
    (found,) = control.resolve("hf://org/repo/a-Q4_K_M.gguf")
    assert found["artifact"] == artifact_of(PINNED, "a-Q4_K_M.gguf", MODEL)
    assert Path(control.fetch(found["artifact"])["paths"][0]).read_bytes() == MODEL


@pytest.mark.parametrize(
    ("status", "part"),
    [(401, "refused with status 401"), (429, "refused with status 429"), (503, "answered with status 503")],
)
def test_refusals_of_the_hub_are_one_sentence(
    control: Control, endpoint: HfEndpoint, status: int, part: str
) -> None:
    endpoint.status = status
    assert control.resolve("hf://org/repo", HF_TOKEN=TOKEN)["error"] == f"hf://org/repo: 127.0.0.1 {part}"


def test_a_truncated_file_is_a_warning(control: Control, endpoint: HfEndpoint) -> None:
    endpoint.repositories["org/repo"].files["a-Q4_K_M.gguf"] = MODEL[:-100]
    (found,) = control.resolve("hf://org/repo")
    assert found["warnings"] == [
        f"a-Q4_K_M.gguf looks truncated: it has {len(MODEL) - 100} bytes and its tensors need {len(MODEL)}; "
        "the device's probe will decide"
    ]


def test_an_adapter_is_found_pinned_and_fetched(endpoint: HfEndpoint, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "legal.gguf", "llama", [("blk.0.attn_q.weight", 64, 64)], rank=512)
    endpoint.repositories["org/lora"] = Repository({"legal.gguf": path.read_bytes(), "base.gguf": MODEL})
    control = Control(tmp_path / "home", endpoint.url)
    # a repository without a path means the one adapter in it
    found = control.run("adapter", "hf://org/lora")
    assert found["kind"] == "adapter"
    assert found["artifact"]["ref"] == f"hf://org/lora@{COMMIT}/legal.gguf"
    assert found["artifact"]["digest"] == digests.of_bytes(path.read_bytes())
    assert control.cached() == []
    (fetched,) = control.fetch(found["artifact"])["paths"]
    assert Path(fetched).read_bytes() == path.read_bytes()
    refused = control.run("adapter", "hf://org/lora/base.gguf")
    assert refused["error"] == (
        "hf://org/lora: base.gguf cannot be used as an adapter: it is of type 'model', not a LoRA adapter"
    )
