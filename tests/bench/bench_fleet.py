"""What a fleet costs its control side: `python tests/bench/bench_fleet.py [--machines 16] [--json FILE]`. As root.

Boots machines on this one (tests/lab), takes them from bare to serving, and says for each command how long it took,
the processor time and the peak of memory of the control side. The peer for moving a model is OpenSSH: the same file to
the same machines with as many `ssh cat` side by side, in the same run. What all machines do in that time (unpack,
hash, load, probe) runs on this machine's processors too, so only the ratios and the memory travel.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.e2e import manifests
from tests.lab.control import make_bundle
from tests.lab.fleet import Lab
from tests.lab.spec import Spec
from tests.support.models import ladder

_MEASURE = """
import json, resource, subprocess, sys, time
began = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "code": done.returncode,
    "seconds": round(time.monotonic() - began, 2),
    "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
    "peak_bytes": used.ru_maxrss * 1024,
    "said": done.stderr.decode()[-2000:],
}))
"""


def measured(lab: Lab, argv: Sequence[str]) -> dict[str, float]:
    """One program of the control side, which has to succeed: wall seconds, processor seconds, peak of memory."""
    done = lab.run([sys.executable, "-c", _MEASURE, *argv], timeout=1800)
    figures: dict[str, float] = json.loads(done.stdout)
    assert figures.pop("code") == 0, figures["said"]
    del figures["said"]
    return figures


def copy_by_openssh(lab: Lab, source: Path) -> float:
    """Seconds until OpenSSH has brought a file to every machine, all at once, in a process for each."""
    config = str(lab.ssh_config)

    def one(name: str) -> None:
        command = f"ssh -F {config} -c aes128-gcm@openssh.com {name} 'cat > /var/tmp/copied' < {source}"
        done = lab.run(["sh", "-c", command], timeout=1800)
        assert done.returncode == 0, done.stderr

    began = time.monotonic()
    with ThreadPoolExecutor(len(lab.machines)) as pool:
        list(pool.map(one, lab.machines))
    return round(time.monotonic() - began, 2)


def measure(machines: int) -> dict[str, object]:
    """Figures of every step, by its name."""
    made, model = make_bundle(), ladder()["Q2_K"]
    names = [f"dev{number:02}" for number in range(1, machines + 1)]
    edgectl = (sys.executable, "-m", "edgectl")
    with tempfile.TemporaryDirectory() as folder, Lab([Spec(name) for name in names]) as lab:
        manifest = manifests.write(
            Path(folder) / "m.yaml",
            {"assistant": manifests.model(model)},
            probe={"timeout": 300},
            rollout={"max_unavailable": machines},
        )
        deploy = (*edgectl, "deploy", "-f", str(manifest), "--yes")
        return {
            "machines": machines,
            "bundle_bytes": made["size"],
            "model_bytes": model.stat().st_size,
            "peer_copy_seconds": copy_by_openssh(lab, model),
            "steps": {
                "device add": measured(lab, (*edgectl, "device", "add", "--from-ssh-config", "dev*")),
                "device bootstrap": measured(
                    lab, (*edgectl, "device", "bootstrap", "-l", "all", "--ram-limit", "1GiB")
                ),
                "deploy": measured(lab, deploy),
                "deploy again": measured(lab, deploy),
                "status --refresh": measured(lab, (*edgectl, "status", "--refresh")),
            },
        }


def table(found: dict[str, object]) -> str:
    steps = found["steps"]
    assert isinstance(steps, dict)
    lines = [f"{'step':<18} {'seconds':>8} {'cpu s':>7} {'peak MiB':>9}"]
    for name, taken in steps.items():
        peak = taken["peak_bytes"] / 2**20
        lines.append(f"{name:<18} {taken['seconds']:>8.1f} {taken['cpu_seconds']:>7.1f} {peak:>9.0f}")
    copy = found["peer_copy_seconds"]
    ratio = steps["deploy"]["seconds"] / float(str(copy))
    lines.append(f"OpenSSH copies the model alone in {copy} s: the whole deploy takes {ratio:.1f}x that")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--machines", type=int, default=16)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    found = measure(arguments.machines)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
