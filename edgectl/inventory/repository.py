"""The write side of the inventory, whole. Reading for people goes through `edgectl.inventory.queries`.

    with Repository(settings.database) as inventory:
        inventory.add_device("desk", {"kind": "local", "state_dir": "…"}, {"role": "desk"}, facts)

Importing this costs over a second (SQLModel): commands import it inside the function that needs it.
"""

from edgectl.inventory.audits import Audits
from edgectl.inventory.blobs import Blobs
from edgectl.inventory.devices import Devices
from edgectl.inventory.fits import Fits
from edgectl.inventory.holding import Holding
from edgectl.inventory.leases import Leases
from edgectl.inventory.openings import Openings
from edgectl.inventory.releases import Releases
from edgectl.inventory.reports import Reports
from edgectl.inventory.rollouts import Rollouts
from edgectl.inventory.tokens import Tokens
from edgectl.inventory.verdicts import Verdicts


class Repository(
    Devices, Releases, Rollouts, Openings, Leases, Audits, Reports, Fits, Holding, Tokens, Blobs, Verdicts
):
    """Devices, releases, rollouts and who leads them, the audit, reports, measured loads, tokens and blobs on one file;
    each method is one transaction."""
