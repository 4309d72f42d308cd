"""Keeps llama_cpp's high-level half out of a worker process: it brings numpy, Jinja and more, of which a worker uses
nothing, and importing that takes longer than loading a small model. To be imported before `llama_cpp` is."""

import gc
import sys
from types import ModuleType

# Nor is there garbage worth looking for while the rest is imported.
gc.set_threshold(100_000, 50, 50)

sys.modules.setdefault("llama_cpp.llama", ModuleType("llama_cpp.llama"))
