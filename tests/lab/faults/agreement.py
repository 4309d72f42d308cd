"""Whether everything that can be asked of a device says the same. PURE."""

from collections.abc import Mapping, Sequence
from typing import Any

TOLD_AS = {
    "committed": "serving",
    "reverted": "reverted",
    "staging": "serving",
    "staged": "serving",
}
"""The newest operation's state -> what status calls a device on which one release serves."""


def disagreement(
    look: Mapping[str, Any], listed: Sequence[str], answered: int, marks: Sequence[str]
) -> str | None:
    """Why it cannot be said that exactly one release serves, and which; None when it can. `listed` are the gateway's
    models, `answered` the status of a chat with the active release's own name, `marks` the names that may serve."""
    journal = look["journal"]
    if journal["underway"]:
        return f"operations {journal['underway']} are not over"
    if journal["active"] is None:
        return "the journal says that nothing is active"
    if journal["active"] != journal["last_committed"]:
        return f"active is {journal['active']}, committed last was {journal['last_committed']}"
    if journal["operation"]["state"] not in TOLD_AS:
        return f"the newest operation is {journal['operation']['state']}: {journal['operation']['reason']}"
    if list(listed) != journal["names"]:
        return f"the gateway lists {list(listed)}, the journal's active release has {journal['names']}"
    serving = sorted(set(marks) & set(listed))
    if len(serving) != 1:
        return f"exactly one of {sorted(set(marks))} has to serve, and the gateway lists {list(listed)}"
    if answered != 200:
        return f"a chat with {serving[0]} got {answered}"
    held = [worker["blobs"] for worker in look["workers"]]
    if held != [journal["blobs"]]:
        return f"workers have {held} open, the active release is {journal['blobs']}"
    return None


def untold(look: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """What status does not say of a device as it is; None when it tells the truth."""
    journal = look["journal"]
    expected = TOLD_AS.get(journal["operation"]["state"])
    if expected is None:
        return f"the device is {journal['operation']['state']}"
    if row["release_digest"] != journal["active"]:
        return f"status says {row['release_digest']} ({row['release']}), the journal {journal['active']}"
    if row["state"] != expected:
        return f"status says {row['state']}, the device is {expected}"
    return None


def untold_events(device: Sequence[Sequence[Any]], arrived: Sequence[Sequence[Any]]) -> list[str]:
    """Events that the device has to tell and the inventory lacks."""
    left = [tuple(event) for event in arrived]
    lost = []
    for event in map(tuple, device):
        if event in left:
            left.remove(event)
        else:
            lost.append(" ".join(map(str, event)))
    return lost
