"""The frontier as a picture, SVG or PNG. The same frontier gives the same bytes.

matplotlib is an extra (`pictures`) and is imported when something is drawn, never before.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from edgectl.fit.frontier import Frontier, Point
from edgectl.fit.ways import Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_DIVERGENCE = 1e-4
"""Where a file without any loss is drawn: a logarithmic axis has no zero."""
_GIB = 1024**3
_DPI = 144
_MARKERS: dict[Stage, tuple[str, str]] = {
    "gpu": ("o", "fits on the GPU"),
    "gpus": ("D", "fits over several GPUs"),
    "split": ("^", "fits, in part in RAM"),
    "ram": ("s", "fits in RAM"),
}
_SIZES = ("#1f4e79", "#b45309", "#6d28d9", "#0f766e", "#9d174d")
"""A colour for each size of model, the largest first; further sizes take the last."""
_BEST, _BUDGETS, _FAINT = "black", ("#dc2626", "#16a34a"), "#9ca3af"
_LONGEST_NAME = 44
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "edgectl",
    "text.parse_math": False,  # a name may hold dollars
    "svg.fonttype": "none",  # letters stay letters: they can be searched, and read by whoever does not see them
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def picture(frontier: Frontier, form: str) -> bytes:
    """The picture as `svg` or `png`."""
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with rc_context():
        rcdefaults()  # no setting of a person's own, or the same frontier would not give the same bytes
        rcParams.update(_STYLE)
        height = max(5.2, 2.6 + 0.22 * len(frontier.models))
        figure = Figure(figsize=(11.5, height), facecolor="white")
        FigureCanvasAgg(figure)
        _compose(figure, frontier)
        figure.savefig(buffer, format=form, dpi=_DPI, metadata={"Date": None} if form == "svg" else {})
    return buffer.getvalue()


def _compose(figure: "Figure", frontier: Frontier) -> None:
    by_context, by_memory = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.25))
    longest = max(len(_short(model)) for model in frontier.models)
    inches = figure.get_size_inches()
    figure.subplots_adjust(
        left=0.07,
        right=0.955 - 0.0058 * longest,
        top=1 - 0.72 / inches[1],
        bottom=1.5 / inches[1],
        wspace=0.06,
    )
    figure.suptitle(
        f"What fits {frontier.device}: quality against context and memory", x=0.07, ha="left", fontsize=12
    )
    low, high = _span([_drawn(point.divergence) for point in frontier.points])
    by_context.set_yscale("log")
    by_context.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    by_context.tick_params(axis="y", which="minor", labelleft=False)
    by_context.set_ylim(low, high)
    by_context.set_ylabel("expected KL divergence (lower is better)")
    for model in frontier.models:
        level = next(_drawn(point.divergence) for point in frontier.points if point.model == model)
        for axes in (by_context, by_memory):
            axes.axhline(level, color=_FAINT, linewidth=0.5, zorder=0)
    _best_by_context(by_context, frontier)
    _all_by_memory(by_memory, frontier)
    _name_models(by_memory, frontier, inches[1])
    _legend(figure, frontier)
    figure.text(
        0.07,
        0.018,
        "The divergence is a prior from Llama 3 8B in the same quantization, not a measurement of these models, "
        "and says nothing across sizes.",
        fontsize=7.5,
        color="#4b5563",
    )


def _best_by_context(axes: "Axes", frontier: Frontier) -> None:
    axes.set_title("the best that fits, by context", fontsize=9.5, loc="left")
    _context_axis(axes, frontier.contexts)
    best = frontier.best
    axes.plot(
        [point.context for point in best],
        [_drawn(point.divergence) for point in best],
        color=_BEST,
        linewidth=1.0,
        zorder=2,
    )
    for point in best:
        _mark(axes, point.context, point, "best")
    without = [context for context in frontier.contexts if context not in {point.context for point in best}]
    for context in without:
        axes.text(
            context, 0.03, "nothing fits", transform=axes.get_xaxis_transform(), rotation=90, ha="center",
            va="bottom", color="#6b7280", fontsize=8,
        )  # fmt: skip


def _all_by_memory(axes: "Axes", frontier: Frontier) -> None:
    axes.set_title("all of them, by the memory that they need", fontsize=9.5, loc="left")
    place = "of the GPU, all layers on it" if frontier.on_gpu else "of RAM"
    axes.set_xlabel(f"GiB needed {place}; from left to right: {_contexts(frontier.contexts)} tokens")
    axes.tick_params(axis="y", left=False)
    for point in frontier.points:
        _mark(axes, point.needed / _GIB, point, "all")
    for budget, color in zip(frontier.budgets, _BUDGETS, strict=False):
        axes.axvline(budget.size / _GIB, color=color, linewidth=1.4, linestyle="--", zorder=1)
    most = max(point.needed for point in frontier.points) / _GIB
    shown = [budget.size / _GIB for budget in frontier.budgets if budget.size / _GIB <= 4 * most]
    axes.set_xlim(0, 1.06 * max([most, *shown]))


def _mark(axes: "Axes", x: float, point: Point, panel: str) -> None:
    color = _color(point)
    (mark,) = axes.plot([x], [_drawn(point.divergence)], color=color, linestyle="none")
    # in an SVG this is the element's id, by which a program finds the point
    mark.set_gid(f"{panel} {point.model} {point.context}")
    if point.stage is None:
        mark.set(marker="x", markersize=5, alpha=0.5, zorder=3)
        return
    mark.set(
        marker=_MARKERS[point.stage][0],
        markersize=9 if point.best else 6,
        markerfacecolor=color,
        markeredgecolor=_BEST if point.best else "white",
        markeredgewidth=1.6 if point.best else 0.6,
        zorder=4 if point.best else 3,
    )


def _color(point: Point) -> str:
    return _SIZES[min(point.size, len(_SIZES) - 1)]


def _name_models(axes: "Axes", frontier: Frontier, height: float) -> None:
    """Each model's name beside its line, moved apart where lines are close, and joined to it."""
    known = {point.model: point for point in frontier.points}
    to_share = axes.transAxes.inverted()
    shares = [
        float(to_share.transform(axes.transData.transform((0, _drawn(known[name].divergence))))[1])
        for name in frontier.models
    ]
    gap = 0.17 / (axes.get_position().height * height)
    for name, share, place in zip(frontier.models, shares, apart(shares, gap), strict=True):
        axes.plot(
            [1.0, 1.035],
            [share, place],
            transform=axes.transAxes,
            color=_FAINT,
            linewidth=0.6,
            clip_on=False,
        )
        axes.text(
            1.045,
            place,
            _short(name),
            transform=axes.transAxes,
            fontsize=8,
            va="center",
            color=_color(known[name]),
        )


def _short(name: str) -> str:
    if len(name) <= _LONGEST_NAME:
        return name
    half = _LONGEST_NAME // 2
    return f"{name[:half]}…{name[-half + 1 :]}"


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Rising places moved as little as it takes to be `gap` apart, around where they were."""
    groups: list[tuple[float, int]] = []
    for place in places:
        middle, count = place, 1
        # a group is as wide as its members need; two that touch become one around their common middle
        while groups and middle - (count - 1) * gap / 2 < groups[-1][0] + (groups[-1][1] + 1) * gap / 2:
            other, members = groups.pop()
            middle = (middle * count + other * members) / (count + members)
            count += members
        groups.append((middle, count))
    return [middle + (index - (count - 1) / 2) * gap for middle, count in groups for index in range(count)]


def _legend(figure: "Figure", frontier: Frontier) -> None:
    from matplotlib.lines import Line2D

    def dot(marker: str, face: str, label: str, **more: Any) -> Line2D:
        return Line2D([], [], marker=marker, linestyle="none", color=face, label=label, **more)

    stages = {point.stage for point in frontier.points}
    handles = [
        Line2D(
            [],
            [],
            color=_BEST,
            marker="o",
            markersize=9,
            markerfacecolor="white",
            markeredgewidth=1.6,
            linewidth=1.0,
            label="the best that fits at a context",
        )
    ]
    handles += [
        dot(marker, "#374151", label) for stage, (marker, label) in _MARKERS.items() if stage in stages
    ]
    if None in stages:
        handles.append(dot("x", "#374151", "does not fit", alpha=0.5))
    handles += [
        Line2D([], [], color=color, linestyle="--", label=f"{budget.label}: {budget.size / _GIB:.1f} GiB")
        for budget, color in zip(frontier.budgets, _BUDGETS, strict=False)
    ]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.065, 0.045), ncols=4, frameon=False, fontsize=8
    )


def _context_axis(axes: "Axes", contexts: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(contexts[0] / 1.4, contexts[-1] * 1.4)
    axes.set_xticks(list(contexts), [_tokens(context) for context in contexts])
    axes.minorticks_off()
    axes.tick_params(axis="x", labelrotation=45 if len(contexts) > 6 else 0)
    axes.set_xlabel("context, tokens")


def _contexts(contexts: Sequence[int]) -> str:
    return (
        ", ".join(_tokens(context) for context in contexts)
        if len(contexts) <= 5
        else (f"{_tokens(contexts[0])} … {_tokens(contexts[-1])}")
    )


def _tokens(count: int) -> str:
    return f"{count // 1024}k" if count % 1024 == 0 else str(count)


def _drawn(divergence: float) -> float:
    return max(divergence, LEAST_DIVERGENCE)


def _span(levels: Sequence[float]) -> tuple[float, float]:
    """The axis: at least a decade, with a little room at both ends."""
    low, high = min(levels) / 1.6, max(levels) * 1.6
    while high / low < 10:
        low, high = low / 1.3, high * 1.3
    return low, high
