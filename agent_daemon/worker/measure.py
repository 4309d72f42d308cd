"""What a model would take, asked of llama.cpp itself before a byte of weights is loaded.

The file is opened as a worker would open it (`opening`), but without allocating: a matter of tens of milliseconds
beside the reading of the vocabulary. llama.cpp's own account (`breakdown`) then has the size of every buffer. It
leaves out the outputs, which are computed here, and adapters, which are counted from their headers.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp

from agent_daemon.worker.breakdown import Part, breakdown
from agent_daemon.worker.opening import LoadError, open_context, open_model
from agent_daemon.worker.runtime import EngineLog, load_backends, simulating
from agent_daemon.worker_messages import Failed, Load, Measured, Share, Unmeasured

if TYPE_CHECKING:
    from agent_daemon.contract.gguf_facts import GgufFacts

_MIB = 1 << 20
_BUFFERS = {
    "kv_cache": re.compile(r"(?:llama_kv_cache|llama_memory_recurrent): size =\s*([\d.]+) MiB"),
    "compute": re.compile(r"compute buffer size =\s*([\d.]+) MiB"),
}
"""What llama.cpp logs of a context's memory, in hundredths of a MiB."""


def measure(load: Load) -> Measured | Unmeasured | Failed:
    """What the model would take; Failed with llama.cpp's own reason where it refuses the file or the settings,
    Unmeasured where it cannot be asked. Raises nothing that is the file's fault."""
    if simulating() and load.gpu_layers:
        return Unmeasured(message="offload is simulated on this machine")
    log = EngineLog()
    model = context = None
    try:
        model = open_model(load, log, planned=True)
        context = open_context(model, load, log)
        return _account(load, log, model, context)
    except LoadError as error:
        return Failed(message=str(error))
    except (ValueError, OSError) as error:
        return Failed(message=f"an adapter cannot be read: {error}")
    finally:
        if context is not None:
            llama_cpp.llama_free(context)
        if model is not None:
            llama_cpp.llama_model_free(model)


def _account(load: Load, log: EngineLog, model: Any, context: Any) -> Measured | Unmeasured:
    """Raises ValueError, OSError for an adapter that cannot be read."""
    adapters = _adapters(load)
    outputs = _outputs(model, context, load)
    parts = breakdown(context, load_backends())
    if parts is not None:
        return _by_place(parts, _places(load), outputs, adapters)
    if load.gpu_layers:
        return Unmeasured(message="this build of llama.cpp does not say what it takes of each memory")
    host = from_log(log.sizes, llama_cpp.llama_model_size(model))
    if host is None:
        return Unmeasured(message="this build of llama.cpp does not say what it takes")
    return Measured(host=_sum(host, Share(compute=outputs), *adapters))


def from_log(lines: Sequence[str], weights: int) -> Share | None:
    """A model in RAM by what llama.cpp logged of its context; None when it did not say."""
    found = {name: pattern.findall("\n".join(lines)) for name, pattern in _BUFFERS.items()}
    if not found["compute"]:
        return None
    sizes = {name: sum(round(float(size) * _MIB) for size in each) for name, each in found.items()}
    return Share(weights=weights, **sizes)


def _places(load: Load) -> int:
    return max(len(load.split), 1 if load.gpu_layers else 0)


def _by_place(
    parts: Sequence[Part], places: int, outputs: int, adapters: Sequence[Share]
) -> Measured | Unmeasured:
    """The parts by memory. Devices are in ggml's order, which is that of the GPUs that the worker sees."""
    host = Share(compute=outputs)
    by_device: dict[int | None, Share] = {}
    for part in parts:
        share = Share(weights=part.weights, kv_cache=part.cache, compute=part.compute)
        if part.host:
            host = _sum(host, share)
        else:
            by_device[part.device] = _sum(by_device.get(part.device, Share()), share)
    if None in by_device or len(by_device) != places:
        return Unmeasured(
            message=f"llama.cpp put the model on {len(by_device)} GPUs; it was placed on {places}"
        )
    gpus = [by_device[device] for device in sorted(each for each in by_device if each is not None)]
    if adapters:
        host = _sum(host, adapters[0])
        gpus = [_sum(share, extra) for share, extra in zip(gpus, adapters[1:], strict=True)]
    return Measured(host=host, gpus=tuple(gpus))


def _outputs(model: Any, context: Any, load: Load) -> int:
    """Bytes of the logits and vectors of one step (`llama_context::output_reserve`). The buffer is made for the
    sequences at first and grows with the first step that wants more."""
    row = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    if load.task == "embeddings":
        row += llama_cpp.llama_model_n_embd_out(model)
        return int(4 * row * llama_cpp.llama_n_ubatch(context))
    return int(4 * row * llama_cpp.llama_n_seq_max(context))


def _adapters(load: Load) -> tuple[Share, ...]:
    """What adapters add to RAM and to each GPU: their tensors lie beside those that they change. Empty where there
    are none. Raises ValueError, OSError."""
    if not load.adapters:
        return ()
    # Few models have any, and importing the fit takes longer than measuring one that has none.
    from agent_daemon.contract.need import need
    from agent_daemon.contract.serve_options import ServeOptions

    files = tuple(_facts(each.path) for each in load.adapters)
    options = ServeOptions(context=load.context, parallel=load.parallel, task=load.task, adapters=files)
    counted = need(_facts(load.path), options, load.split or ((load.gpu_layers,) if load.gpu_layers else ()))
    return tuple(Share(weights=each.adapters) for each in (counted.host, *counted.gpus))


def _facts(path: str) -> "GgufFacts":
    from agent_daemon.contract.gguf import FileSource, read_facts

    with FileSource(Path(path)) as source:
        return read_facts(source)


def _sum(*shares: Share) -> Share:
    return Share(
        weights=sum(share.weights for share in shares),
        kv_cache=sum(share.kv_cache for share in shares),
        compute=sum(share.compute for share in shares),
    )
