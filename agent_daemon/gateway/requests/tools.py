"""The functions that a model may call, and which of them it has to. PURE."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from agent_daemon.gateway.errors import invalid
from agent_daemon.gateway.requests.body import Form, Json, refuse
from agent_daemon.worker_messages import Constraint, Tool

FunctionName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Mode = Literal["none", "auto", "required"]
MOST = 128
"""Functions of one request, as with OpenAI."""


class Function(Form):
    name: FunctionName
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class ChatTool(Form):
    type: Literal["function"]
    function: Function


class FlatTool(Function):
    """A function as `/v1/responses` has it: not wrapped."""

    type: Literal["function"]

    def wrapped(self) -> ChatTool:
        """The same as chats have it, which is what chat templates know."""
        said = self.model_dump(exclude={"type"}, exclude_unset=True)
        return ChatTool(type="function", function=Function(**said))


class Named(Form):
    name: FunctionName


class ChatChoice(Form):
    type: Literal["function"]
    function: Named


class FlatChoice(Named):
    type: Literal["function"]


@dataclass(frozen=True)
class Tools:
    """What a worker is told of them."""

    tools: tuple[Tool, ...] = ()
    choice: Mode = "auto"


def choose(tools: list[ChatTool] | None, choice: Mode | ChatChoice | FlatChoice | None) -> Tools:
    """What of the declared tools may be called. Raises ApiError 400 when the choice names none of them."""
    declared = {tool.function.name: tool for tool in tools or ()}
    if len(declared) != len(tools or ()):
        raise invalid("tools: two functions have the same name", "tools")
    if choice is None or isinstance(choice, str):
        if choice == "required" and not declared:
            raise invalid("tool_choice: a call is required, and there are no tools", "tool_choice")
        allowed, mode = tuple(declared.values()), choice or "auto"
    else:
        name = choice.function.name if isinstance(choice, ChatChoice) else choice.name
        if name not in declared:
            raise invalid(f"tool_choice: none of the tools is named {name!r}", "tool_choice")
        allowed, mode = (declared[name],), "required"
    return Tools(tuple(_tool(each) for each in allowed) if mode != "none" else (), mode)


def not_both(tools: Tools, constraint: Constraint | None, param: str) -> None:
    """Raises ApiError 400 for an answer that would have to be a call and something else."""
    if tools.tools and constraint is not None:
        raise invalid(f"{param}: an answer with tools cannot be held to a format as well", param)


def _tool(declared: ChatTool) -> Tool:
    function = declared.function
    raw: dict[str, Any] = declared.model_dump(exclude_unset=True)
    return Tool(
        name=function.name, schema_=function.parameters or {"type": "object", "properties": {}}, raw=raw
    )


def _function(tool: Any) -> Any:
    if isinstance(tool, dict) and isinstance(tool.get("type"), str) and tool["type"] != "function":
        refuse("tools of another type than function are not there on a device")
    return tool


_Function = BeforeValidator(_function)
ChatTools = Annotated[list[Annotated[ChatTool, _Function]], Field(max_length=MOST)]
FlatTools = Annotated[list[Annotated[FlatTool, _Function]], Field(max_length=MOST)]
