"""A chat's messages, from OpenAI's many shapes to the one that chat templates expect. PURE."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from agent_daemon.gateway.requests.body import Form, parsed_object, refuse

Role = Literal["system", "developer", "user", "assistant", "tool"]


def _text_only(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and kind not in _TEXT_TYPES:
        refuse("this device reads text only: a part of another type (image, audio, file) cannot be answered")
    return part


_TEXT_TYPES = ("text", "input_text", "output_text", "refusal")


class TextPart(Form):
    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    def plain(self) -> str:
        return (self.refusal if self.type == "refusal" else self.text) or ""


Part = Annotated[TextPart, BeforeValidator(_text_only)]
Content = str | list[Part]


class CalledFunction(Form):
    name: Annotated[str, Field(max_length=256)]
    arguments: str = "{}"


class CalledTool(Form):
    """A call that the assistant made earlier."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Form):
    role: Role
    content: Content | None = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None

    def plain(self) -> dict[str, Any]:
        """Content as one text and arguments as objects: what templates expect. They know no developers."""
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": joined(self.content),
        }
        for field in ("name", "reasoning_content", "tool_call_id"):
            if (value := getattr(self, field)) is not None:
                message[field] = value
        if self.tool_calls:
            message["tool_calls"] = [
                called(call.id, call.function.name, call.function.arguments) for call in self.tool_calls
            ]
        return message


def joined(content: Content | None) -> str:
    """The text of a content, whose parts follow one another without a gap."""
    if isinstance(content, list):
        return "".join(part.plain() for part in content)
    return content or ""


def called(identity: str | None, name: str, arguments: str) -> dict[str, Any]:
    """A call as templates render it: arguments that are a JSON object as that, others as the text they are."""
    parsed = parsed_object(arguments)
    call: dict[str, Any] = {
        "type": "function",
        "function": {"name": name, "arguments": arguments if parsed is None else parsed},
    }
    return call if identity is None else {"id": identity, **call}
