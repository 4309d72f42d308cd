"""How the answers of `edgectl model fit` look to people."""

from edgectl.cli.cells import ABSENT, byte_size
from edgectl.cli.output import Column, say, show_table, talk
from edgectl.fit.device_memory import DeviceMemory
from edgectl.fit.fit_grid import Cell
from edgectl.fit.fitting import FitTable

_PARTS = (
    Column("file", "FILE"),
    Column("fits", "FITS"),
    Column("memory", "IN"),
    Column("gpu_layers", "GPU LAYERS"),
    Column("weights", "WEIGHTS", "bytes"),
    Column("kv_cache", "KV CACHE", "bytes"),
    Column("compute", "COMPUTE", "bytes"),
    Column("total", "TOTAL", "bytes"),
    Column("kv_type", "KV TYPE", wide=True),
    Column("host", "RAM BESIDES", "bytes", wide=True),
    Column("tokens_per_second", "TOKENS/S", wide=True),
)


def show_one_context(table: FitTable, *, wide: bool) -> None:
    """The parts of the sum, a line for each model, and each sum in words."""
    rows = table.rows()
    show_table(rows, _PARTS, wide=wide)
    for row in rows:
        say(f"{row['file']}: {row['arithmetic']}")
    _warn(table)


def show_table_of(table: FitTable) -> None:
    """Models by contexts, and under the table what the figures stand for."""
    columns = [Column("file", "FILE"), Column("quantization", "QUANTIZATION")]
    columns += [Column(str(context), tokens(context)) for context in table.contexts]
    labels = _labels(table)
    show_table(
        [
            {"file": label, "quantization": pinned.facts.file_type}
            | {str(cell.context): words(cell) for cell in row}
            for label, pinned, row in zip(labels, table.models, table.cells, strict=True)
        ],
        columns,
    )
    for label, row in zip(labels, table.cells, strict=True):
        for text in dict.fromkeys(_remarks(row)):
            say(f"{label}: {text}")
    say(memory_words(table.memory))
    _warn(table)


def words(cell: Cell) -> str:
    """What is needed and where it fits: `5.1 GiB GPU`, `6.0 GiB 20/33 layers`, `5.3 GiB RAM`, `9.9 GiB no`; `?` marks
    a figure that is uncertain. Of a split model the bytes are those of all memories together."""
    if cell.problem is not None:
        return ABSENT
    report = cell.report
    if cell.stage == "split" or (cell.stage is None and 0 < report.gpu_layers < report.layers):
        size = report.total + report.host
    else:
        size = report.total
    where = {
        "gpu": "GPU",
        "gpus": f"{len(report.split)} GPUs",
        "split": f"{report.gpu_layers}/{report.layers} layers",
        "ram": "RAM",
        None: "no",
    }[cell.stage]
    kv_type = "" if cell.kv_type == "f16" else f" {cell.kv_type}"
    return f"{byte_size(size)}{'?' if report.uncertain else ''} {where}{kv_type}"


def tokens(count: int) -> str:
    """`8k` for 8192, the number where it is no round one."""
    for unit, letter in ((1 << 20, "M"), (1 << 10, "k")):
        if count % unit == 0:
            return f"{count // unit}{letter}"
    return f"{count:,}"


def memory_words(memory: DeviceMemory) -> str:
    """One line: what there is to fit into."""
    parts = [
        f"{gpu.label}: {byte_size(gpu.free)} free, less {byte_size(gpu.reserve)} for the driver"
        for gpu in memory.gpus
    ]
    if memory.ram_free is not None:
        kept = memory.ram_reserve + memory.ram_margin
        parts.append(f"RAM: {byte_size(memory.ram_free)} free, less {byte_size(kept)} for the system")
    else:
        parts.append("RAM: not known, and not judged")
    return "; ".join(parts)


def _remarks(row: tuple[Cell, ...]) -> list[str]:
    """Why there is no figure, why one is uncertain, and the sum of what came closest where nothing fits."""
    judged = [cell for cell in row if cell.problem is None]
    problems = [cell.problem for cell in row if cell.problem is not None]
    remarks = [f"{ABSENT}: {problem}" for problem in problems[:1]]
    remarks += [f"uncertain (?): {cell.report.uncertain}" for cell in judged if cell.report.uncertain]
    if judged and not any(cell.fits for cell in judged):
        least = min(judged, key=lambda cell: cell.context)
        remarks.append(f"at {tokens(least.context)}: {least.report.arithmetic()}")
    return remarks


def _labels(table: FitTable) -> list[str]:
    """File names; references where two files have the same name."""
    names = [pinned.artifact.files[0].name for pinned in table.models]
    if len(set(names)) == len(names):
        return names
    return [pinned.artifact.ref for pinned in table.models]


def _warn(table: FitTable) -> None:
    for pinned in table.models:
        for warning in pinned.warnings:
            talk(f"warning: {pinned.artifact.files[0].name}: {warning}")
