"""Kinds of caches and of tasks: apart from the rest of a release, which no worker has to import."""

from typing import Literal

KvType = Literal["f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
Task = Literal["chat", "embeddings"]
