"""What the report says of figures that are known."""

import json

from tests.bench.serve.answers import Answer, Figures, Scene, figures
from tests.bench.serve.report import Row, as_json, goals, table


def seen(tokens_per_second: float, first: float = 0.25, pss: int = 400_000_000) -> Figures:
    answer = Answer(0.0, (first,), 1.0, "", "length", 90, 30, round(tokens_per_second * 10))
    return figures(Scene("8", (answer,), 10.0), {"rss": pss, "pss": pss})


def row(workload: str, server: str, found: Figures, scene: str = "8") -> Row:
    return Row(workload, scene, server, found, (found,))


ROWS = [
    row("a", "edgectl", seen(90)),
    row("a", "llama.cpp", seen(100)),
    row("a", "llama_cpp.server", seen(50)),
    row("memory", "edgectl", seen(90, pss=436_000_000)),
    row("memory", "llama.cpp-lean", seen(100)),
    row("gateway", "edgectl", seen(99, first=0.256)),
    row("gateway", "edgectl-worker", seen(100)),
]


def test_goals_are_judged_where_both_sides_were_measured() -> None:
    judged = {(goal.workload, goal.peer): (round(goal.ratio, 3), goal.reached) for goal in goals(ROWS)}
    assert judged == {
        ("a", "llama.cpp"): (0.9, False),
        ("a", "llama_cpp.server"): (1.8, True),
        ("memory", "llama.cpp-lean"): (0.917, True),
        ("gateway", "edgectl-worker"): (0.99, True),
    }


def test_the_table_has_every_server_beside_its_ratio() -> None:
    lines = table(ROWS).splitlines()
    assert lines[0] == "(a) distinct 90-token prompts, 64 out; ratios to llama.cpp, above 1 is better"
    assert lines[2].split()[:5] == ["8", "edgectl", "90.0", "0.90x", "0.250"]
    assert lines[3].split()[:4] == ["8", "llama.cpp", "100.0", "0.250"]
    (missed,) = [line for line in lines if line.startswith("(a) at 8") and "NOT" in line]
    assert " ".join(missed.split()) == "(a) at 8: tokens_per_second 0.90 x llama.cpp wanted 1.00 NOT REACHED"
    (late,) = [line for line in lines if line.startswith("(gateway)") and "TTFT" in line]
    assert " ".join(late.split()) == "(gateway) at 8: adds 6.0 ms to the median TTFT wanted 5 ms NOT REACHED"


def test_the_json_has_every_repetition() -> None:
    found = json.loads(json.dumps(as_json(ROWS, 1, False)))
    first = found["rows"][0]
    assert (first["workload"], first["scene"], first["server"]) == ("a", "8", "edgectl")
    assert first["repetitions"] == [first["median"]]
    assert first["median"]["tokens_per_second"] == 90
    assert first["ratio"]["tokens_per_second"] == 0.9
    assert found["rows"][1]["ratio"] is None
    assert round(found["gateway_ttft_seconds"]["8"], 6) == 0.006
