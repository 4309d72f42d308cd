"""Programs of the control side of a lab, run side by side: when they said what, what they took."""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.deploy.events import Line
from tests.lab.fleet import Lab

_LAUNCH = """
import json, resource, subprocess, sys, threading, time
lines = []
def read(stream, name):
    for line in stream:
        lines.append((time.time(), name, line.decode(errors="replace").rstrip("\\n")))
began, clock = time.time(), time.monotonic()
running, readers = [], []
for command in json.loads(sys.argv[1]):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.append(process)
    for stream, name in ((process.stdout, "out"), (process.stderr, "err")):
        readers.append(threading.Thread(target=read, args=(stream, name), daemon=True))
        readers[-1].start()
codes = [process.wait() for process in running]
seconds = time.monotonic() - clock
# A helper that lives on (a shared connection) may hold a pipe open: what was said by now is what counts.
for reader in readers:
    reader.join(1)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "began": began, "seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime,
    "peak_bytes": used.ru_maxrss * 1024, "codes": codes, "lines": lines,
}))
"""


@dataclass(frozen=True)
class Ran:
    """One run of one program, or of several side by side. `began` is seconds since the epoch, `seconds` until the
    last of them had ended; `cpu_seconds` are of all, with what they started and waited for; `peak_bytes` of the
    largest single process. `lines` is what they wrote, by time."""

    began: float
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    lines: tuple[Line, ...]


def run(
    lab: Lab,
    *commands: Sequence[str],
    env: Mapping[str, str] | None = None,
    codes: Collection[int] = (0,),
    timeout: float = 600,
) -> Ran:
    """Runs commands side by side. Raises AssertionError with their last words when one ends with none of `codes`."""
    done = lab.run([sys.executable, "-c", _LAUNCH, json.dumps(commands)], env=env, timeout=timeout)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lines = tuple(sorted((Line(*line) for line in found["lines"]), key=lambda line: line.at))
    if not set(found["codes"]) <= set(codes):
        words = "\n".join(line.text for line in lines)[-3000:]
        raise AssertionError(f"`{' '.join(commands[0])}` ended with {found['codes']}: {words}")
    return Ran(found["began"], found["seconds"], found["cpu_seconds"], found["peak_bytes"], lines)
