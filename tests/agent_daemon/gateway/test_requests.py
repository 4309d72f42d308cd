"""From the bodies that clients send to what a worker is asked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.release import Sampling, ServedModel
from agent_daemon.gateway.errors import ApiError
from agent_daemon.gateway.requests import ChatBody, CompletionBody, EmbeddingsBody, parse
from agent_daemon.worker_messages import Generate
from tests.support.inventory_messages import device_release

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
PLAIN = device_release().models[0]
DEFAULTS = Sampling(temperature=0.2, top_k=5, max_tokens=50, seed=3)
MANNERED = PLAIN.model_copy(update={"system_prompt": "Be kind.", "sampling": DEFAULTS})


def chat(model: ServedModel = PLAIN, **more: Any) -> Generate:
    body = json.dumps({"model": "chat", "messages": [USER], **more}).encode()
    return parse(ChatBody, body).generate(model)


def completion(model: ServedModel = PLAIN, **more: Any) -> Generate:
    body = json.dumps({"model": "chat", "prompt": "Once", **more}).encode()
    return parse(CompletionBody, body).generate(model)


def refusal(form: type[Any], body: Any) -> ApiError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as caught:
        parse(form, data).generate(PLAIN)
    assert caught.value.status == 400
    return caught.value


# -- what is taken over ----------------------------------------------------------------------------------


def test_a_request_that_says_nothing_gets_the_manifests_defaults() -> None:
    assert chat(MANNERED) == Generate(
        id=0, messages=({"role": "system", "content": "Be kind."}, USER), sampling=DEFAULTS
    )
    assert chat() == Generate(id=0, messages=(USER,), sampling=Sampling())


def test_what_a_request_says_wins_one_setting_at_a_time() -> None:
    said = chat(MANNERED, temperature=0, top_p=0.5, min_p=0, repeat_penalty=1.1, seed=8, max_tokens=7)
    expected = {"temperature": 0.0, "top_p": 0.5, "min_p": 0.0, "repeat_penalty": 1.1, "seed": 8}
    assert said.sampling == DEFAULTS.model_copy(update=expected)
    assert said.sampling.top_k == 5
    assert said.max_tokens == 7


def test_null_means_that_nothing_was_said() -> None:
    names = (
        "temperature",
        "top_p",
        "seed",
        "max_tokens",
        "stop",
        "n",
        "tools",
        "response_format",
        "logprobs",
    )
    assert chat(MANNERED, **dict.fromkeys(names)) == chat(MANNERED)


def test_the_clients_own_system_prompt_replaces_the_manifests() -> None:
    assert chat(MANNERED, messages=[SYSTEM, USER]).messages == (SYSTEM, USER)
    assert chat(MANNERED, messages=[USER, SYSTEM]).messages == (USER, SYSTEM)


def test_the_newer_name_of_the_limit_wins() -> None:
    assert chat(max_tokens=5, max_completion_tokens=9).max_tokens == 9


def test_content_in_parts_is_one_text_and_none_is_empty() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
    assert chat(messages=messages).messages == (
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": ""},
    )


@pytest.mark.parametrize(
    ("stop", "expected"), [(None, ()), ("x", ("x",)), (["a", "b"], ("a", "b")), ([], ())]
)
def test_stop_strings(stop: Any, expected: tuple[str, ...]) -> None:
    assert chat(stop=stop).stop == completion(stop=stop).stop == expected


def test_penalties_are_passed_on() -> None:
    said = chat(frequency_penalty=1.5, presence_penalty=-2)
    assert (said.frequency_penalty, said.presence_penalty) == (1.5, -2)


@pytest.mark.parametrize(("seed", "taken"), [(0, 0), (2**32, 0), (-1, 2**32 - 1), (2**40 + 5, 5)])
def test_any_integer_is_a_seed(seed: int, taken: int) -> None:
    assert chat(seed=seed).sampling.seed == taken


def test_a_completion_takes_one_prompt_and_openais_sixteen_tokens() -> None:
    assert completion() == Generate(id=0, prompt="Once", max_tokens=16)
    assert completion(prompt=["Twice"]).prompt == "Twice"
    assert completion(MANNERED).max_tokens == 50
    assert completion(MANNERED, max_tokens=3).max_tokens == 3


def test_what_is_unknown_or_changes_nothing_is_ignored() -> None:
    more = {"user": "mia", "store": True, "service_tier": "auto", "n": 1, "logprobs": False, "tools": []}
    assert chat(**more, response_format={"type": "text"}) == chat()


@pytest.mark.parametrize(
    ("options", "expected"), [(None, False), ({}, False), ({"include_usage": True}, True)]
)
def test_usage_in_a_stream_is_wanted_when_it_is_asked_for(options: Any, expected: bool) -> None:
    body = {"model": "m", "messages": [USER], "stream": True, "stream_options": options}
    assert parse(ChatBody, json.dumps(body).encode()).wants_usage is expected


def test_embeddings_of_one_text_or_several() -> None:
    one = parse(EmbeddingsBody, b'{"model": "m", "input": "x"}')
    assert (one.inputs(), one.encoding_format) == (("x",), "float")
    assert parse(EmbeddingsBody, b'{"model": "m", "input": ["x", "y"]}').inputs() == ("x", "y")


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"stream": "perhaps"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "", "content": "Hi"}]}, "messages.0.role"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"model": None}, "model"),
    ],
)
def test_the_field_that_is_wrong_is_named(wrong: dict[str, Any], param: str) -> None:
    error = refusal(ChatBody, {"model": "m", "messages": [USER], **wrong})
    assert error.body["error"]["param"] == param
    assert param in error.body["error"]["message"]
    assert error.body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("name", ["temperature", "top_p", "frequency_penalty", "repeat_penalty"])
def test_numbers_that_are_none_are_refused(name: str, value: str) -> None:
    body = f'{{"model": "m", "messages": [{{"role": "user", "content": "x"}}], "{name}": {value}}}'
    assert refusal(ChatBody, body.encode()).body["error"]["param"] in (name, None)


@pytest.mark.parametrize("prompt", [[], ["a", "b"], [1, 2], None])
def test_a_completion_of_several_prompts_or_of_tokens_is_refused(prompt: Any) -> None:
    error = refusal(CompletionBody, {"model": "m", "prompt": prompt})
    assert str(error.body["error"]["param"]).startswith("prompt")


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'"text"', b"{}" * 2])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    error = refusal(ChatBody, data)
    assert "the body is not a request" in error.body["error"]["message"]
    assert error.body["error"]["param"] is None


def test_what_was_sent_is_not_repeated_in_the_refusal() -> None:
    error = refusal(ChatBody, {"model": "m", "messages": "my secret"})
    assert "my secret" not in json.dumps(error.body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from([*ChatBody.model_fields, *CompletionBody.model_fields, *EmbeddingsBody.model_fields])


@given(st.dictionaries(fields, json_values, max_size=5), st.booleans())
def test_any_body_is_understood_or_refused_and_what_is_understood_can_be_sent(
    body: dict[str, Any], complete: bool
) -> None:
    if complete:
        body = {**body, "model": "m", "messages": [USER], "prompt": "x"}
    for form in (ChatBody, CompletionBody, EmbeddingsBody):
        status = 400
        try:
            parsed = parse(form, json.dumps(body).encode())
            if not isinstance(parsed, EmbeddingsBody):
                assert Generate.model_validate_json(parsed.generate(MANNERED).line())
        except ApiError as error:
            status = error.status
        assert status == 400
