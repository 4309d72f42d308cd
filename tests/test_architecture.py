"""The house rules, read from the source: who may import whom, who owns which library, how long a file gets."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("agent_daemon", "edgectl")

LAYERS: dict[str, tuple[tuple[str, ...], ...]] = {
    # Highest first. A module may import its own layer and those below it, never one above.
    package: (
        *(tuple(f"{package}.{name}" for name in line.split()) for line in text.strip().splitlines()),
        ("agent_daemon.contract",),
    )
    for package, text in {
        "edgectl": """
            __main__
            cli
            hub planning ladders collect fleet tidying foresight fit.frontier_file bootstrap repairing doctor
            couriers observe rollouts.conduct rollouts.execute
            fit.frontier_picture
            fit.frontier fit.fleet_fit
            fit.fitting
            swarm
            transport agent_client inventory catalog bundle rollouts.lease rollouts.hooks
            fit.together fit.company fit.upgrades
            rollout rollouts.undertaking rollouts.late rollouts.events rollouts.waves rollouts.budgets rollouts.decisions
            plan repair fit.placement fit.fit_grid fit.rungs fit.steps fit.ways fit.spreads fit.curves fit.wanted fit.speed
            disk_space fit.device_memory fit.memory_account fit.quality
            manifest manifest_form rollout_form form_values manifest_problems yaml_source
            rollouts.policy rollouts.progress_clock
            selector settings rollouts.owner sizes units layout fit.margins
            errors fit rollouts startup beside
        """,
        "agent_daemon": """
            __main__
            command_line
            service doctor dial receive
            gateway control_api listener checkin hub_connection pull fetching
            staging
            activator reporting counting
            exchange
            judgement preflight loading measured bandwidth fitted swarming
            probe
            probe_conversations
            residency serving runtime_probe wellness drift disk_room integrity supervisor activation store journal
            spool spool_file metrics
            swarm swarm_files
            worker worker_process facts telemetry eviction free_memory
            partial
            hashing writeback
            pruning gpus gpu_nodes installed stale shared_worker grammar worker_messages swarm_messages metering
            exposition worker_frames
            settings bodies service_manager logs log_file changes room
            abortable pull_memory cores manner
            errors
        """,
    }.items()
}

OWNERS: dict[str, tuple[str, ...]] = {
    "llama_cpp": ("agent_daemon.worker",),
    "jinja2": ("agent_daemon.worker.chat",),
    "pynvml": ("agent_daemon.gpus",),
    "psutil": ("agent_daemon.facts", "agent_daemon.telemetry", "agent_daemon.cores", "agent_daemon.worker"),
    "starlette": (
        "agent_daemon.gateway",
        "agent_daemon.control_api",
        "agent_daemon.bodies",
        "agent_daemon.listener",
        "agent_daemon.service",
        "edgectl.hub",
    ),
    "uvicorn": ("agent_daemon.listener", "edgectl.hub"),
    "huggingface_hub": ("edgectl.catalog.huggingface",),
    "httpx2": ("edgectl.catalog",),
    "sqlmodel": ("edgectl.inventory",),
    "sqlalchemy": ("edgectl.inventory",),
    "alembic": ("edgectl.inventory",),
    "yaml": ("edgectl.yaml_source",),
    "packaging": ("edgectl.bundle.pins",),
    "typer": ("edgectl.cli", "edgectl.__main__"),
    "rich": ("edgectl.cli",),
    "matplotlib": ("edgectl.fit.frontier_picture",),
    "paramiko": ("edgectl.transport",),
    "libtorrent": ("edgectl.swarm", "agent_daemon.swarm"),
}
PURE = (
    "edgectl.swarm.course",
    *("agent_daemon.activation", "agent_daemon.eviction", "agent_daemon.room"),
    *("agent_daemon.judgement", "agent_daemon.fitted", "agent_daemon.pruning"),
    *("agent_daemon.worker.text", "agent_daemon.contract.fit"),
    *("agent_daemon.contract.fit_report", "agent_daemon.contract.gguf_adapter"),
    *(
        f"agent_daemon.contract.{name}"
        for name in ("need", "kv_cache", "compute", "serve_options", "fit_margin")
    ),
    *(
        "edgectl.plan",
        "edgectl.rollout",
        "edgectl.rollouts.policy",
        "edgectl.rollouts.decisions",
        "edgectl.rollouts.progress_clock",
    ),
    *(
        "edgectl.rollouts.waves",
        "edgectl.rollouts.budgets",
        "edgectl.rollouts.late",
        "edgectl.rollouts.events",
        "edgectl.rollouts.undertaking",
    ),
    *("edgectl.fit.placement", "edgectl.fit.device_memory", "edgectl.fit.quality"),
    *("edgectl.fit.fit_grid", "edgectl.fit.frontier", "edgectl.fit.fleet_fit", "edgectl.fit.upgrades"),
    *(
        f"edgectl.fit.{name}"
        for name in ("company", "rungs", "steps", "ways", "spreads", "curves", "wanted", "speed")
    ),
    *("edgectl.fit.together", "edgectl.fit.margins", "edgectl.fit.memory_account"),
    *("edgectl.selector", "edgectl.sizes", "edgectl.layout", "edgectl.units", "edgectl.transport.target"),
    *("edgectl.bootstrap.machine", "edgectl.bootstrap.agent_settings"),
    *("edgectl.bundle.elf", "edgectl.bundle.launcher"),
    *("agent_daemon.contract.histogram", "agent_daemon.metering", "agent_daemon.exposition"),
    *("agent_daemon.gateway.openapi", "agent_daemon.gateway.errors"),
    *(
        f"agent_daemon.gateway.requests.{name}"
        for name in ("body", "chat", "completions", "embeddings", "items")
    ),
    *(f"agent_daemon.gateway.requests.{name}" for name in ("messages", "responses", "tokenize", "tools")),
    *(f"agent_daemon.gateway.requests.{name}" for name in ("answer_format", "sampling_fields")),
    *(f"agent_daemon.gateway.answers.{name}" for name in ("answer", "chat", "completions", "embeddings")),
    *(
        f"agent_daemon.gateway.answers.{name}"
        for name in ("events", "listing", "logprobs", "output", "responses")
    ),
    *("agent_daemon.grammar", "agent_daemon.worker.structure", "agent_daemon.worker.form"),
    *("agent_daemon.worker.tool_calls", "agent_daemon.manner"),
    *(f"agent_daemon.grammar.{name}" for name in ("gbnf", "schema", "keywords", "json_text", "containers")),
    *(f"agent_daemon.grammar.{name}" for name in ("patterns", "ranges", "ambiguity")),
    *("agent_daemon.contract.versions", "agent_daemon.contract.health"),
    "edgectl.transport.ssh_dial",
)
EFFECTS = frozenset(
    {"os", "pathlib", "socket", "subprocess", "sqlite3", "time", "threading", "asyncio", "shutil"}
)
VAGUE = frozenset({"utils", "util", "common", "core", "helpers", "helper", "manager", "misc"})


@cache
def sources() -> dict[str, Path]:
    """Every module of both packages by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(module: str) -> frozenset[str]:
    """Dotted names that a module imports anywhere in its text; of our own, the modules rather than names."""
    known, found = sources(), set()
    for node in ast.walk(ast.parse(known[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = names & known.keys()
            found |= submodules
            if names - submodules:
                found.add(str(node.module))
    return frozenset(found - {module})


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def layer(module: str, layers: tuple[tuple[str, ...], ...]) -> int | None:
    exact = [depth for depth, places in enumerate(layers) if within(module, places)]
    return exact[0] if exact else None


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_a_layer_and_imports_only_down(package: str) -> None:
    layers, wrong = LAYERS[package], []
    for module in sources():
        if not within(module, (package,)) or module in PACKAGES:
            continue
        own = layer(module, layers)
        assert own is not None, f"{module} has no layer: give it one here"
        for target in imports(module):
            other = layer(target, layers)
            if within(target, PACKAGES) and target not in PACKAGES and (other is None or other < own):
                wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_the_control_side_knows_the_contract_of_the_agent_only() -> None:
    foreign = [
        f"{module} imports {target}"
        for module in sources()
        for target in imports(module)
        if within(module, ("edgectl",))
        and within(target, ("agent_daemon",))
        and not within(target, ("agent_daemon.contract",))
    ]
    assert foreign == []


def test_the_contract_needs_the_standard_library_and_pydantic_only() -> None:
    allowed = sys.stdlib_module_names | {"pydantic", "pydantic_core", "agent_daemon"}
    for module in sources():
        if within(module, ("agent_daemon.contract",)):
            assert {target.partition(".")[0] for target in imports(module)} <= allowed, module


def test_nobody_imports_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for target in imports(module) & sources().keys():
                visit(target, (*path, module))
            done.add(module)

    for module in sources():
        visit(module, ())


@pytest.mark.parametrize("library", OWNERS)
def test_a_heavy_library_has_its_owners(library: str) -> None:
    users = {
        module
        for module in sources()
        if any(target == library or target.startswith(f"{library}.") for target in imports(module))
    }
    assert users, f"nobody imports {library}: take it out here and from the requirements"
    assert [user for user in users if not within(user, OWNERS[library])] == []


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_import_nothing_that_has_effects(module: str) -> None:
    assert {target.partition(".")[0] for target in imports(module)} & EFFECTS == set()


def test_the_supervisor_spawns_the_worker_and_never_imports_it() -> None:
    for module in sources():
        if not within(module, ("agent_daemon.worker",)):
            assert not any(within(target, ("agent_daemon.worker",)) for target in imports(module)), module
        if not within(module, ("agent_daemon.swarm",)):
            assert not any(within(target, ("agent_daemon.swarm",)) for target in imports(module)), module


def test_only_the_worker_reads_the_test_switch() -> None:
    readers = [name for name, path in sources().items() if "EDGECTL_TEST_" in path.read_text()]
    assert readers == ["agent_daemon.worker.runtime"]


def test_names_say_something_and_files_stay_short() -> None:
    for module, path in sources().items():
        assert module.rpartition(".")[2] not in VAGUE, module
        lines = len(path.read_text().splitlines())
        assert lines <= 400, f"{module} has {lines} lines: it holds a second thought"


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        (
            "import agent_daemon.service",
            ("paramiko", "typer", "sqlmodel", "huggingface_hub", "llama_cpp", "numpy", "libtorrent"),
        ),
        (
            "import edgectl.cli.app",
            ("rich", "sqlmodel", "huggingface_hub", "sqlalchemy", "yaml", "paramiko", "matplotlib"),
        ),
        ("import edgectl.inventory.queries", ("sqlmodel", "sqlalchemy", "alembic", "pydantic")),
    ],
)
def test_importing_stays_light(statement: str, unwanted: tuple[str, ...]) -> None:
    code = f"{statement}; import sys; print(*sorted(set({unwanted!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
