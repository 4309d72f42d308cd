"""How models write calls of tools, and reading them while they are being written. PURE."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

PYTHON_TAG = "<|python_tag|>"


@dataclass(frozen=True)
class ToolFormat:
    """`opening` and `closing` stand around a call; without an opening, an answer that begins as a call is one.
    `listed` calls are the items of one JSON list; `named` ones are the bare name, `[ARGS]` and the arguments."""

    opening: str = "<tool_call>"
    closing: str = "</tool_call>"
    listed: bool = False
    named: bool = False
    arguments: Literal["arguments", "parameters"] = "arguments"

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts of special tokens that are a part of calls."""
        texts = (self.opening or PYTHON_TAG, self.closing, "[ARGS]" if self.named else "")
        return tuple(text for text in texts if text)


def tool_format(template: str) -> ToolFormat:
    """The format that a chat template's text shows to its model; where it shows none known here, that of Hermes,
    which most models have seen."""
    for opening in ("<|tool_call|>", "[TOOL_CALLS]"):
        if opening in template:
            named = "[ARGS]" in template
            return ToolFormat(opening, "", listed=not named, named=named)
    if "<tool_call>" not in template and '"parameters":' in template and '{"name":' in template:
        return ToolFormat("", "", arguments="parameters")
    return ToolFormat()


@dataclass(frozen=True)
class CallPart:
    """More of call `index` (from 0): its name once, then pieces of the JSON text of its arguments."""

    index: int
    name: str | None
    arguments: str


_HEAD = re.compile(
    r'\s*(\[?)\s*\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)',
    re.DOTALL,
)
_NAMED_HEAD = re.compile(r"\s*()([^\s\[{]+)(?:\[CALL_ID\]\w*)?\[ARGS\]\s*(?=\{)")
_OPEN_NAME = re.compile(r"\s*[^\s\[{]*(?:\[[^\[{]*){0,2}\s*\Z")
_TAIL = re.compile(r"\s*(?:,[^{}\[\]]*)?(\}|\Z)")
_LONGEST_HEAD = 4096
"""Characters in which a call has to show itself as one."""


class ToolParser:
    """Tells calls from text in one answer. Only tools of these `names` can be called; what turns out not to be a call
    is text, so that nothing is lost. Text is held back only while it may be the beginning of a call."""

    def __init__(self, form: ToolFormat, names: Collection[str]) -> None:
        self._form = form
        self._names = frozenset(names)
        self._step: Callable[[bool], bool] = self._text
        self._out: list[str | CallPart] = []
        self._held = ""
        self._passed = ""
        """What was read as the opening of a call that has not shown itself yet."""
        self._calls = 0
        self._listed = False
        self._fresh = True
        """Only white space has come yet, so that a call without an opening may."""
        self._between = False
        """Only white space has come since the last call."""
        self._extent = _Extent()

    @property
    def called(self) -> bool:
        """Whether there was a call."""
        return self._calls > 0

    def push(self, text: str) -> list[str | CallPart]:
        """What became clear with more of the answer."""
        return self._read(text, final=False)

    def finish(self) -> list[str | CallPart]:
        """What is left at the answer's end."""
        return self._read("", final=True)

    def _read(self, text: str, final: bool) -> list[str | CallPart]:
        self._held += text
        while self._step(final):
            pass
        out, self._out = self._out, []
        return out

    def _say(self, text: str) -> None:
        if text and self._out and isinstance(self._out[-1], str):
            self._out[-1] += text
        elif text:
            self._out.append(text)
        self._fresh = self._fresh and not text.strip()
        self._between = self._between and not text

    # Each step returns whether it went on; if not, it waits for more.

    def _text(self, final: bool) -> bool:
        if self._between:
            self._held = self._held.lstrip()
        at, size, kept = self._opening()
        if size is not None:
            rest = self._say_up_to(at)
            self._passed, self._held = rest[:size], rest[size:]
            self._step, self._listed = self._head, False
            return True
        self._held = self._say_up_to(len(self._held) - (0 if final else kept))
        return False

    def _opening(self) -> tuple[int, int | None, int]:
        """Where a call opens and how long its opening is, or how much at the end may still become one."""
        if opening := self._form.opening:
            at = self._held.find(opening)
            ends = (size for size in range(len(opening) - 1, 0, -1) if self._held.endswith(opening[:size]))
            return at, len(opening) if at >= 0 else None, next(ends, 0)
        rest = self._held.lstrip() if self._fresh else "-"
        space = len(self._held) - len(rest)
        for start, size in ((PYTHON_TAG, len(PYTHON_TAG)), ("{", 0)):
            if rest.startswith(start):
                return 0, space + size, 0
        return 0, None, len(self._held) if PYTHON_TAG.startswith(rest) else 0

    def _say_up_to(self, at: int) -> str:
        self._say(self._held[:at])
        return self._held[at:]

    def _head(self, final: bool) -> bool:
        head = (_NAMED_HEAD if self._form.named else _HEAD).match(self._held)
        if head and (name := _unquoted(head.group(2))) in self._names:
            self._listed = self._listed or head.group(1) == "["
            self._held = self._held[head.end() :]
            self._call(name)
            self._step = self._arguments
        elif not head and (whole := self._whole()) is not None:
            size, name, arguments = whole
            self._held = self._held[size:]
            self._call(name)
            self._out.append(CallPart(self._calls - 1, None, arguments))
            self._step = self._close
        elif head or final or not self._may_be_head():
            self._say(self._passed)
            self._fresh, self._step = False, self._text
        else:
            return False
        return True

    def _call(self, name: str) -> None:
        self._out.append(CallPart(self._calls, name, ""))
        self._calls += 1
        self._between = True
        self._extent = _Extent()

    def _body(self) -> str:
        """The first object of what is held, and what comes behind it."""
        text = self._held.lstrip()
        return text[1:].lstrip() if text.startswith("[") else text

    def _may_be_head(self) -> bool:
        if len(self._held) > _LONGEST_HEAD:
            return False
        if self._form.named:
            return bool(_OPEN_NAME.match(self._held))
        body = self._body()
        return not body or (self._looks_like_call(body) and _Extent().end(body) is None)

    def _looks_like_call(self, body: str) -> bool:
        if not self._form.opening and not self._passed.strip():
            # Without any marker the answer may as well be JSON for its reader.
            return '{"name":'.startswith("".join(body[:40].split())[:8])
        return body.startswith("{")

    def _whole(self) -> tuple[int, str, str] | None:
        """A call that is complete but does not come as it should: its length, name and arguments."""
        body = self._body()
        end = _Extent().end(body) if self._looks_like_call(body) and len(body) <= _LONGEST_HEAD else None
        if end is None or self._form.named:
            return None
        try:
            call = json.loads(body[:end])
        except (ValueError, RecursionError):
            return None
        arguments = call.get("arguments", call.get("parameters", {}))
        if call.get("name") not in self._names or not isinstance(arguments, dict):
            return None
        self._listed = self._listed or self._held.lstrip().startswith("[")
        return len(self._held) - len(body) + end, call["name"], json.dumps(arguments, ensure_ascii=False)

    def _arguments(self, _final: bool) -> bool:
        end = self._extent.end(self._held)
        piece = self._held[:end]
        if piece:
            self._out.append(CallPart(self._calls - 1, None, piece))
        self._held = self._held[len(piece) :]
        if end is not None:
            self._step = self._text if self._form.named else self._tail
        return end is not None

    def _tail(self, final: bool) -> bool:
        found = _TAIL.match(self._held)
        if found and not found.group(1) and not final:
            return False
        self._step = self._close if found else self._text
        self._held = self._held[found.end() :] if found else self._held
        return True

    def _close(self, final: bool) -> bool:
        """Behind one call: another one of the list, the list's end, a closing."""
        rest, closing = self._held.lstrip(), self._form.closing
        if self._listed:
            if not rest and not final:
                return False
            self._listed = False
            if rest[:1] in (",", "]"):
                self._held = rest[1:]
            if rest.startswith(","):
                self._step, self._listed, self._passed = self._head, True, ","
            return True
        if rest != closing and closing.startswith(rest) and not final:
            return False
        self._held = rest.removeprefix(closing) if not final or not closing.startswith(rest) else ""
        self._step = self._text
        return True


class _Extent:
    """Finds the end of one JSON object that arrives in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escaped = False

    def end(self, text: str) -> int | None:
        """Characters up to the object's end, or None while it goes on."""
        for at, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped, self._quoted = char == "\\", char != '"'
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return at + 1
        return None


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return ""
