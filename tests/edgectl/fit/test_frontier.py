"""The frontier, and its picture: every model at every context is on it, and it says what the table says."""

import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.need import layers, need
from agent_daemon.contract.serve_options import ServeOptions
from edgectl import catalog
from edgectl.errors import EdgectlError, UsageError
from edgectl.fit.fit_grid import Asked
from edgectl.fit.fitting import FitTable, fit_sources, stated_memory
from edgectl.fit.frontier import Frontier, frontier_of
from edgectl.fit.frontier_file import draw, ready
from edgectl.fit.frontier_picture import apart, picture
from edgectl.fit.placement import Candidate, DeviceMemory, ModelRequest, Placed, place
from edgectl.fit.quality import KLD
from tests.support.gguf_files import SHAPES, Q, write

GIB = 2**30
TYPES = {
    "Q8_0": (Q.Q8_0, 7),
    "Q6_K": (Q.Q6_K, 18),
    "Q4_K_M": (Q.Q4_K, 15),
    "Q4_K_S": (Q.Q4_K, 14),
    "Q2_K": (Q.Q2_K, 10),
}
CONTEXTS = (2048, 8192, 32_768, 131_072)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, (kind, number) in TYPES.items():
        shape = replace(SHAPES["llama-8b"], vocab=1024, weights=kind, down=kind, file_type=number)
        write(folder / f"8b-{name}.gguf", shape, full_size=False)
    write(folder / "4b-Q8_0.gguf", replace(SHAPES["qwen3-4b"], vocab=1024, weights=Q.Q8_0, down=Q.Q8_0, file_type=7),
          full_size=False)  # fmt: skip
    return folder


def table_of(folder: Path, memory: DeviceMemory) -> FitTable:
    return fit_sources([f"file:{folder}"], Asked(), memory, CONTEXTS, base=Path(), progress=catalog.silent)


def frontier(folder: Path, memory: DeviceMemory) -> Frontier:
    return frontier_of(table_of(folder, memory), Asked(), "desk")


def test_every_model_is_there_at_every_context_that_it_can_have(folder: Path) -> None:
    found = frontier(folder, stated_memory([8 * GIB], 16 * GIB))
    assert [(point.model, point.context) for point in found.points] == [
        (name, context)
        for name in ("4b-Q8_0", *sorted(f"8b-{kind}" for kind in TYPES))
        for context in CONTEXTS
        if context <= (40_960 if name == "4b-Q8_0" else 131_072)
    ]
    assert {point.model: point.divergence for point in found.points} == {
        "4b-Q8_0": KLD["Q8_0"],
        **{f"8b-{kind}": KLD[kind] for kind in TYPES},
    }
    assert found.models[-1] == "8b-Q2_K"
    assert {point.size for point in found.points if point.model.startswith("8b")} == {0}
    assert {point.size for point in found.points if point.model.startswith("4b")} == {1}


def test_what_is_needed_is_the_whole_model_on_the_gpu_or_in_ram(folder: Path) -> None:
    memory = stated_memory([8 * GIB], 16 * GIB)
    table = table_of(folder, memory)
    by_name = {pinned.artifact.files[0].name.removesuffix(".gguf"): pinned.facts for pinned in table.models}
    for point in frontier_of(table, Asked(), "desk").points:
        facts = by_name[point.model]
        assert point.needed == need(facts, ServeOptions(point.context), (layers(facts),)).gpus[0].total
    for point in frontier(folder, stated_memory([], 16 * GIB)).points:
        assert point.needed == need(by_name[point.model], ServeOptions(point.context)).host.total
    assert [(each.label, each.size) for each in frontier(folder, memory).budgets] == [
        ("free on the GPU", 8 * GIB - 256 * 2**20),
        ("free RAM", 16 * GIB - 16 * GIB // 20),
    ]


@pytest.mark.parametrize("memory", [([], 6), ([4], 8), ([8], 16), ([6, 5], 4), ([24], 32), ([2], 2)], ids=str)
def test_the_best_is_what_placement_chooses(folder: Path, memory: tuple[list[int], int]) -> None:
    device = stated_memory([size * GIB for size in memory[0]], memory[1] * GIB)
    table = table_of(folder, device)
    candidates = [
        Candidate(pinned.artifact, pinned.facts, number) for number, pinned in enumerate(table.models)
    ]
    best = {point.context: point.model for point in frontier_of(table, Asked(), "desk").best}
    for context in CONTEXTS:
        request = ModelRequest("m", context_want=context, context_min=context, gpu_layers="partial")
        placed = place(request, candidates, device)
        expected = placed.candidate.label.removesuffix(".gguf") if isinstance(placed, Placed) else None
        assert best.get(context) == expected


# -- the picture -----------------------------------------------------------------------------------------


def texts(svg: bytes) -> list[str]:
    tree = ElementTree.fromstring(svg)
    return ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]


def places(svg: bytes) -> dict[str, tuple[float, float]]:
    """Where the points are, from the left and from the top, by their ids."""
    found = {}
    for group in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        if group.get("id", "").startswith(("all ", "best ")):
            (use,) = group.iter("{http://www.w3.org/2000/svg}use")
            found[group.get("id", "")] = (float(use.get("x", "")), float(use.get("y", "")))
    return found


def test_the_svg_has_all_labels(folder: Path) -> None:
    found = frontier(folder, stated_memory([8 * GIB], 16 * GIB))
    svg = picture(found, "svg")
    words = texts(svg)
    for model in found.models:
        assert words.count(model) == 1
    assert "What fits desk: quality against context and memory" in words
    assert {"free on the GPU: 7.8 GiB", "free RAM: 15.2 GiB", "the best that fits at a context"} <= set(words)
    assert {"2k", "8k", "32k", "128k"} <= set(words)
    assert "expected KL divergence (lower is better)" in words


def test_the_svg_has_every_point_where_it_belongs(folder: Path) -> None:
    found = frontier(folder, stated_memory([8 * GIB], 16 * GIB))
    drawn = places(picture(found, "svg"))
    names = {f"all {point.model} {point.context}" for point in found.points}
    assert drawn.keys() == names | {f"best {point.model} {point.context}" for point in found.best}
    assert len(names) == 5 * 4 + 3
    first, *others = sorted(found.points, key=lambda point: point.needed)
    last = others[-1]
    left, right = (drawn[f"all {point.model} {point.context}"][0] for point in (first, last))
    for point in found.points:
        x, _ = drawn[f"all {point.model} {point.context}"]
        share = (point.needed - first.needed) / (last.needed - first.needed)
        assert x == pytest.approx(left + share * (right - left), abs=0.01)
    # the best quality is the lowest on the page
    heights = [drawn[f"all {model} 2048"][1] for model in found.models if model != "4b-Q8_0"]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 5
    for point in found.best:
        assert (
            drawn[f"best {point.model} {point.context}"][1] == drawn[f"all {point.model} {point.context}"][1]
        )


def test_names_are_drawn_as_they_are(folder: Path) -> None:
    found = frontier(folder, stated_memory([], 16 * GIB))
    strange = replace(found.points[0], model="a$b_{c}$d & <e>")
    words = texts(picture(replace(found, device="$x$", points=(strange, *found.points[4:])), "svg"))
    assert "a$b_{c}$d & <e>" in words
    assert "What fits $x$: quality against context and memory" in words
    assert {"0.1", "0.01"} <= set(words)


def test_where_nothing_fits_it_says_so(folder: Path) -> None:
    words = texts(picture(frontier(folder, stated_memory([], 5 * GIB)), "svg"))
    assert words.count("nothing fits") == 2
    assert "does not fit" in words


def test_the_same_frontier_is_the_same_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = frontier(folder, stated_memory([8 * GIB], 16 * GIB))
    first = picture(found, "svg")
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: black\n")
    monkeypatch.setenv("MATPLOTLIBRC", str(tmp_path / "matplotlibrc"))
    assert picture(found, "svg") == first
    assert b"<dc:date>" not in first
    assert str(tmp_path).encode() not in first


def test_a_png_is_one_of_a_size_to_read(folder: Path) -> None:
    png = picture(frontier(folder, stated_memory([8 * GIB], 16 * GIB)), "png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width == 1656
    assert height >= 700


def test_a_picture_is_written_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    found = frontier(folder, stated_memory([8 * GIB], 16 * GIB))
    path = tmp_path / "fit.SVG"
    path.write_text("old")
    draw(found, ready(path))
    assert texts(path.read_bytes())
    assert [each.name for each in tmp_path.iterdir()] == ["fit.SVG"]
    path.unlink()
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(UsageError, match=r"fit\.SVG: cannot be written"):
        draw(found, path)
    assert [each.name for each in tmp_path.iterdir()] == ["fit.SVG"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fit.pdf", r"fit\.pdf: expected a file that ends in \.svg or \.png"),
        ("fit", r"fit: expected a file that ends in"),
        ("no/fit.svg", "there is no folder"),
        ("folder.svg", "is a folder, expected a file to write"),
    ],
)
def test_where_it_cannot_be_drawn_is_said_before_anything_else(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(UsageError, match=said):
        ready(tmp_path / name)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EdgectlError, match="not installed here") as caught:
        ready(tmp_path / "fit.svg")
    assert caught.value.hint == "install it with: pip install 'edgectl[pictures]'"


def test_there_has_to_be_something_to_draw(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is nothing to draw"):
        draw(Frontier("desk", (), (), CONTEXTS, False), tmp_path / "fit.svg")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).map(sorted), st.floats(0.001, 0.1))
def test_names_never_overlap_and_stay_in_order(levels: list[float], gap: float) -> None:
    moved = apart(levels, gap)
    assert len(moved) == len(levels)
    assert all(later - earlier >= gap - 1e-9 for earlier, later in pairwise(moved))
    if all(later - earlier >= gap for earlier, later in pairwise(levels)):
        assert moved == pytest.approx(levels)
