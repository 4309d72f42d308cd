"""From the bodies that clients send to what a worker is asked."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent_daemon.contract.release import Sampling, ServedModel
from agent_daemon.gateway.errors import ApiError
from agent_daemon.gateway.requests.body import parse
from agent_daemon.gateway.requests.chat import ChatBody
from agent_daemon.gateway.requests.completions import CompletionBody
from agent_daemon.gateway.requests.embeddings import EmbeddingsBody
from agent_daemon.gateway.requests.responses import ResponsesBody
from agent_daemon.gateway.requests.tokenize import TokenizeBody
from agent_daemon.worker_messages import Choosing, Embed, Generate, Tokenize, parse_command
from tests.support.inventory_messages import device_release

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
PLAIN = device_release().models[0]
DEFAULTS = Sampling(temperature=0.2, top_k=5, max_tokens=50, seed=3)
CHOSEN = Choosing(temperature=0.2, top_k=5, max_tokens=50, seed=3)
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
        id=0, messages=({"role": "system", "content": "Be kind."}, USER), sampling=CHOSEN, max_tokens=50
    )
    assert chat() == Generate(id=0, messages=(USER,), sampling=Choosing())


def test_what_a_request_says_wins_one_setting_at_a_time() -> None:
    expected = {
        "temperature": 0.0,
        "top_p": 0.5,
        "min_p": 0.0,
        "typical_p": 0.9,
        "repeat_penalty": 1.1,
        "frequency_penalty": 1.5,
        "presence_penalty": -2.0,
        "seed": 8,
    }
    said = chat(MANNERED, **expected, max_tokens=7)
    assert said.sampling == replace(CHOSEN, **expected)
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
        "stream",
        "stream_options",
        "tool_choice",
        "logit_bias",
        "chat_template_kwargs",
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
    ("stop", "expected"),
    [(None, ()), ("x", ("x",)), (["a", "b"], ("a", "b")), ([], ()), ("", ()), (["", "b"], ("b",))],
)
def test_stop_strings(stop: Any, expected: tuple[str, ...]) -> None:
    assert chat(stop=stop).stop == completion(stop=stop).stop == expected


def test_biases_go_by_token_id() -> None:
    assert chat(logit_bias={"5": -100, "0": 2.5}).logit_bias == {5: -100.0, 0: 2.5}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, None),
        ({"logprobs": False}, None),
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
    ],
)
def test_logprobs_of_a_chat(asked: dict[str, Any], expected: int | None) -> None:
    assert chat(**asked).logprobs == expected


@pytest.mark.parametrize("asked", [None, 0, 5])
def test_logprobs_of_a_completion_are_a_number(asked: int | None) -> None:
    assert completion(logprobs=asked).logprobs == asked


@pytest.mark.parametrize(("seed", "taken"), [(0, 0), (2**32, 0), (-1, 2**32 - 1), (2**40 + 5, 5)])
def test_any_integer_is_a_seed(seed: int, taken: int) -> None:
    assert chat(seed=seed).sampling.seed == taken


def test_a_completion_takes_one_prompt_and_openais_sixteen_tokens() -> None:
    assert completion() == Generate(id=0, prompt="Once", max_tokens=16)
    assert completion(prompt=["Twice"]).prompt == "Twice"
    assert completion(prompt=[5, 6]).prompt == completion(prompt=[[5, 6]]).prompt == (5, 6)
    assert completion(MANNERED).max_tokens == 50
    assert completion(MANNERED, max_tokens=3).max_tokens == 3


def test_what_is_unknown_or_changes_nothing_is_ignored() -> None:
    more = {"user": "mia", "store": True, "service_tier": "auto", "n": 1, "logprobs": False, "tools": []}
    assert chat(**more, response_format={"type": "text"}) == chat()


@pytest.mark.parametrize(
    ("options", "expected"),
    [(None, False), ({}, False), ({"include_usage": None}, False), ({"include_usage": True}, True)],
)
def test_usage_in_a_stream_is_wanted_when_it_is_asked_for(options: Any, expected: bool) -> None:
    body = {"model": "m", "messages": [USER], "stream": True, "stream_options": options}
    assert parse(ChatBody, json.dumps(body).encode()).wants_usage is expected


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("x", ("x",)),
        (["x", "y"], ("x", "y")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
    ],
)
def test_embeddings_of_texts_and_of_token_ids_one_or_several(given: Any, inputs: Any) -> None:
    body = parse(EmbeddingsBody, json.dumps({"model": "m", "input": given}).encode())
    assert (body.inputs(), body.encoding_format) == (inputs, "float")


def test_vectors_have_the_length_that_the_model_makes() -> None:
    body = parse(EmbeddingsBody, b'{"model": "m", "input": "x", "dimensions": 576}')
    body.check_dimensions(576)
    with pytest.raises(ApiError, match="dimensions: this model's vectors have 384") as caught:
        body.check_dimensions(384)
    assert caught.value.body["error"]["param"] == "dimensions"


def test_tokens_of_a_text_or_of_a_chat_as_it_would_be_answered() -> None:
    def wanted(**body: Any) -> Tokenize:
        return parse(TokenizeBody, json.dumps(body).encode()).tokenize(MANNERED)

    assert wanted(content="Hi") == Tokenize(id=0, text="Hi", add_special=False)
    assert wanted(content="", add_special=True) == Tokenize(id=0, text="", add_special=True)
    assert wanted(messages=[USER]).messages == chat(MANNERED).messages


# -- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"typical_p": 0}, "typical_p"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"seed": 1.5}, "seed"),
        ({"n": 2}, "n"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"one": 1}}, "logit_bias"),
        ({"logit_bias": {"1.0": 1}}, "logit_bias"),
        ({"logit_bias": {"01": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {str(2**31): 1}}, "logit_bias"),
        ({"logit_bias": {"7": 100.5}}, "logit_bias.7"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 1001}, "stop"),
        ({"stream": "perhaps"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "function", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [USER, {"role": "user", "content": 5}]}, "messages.1.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages.0.content.0.text",
        ),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"functions": []}, "functions"),
        ({"model": None}, "model"),
        ({"model": "m" * 257}, "model"),
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


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file", "input_image"])
def test_what_is_no_text_is_refused_with_a_sentence(kind: str) -> None:
    parts = [{"type": "text", "text": "See:"}, {"type": kind, kind: {"url": "x"}}]
    error = refusal(ChatBody, {"model": "m", "messages": [{"role": "user", "content": parts}]})
    assert error.body["error"]["param"] == "messages.0.content.1"
    assert "this device reads text only" in error.body["error"]["message"]


@pytest.mark.parametrize(
    "prompt", [[], ["a", "b"], [[1], [2]], [1, "a"], [-1], [2**31], [[]], [1.5], None, {}]
)
def test_a_completion_of_anything_else_than_one_prompt_is_refused(prompt: Any) -> None:
    error = refusal(CompletionBody, {"model": "m", "prompt": prompt})
    assert str(error.body["error"]["param"]).startswith("prompt")


@pytest.mark.parametrize("wrong", [{"logprobs": 6}, {"echo": True}, {"best_of": 2}, {"suffix": "end"}])
def test_what_a_completion_cannot_do_is_named(wrong: dict[str, Any]) -> None:
    error = refusal(CompletionBody, {"model": "m", "prompt": "x", **wrong})
    assert error.body["error"]["param"] == next(iter(wrong))


@pytest.mark.parametrize("given", [[], [[]], [-1], [1, "x"], [["x"]], 5, None, ["x"] * 2049])
def test_nothing_to_embed_is_refused(given: Any) -> None:
    with pytest.raises(ApiError) as caught:
        parse(EmbeddingsBody, json.dumps({"model": "m", "input": given}).encode())
    assert str(caught.value.body["error"]["param"]).startswith("input")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"content": "x", "messages": [USER]},
        {"content": "x", "tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
)
def test_tokens_of_nothing_or_of_two_things_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        parse(TokenizeBody, json.dumps(wrong).encode())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"null", b"[]", b"\xff\xfe", b'"text"', b"{}" * 2, b'{"model": "\xff"}'),
        *(b'{"model": "\\ud800"}', b'{"seed": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 100_000),
    ],
)
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
FORMS: tuple[type[Any], ...] = (ChatBody, CompletionBody, ResponsesBody, EmbeddingsBody, TokenizeBody)
fields = st.sampled_from(sorted({name for form in FORMS for name in form.model_fields}))
COMPLETE = {"model": "m", "messages": [USER], "prompt": "x", "input": "x", "content": "x"}


def sent(body: Any) -> Any:
    """What a worker reads of a body that was understood."""
    if isinstance(body, EmbeddingsBody):
        return Embed(id=0, inputs=body.inputs())
    return body.tokenize(MANNERED) if isinstance(body, TokenizeBody) else body.generate(MANNERED)


@given(st.dictionaries(fields, json_values, max_size=5), st.booleans())
def test_any_body_is_understood_or_refused_and_what_is_understood_can_be_sent(
    body: dict[str, Any], complete: bool
) -> None:
    for form in FORMS:
        status = 400
        try:
            message = sent(parse(form, json.dumps({**COMPLETE, **body} if complete else body).encode()))
            assert parse_command(message.json()) == message
        except ApiError as error:
            status = error.status
        assert status == 400


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_a_request_or_a_refusal(data: bytes) -> None:
    for form in FORMS:
        with pytest.raises(ApiError) as caught:
            parse(form, data)
        assert caught.value.status == 400
