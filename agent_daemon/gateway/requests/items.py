"""The items of a response's input, and the chat that they stand for. PURE."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field
from pydantic import Tag as Kind

from agent_daemon.gateway.requests.body import Form, refuse
from agent_daemon.gateway.requests.messages import Content, called, joined


class MessageItem(Form):
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Content


class CallItem(Form):
    """A call that the model made earlier."""

    type: Literal["function_call"]
    call_id: str
    name: Annotated[str, Field(max_length=256)]
    arguments: str


class OutputItem(Form):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content


class ReasoningItem(Form):
    """What another model thought: of no use to this one."""

    type: Literal["reasoning"]


_KINDS = ("message", "function_call", "function_call_output", "reasoning")


def _known(item: Any) -> Any:
    kind = item.get("type", "message") if isinstance(item, dict) else "message"
    if isinstance(kind, str) and kind not in _KINDS:
        refuse(
            "items of another type than message, function_call and function_call_output cannot be answered"
        )
    return item


def _kind(item: Any) -> str:
    kind = item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", "message")
    return kind if kind in _KINDS else "message"


Item = Annotated[
    Annotated[MessageItem, Kind("message")]
    | Annotated[CallItem, Kind("function_call")]
    | Annotated[OutputItem, Kind("function_call_output")]
    | Annotated[ReasoningItem, Kind("reasoning")],
    Discriminator(_kind),
    BeforeValidator(_known),
]


def conversation(given: str | list[Item]) -> tuple[dict[str, Any], ...]:
    """The messages that an input stands for. Calls that follow one another, or a message of the assistant, are one
    message of its: so the templates have it."""
    if isinstance(given, str):
        return ({"role": "user", "content": given},)
    messages: list[dict[str, Any]] = []
    for item in given:
        match item:
            case MessageItem():
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": joined(item.content)})
            case CallItem():
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                call = called(item.call_id, item.name, item.arguments)
                messages[-1].setdefault("tool_calls", []).append(call)
            case OutputItem():
                messages.append(
                    {"role": "tool", "content": joined(item.output), "tool_call_id": item.call_id}
                )
    return tuple(messages)
