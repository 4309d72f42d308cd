"""That what is measured without allocating is what a worker takes."""

from pathlib import Path

import pytest

from agent_daemon.worker_messages import Load
from tests.bench.fit.shapes import made
from tests.bench.fit.truth import Setting, Unmeasured, measure
from tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.engine


@pytest.mark.parametrize(
    "kind", ["dense", "sliding", "recurrent", "hybrid", "hybrid-sliding", "encoder", "decoder"]
)
@pytest.mark.parametrize("parallel", [1, 3])
def test_a_worker_takes_the_same_cache_and_computes_in_the_same_buffer(kind: str, parallel: int) -> None:
    from agent_daemon.worker.breakdown import breakdown
    from agent_daemon.worker.model import Model
    from agent_daemon.worker.runtime import EngineLog, load_backends

    path = tiny_model(kind)
    embeds = kind in ("encoder", "decoder")
    (truth,) = measure(path, [Setting(1024, parallel)], embeds=embeds)
    load = Load(
        path=str(path),
        task="embeddings" if embeds else "chat",
        context=1024,
        parallel=parallel,
        kv_type="f16",
        gpu_layers=0,
        threads=1,
    )
    library = load_backends()
    model = Model(load, EngineLog())
    parts = breakdown(model.ctx, library)
    assert parts is not None
    rows = model.batch_limit if embeds else model.sequences
    outputs = 4 * rows * (model.vocab_size + (model.width if embeds else 0))
    assert truth.host.kv_cache == sum(part.cache for part in parts)
    assert truth.host.compute == sum(part.compute for part in parts) + outputs


def test_what_llama_cpp_refuses_is_said(tmp_path: Path) -> None:
    path, _ = made(tmp_path, "llama-3.2-1b")
    refused, fine = measure(path, [Setting(512, kv_type="q8_0", flash_attention=False), Setting(512)])
    assert refused.refused is not None
    assert "requires flash_attn" in refused.refused
    assert fine.refused is None
    assert fine.host.kv_cache == 16 * 2 * 8 * 64 * 2 * 512


def test_a_file_that_is_no_model_ends_the_measuring(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(Unmeasured, match=r"broken\.gguf: .*llama\.cpp refuses broken\.gguf: "):
        measure(path, [Setting(512)])
