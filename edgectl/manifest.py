"""Manifests: YAML that a person writes -> frozen values.

A manifest says which models a selection of devices serves, each as a ladder of candidates. Reading one
touches nothing but the file: whether a candidate exists is the catalog's question, whether it fits is
placement's.
"""

from pathlib import Path
from typing import Any, Literal

from agent_daemon.contract.release import (
    Access,
    KvType,
    Limits,
    Probe,
    Residency,
    Sampling,
    Strategy,
    Task,
    Value,
)
from edgectl import manifest_form as form
from edgectl import yaml_source
from edgectl.errors import ManifestError
from edgectl.manifest_problems import problems_of, render

KV_AUTO: tuple[KvType, ...] = ("f16", "q8_0")
"""What `kv_type: auto` stands for, the preferred one first."""


class Context(Value):
    """Tokens of each sequence: `min` is the least that is of use, `want` what is taken where it fits."""

    min: int = form.DEFAULT_MIN_CONTEXT
    want: int = form.DEFAULT_CONTEXT


class Rollout(Value):
    """`max_parallel` devices at once; stop when more than `max_failures` have failed."""

    strategy: Strategy = Strategy.AUTO
    max_parallel: int = 8
    max_failures: int = 0


class AdapterSpec(Value):
    """An adapter that a model is served with, as `model:name`; `source` is its reference."""

    name: str
    source: str
    scale: float = 1.0


class ModelSpec(Value):
    """One served name. `candidates` are model references, in the order in which they were written;
    `order` says whether that order decides (`listed`) or the expected quality does (`quality`). Whether it is
    loaded on demand only is not written but found out by placement."""

    ADDED = frozenset({"min_tokens_per_second"})

    name: str
    candidates: tuple[str, ...]
    task: Task = "chat"
    order: Literal["quality", "listed"] = "quality"
    context: Context = Context()
    parallel: int = 1
    cache: int | None = None
    kv_type: form.KvChoice = "f16"
    gpu_layers: Literal["auto", "all", "partial"] | int = "auto"
    min_tokens_per_second: float | None = None
    """The least speed of one answer that placement may expect of a device; None: no such floor."""
    sampling: Sampling = Sampling()
    system_prompt: str | None = None
    adapters: tuple[AdapterSpec, ...] = ()
    limits: Limits = Limits()
    residency: Residency = Residency()

    @property
    def kv_types(self) -> tuple[KvType, ...]:
        """The types that the KV cache may have, the preferred one first."""
        return KV_AUTO if self.kv_type == "auto" else (self.kv_type,)


class Manifest(Value):
    """A whole manifest. `devices` is the text of a selector; `models` keep the order of the file."""

    version: Literal[1] = 1
    name: str
    devices: str
    models: tuple[ModelSpec, ...]
    rollout: Rollout = Rollout()
    probe: Probe = Probe()
    access: Access = Access()

    def content(self) -> dict[str, Any]:
        """All of it as JSON, by which two manifests are told to be the same. Keys that came later are left out while
        they hold their default: a manifest keeps its release when the software is upgraded."""
        dumped = self.model_dump(mode="json")
        for model, written in zip(self.models, dumped["models"], strict=True):
            for name in model.ADDED:
                if getattr(model, name) == ModelSpec.model_fields[name].default:
                    del written[name]
        return dumped


def load(path: Path) -> Manifest:
    """Read a manifest from a file. Raises ManifestError listing everything that is wrong, a line each."""
    try:
        with path.open("rb") as stream:
            data = stream.read(yaml_source.MAX_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror or 'unknown error'}") from None
    return parse(yaml_source.decode(data, str(path)), str(path))


def parse(text: str, name: str) -> Manifest:
    """Read a manifest from text; `name` stands for the file in messages. Raises as `load` does."""
    document = yaml_source.read(text, name)
    problems, written = problems_of(document.value)
    if written is None:
        raise ManifestError(render(problems, document, name))
    return Manifest(
        name=written.name,
        devices=written.devices,
        models=tuple(_model(key, model) for key, model in written.models.items()),
        rollout=Rollout(**dict(written.rollout)),
        probe=Probe(**dict(written.probe)),
        access=written.access,
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what people write."""
    return form.json_schema()


def _model(name: str, written: form.ModelForm) -> ModelSpec:
    rungs = (written.source,) if written.source else tuple(rung.source for rung in written.candidates or ())
    return ModelSpec(
        name=name,
        candidates=tuple(dict.fromkeys(rung for rung in rungs if rung)),
        task=written.task,
        order=written.order,
        context=_context(written.context),
        parallel=written.parallel,
        cache=written.cache,
        kv_type=written.kv_type,
        gpu_layers=written.gpu_layers,
        min_tokens_per_second=written.min_tokens_per_second,
        sampling=written.sampling,
        system_prompt=written.system_prompt,
        adapters=tuple(
            AdapterSpec(name=name, source=adapter.source, scale=adapter.scale)
            for name, adapter in written.adapters.items()
        ),
        limits=Limits(**dict(written.limits)),
        residency=Residency(pinned=written.pinned, idle_ttl=written.idle_ttl),
    )


def _context(written: form.ContextForm) -> Context:
    """Where only one bound is written, the other's default gives way to it."""
    if written.min is None and written.want is None:
        return Context()
    if written.min is None:
        assert written.want is not None
        return Context(min=min(form.DEFAULT_MIN_CONTEXT, written.want), want=written.want)
    return Context(min=written.min, want=written.want or max(form.DEFAULT_CONTEXT, written.min))
