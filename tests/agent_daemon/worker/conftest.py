"""The real engine in this process, so that a test can take it one step at a time."""

from pathlib import Path
from typing import Any

import pytest

from agent_daemon.worker_messages import Load
from tests.support.models import quickstart_model


def load_model(task: Any, context: int, parallel: int, path: Path | None = None, **more: Any) -> Any:
    from agent_daemon.worker.model import Model
    from agent_daemon.worker.runtime import EngineLog

    load = Load(
        path=str(path or quickstart_model()),
        task=task,
        context=context,
        parallel=parallel,
        kv_type="f16",
        gpu_layers=0,
        # One thread is not slowed down by whatever else runs on a small machine; two that wait for each other are.
        threads=1,
        **more,
    )
    return Model(load, EngineLog())


@pytest.fixture(scope="session")
def chat_model() -> Any:
    """Two sequences of 1024 tokens."""
    return load_model("chat", 1024, 2)


@pytest.fixture(scope="session")
def embedding_model() -> Any:
    return load_model("embeddings", 100, 1)


@pytest.fixture(scope="session")
def small_model() -> Any:
    """One sequence of 100 tokens."""
    return load_model("chat", 100, 1)
