"""The documents say what is so: commands, exit codes, manifests, schema, views, and the words of the README."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgectl import errors, manifest
from edgectl.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCS = [
    ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/cli.md")
]


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_the_command_reference_is_what_the_commands_say() -> None:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XDG_STATE_HOME", "COLUMNS")
    }
    done = subprocess.run(
        [sys.executable, "scripts/cli_reference.py"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == text("docs/cli.md"), "run `make docs` and look at what changed"


def test_the_page_on_activation_is_what_the_table_says() -> None:
    script = [sys.executable, "scripts/activation_table.py"]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == text("docs/activation.md"), "run `make docs` and look at what changed"


def test_every_exit_code_is_documented() -> None:
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type)}
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", text("docs/cli.md"), re.MULTILINE)}
    assert codes <= documented


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid_and_explains_itself(path: Path) -> None:
    loaded = manifest.load(path)
    comments = [line for line in path.read_text().splitlines() if line.lstrip().startswith("#")]
    assert len(comments) >= 5
    assert loaded.name == path.stem
    assert path.name in text("README.md")


def test_every_key_of_a_manifest_is_in_the_manual() -> None:
    manual = text("docs/manifest.md")
    schema = manifest.json_schema()
    forms = [schema, *schema["$defs"].values()]
    keys = {key for form in forms for key in form.get("properties", {})}
    assert sorted(key for key in keys if f"`{key}`" not in manual) == []


def test_commands_in_the_readme_exist() -> None:
    used = set(re.findall(r"^\s*(?:\$ )?edgectl ([a-z]+)", text("README.md"), re.MULTILINE))
    assert used <= COMMANDS.keys()
    assert {"device", "plan", "deploy", "status", "rollback", "model", "query"} <= used


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    for path in DOCS:
        for target in re.findall(r"`make ([a-z]+)`", path.read_text()):
            assert target in targets, f"{path.name}: make {target}"


def test_links_inside_the_repository_lead_somewhere() -> None:
    for path in DOCS:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_schema_is_json() -> None:
    assert json.loads(json.dumps(manifest.json_schema()))["$schema"].startswith("https://json-schema.org/")


def test_pins_have_hashes_and_name_no_index() -> None:
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        pins = re.findall(
            r"^[A-Za-z0-9][^#]*?(?=^[A-Za-z0-9#]|\Z)", path.read_text(), re.MULTILINE | re.DOTALL
        )
        assert pins, path.name
        for pin in pins:
            assert "==" in pin.splitlines()[0], f"{path.name}: {pin.splitlines()[0]}"
            assert "--hash=sha256:" in pin, f"{path.name}: {pin.splitlines()[0]}"
        assert "://" not in path.read_text(), path.name
