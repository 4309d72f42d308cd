"""The benchmark's texts are as long as it says, and the same for every server."""

import json
import subprocess
import sys

import pytest

from tests.bench.serve import texts
from tests.bench.serve.workloads import stories
from tests.support.models import quickstart_model

_LENGTHS = """
import json, sys, llama_cpp
model = llama_cpp.Llama(sys.argv[1], vocab_only=True, verbose=False)
said = json.load(sys.stdin)
print(json.dumps([len(model.tokenize(text.encode(), add_bos=False, special=True)) for text in said]))
"""


def lengths(*said: str) -> list[int]:
    """Tokens of each text for the benchmark's model, by a process that may load the engine."""
    done = subprocess.run(
        [sys.executable, "-c", _LENGTHS, str(quickstart_model())],
        input=json.dumps(said),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[int] = json.loads(done.stdout)
    return found


def test_a_name_stands_for_one_text_and_no_other() -> None:
    assert texts.words("a/0/1", 5) == texts.words("a/0/1", 5)
    first, second = stories("a/0/8", 2)
    assert first.messages != second.messages
    assert stories("a/0/8", 1) != stories("a/1/8", 1)


@pytest.mark.engine
def test_lengths_are_those_of_the_workloads() -> None:
    every_word = "".join(f" {word}" for word in texts.WORDS)
    system = "You help with stories." + texts.words("b/0/system", 183)
    document = "Read this." + texts.words("c/0", 596)
    found = lengths(every_word, texts.story("a/0/1", 43), system, document, texts.tools("d/0/tools", 1200))
    assert found[0] == len(texts.WORDS)
    assert found[1] == pytest.approx(90 - 30, abs=3)  # the template adds 30
    assert found[2] == pytest.approx(190, abs=3)
    assert found[3] == pytest.approx(600, abs=3)
    assert found[4] == pytest.approx(1200, rel=0.05)
