"""What a probe asks: what clients may ask, in the fewest tokens, and in full before a release is called mute."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from string import ascii_lowercase
from typing import TypeVar

import gguf
import pytest

from agent_daemon.contract.release import Probe, ServedModel
from agent_daemon.loading import Loader
from agent_daemon.probe import ProbeFailed, _check_answer
from agent_daemon.probe_conversations import Messages, conversations
from agent_daemon.store import Store
from agent_daemon.worker_messages import Choosing, Generate, Refused, Text
from agent_daemon.worker_process import WorkerProcess
from tests.support.releases import artifact, served
from tests.support.tiny_models import KINDS, TEMPLATE, write

pytestmark = pytest.mark.engine

EMPTY, HELLO = {"role": "system", "content": ""}, {"role": "user", "content": "Say hello."}
OWN_MANNER = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant, at your service.<|im_end|>\n"
    "{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system messages here') }}{% endif %}"
ONLY_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('say who it is') }}{% endif %}"
T = TypeVar("T")


def written(folder: Path, before: str) -> Path:
    """A tiny model whose template begins with something."""
    return write(folder / "model.gguf", dataclasses.replace(KINDS["templated"], template=before + TEMPLATE))


def worked(
    folder: Path,
    path: Path,
    do: Callable[[ServedModel, WorkerProcess], Awaitable[T]],
    prompt: str | None = None,
) -> T:
    """What comes of it with a worker that has loaded the model; `prompt` is the manifest's system prompt."""
    model = served("m", path, system_prompt=prompt)
    store = Store(folder / "store")
    (blob,) = artifact(path).files
    if not store.has(blob.digest):
        with store.open_partial(blob.digest, blob.size, 0) as partial:
            partial.write(path.read_bytes())
            partial.finish()

    async def live() -> T:
        process = await Loader(store, folder).spawn(model)
        try:
            await process.ready()
            return await do(model, process)
        finally:
            await process.stop()

    return asyncio.run(live())


async def _asked(model: ServedModel, process: WorkerProcess) -> tuple[Messages, ...] | Refused:
    return await conversations(model, "Say hello.", process)


@pytest.mark.parametrize(
    ("before", "expected"),
    [(OWN_MANNER, ((EMPTY, HELLO), (HELLO,))), ("", ((HELLO,),)), (NO_SYSTEM, ((HELLO,),))],
    ids=["one with a system prompt of its own", "one without", "one that takes none"],
)
def test_a_template_s_own_system_prompt_is_not_computed(
    tmp_path: Path, before: str, expected: tuple[Messages, ...]
) -> None:
    assert worked(tmp_path, written(tmp_path, before), _asked) == expected


def test_the_manifest_s_system_prompt_is(tmp_path: Path) -> None:
    found = worked(tmp_path, written(tmp_path, OWN_MANNER), _asked, "Be brief.")
    assert found == (({"role": "system", "content": "Be brief."}, HELLO),)


@pytest.mark.parametrize(
    ("before", "prompt", "why"),
    [(NO_SYSTEM, "Be brief.", "no system messages here"), (ONLY_SYSTEM, None, "say who it is")],
    ids=["the manifest's system prompt", "a conversation without one"],
)
def test_what_a_template_refuses_clients_is_found(
    tmp_path: Path, before: str, prompt: str | None, why: str
) -> None:
    with pytest.raises(ProbeFailed, match=f"m: .*{why}"):
        worked(tmp_path, written(tmp_path, before), _probed, prompt)


async def _probed(model: ServedModel, process: WorkerProcess, prompt: str = "Say hello.") -> None:
    await _check_answer(model, Probe(prompt=prompt, max_tokens=1), process)


def test_who_is_mute_in_short_is_asked_in_full(tmp_path: Path) -> None:
    path = written(tmp_path, OWN_MANNER)

    async def different(_model: ServedModel, process: WorkerProcess) -> tuple[str, str]:
        """A prompt that is answered with one letter in short, which is given, and with another one in full."""
        for letter in ascii_lowercase:
            asked = {"role": "user", "content": letter * 9}
            short = await _letter(process, (EMPTY, asked))
            if short != await _letter(process, (asked,)):
                return letter * 9, short
        raise AssertionError("no prompt is answered differently")

    prompt, short = worked(tmp_path, path, different)
    ends_with(path, short)
    worked(tmp_path, path, lambda model, process: _probed(model, process, prompt))


async def _letter(process: WorkerProcess, messages: Messages) -> str:
    request = Generate(id=0, messages=messages, sampling=Choosing(temperature=0), max_tokens=1)
    return "".join([event.text async for event in process.generate(request) if isinstance(event, Text)])


def ends_with(path: Path, letter: str) -> None:
    """From now on this letter ends an answer."""
    reader = gguf.GGUFReader(str(path), "r+")
    field = reader.fields["tokenizer.ggml.eos_token_id"]
    field.parts[field.data[0]][0] = ord(letter)
    reader.data.flush()
