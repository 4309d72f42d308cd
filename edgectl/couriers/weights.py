"""Files of artifacts on this machine, fetched when the first device needs them and then shared."""

import threading
from pathlib import Path

from agent_daemon.contract.release import Artifact, BlobRef
from edgectl import catalog


class WeightSource:
    """Safe to call from several threads."""

    def __init__(self, progress: catalog.Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._paths: dict[str, Path] = {}

    def path(self, artifact: Artifact, blob: BlobRef) -> Path:
        """Raises CatalogError when the artifact cannot be had."""
        # One at a time: side by side they would only share the same line, and the same artifact would be
        # fetched once for every device.
        with self._lock:
            if blob.digest not in self._paths:
                for file, path in zip(artifact.files, catalog.fetch(artifact, self._progress), strict=True):
                    self._paths[file.digest] = path
            return self._paths[blob.digest]
