import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgectl import yaml_source
from edgectl.errors import ManifestError


def read(text: str) -> object:
    return yaml_source.read(text, "m.yaml").value


def refusal(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        yaml_source.read(text, "m.yaml")
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("010", 10),
        ("0x10", 16),
        ("0o10", 8),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("true", True),
        ("~", None),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        (".inf", ".inf"),
        ("1e999", "1e999"),
        ("9" * 400, "9" * 400),
    ],
)
def test_plain_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = read(f"- {text}")
    assert found == [value]
    assert isinstance(found, list)
    assert type(found[0]) is type(value)


def test_every_value_knows_its_line() -> None:
    document = yaml_source.read("\n# a comment\na:\n  b:\n    - x\n    - y: 1\n", "m.yaml")
    assert document.value == {"a": {"b": ["x", {"y": 1}]}}
    assert [document.line_of(path) for path in ((), ("a",), ("a", "b"), ("a", "b", 1, "y"))] == [3, 3, 4, 6]
    assert document.line_of(("a", "b", "missing")) == 4


def test_anchors_and_merges_repeat_what_they_name() -> None:
    assert read("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n") == {
        "base": {"x": 1, "y": 2},
        "use": {"x": 1, "y": 3},
    }
    assert read("a: &a {x: 1}\nb: &b {x: 2, z: 4}\nc: {<<: [*a, *b]}\n") == {
        "a": {"x": 1},
        "b": {"x": 2, "z": 4},
        "c": {"x": 1, "z": 4},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.yaml:1: expected a manifest that starts with `version: 1`, found an empty file"),
        ("# nothing\n", "m.yaml:1: expected a manifest, found only comments"),
        ("a: 1\nb: 2\na: 3\n", "m.yaml:3: the key 'a' is here and on line 1; keep one"),
        ("a:\n\tb: 1\n", "m.yaml:2: expected spaces for indentation, found a tab"),
        ("a: 1\n---\nb: 2\n", "m.yaml:2: expected one YAML document, found a second one"),
        (
            "a: !!python/object:os.system x\n",
            "m.yaml:1: expected a plain value, found the tag tag:yaml.org,2002:python/object:os.system",
        ),
        ("a: *b\n", "m.yaml:1: the alias *b refers to no anchor before it"),
        ("a: &a\n  b: *a\n", "m.yaml:2: the alias *a refers to itself"),
        ("? [a, b]\n: 1\n", "m.yaml:1: expected a name as key, found a list"),
        ("a: {<<: 1}\n", "m.yaml:1: expected a mapping to merge after <<, found something else"),
        ("a: x\x00y\n", "m.yaml:1: expected text, found the control character U+0000"),
        ("a: 1\nb: \x1b[31m\n", "m.yaml:2: expected text, found the control character U+001B"),
        ("[" * 100_000, "m.yaml:1: expected at most 32 levels of nesting, found more"),
        ("- " * 50_000, "m.yaml:1: expected at most 32 levels of nesting, found more"),
        ("[" + "1," * 30_000 + "]", "m.yaml:1: expected at most 20000 values, aliases included, found more"),
        ("a: " + "x" * yaml_source.MAX_BYTES, "m.yaml: expected a manifest of at most 1 MiB, found more"),
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_bounded_document_is_refused_with_its_line(text: str, message: str) -> None:
    assert refusal(text) == message


def test_broken_syntax_names_the_line() -> None:
    assert refusal("a: 1\nb: [1, 2\nc: 3\n").startswith("m.yaml:3: expected YAML, but ")


def test_an_alias_bomb_costs_an_error() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 25)]
    assert (
        refusal("\n".join(levels)) == "m.yaml:5: expected at most 20000 values, aliases included, found more"
    )


def test_aliases_cannot_nest_past_the_limit() -> None:
    levels = ["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60))]
    assert refusal("\n".join(levels)).endswith("expected at most 32 levels of nesting, found more")


def test_bytes_that_are_no_text_name_line_and_byte() -> None:
    with pytest.raises(ManifestError) as caught:
        yaml_source.decode(b"a: 1\nb: \xff\n", "m.yaml")
    assert caught.value.message == "m.yaml:2: expected UTF-8 text, found the byte 0xff"
    with pytest.raises(ManifestError, match="at most 1 MiB"):
        yaml_source.decode(bytes(yaml_source.MAX_BYTES + 1), "m.yaml")


PIECES = [
    "a: ",
    "- ",
    "\n",
    "  ",
    "[",
    "]",
    "{",
    "}",
    "&x ",
    "*x",
    "<<: ",
    "? ",
    ": ",
    "'",
    '"',
    "|",
    "!t ",
    "---",
    "#",
    "\t",
    ",",
]


@settings(deadline=None)
@given(
    st.one_of(st.text(max_size=300), st.lists(st.sampled_from([*PIECES, "1", "v"]), max_size=80).map("".join))
)
@example("\ufeff")
@example("\u2028")
@example("a: |\n\n\n  \t")
def test_any_text_is_a_document_or_one_error(text: str) -> None:
    refused, lines = "m.yaml", [1]
    try:
        lines = list(yaml_source.read(text, "m.yaml").lines.values())
    except ManifestError as error:
        refused = error.message
    assert refused.startswith("m.yaml")
    assert "\n" not in refused
    assert min(lines) >= 1


def finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


@given(st.from_regex(r"[-+0-9.eExo]{1,50}", fullmatch=True))
def test_numbers_are_finite(text: str) -> None:
    try:
        value = read(f"- {text}")
    except ManifestError:
        return
    assert isinstance(value, list)
    assert finite(value[0])
