"""The device side of edgectl: a small service that holds models and answers for them."""

__version__ = "0.1.0"
