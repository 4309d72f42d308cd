"""How long the command line takes, as whole processes, on an inventory of 10,000 devices.

    python tests/bench/bench_cli.py [--json FILE] [--devices N] [--runs N]

Two limits are a contract: `edgectl --help` under 2.5 times `python -c "import typer"`, and
`edgectl status -o json` under 0.6 s. The commands run in turn, so that a slow moment hits all of them alike.
Exits 1 when a limit is broken.
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from edgectl.inventory import preparation

HELP_RATIO = 2.5
STATUS_SECONDS = 0.6
USAGE_MINUTES = 20


def make_inventory(path: Path, devices: int) -> None:
    """Fill a new inventory: three releases, a heartbeat, facts, an outcome and some usage for each device."""
    preparation.prepare(path)
    now = time.time()
    ids = range(1, devices + 1)
    digest = "sha256:" + "ab" * 32
    gpu = "NVIDIA GeForce RTX 4060"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO device (id, name, transport, labels, added_at, last_seen) VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    i,
                    f"device-{i:05}",
                    '{"kind": "ssh"}',
                    f'{{"role": "laptop", "site": "s{i % 9}"}}',
                    now,
                    now,
                )
                for i in ids
            ),
        )
        connection.executemany(
            "INSERT INTO device_facts (device_id, facts, hostname, ram_total, vram_total, gpus, backends, "
            "agent_version, simulated_offload, received_at) "
            "VALUES (?, '{}', ?, ?, ?, ?, 'cpu,cuda', '0.1.0', 0, ?)",
            ((i, f"host-{i}", 16 << 30, 8 << 30, gpu, now) for i in ids),
        )
        connection.executemany(
            "INSERT INTO release (number, manifest, digest, spec, created_at) "
            "VALUES (?, 'office', ?, '{}', ?)",
            ((number, f"sha256:{number:064}", now) for number in (1, 2, 3)),
        )
        connection.executemany(
            "INSERT INTO device_heartbeat (device_id, sent_at, received_at, uptime, active_number, "
            "active_digest, state, models, memory, workers, workers_total, workers_ready, predicted_bytes, "
            "measured_bytes, simulated_offload, reports_dropped) "
            "VALUES (?, ?, ?, 1, ?, ?, 'committed', 'chat', 'vram', '[]', 1, ?, ?, ?, 0, 0)",
            ((i, now, now, 1 + i % 3, digest, int(i % 100 != 0), 5 << 30, 5 << 30) for i in ids),
        )
        connection.execute(
            "INSERT INTO rollout (id, kind, release_number, state, started_at) "
            "VALUES (1, 'deploy', 3, 'finished', ?)",
            (now,),
        )
        connection.executemany(
            "INSERT INTO rollout_outcome (rollout_id, device_id, release_number, outcome, bytes_moved, "
            "seconds, at) VALUES (1, ?, 3, ?, 5000000000, 60, ?)",
            ((i, "reverted" if i % 500 == 0 else "succeeded", now) for i in ids),
        )
        connection.executemany(
            "INSERT INTO usage VALUES (?, ?, 'chat', '', '', 3, ?, 5, 0, 400, 90, 300, 900, 6000, 50, 5, 0, 0, 0, 0, "
            "'[0,0,0,0,0,0,4,1,0,0,0,0,0,0,0,0,0]', '[0,0,1,4,0,0,0,0,0,0,0,0,0,0,0,0,0]', "
            "'[5,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]')",
            ((i, int(now) // 60 * 60 - 60 * m, digest) for i in ids for m in range(USAGE_MINUTES)),
        )
        connection.execute(
            "INSERT INTO device_usage SELECT device_id, sum(requests), sum(failures), sum(prompt_tokens), "
            "sum(completion_tokens), sum(ttft_ms), sum(duration_ms) FROM usage GROUP BY device_id"
        )


def measure(commands: dict[str, list[str]], runs: int, environ: dict[str, str]) -> dict[str, list[float]]:
    """Seconds of each run of each command, in turn; one unmeasured round comes first."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.db"
        make_inventory(path, options.devices)
        edgectl = [sys.executable, "-m", "edgectl", "--database", str(path)]
        commands = {
            "import typer": [sys.executable, "-c", "import typer"],
            "edgectl --help": [sys.executable, "-m", "edgectl", "--help"],
            "status -o json": [*edgectl, "status", "-o", "json"],
            "status (table)": [*edgectl, "status"],
            "usage": [*edgectl, "usage", "-o", "json"],
            "history": [*edgectl, "history", "-o", "json"],
        }
        seconds = measure(commands, options.runs, {**os.environ, "NO_COLOR": "1"})
    peer = statistics.median(seconds["import typer"])
    figures = {
        name: {
            "min_s": round(min(runs), 4),
            "median_s": round(statistics.median(runs), 4),
            "ratio_to_import_typer": round(statistics.median(runs) / peer, 2),
        }
        for name, runs in seconds.items()
    }
    print(f"{options.devices:,} devices, {options.runs} runs each")
    print(f"{'command':<16}{'min s':>9}{'median s':>10}{'ratio':>8}")
    for name, figure in figures.items():
        print(
            f"{name:<16}{figure['min_s']:>9.3f}{figure['median_s']:>10.3f}{figure['ratio_to_import_typer']:>8.2f}"
        )
    kept = {
        "help_ratio": figures["edgectl --help"]["ratio_to_import_typer"] < HELP_RATIO,
        "status_seconds": figures["status -o json"]["median_s"] < STATUS_SECONDS,
    }
    report = {"devices": options.devices, "runs": options.runs, "commands": figures, "kept": kept}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
