"""Whether an agent understands a release. PURE.

An agent refuses a release with a field that it does not know, because it would serve something else than what was asked
for. A release is sent without the fields that came later while they hold their default (`DeviceRelease.lean`), so only
those that it really uses matter. An agent names the ones that it knows among its features; versions would say less, for
between two of them many a build is installed.
"""

from collections.abc import Iterator

from agent_daemon.contract.release import DeviceRelease, Value

_WORD = "release:"
UNTOLD = frozenset(
    {
        *("Predicted.margin", "Predicted.gpus", "Placement.cells", "Placement.gpus"),
        *("Sampling.typical_p", "Sampling.frequency_penalty", "Sampling.presence_penalty"),
        *("ServedModel.adapters", "ServedModel.limits", "ServedModel.residency", "Access.metrics"),
    }
)
"""Fields that agents knew before they told what they know."""


def known() -> tuple[str, ...]:
    """What an agent of this code says that it understands: one word for each field that came later."""
    fields = {f"{kind.__name__}.{name}" for kind in _kinds(Value) for name in kind.ADDED}
    return tuple(_WORD + field for field in sorted(fields))


def uses(release: DeviceRelease) -> frozenset[str]:
    """The later fields in which a release is not as it would be without them: `ServedModel.residency`."""
    return frozenset(_used(release))


def lacks(release: DeviceRelease, features: tuple[str, ...]) -> tuple[str, ...]:
    """The fields of a release that an agent with these features does not understand; empty when it may have it."""
    told = frozenset(word.removeprefix(_WORD) for word in features if word.startswith(_WORD))
    return tuple(sorted(uses(release) - (told or UNTOLD)))


def _used(value: object) -> Iterator[str]:
    if isinstance(value, tuple):
        for each in value:
            yield from _used(each)
    if not isinstance(value, Value):
        return
    for name, field in type(value).model_fields.items():
        held = getattr(value, name)
        if name in value.ADDED and held != field.get_default(call_default_factory=True):
            yield f"{type(value).__name__}.{name}"
        yield from _used(held)


def _kinds(kind: type[Value]) -> Iterator[type[Value]]:
    for each in kind.__subclasses__():
        yield each
        yield from _kinds(each)
