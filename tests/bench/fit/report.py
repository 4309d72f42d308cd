"""What the bench found, as text to read and as JSON to keep."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.bench.fit.figures import MIB, Figures, Spread


@dataclass(frozen=True)
class Found:
    """Everything of one run. `broken` are the bounds that do not hold; none is what was hoped for."""

    machine: Mapping[str, str]
    ram: Figures | None = None
    devices: Figures | None = None
    peers: Mapping[str, Spread] = field(default_factory=dict)
    served: Mapping[str, Spread] = field(default_factory=dict)
    """Peers again, about contexts as llama.cpp's own server makes them."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Of the other parts, by name."""
    broken: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def text(found: Found) -> str:
    """Tables and, last, the verdict."""
    lines = []
    for title, figures in (("in RAM", found.ram), ("on devices", found.devices)):
        if figures is not None:
            lines += [f"edgectl {title}: {figures.memories} memories", *_ours(figures), ""]
    for title, peers in (
        ("the same contexts", found.peers),
        ("contexts as llama.cpp's server makes", found.served),
    ):
        if peers:
            lines += [f"total of all memories, {title}", *_peers(peers), ""]
    lines += [f"{name}: {_said(part)}" for name, part in found.more.items()]
    lines += [f"BROKEN: {each}" for each in found.broken] or ["all bounds hold"]
    return "\n".join(lines)


def _said(part: Mapping[str, Any]) -> str:
    """What a part says of itself, or all of its figures."""
    return str(part.get("said") or ", ".join(f"{key} {value}" for key, value in part.items()))


def _ours(figures: Figures) -> list[str]:
    uncertain = (
        [f"  uncertain, within their margins: {', '.join(figures.uncertain)}"] if figures.uncertain else []
    )
    return [
        f"  weights  off by {figures.weights:.4%} at most",
        f"  cache    off by {figures.cache:.4%} at most",
        f"  compute  within 5% or 8 MiB {figures.within} of {figures.memories} times; off by {figures.compute:.2%}"
        f" and by {figures.compute_bytes / MIB:.2f} MiB at most",
        f"  total    off by {figures.median:.4%} at the median, {figures.largest:.3%} at the worst ({figures.worst})",
        *uncertain,
    ]


def _peers(peers: Mapping[str, Spread]) -> list[str]:
    head = f"  {'':24}{'median':>9}{'too little':>12}{'too much':>11}{'within 2%':>13}{'cache off by':>14}"
    return [
        head,
        *(
            f"  {name:24}{each.median:9.2%}{-each.below:12.1%}{each.above:11.1%}"
            f"{each.within:6} of {each.count}{each.cache:14.1%}"
            for name, each in peers.items()
        ),
    ]
