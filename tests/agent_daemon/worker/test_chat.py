"""Chat templates come out of files that anybody may have made: they render messages, and nothing else."""

import json
from typing import Any

import pytest

from agent_daemon.worker import chat
from agent_daemon.worker.chat import ChatTemplate, ChatTemplateError
from tests.support import tool_templates

USER = {"role": "user", "content": "Hi <b>"}
SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def render(source: str | None, *messages: dict[str, Any]) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages or (USER,))


def test_the_template_of_a_file_is_followed_to_the_letter() -> None:
    assert render(SMOLLM) == (
        "<|im_start|>system\nYou are SmolLM<|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\n"
    )
    system = {"role": "system", "content": "Be brief."}
    assert render(SMOLLM, system, USER) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_file_without_a_template_gets_chatml() -> None:
    expected = "<|im_start|>user\nHi <b><|im_end|>\n<|im_start|>assistant\n"
    assert render(None) == render("") == expected


def test_what_templates_expect_is_there() -> None:
    assert render("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}") == "<s>Hi <b></s>"
    assert render("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}") == ""
    assert render("{{ strftime_now('%Y') }}").isdigit()
    assert render("  {% if true %}\n  x\n  {% endif %}\n") == "  x\n"


def test_a_template_may_refuse_messages_in_its_own_words() -> None:
    with pytest.raises(ChatTemplateError, match="refused these messages: roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


def test_json_is_written_as_models_learned_it() -> None:
    assert render("{{ messages | tojson }}") == '[{"role": "user", "content": "Hi <b>"}]'
    assert render("{{ 'é&' | tojson }}{{ 'é' | tojson(ensure_ascii=True) }}") == '"é&""\\u00e9"'
    assert render("{{ {'b': 1, 'a': 2} | tojson(indent=1, sort_keys=true) }}") == '{\n "a": 2,\n "b": 1\n}'


def test_what_marks_the_part_to_learn_from_is_nothing_here() -> None:
    assert render("a{% generation %}{{ messages[0].role }}{% endgeneration %}b") == "auserb"


@pytest.mark.parametrize(
    ("source", "declares"),
    [
        (tool_templates.HERMES, True),
        (tool_templates.LLAMA, True),
        (tool_templates.GRANITE, True),
        (SMOLLM, False),
        (None, False),
        ("{% for tools in messages %}{{ tools }}{% endfor %}", False),
        ("tools {{ 'tools' }}{{ messages[0].tools }}", False),
    ],
)
def test_a_template_declares_tools_if_it_reads_them(source: str | None, declares: bool) -> None:
    assert ChatTemplate(source, "", "").declares_tools is declares


TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}


def test_tools_are_what_the_client_sent_or_none() -> None:
    template = ChatTemplate("{{ tools | tojson }}|{{ tools is none }}", "", "")
    assert template.render((USER,), [TOOL]) == json.dumps([TOOL]) + "|False"
    assert template.render((USER,)) == "null|True"
    # Some templates never look whether there are any.
    assert render("{% for tool in tools %}x{% endfor %}done") == "done"


def test_a_template_gets_its_own_variables_but_not_ours_replaced() -> None:
    template = ChatTemplate("{{ enable_thinking }}{{ messages | length }}{{ bos_token }}", "<s>", "")
    assert (
        template.render((USER,), (), {"enable_thinking": False, "messages": "x", "bos_token": "y"})
        == "False1<s>"
    )


CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get", "arguments": '{"a": "ü"}'}}],
}


def test_arguments_of_earlier_calls_are_an_object_or_text_as_the_template_wants() -> None:
    assert '<tool_call>\n{"name": "get", "arguments": {"a": "ü"}}\n</tool_call>' in render(
        tool_templates.HERMES, USER, CALLED
    )
    assert 'get{"a": "ü"}' in render(tool_templates.TEXT_ARGUMENTS, USER, CALLED)
    broken = {**CALLED, "tool_calls": [{"function": {"name": "get", "arguments": "{"}}]}
    assert '"arguments": "{"}' in render(tool_templates.HERMES, USER, broken)


def test_a_message_that_only_calls_has_no_content_or_an_empty_one_as_the_template_wants() -> None:
    assert render("{{ messages[0].content }}.", CALLED) == "."
    assert render("{% if messages[0].content is none %}none{% endif %}", CALLED) == "none"
    assert (
        render("{{ messages[0].content + '!' }}{% if messages[0].role is none %}{% endif %}", CALLED) == "!"
    )
    assert CALLED["content"] is None


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__ }}{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ self.__init__.__globals__.__builtins__.open('/etc/passwd').read() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages[0].update({'role': 'system'}) }}",
        "{{ messages[0].clear() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{{ range(10 ** 9) | list }}",
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ messages[0]['content'] | no_such_filter }}",
        "{% for message in messages %}",
        "{{ " + "(" * 2000 + ")" * 2000 + " }}",
        "{% for a in messages %}" * 25 + "{% endfor %}" * 25,
        "{{ strftime_now(1) }}",
    ],
)
def test_a_hostile_or_broken_template_costs_an_error(source: str) -> None:
    with pytest.raises(ChatTemplateError, match="the model's chat template"):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set n = 9 %}{{ n ** (n ** n) % 7 }}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ 'x' * (messages | length * 3000000000) }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ 'x'.ljust(10 ** 11) }}",
        "{{ 'x' | center(20000000000) }}",
        "{% set ns = namespace(x='x') %}{% for a in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ lipsum(n=99999) * 9999 }}",
    ],
)
def test_a_template_that_never_ends_or_takes_all_memory_is_stopped(
    source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "TIME_LIMIT", 0.5)
    with pytest.raises(ChatTemplateError, match="the model's chat template"):
        render(source)
    assert render(SMOLLM).startswith("<|im_start|>")


@pytest.mark.parametrize(
    "source",
    ["{{ strftime_now.__globals__ }}", "{{ '{0.__class__}'.format(messages) }}", "{{ ''.__class__ }}"],
)
def test_the_inside_of_python_reads_as_nothing(source: str) -> None:
    assert render(source) == ""


def test_messages_are_not_changed_by_rendering() -> None:
    message = dict(USER)
    render(SMOLLM, message)
    assert message == USER
