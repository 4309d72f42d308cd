"""Writes docs/activation.md from the transition table itself: `--write` stores it, without it the text goes to stdout."""

import sys
from pathlib import Path

from agent_daemon.activation import TABLE, Action, Happening, Transition
from agent_daemon.activator import _OUTCOMES
from agent_daemon.contract.wire import TERMINAL_STATES, ActivationState

TARGET = Path(__file__).resolve().parent.parent / "docs" / "activation.md"
S = ActivationState

STATES = {
    S.STAGING: "files are arriving",
    S.STAGED: "everything is there and verified; before it goes on, what it takes is measured",
    S.ACTIVATING: "the new workers load",
    S.PROBING: "they are loaded, and have to stay healthy for a while",
    S.COMMITTED: "the new release is the active one",
    S.REVERTING: "the old workers come back",
    S.REVERTED: "the old release answers, the new one is quarantined",
    S.REVERT_FAILED: "the old release is active and did not get ready; its workers are started again and again",
}
ACTIONS = {
    Action.AWAIT_BLOBS: "what has arrived is kept; the sender goes on from its last byte",
    Action.AWAIT_ACTIVATE: "waits to be asked",
    Action.MEASURE: "llama.cpp is asked what the release takes; nothing changes",
    Action.LOAD: "loads the new workers: beside the old ones (handover) or after they have left (replace)",
    Action.PROBE: "asks the new workers, again and again",
    Action.SERVE_NEW: "requests go to the new workers; the old ones finish their answers and leave",
    Action.RESTORE_OLD: "ends the new workers, loads the old ones where they had left, lets requests go on",
    Action.SERVE_OLD: "requests go to the old workers",
}
HAPPENINGS = {
    Happening.BLOBS_COMPLETE: "the last file is verified",
    Happening.ACTIVATE: "somebody asks",
    Happening.JUDGED: "it fits",
    Happening.REFUSED: "it does not fit",
    Happening.LOADED: "all are loaded",
    Happening.FAILED: "a worker fails, or time is up",
    Happening.PROBE_HELD: "healthy for min_healthy",
    Happening.RESTORED: "the old ones are ready",
    Happening.RESTORE_FAILED: "they are not",
}
HEAD = """# Activation on the device

This page is written by `make docs` from the transition table in `agent_daemon/activation.py`; a test compares the two.

A device brings a release into use alone. Each state is on its disk (a journal in SQLite, `synchronous=FULL`) before the
step that it announces begins, and every step may be done twice, so that a power cut finds the device in one row of the
table below, wherever in the step it came. Until `committed` is written, the release that was active before is the one
that answers; from that moment on it is the new one, and nothing takes that back.

## States

{diagram}

## What a power cut does

The same holds for a crash of the agent, `kill -9`, and a restart in between.

| state on the disk | what it means | answers after the cut | what the device does at its start | then |
| --- | --- | --- | --- | --- |
{cuts}

A staged release whose activation had been asked for is measured and activated without being asked again, as long as that
does not end the agent three times in a row. When the journal cannot be written (a full disk), nothing of the step is done:
what was to be committed goes back, everything else is tried again every second while the old release answers.

## Everything that can happen

| state | what happens | next state | what is done there |
| --- | --- | --- | --- |
{rows}
"""


def page() -> str:
    """The whole text."""
    return HEAD.format(diagram=_diagram(), cuts="\n".join(map(_cut, S)), rows="\n".join(_rows()))


def _diagram() -> str:
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> staging"]
    for (state, happening), step in TABLE.items():
        if happening in (Happening.RESTARTED, Happening.RESUMED):
            if step.state is not state:
                lines.append(f"    {state} --> {step.state}: power cut")
        elif step.state is not state:
            lines.append(f"    {state} --> {step.state}: {HAPPENINGS[happening]}")
    lines += [f"    {state} --> [*]" for state in S if state in TERMINAL_STATES]
    return "\n".join([*lines, "```"])


def _cut(state: S) -> str:
    step = TABLE[state, Happening.RESTARTED]
    answers = "the new release" if state is S.COMMITTED else "the release that was active"
    resumed = TABLE.get((state, Happening.RESUMED))
    done = ACTIONS[step.action]
    if resumed is not None:
        done += f"; had it been asked for: {ACTIONS[resumed.action]}"
    return f"| `{state}` | {STATES[state]} | {answers} | {done} | {_then(state, step)} |"


def _then(state: S, step: Transition) -> str:
    ends = [
        f"`{follows.state}`"
        for (before, happening), follows in TABLE.items()
        if before is step.state and follows.state is not step.state and happening is not Happening.RESTARTED
    ]
    where = f"stays `{state}`" if step.state is state else f"`{step.state}`"
    if state in TERMINAL_STATES:
        return f"{where} (outcome `{_OUTCOMES[state]}`)"
    return where + (f", then {' or '.join(dict.fromkeys(ends))}" if step.action is Action.RESTORE_OLD else "")


def _rows() -> list[str]:
    plain = [
        (state, HAPPENINGS[happening], step)
        for (state, happening), step in TABLE.items()
        if happening in HAPPENINGS
    ]
    return [
        f"| `{state}` | {what} | `{step.state}` | {ACTIONS[step.action]} |" for state, what, step in plain
    ]


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        TARGET.write_text(page())
    else:
        sys.stdout.write(page())
