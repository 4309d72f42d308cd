"""The control side of edgectl: manifests in, releases out, an inventory of what every device serves."""

__version__ = "0.1.0"
