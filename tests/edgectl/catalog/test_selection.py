import pytest

from edgectl.catalog.selection import ListedFile, part_names, select
from edgectl.errors import CatalogError

NAMES = (
    "b-Q8_0.gguf",
    "a-Q4_K_M.gguf",
    "README.md",
    "mmproj-model-f16.gguf",
    "gemma.mmproj-Q8_0.gguf",
    "a.imatrix.gguf",
    "ggml-vocab-llama-bpe.gguf",
    "big/c-00002-of-00002.gguf",
    "big/c-00001-of-00002.gguf",
)
FILES = [ListedFile(name, 1) for name in NAMES]


def chosen(wanted: str | None) -> list[list[str]]:
    return [[file.name for file in group.files] for group in select(FILES, wanted, "here")]


def test_all_models_in_order_and_nothing_that_is_none() -> None:
    assert chosen(None) == [
        ["a-Q4_K_M.gguf"],
        ["b-Q8_0.gguf"],
        ["big/c-00001-of-00002.gguf", "big/c-00002-of-00002.gguf"],
    ]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ("b-Q8_0.gguf", [["b-Q8_0.gguf"]]),
        ("*Q8_0*", [["b-Q8_0.gguf"]]),
        ("[ab]-*", [["a-Q4_K_M.gguf"], ["b-Q8_0.gguf"]]),
        ("big/*", [["big/c-00001-of-00002.gguf", "big/c-00002-of-00002.gguf"]]),
        ("big/c-00002-of-00002.gguf", [["big/c-00001-of-00002.gguf", "big/c-00002-of-00002.gguf"]]),
        ("mmproj-model-f16.gguf", [["mmproj-model-f16.gguf"]]),
    ],
)
def test_a_file_or_a_glob(wanted: str, names: list[list[str]]) -> None:
    assert chosen(wanted) == names


def test_nothing_that_matches_names_what_is_there() -> None:
    with pytest.raises(CatalogError) as caught:
        select([ListedFile(f"m{number}.gguf", 1) for number in range(10)], "x.gguf", "here")
    assert caught.value.message == "here has no file x.gguf"
    assert caught.value.hint == (
        "there are: m0.gguf, m1.gguf, m2.gguf, m3.gguf, m4.gguf, m5.gguf, m6.gguf, m7.gguf and 2 more"
    )
    with pytest.raises(CatalogError) as caught:
        select([ListedFile("a.bin", 1)], None, "here")
    assert (caught.value.message, caught.value.hint) == ("here has no GGUF model", None)


def test_a_missing_part_is_named() -> None:
    with pytest.raises(CatalogError) as caught:
        select([ListedFile("c-00003-of-00003.gguf", 1)], None, "here")
    assert caught.value.message == "here lacks 2 of 3 parts of a split model: c-00001-of-00003.gguf"


def test_part_names() -> None:
    assert part_names("a.gguf") == ("a.gguf",)
    assert part_names("q/a-00002-of-00003.gguf") == tuple(f"q/a-0000{n}-of-00003.gguf" for n in (1, 2, 3))


@pytest.mark.parametrize("name", ["a-00000-of-00002.gguf", "a-00003-of-00002.gguf", "a-00001-of-99999.gguf"])
def test_numbers_of_parts_that_make_no_sense(name: str) -> None:
    with pytest.raises(CatalogError, match="expected a part from 1 to its count"):
        part_names(name)
