import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.errors import UsageError
from edgectl.selector import parse, parse_label

LABELS = {"role": "laptop", "site": "north", "gpu": "yes"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("all", True),
        (" all ", True),
        ("role=laptop", True),
        ("role=desk", False),
        ("role!=desk", True),
        ("role!=laptop", False),
        ("rack!=b7", True),
        ("gpu", True),
        ("rack", False),
        ("!rack", True),
        ("!gpu", False),
        ("role=laptop,site!=lab,gpu,!rack", True),
        ("role=laptop,site!=north", False),
        (" role=laptop , site=north ", True),
        ("name=desk-3", True),
        ("name=desk-4", False),
        ("name!=desk-3", False),
    ],
)
def test_a_selector_matches_by_labels_and_name(text: str, matches: bool) -> None:
    assert parse(text).matches(LABELS, "desk-3") is matches


def test_a_label_called_name_cannot_stand_for_the_device() -> None:
    assert not parse("name=other").matches({"name": "other"}, "desk-3")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a selector is empty; expected `all` or conditions such as role=laptop,site!=lab"),
        ("role=laptop,", "selector 'role=laptop,', position 13: expected key, !key, key=value or key!=value"),
        (
            "role=laptop,,gpu",
            "selector 'role=laptop,,gpu', position 13: expected key, !key, key=value or key!=value",
        ),
        (
            "role=",
            "selector 'role=', position 5: expected a value (up to 63 of letters, digits, and . _ : -), found '='",
        ),
        (
            "gpu, role laptop",
            "selector 'gpu, role laptop', position 10: expected a comma or the end, found ' laptop'",
        ),
        ("!gpu=yes", "selector '!gpu=yes', position 1: expected !key without a value; write gpu!=yes"),
        (
            "gpu,all",
            "selector 'gpu,all', position 5: `all` stands alone; expected conditions on labels beside others",
        ),
        ("=x", "selector '=x', position 1: expected key, !key, key=value or key!=value, found '=x'"),
    ],
)
def test_a_bad_selector_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.message == message


@given(st.text(max_size=200))
def test_any_text_is_a_selector_or_one_short_line(text: str) -> None:
    try:
        selector = parse(text)
    except UsageError as refusal:
        error = refusal.message
    else:
        error = ""
        assert parse(str(selector)).terms == selector.terms
    assert "\n" not in error
    assert len(error) < 400


def test_labels_share_the_grammar() -> None:
    assert parse_label("role=desk") == ("role", "desk")
    assert parse_label("example.com/site=a:b") == ("example.com/site", "a:b")


@pytest.mark.parametrize(
    "text", ["role", "role=", "=desk", "a b=c", "role=a,b", "name=x", "all=x", "k=" + "x" * 64]
)
def test_a_bad_label_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="label"):
        parse_label(text)
