"""The offline agent bundle: one archive with the agent and all it needs for one Python on one architecture.

    wanted = bundle.request(python="3.12", arch="x86_64", backend="cpu")
    made = bundle.make(wanted, units, progress)      made.path, made.digest, made.manifest.glibc, …

A device needs no pip, compiler or network for it. Inside, next to `bundle.json`:

    bin/edgectl-agent   starts the agent from wherever the archive was unpacked
    lib/                the agent, its libraries and the engine, as in site-packages
    units/              service units, as the caller gave them
"""

from edgectl.bundle.builder import make
from edgectl.bundle.manifest import Bundle, BundleManifest, Engine, parse
from edgectl.bundle.request import BundleRequest, request

__all__ = ["Bundle", "BundleManifest", "BundleRequest", "Engine", "make", "parse", "request"]
