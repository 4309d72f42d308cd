"""The write side of the inventory, whole. Reading for people goes through `edgectl.inventory.queries`.

    with Repository(settings.database) as inventory:
        inventory.add_device("desk", {"kind": "local", "state_dir": "…"}, {"role": "desk"}, facts)

Importing this costs over a second (SQLModel): commands import it inside the function that needs it.
"""

from edgectl.inventory.devices import Devices
from edgectl.inventory.fits import Fits
from edgectl.inventory.holding import Holding
from edgectl.inventory.releases import Releases
from edgectl.inventory.reports import Reports
from edgectl.inventory.rollouts import Rollouts
from edgectl.inventory.tokens import Tokens


class Repository(Devices, Releases, Rollouts, Reports, Fits, Holding, Tokens):
    """Devices, releases, rollouts, reports, measured loads and tokens on one file; each method is one transaction."""
