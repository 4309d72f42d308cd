"""For which kind of device a measured load says something. PURE."""

from collections.abc import Sequence

_IN_RAM = frozenset({"cpu", "blas", "amx"})


_RAM = "RAM, "


def of_ram(device_class: str) -> bool:
    """Whether a class is about models in RAM."""
    return device_class.startswith(_RAM)


def device_class(*, gpu: str | None, backends: Sequence[str], arch: str | None) -> str:
    """Devices of one class are expected to take the same beyond what is counted: the same GPU by name under the same
    backend (`NVIDIA L4, cuda`), or, for a model in RAM (`gpu` None), the same kind of processor (`RAM, x86_64`)."""
    if gpu is None:
        return f"{_RAM}{arch or 'unknown'}"
    backend = next((name for name in backends if name not in _IN_RAM), "unknown")
    return f"{gpu}, {backend}"
