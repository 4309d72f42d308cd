"""What a fit found out, as numbers and as a sum in words. PURE. All sizes are bytes."""

from dataclasses import dataclass
from typing import Literal

from agent_daemon.contract.release import Predicted

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class FitReport:
    """`total` is `weights + kv_cache + compute`, and counts with `margin` against `free` less `reserve` of `memory`;
    `missing` of it is not there. Over several GPUs all of these are sums, `split` says the layers and `parts` the
    bytes of each. `host` is what a model on a GPU takes in RAM besides, `adapters` the part of `weights` that is
    adapters'."""

    weights: int
    kv_cache: int
    compute: int
    gpu_layers: int
    layers: int
    memory: Literal["vram", "ram"]
    free: int
    reserve: int
    missing: int = 0
    margin: int = 0
    """What is left free besides, because the figures are uncertain."""
    host: int = 0
    adapters: int = 0
    host_free: int | None = None
    """RAM that `host` may use, reserve already taken off; None when it is not known and not judged."""
    split: tuple[int, ...] = ()
    parts: tuple[int, ...] = ()
    uncertain: str | None = None
    """Why the figures may be off, or None."""

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute

    @property
    def budget(self) -> int:
        """What may be used of `free`."""
        return max(0, self.free - self.reserve)

    @property
    def short(self) -> int:
        """Bytes missing, 0 when it fits."""
        missing_host = 0 if self.host_free is None else max(0, self.host - self.host_free)
        return self.missing + missing_host

    @property
    def fits(self) -> bool:
        return self.short == 0

    def arithmetic(self) -> str:
        """The sum in words: `needs 5.1 GiB: weights 4.4, KV 0.5, compute 0.2; free 3.9`."""
        unit, digits = _scale(self.total, self.budget)

        def said(size: int) -> str:
            return f"{size / unit:.{digits}f}"

        name = "GiB" if unit == GIB else "MiB"
        extra = f" (adapters {said(self.adapters)})" if self.adapters else ""
        parts = f"weights {said(self.weights)}{extra}, KV {said(self.kv_cache)}, compute {said(self.compute)}"
        free = f"free {said(self.budget)}"
        if self.reserve:
            keeper = "kept for the driver" if self.memory == "vram" else "kept free"
            free += f" of {said(self.free)} after {said(self.reserve)} {keeper}"
        text = f"needs {said(self.total)} {name}: {parts}; {free}"
        if self.host_free is not None and self.host > self.host_free:
            text += f"; and {said(self.host)} {name} of RAM besides, free {said(self.host_free)}"
        if self.uncertain:
            text += f"; {said(self.margin)} more is left free: {self.uncertain}"
        return text

    def as_dict(self) -> dict[str, int | str | bool | list[int] | None]:
        """The numbers as they are printed for programs."""
        return {
            "weights": self.weights,
            "adapters": self.adapters,
            "kv_cache": self.kv_cache,
            "compute": self.compute,
            "total": self.total,
            "gpu_layers": self.gpu_layers,
            "layers": self.layers,
            "memory": self.memory,
            "host": self.host,
            "free": self.free,
            "reserve": self.reserve,
            "margin": self.margin,
            "short": self.short,
            "split": list(self.split),
            "uncertain": self.uncertain,
            "fits": self.fits,
        }

    def predicted(self) -> Predicted:
        """The same numbers as a release carries them."""
        return Predicted(
            weights=self.weights,
            kv_cache=self.kv_cache,
            compute=self.compute,
            total=self.total,
            host=self.host,
            margin=self.margin,
            gpus=self.parts if len(self.parts) > 1 else (),
        )


def _scale(total: int, budget: int) -> tuple[int, int]:
    """A unit, and as many digits as it takes for two different sums to look different."""
    unit, digits = (GIB, 1) if total >= GIB else (MIB, 0)
    while digits < 3 and total != budget and f"{total / unit:.{digits}f}" == f"{budget / unit:.{digits}f}":
        digits += 1
    return unit, digits
