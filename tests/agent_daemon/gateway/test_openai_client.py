"""Everything that the official client can ask, against a real agent with a real model."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.support.agent import AgentProcess
from tests.support.releases import usage_of, worker_of

pytestmark = pytest.mark.engine

NAMES = ["assistant", "counted", "left-streaming", "left-waiting", "terse", "single", "vectors"]
HELLO: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
COUNT = "1 2 3 4 5 6 7 8 9 10 11 12 13"
"""A text that the model goes on with for as long as it may."""


@pytest.fixture
def client(served_agent: AgentProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served_agent.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def cost(answer: ChatCompletion) -> tuple[int, int]:
    """Tokens of prompt and answer. How much of the prompt was kept from before is another matter."""
    assert answer.usage is not None
    return answer.usage.prompt_tokens, answer.usage.completion_tokens


# -- answers ---------------------------------------------------------------------------------------------


def test_models_are_listed_and_retrieved_by_the_names_of_the_manifest(client: OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == NAMES
    assert {(model.object, model.owned_by) for model in listed} == {("model", "edgectl")}
    assert client.models.retrieve("single") == listed[NAMES.index("single")]


def test_a_chat_is_answered_with_its_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="assistant", messages=HELLO, temperature=0, max_tokens=12, seed=1
    )
    assert (answer.object, answer.model) == ("chat.completion", "assistant")
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert len((choice.message.content or "").split()) > 2
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 10
    assert 1 <= answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_is_the_same_answer_in_pieces(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "assistant", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert text_of(chunks) == whole.choices[0].message.content
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + [whole.choices[0].finish_reason]
    assert len(chunks) > 4
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_that_asks_for_usage_gets_it_last(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "assistant", "messages": HELLO, "temperature": 0, "max_tokens": 6}
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    *chunks, last = list(stream)
    assert last.choices == []
    assert whole.usage is not None
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
        whole.usage.total_tokens,
    )
    assert all(chunk.usage is None for chunk in chunks)
    assert text_of(chunks) == whole.choices[0].message.content


def test_completions_go_on_with_a_text_whole_and_streamed(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "assistant", "prompt": COUNT, "temperature": 0, "max_tokens": 12}
    whole = client.completions.create(**asked)
    assert (whole.object, whole.choices[0].finish_reason) == ("text_completion", "length")
    assert "14 15" in whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 12
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_completion_without_a_limit_has_sixteen_tokens_as_with_openai(client: OpenAI) -> None:
    answer = client.completions.create(model="assistant", prompt=COUNT, temperature=0)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_embeddings_are_unit_vectors_alike_for_like_texts(client: OpenAI) -> None:
    texts = ["A cat sleeps on the sofa.", "A kitten naps on the couch.", "The stock market fell today."]
    # The client asks for base64 by itself and decodes it; float is what it gets when told so.
    decoded = client.embeddings.create(model="vectors", input=texts)
    plain = client.embeddings.create(model="vectors", input=texts, encoding_format="float")
    assert [item.index for item in decoded.data] == [0, 1, 2]
    for packed, listed in zip(decoded.data, plain.data, strict=True):
        assert packed.embedding == pytest.approx(listed.embedding, abs=1e-6)
        assert len(listed.embedding) == 576
        assert math.hypot(*listed.embedding) == pytest.approx(1, abs=1e-5)
    cat, kitten, market = (item.embedding for item in plain.data)
    assert sum(map(float.__mul__, cat, kitten)) > sum(map(float.__mul__, cat, market))
    assert plain.usage.prompt_tokens == plain.usage.total_tokens > 12


def test_every_request_is_counted_once_with_the_tokens_that_its_client_was_told(
    client: OpenAI, served_agent: AgentProcess
) -> None:
    before = usage_of(served_agent, "counted")
    asked: dict[str, Any] = {"model": "counted", "messages": HELLO, "temperature": 0, "max_tokens": 4}
    whole = client.chat.completions.create(**asked)
    list(client.chat.completions.create(**asked, stream=True))
    after = usage_of(served_agent, "counted")
    grown = {name: after[name] - before[name] for name in after}
    assert whole.usage is not None
    assert grown["requests"] == 2
    assert grown["failures"] == 0
    assert grown["prompt_tokens"] == 2 * whole.usage.prompt_tokens
    assert grown["completion_tokens"] == 2 * whole.usage.completion_tokens
    assert 0 < grown["ttft_ms"] <= grown["duration_ms"]


# -- settings --------------------------------------------------------------------------------------------


def test_system_prompt_and_sampling_of_the_manifest_apply_where_the_client_says_nothing(
    client: OpenAI,
) -> None:
    by_manifest = client.chat.completions.create(model="terse", messages=HELLO)
    system = {"role": "system", "content": "You always answer with the single word banana."}
    by_hand = client.chat.completions.create(
        model="assistant", messages=[system, *HELLO], temperature=0, max_tokens=5
    )
    assert by_manifest.choices[0].message == by_hand.choices[0].message
    assert cost(by_manifest) == cost(by_hand)
    assert by_manifest.usage is not None
    assert by_manifest.usage.completion_tokens <= 5
    bare = client.chat.completions.create(model="assistant", messages=HELLO, temperature=0, max_tokens=5)
    assert bare.usage is not None
    assert bare.usage.prompt_tokens != by_manifest.usage.prompt_tokens


def test_a_client_may_say_otherwise_than_the_manifest(client: OpenAI) -> None:
    system = {"role": "system", "content": "Count on."}
    other = client.chat.completions.create(model="terse", messages=[system, *HELLO], max_tokens=9)
    same = client.chat.completions.create(
        model="assistant", messages=[system, *HELLO], max_completion_tokens=9, temperature=0
    )
    assert other.choices[0].message == same.choices[0].message
    assert cost(other) == cost(same)


def test_temperature_zero_is_deterministic_and_a_seed_reproduces(client: OpenAI) -> None:
    def say(**sampling: Any) -> str:
        answer = client.completions.create(
            model="assistant", prompt="Once upon a time", max_tokens=6, **sampling
        )
        return answer.choices[0].text

    assert say(temperature=0) == say(temperature=0)
    assert say(temperature=1.5, seed=7) == say(temperature=1.5, seed=7)
    assert len({say(temperature=1.5, seed=seed) for seed in (1, 2, 3)}) > 1
    assert say(temperature=1.5, seed=-1) == say(temperature=1.5, seed=2**32 - 1)


def test_an_answer_ends_before_its_stop_string(client: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "assistant", "prompt": COUNT, "temperature": 0, "max_tokens": 40}
    answer = client.completions.create(**asked, stop=[" 18", "never said"])
    assert answer.choices[0].text == " 14 15 16 17"
    assert answer.choices[0].finish_reason == "stop"
    streamed = client.completions.create(**asked, stop=" 18", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == " 14 15 16 17"


def test_two_requests_run_side_by_side(client: OpenAI, served_agent: AgentProcess) -> None:
    long: dict[str, Any] = {"model": "assistant", "prompt": COUNT, "temperature": 0, "max_tokens": 120}
    with client.completions.create(**long, stream=True) as first:
        next(first)
        # Answered in full while the first still runs: with one at a time it would wait for all 120 tokens.
        second = client.completions.create(model="counted", prompt=COUNT, temperature=0, max_tokens=4)
        assert second.usage is not None
        assert second.usage.completion_tokens == 4
        assert worker_of(served_agent, "assistant")["active_requests"] == 1
        assert worker_of(served_agent, "single")["active_requests"] == 0
        rest = list(first)
    assert rest[-1].choices[0].finish_reason == "length"


# -- refusals --------------------------------------------------------------------------------------------


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    error = caught.value
    assert (error.status_code, error.code, error.param) == (404, "model_not_found", "model")
    assert "'gpt-9'; it serves assistant, counted" in error.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="gpt-9", input="x")


@pytest.mark.parametrize("stream", [False, True])
def test_an_overlong_prompt_is_refused_with_the_limit_never_cut(client: OpenAI, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "word " * 2100}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="assistant", messages=messages, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert "a context of 2048 tokens" in caught.value.message
    with pytest.raises(openai.BadRequestError, match="takes 512 at most"):
        client.embeddings.create(model="vectors", input=["fine", "word " * 600])


def test_a_busy_model_lets_twelve_wait_and_tells_the_others_when_to_come_again(client: OpenAI) -> None:
    def ask(_number: int) -> int | str:
        try:
            answer = client.completions.create(model="single", prompt=COUNT, temperature=0, max_tokens=1)
        except openai.RateLimitError as error:
            again = int(error.response.headers["retry-after"])
            return f"{error.code}: {error.body['message']} ({again >= 1})"
        assert answer.usage is not None
        return answer.usage.completion_tokens

    stream = client.completions.create(
        model="single", prompt=COUNT, temperature=0, max_tokens=900, stream=True
    )
    with stream, ThreadPoolExecutor(20) as threads:
        next(stream)
        asked = [threads.submit(ask, number) for number in range(20)]
        refused = 0
        for chunk in stream:
            assert chunk.choices[0].finish_reason is None, "the running request ended before the others came"
            refused = sum(each.done() for each in asked)
            if refused == 8:
                break
        stream.close()
        answers = [each.result() for each in asked]
    busy = "single is busy and 12 requests wait already; try again in a moment"
    assert sorted(map(str, answers)) == ["1"] * 12 + [f"rate_limit_exceeded: {busy} (True)"] * 8


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_named(client: OpenAI, wrong: Any, named: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": "assistant", "messages": HELLO, **wrong})
    assert caught.value.code == "invalid_request"
    assert (caught.value.param or "").startswith(named)
    assert named in caught.value.message


def test_a_model_for_embeddings_does_not_chat_and_the_other_way_round(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as chat:
        client.chat.completions.create(model="vectors", messages=HELLO)
    assert chat.value.code == "wrong_task"
    with pytest.raises(openai.BadRequestError) as embedded:
        client.embeddings.create(model="assistant", input="x")
    assert embedded.value.code == "wrong_task"
