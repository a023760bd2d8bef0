"""Rows about adapters: cost per token, cost of a swap, and indexing speed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from c2l_lab.benchmarks.perf import measure
from c2l_lab.benchmarks.perf.measure import Bar, PerfRow
from c2l_lab.benchmarks.perf.rows.decoding import step_ms
from c2l_lab.benchmarks.perf.shapes import MEDIUM, MINIATURE, random_ids, random_model
from c2l_lab.benchmarks.perf.workload import Workload
from c2l_lsp.cooperative import Slices
from c2l_lsp.engine.adaptation import registry
from c2l_lsp.engine.adaptation.chunk_embeddings import ChunkEmbeddings
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.model.adapter import mixture
from c2l_lsp.model.adapter.forward import NativeReader
from c2l_lsp.model.adapter.knn_lm import KnnMemory
from c2l_lsp.model.adapter.lora import Adapter, AdapterSlot
from c2l_lsp.model.hypernet.gradient_memory import GradientMemory
from c2l_lsp.model.hypernet.prior import KEY_WIDTH, MAX_TOKENS
from c2l_lsp.model.hypernet.protocol import Chunk, ChunkEmbedding
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime import fusion
from c2l_lsp.model.runtime.lora_pair import LoraPair

KNN_POSITIONS = 70_000
"""About the tokens of 256 kB of code, the engine's default limit for a folder."""

_RANK = 16


def final_adapter(model: BaseModel) -> Adapter:
    """A full final map like that of `memory`. The cost does not depend on the values."""
    return Adapter(model.digest, "bench", 1e-4 * torch.randn(model.d, model.d))


def knn_adapter(model: BaseModel) -> Adapter:
    """A final map and a kNN memory of KNN_POSITIONS positions, as `memory` makes them for a folder of 256 kB.

    Tokens have a Zipf distribution, as in text, so a step makes as many comparisons as with a real folder. Keys are
    random; they do not affect the cost.
    """
    rng = np.random.default_rng(0)
    rank = np.arange(1, model.vocabulary + 1)
    drawn = rng.choice(model.vocabulary, KNN_POSITIONS, p=(1 / rank) / (1 / rank).sum())
    ids = [token for part in np.array_split(drawn, KNN_POSITIONS // 400) for token in (-1, *part.tolist())]
    keys = torch.from_numpy(rng.integers(-60, 60, (KNN_POSITIONS - KNN_POSITIONS // 400, KEY_WIDTH)).astype(np.int8))
    gate = mixture.load(model.id, model.digest)
    memory = KnnMemory.of(torch.tensor(ids, dtype=torch.int32), keys, torch.randn(KEY_WIDTH, model.d), gate)
    return replace(final_adapter(model), knn=memory)


def paired_adapter(model: BaseModel) -> Adapter:
    """LoRA pairs of rank 16 on every projection of every layer, as from a LoRA hypernetwork."""
    pairs = {}
    for name, module in model.lm.named_modules():
        if name.endswith(fusion.PROJECTIONS):
            out, into = module.weight.shape
            pairs[name] = LoraPair(1e-3 * torch.randn(_RANK, into), 1e-3 * torch.randn(out, _RANK))
    return Adapter(model.digest, "bench", pairs=pairs)


def cost_per_token(load: Workload) -> list[PerfRow]:
    """A decode step with an adapter against one without: the default kind, and LoRA pairs merged and unmerged.

    Pairs are merged into small models. The unmerged row uses a larger model with random weights.
    """
    count, length = (4, 64) if load.small else (96, min(400, load.model.max_context - 128))
    (ids,) = load.prompts(1, length)
    merged, memory = Bar(1.02), f"as memory makes it: final map and recall of {KNN_POSITIONS} tokens"
    rows = [
        _cost(load, load.model, "", knn_adapter(load.model), ids, count, merged, memory),
        _cost(load, load.model, "/map", final_adapter(load.model), ids, count, merged, "its final map alone"),
        _cost(load, load.model, "/merged", paired_adapter(load.model), ids, count, merged, "rank 16 everywhere"),
    ]
    large = random_model(MINIATURE if load.small else MEDIUM, load.model.device, load.model.dtype)
    note = f"rank 16 on all projections, {large.parameters / 1e6:.0f}M random weights"
    return [*rows, _cost(load, large, "/unmerged", paired_adapter(large), random_ids(64), 8, Bar(1.15), note)]


def _cost(
    load: Workload, model: BaseModel, name: str, adapter: Adapter, ids: list[int], count: int, bar: Bar, note: str
) -> PerfRow:
    slot = AdapterSlot(model)
    decoder = Decoder(model, slot, _Unmerging(model, slot) if name == "/unmerged" else None, draft=0)
    with_, without = (partial(_step, model, slot, decoder, current, ids, count) for current in (adapter, None))
    times = measure.alternate({"with": with_, "without": without}, load.repeats)
    ratio = measure.ratio(times["with"], times["without"])
    title = f"adapter_cost_per_token{name}"
    return measure.row(title, times["with"], "ms/token", ratio=ratio, bar=bar, note=note)


def _step(
    model: BaseModel, slot: AdapterSlot, decoder: Decoder, adapter: Adapter | None, ids: list[int], count: int
) -> float:
    slot.activate(adapter)
    decoder.clear_cache()
    return step_ms(model, decoder, ids, count)


class _Unmerging(NativeReader):
    """A slot for a model that is too large to merge adapters into."""

    def __init__(self, model: BaseModel, slot: AdapterSlot) -> None:
        super().__init__(model.lm, slot)
        self._small = False


def put(slot: AdapterSlot, decoder: Decoder, adapter: Adapter) -> None:
    """Activate an adapter."""
    slot.activate(adapter)
    decoder.prepare()


def swap_pause(load: Workload) -> list[PerfRow]:
    """The pause of a completion when the adapter changes between two requests, against one decode step.

    Preparation that the engine does in advance, in a slice of adapter work, is not part of the pause.
    """
    model, slot = load.model, AdapterSlot(load.model)
    decoder = Decoder(model, slot, draft=0)
    (ids,) = load.prompts(1, 64)
    rows = []
    for name, make in (("", final_adapter), ("/pairs", paired_adapter)):
        adapters = [make(model), make(model)]
        pauses, steps = [], []
        for number in range(load.repeats + 1):
            slot.activate(adapters[number % 2])
            decoder.prepare()
            slot.activate(None)
            pauses.append(measure.seconds(partial(put, slot, decoder, adapters[number % 2])) * 1e3)
            decoder.clear_cache()
            steps.append(step_ms(model, decoder, ids, 4))
        ratio = measure.ratio(pauses[1:], steps[1:])
        note = f"one decode step: {statistics.median(steps[1:]):.3g} ms"
        rows.append(measure.row(f"swap_pause{name}", pauses[1:], "ms", ratio=ratio, bar=Bar(1.0), note=note))
    return rows


def index_throughput(load: Workload) -> list[PerfRow]:
    """Embedded tokens per second, against one forward pass of the base model over the same batches, text to logits."""
    network = registry.KINDS["memory"](load.model, {}, True)
    if not isinstance(network, GradientMemory):
        why = "no prior ships with this model"
        return [measure.absent("index_throughput", "token/s", Bar(0.8, least=True), why)]
    chunks = [chunk for text in load.texts(2 if load.small else 12) for chunk in network.chunks(text)]
    chunks = list({chunk.key: chunk for chunk in chunks}.values())[: 8 if load.small else 240]
    watched = _Watched(network)

    def index() -> float:
        watched.batches.clear()
        readings = ChunkEmbeddings(None, watched, lambda error: None)
        return measure.seconds(lambda: [None for _ in readings.compute(chunks, lambda done, total: None)])

    def bare() -> float:
        return measure.seconds(
            lambda: [_forward(load.model, [chunk.text for chunk in batch]) for batch in watched.batches]
        )

    times = measure.alternate({"index": index, "bare": bare}, load.repeats)
    tokens = sum(len(load.model.encode(chunk.text)) for chunk in chunks)
    speeds = [tokens / spent for spent in times["index"]]
    ratio = measure.ratio(times["bare"], times["index"])
    bar = Bar(0.8, least=True)
    note = f"{tokens} tokens; base model pass {tokens / statistics.median(times['bare']):.4g} token/s"
    return [measure.row("index_throughput", speeds, "token/s", ratio=ratio, bar=bar, note=note)]


class _Watched(GradientMemory):
    """The hypernetwork; records its batches."""

    def __init__(self, network: GradientMemory) -> None:
        super().__init__(network.model, network.prior)
        self.batches: list[Sequence[Chunk]] = []

    def embed_in_slices(self, chunks: Sequence[Chunk]) -> Slices[list[ChunkEmbedding]]:
        """See GradientMemory."""
        self.batches.append(chunks)
        return super().embed_in_slices(chunks)


@torch.inference_mode()
def _forward(model: BaseModel, texts: list[str]) -> None:
    """A forward pass with logits, padded like the embedding."""
    encoded = [[model.start_id, *model.encode(text)[:MAX_TOKENS]] for text in texts]
    width = max(map(len, encoded))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in encoded], device=model.device)
    hidden = model.hidden(ids)
    real = torch.arange(width, device=model.device) < torch.tensor([[len(row)] for row in encoded], device=model.device)
    rows = hidden[real]
    for start in range(0, len(rows), 2048):
        model.logits(rows[start : start + 2048])
