"""The main job on this machine, start to end, with nothing left running: `make demo` after `make setup`.

Starts an agent (no root, its state in a folder of its own), registers this machine, deploys the quickstart
manifest, asks the model a question through the official openai client, shows the status, and stops.
The state stays in build/demo, so that a second run finds the model in place.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / "build" / "demo"
MANIFEST = "manifests/quickstart.yaml"
QUESTION = "What is the capital of France? Answer in one sentence."
BIN = Path(sys.executable).parent


def main() -> None:
    STATE.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "EDGECTL_DATABASE_URL": str(STATE / "inventory.db")}
    port = free_port()
    agent = start_agent(port)
    try:
        add_this_machine(environment)
        edgectl(environment, "deploy", "-f", MANIFEST, "--yes")
        ask(port)
        edgectl(environment, "status", "--refresh")
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(20)
    say("the agent is stopped; its state and the inventory are in build/demo")


def start_agent(port: int) -> "subprocess.Popen[bytes]":
    command = ["run", "--state-dir", str(STATE / "agent"), "--listen", f"127.0.0.1:{port}"]
    say(f"edgectl-agent {' '.join(command).replace(str(ROOT) + '/', '')} &")
    log = STATE / "agent.log"
    with log.open("wb") as output:
        agent = subprocess.Popen([BIN / "edgectl-agent", *command], stdout=output, stderr=output)
    for _ in range(300):
        if (STATE / "agent" / "agent.sock").exists() and answers(port):
            return agent
        if agent.poll() is not None:
            break
        time.sleep(0.1)
    agent.kill()
    sys.exit(f"demo: the agent did not start: {log.read_text().strip()}")


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """11500 where it is free, else any."""
    for port in (11500, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
            except OSError:
                continue
    sys.exit("demo: no port on 127.0.0.1 is free")


def add_this_machine(environment: dict[str, str]) -> None:
    known = subprocess.run(
        [BIN / "edgectl", "device", "show", "here"], env=environment, capture_output=True, check=False
    )
    if known.returncode:
        where = ("--local", "--state-dir", str(STATE / "agent"), "--label", "role=desk")
        edgectl(environment, "device", "add", "here", *where)


def edgectl(environment: dict[str, str], *arguments: str) -> None:
    say(f"edgectl {' '.join(arguments).replace(str(ROOT) + '/', '')}")
    done = subprocess.run([BIN / "edgectl", *arguments], env=environment, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"demo: edgectl {arguments[0]} ended with {done.returncode}")


def ask(port: int) -> None:
    from openai import OpenAI

    say(f"asking through the openai client: {QUESTION}")
    client = OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
    stream = client.chat.completions.create(
        model="assistant", messages=[{"role": "user", "content": QUESTION}], stream=True, temperature=0
    )
    print("  ", end="")
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
    print(flush=True)


def say(text: str) -> None:
    print(f"demo: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
