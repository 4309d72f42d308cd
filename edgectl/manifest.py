"""Manifests: YAML that a person writes -> frozen values.

A manifest says which models a selection of devices serves, each as a ladder of candidates. Reading one
touches nothing but the file: whether a candidate exists is the catalog's question, whether it fits is
placement's.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer

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
from agent_daemon.contract.wire import Outcome
from edgectl import manifest_form as form
from edgectl import yaml_source
from edgectl.errors import ManifestError
from edgectl.manifest_problems import problems_of, render
from edgectl.rollout_form import RolloutForm
from edgectl.rollouts.policy import DEFAULT_DEADLINE, NO_FAILURES, Amount, Budget, OnHalt, Policy

KV_AUTO: tuple[KvType, ...] = ("f16", "q8_0")
"""What `kv_type: auto` stands for, the preferred one first."""


class Context(Value):
    """Tokens of each sequence: `min` is the least that is of use, `want` what is taken where it fits."""

    min: int = form.DEFAULT_MIN_CONTEXT
    want: int = form.DEFAULT_CONTEXT


AmountValue = Annotated[Amount, PlainSerializer(Amount.to_json, return_type=int | str)]
BudgetValue = Annotated[Budget, PlainSerializer(Budget.to_json, return_type=dict[str, Any])]


class Rollout(Value):
    """How a release spreads. `policy` is the part of it that decides; durations in seconds.

    `limit_rate`: bytes a second that the control side sends to all devices together. `prune`: devices may delete what
    nothing refers to when room is short. `swarm`: the label whose value devices share that fetch from one another."""

    strategy: Strategy = Strategy.AUTO
    canary: AmountValue | None = None
    max_unavailable: AmountValue = Amount(count=8)
    order_by: tuple[str, ...] = ()
    pause_after_canary: bool = False
    budgets: Mapping[Outcome, BudgetValue] = NO_FAILURES
    on_halt: OnHalt = OnHalt.HOLD
    progress_deadline: float = DEFAULT_DEADLINE
    min_healthy: float = 0.0
    limit_rate: int | None = None
    prune: bool = False
    swarm: str | None = None

    def policy(self) -> Policy:
        return Policy(**{each.name: getattr(self, each.name) for each in fields(Policy)})

    def content(self) -> dict[str, Any]:
        """What of it makes a release another one, in the words of version 0.1: how far one spreads at a time does
        not, but what could be written then keeps the releases that it made."""
        reverted = self.budgets.get(Outcome.REVERTED, Budget())
        most = reverted.most.count if reverted.most else None
        return {
            "strategy": self.strategy.value,
            "max_parallel": self.max_unavailable.count or 8,
            "max_failures": most or 0,
        }


class Hooks(Value):
    """Commands that are run on the control machine, each a program and its arguments."""

    pre_deploy: tuple[str, ...] | None = None
    post_deploy: tuple[str, ...] | None = None
    on_failure: tuple[str, ...] | None = None


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
    hooks: Hooks = Hooks()
    probe: Probe = Probe()
    access: Access = Access()

    def content(self) -> dict[str, Any]:
        """All of it as JSON, by which two manifests are told to be the same. Keys that came later are left out while
        they hold their default, and hooks always: a manifest keeps its release when the software is upgraded, and
        what runs on the control machine is no part of one."""
        dumped = self.model_dump(mode="json", exclude={"rollout", "hooks"})
        dumped["rollout"] = self.rollout.content()
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
        rollout=_rollout(written.rollout),
        hooks=Hooks(**dict(written.hooks)),
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


def _rollout(written: RolloutForm) -> Rollout:
    budgets = {
        Outcome(outcome): Budget(budget.most, budget.after)
        for outcome, budget in dict(written.budgets).items()
    }
    return Rollout(**dict(written) | {"budgets": budgets})


def _context(written: form.ContextForm) -> Context:
    """Where only one bound is written, the other's default gives way to it."""
    if written.min is None and written.want is None:
        return Context()
    if written.min is None:
        assert written.want is not None
        return Context(min=min(form.DEFAULT_MIN_CONTEXT, written.want), want=written.want)
    return Context(min=written.min, want=written.want or max(form.DEFAULT_CONTEXT, written.min))
