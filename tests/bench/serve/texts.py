"""PURE. The texts that the servers are asked: fresh ones for every name, and the same for everyone who uses it.

Every word of `WORDS` is one token of the benchmark's model when a space comes before it, so a text has as many
tokens as words, and tests hold that.
"""

import random

_VOCABULARY = """
river garden window market winter summer bridge letter forest island kitchen doctor engine mountain village
paper station captain silver golden morning evening shadow harbor school teacher student farmer library
museum castle ocean planet rocket signal camera mirror button ticket journey history science music dance
color orange purple yellow circle square number measure weight height speed power energy water stone metal
glass cotton leather bread butter sugar coffee apple lemon cherry pepper rice corn wheat horse cattle rabbit
eagle whale tiger monkey spider insect flower grass tree branch root seed leaf fruit cloud storm thunder
rain snow wind sunshine north south east west road street corner tower church palace prison hospital factory
office store hotel restaurant theater stadium airport train truck bicycle ship boat plane wheel brake clock
watch radio phone computer keyboard screen printer book page chapter story poem novel author editor reader
lawyer judge police soldier general king queen prince knight dragon giant ghost spirit dream sleep memory
thought reason answer question problem solution method system process pattern structure surface border
"""
WORDS = tuple(_VOCABULARY.split())

STORY = "Tell a long story, as long as you can, with these things in it:"
_COUNT = "Count in words, one number on each line, from one to one thousand, starting with: one, two, three,"
_ASKED = "Tell a long story, as long as you can, with everything that the text above says of the"
_NEXT = "Tell a long story, as long as you can, of what follows from it and of what you do next."
_TOOL_TOKENS = 30


def words(name: str, count: int) -> str:
    """`count` words, each after a space: the same for the same name, whatever the process."""
    chosen = random.Random(name).choices(WORDS, k=count)
    return "".join(f" {word}" for word in chosen)


def chat(text: str, system: str | None = None) -> tuple[dict[str, str], ...]:
    """The messages of a chat that has one question, behind a system prompt where there is one."""
    user = {"role": "user", "content": text}
    return (user,) if system is None else ({"role": "system", "content": system}, user)


def story(name: str, things: int) -> str:
    """A question whose answer goes on for long."""
    return STORY + words(name, things)


def counting(name: str) -> str:
    """A question whose answer does not end within a thousand tokens."""
    return f"{_COUNT}{words(name, 4)}."


def about(document: str, name: str) -> str:
    """One of many questions about the same text, which it opens with."""
    return f"{document}\n\n{_ASKED}{words(name, 3)}."


def tools(name: str, tokens: int) -> str:
    """An agent's system prompt: what it is, and a list of tools as text, as long as `tokens` allow."""
    head = (
        "You are an agent. Use the tools below, one at a time, and explain at length what you do and why.\n"
    )
    chooser = random.Random(name)
    names = chooser.sample(WORDS, k=max(1, (tokens - 50) // _TOOL_TOKENS))
    return head + "\n".join(
        f"- {tool}({chooser.choice(WORDS)}):{words(f'{name}/{tool}', 23)}." for tool in names
    )


def result(name: str, count: int) -> str:
    """What a tool answered, as a message of the user's, because the model's template knows no other role."""
    return f"The tool answered:{words(name, count)}. {_NEXT}"
