"""The form that one answer has to have, ready for the sampler and for the reader of its text. PURE."""

from dataclasses import dataclass

from agent_daemon.worker.tool_calls import ToolParser


class StructureError(Exception):
    """No answer can be given in this form; the message and `param`, the request's field, are for its client."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True)
class Structure:
    """`grammar` is GBNF with the rule `root`. With `triggers` (regular expressions for llama.cpp) it applies from the
    first match on, or never. `markers` are texts of special tokens that `parser` has to see."""

    grammar: str | None = None
    triggers: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    parser: ToolParser | None = None
