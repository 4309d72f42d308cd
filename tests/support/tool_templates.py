"""Chat templates that declare tools, each as short as a real one of its family could be."""


def _messages(calls: str = "") -> str:
    return (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        + calls
        + "<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    )


HERMES = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>\n"
    'Answer with <tool_call>{"name": ..., "arguments": ...}</tool_call>\n{% endif %}'
    + _messages(
        "{% for call in m.tool_calls or [] %}<tool_call>\n"
        '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n'
        "</tool_call>{% endfor %}"
    )
)
LLAMA = (
    "{% if not tools is defined %}{% set tools = none %}{% endif %}"
    '{% if tools is not none %}Respond in the format {"name": function name, "parameters": dictionary}.\n'
    "{% for t in tools %}{{ t | tojson(indent=4) }}\n{% endfor %}{% endif %}" + _messages()
)
MISTRAL = "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}" + _messages(
    "{% for call in m.tool_calls or [] %}[TOOL_CALLS][{{ call.function | tojson }}]{% endfor %}"
)
MISTRAL_NAMED = (
    "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}"
    + _messages(
        "{% for call in m.tool_calls or [] %}[TOOL_CALLS]{{ call.function.name }}[ARGS]"
        "{{ call.function.arguments | tojson }}{% endfor %}"
    )
)
GRANITE = (
    "{% if tools and not available_tools %}{% set available_tools = tools %}{% endif %}"
    "{% if available_tools %}Respond only with <|tool_call|> followed by a JSON list of tools used.\n"
    "{{ available_tools | tojson }}{% endif %}" + _messages()
)
TEXT_ARGUMENTS = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}" + _messages(
    "{% for call in m.tool_calls or [] %}{{ call.function.name + call.function.arguments }}{% endfor %}"
)
"""Of a family that takes the arguments of earlier calls as text."""
