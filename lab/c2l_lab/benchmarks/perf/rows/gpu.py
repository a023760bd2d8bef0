"""GPU rows, on a model of Qwen2.5-Coder-1.5B's shape with random weights: decoding against the memory's speed,
the swap of an adapter, and embedding in batches. On a CPU they run with a small model, only as a test.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch

from c2l_lab.benchmarks.perf import measure
from c2l_lab.benchmarks.perf.measure import Bar, PerfRow
from c2l_lab.benchmarks.perf.rows.adapters import final_adapter, paired_adapter, put
from c2l_lab.benchmarks.perf.rows.decoding import step_ms
from c2l_lab.benchmarks.perf.shapes import LARGE, MINIATURE, random_ids, random_model
from c2l_lab.benchmarks.perf.workload import Workload
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.hardware import pick_device

_COPY_BYTES = 2**30


def _model(load: Workload) -> BaseModel:
    """The model on the device of the settings, in bf16."""
    device = pick_device(load.settings.model.device)
    return random_model(MINIATURE if load.small else LARGE, device, torch.bfloat16)


def decode(load: Workload) -> list[PerfRow]:
    """Bytes of weights read per second of decoding, against the memory bandwidth in a copy on the same device."""
    model = _model(load)
    ids = random_ids(64 if load.small else 1024)
    decoder = Decoder(model, AdapterSlot(model), draft=0)
    count = 4 if load.small else 64
    step_ms(model, decoder, ids, count)  # warm-up: kernels and graphs
    steps = [step_ms(model, decoder, ids, count) for _ in range(load.repeats)]
    bandwidth = statistics.median(_bandwidth(model.device, load.small) for _ in range(5))
    size = sum(p.numel() * p.element_size() for p in model.lm.parameters())
    fraction = size / bandwidth / (statistics.median(steps) / 1e3)
    bar = Bar(0.5, least=True)
    note = f"{size / 1e9:.3g} GB of weights, {bandwidth / 1e9:.4g} GB/s measured by a copy"
    return [measure.row("gpu_decode", steps, "ms/token", ratio=fraction, bar=bar, note=note)]


def swap(load: Workload) -> list[PerfRow]:
    """Activating a prepared adapter between two steps, against one step."""
    model = _model(load)
    slot = AdapterSlot(model)
    decoder = Decoder(model, slot, draft=0)
    rows = []
    for name, make in (("", final_adapter), ("/pairs", paired_adapter)):
        pair = [make(model), make(model)]
        for adapter in pair:
            slot.activate(adapter)
            decoder.prepare()
        step = step_ms(model, decoder, random_ids(32), 8)
        pauses = []
        for number in range(load.repeats):
            _wait(model.device)
            pauses.append(measure.seconds(partial(put, slot, decoder, pair[number % 2])) * 1e3)
        note = f"one step {step:.3g} ms"
        ratio = statistics.median(pauses) / step
        rows.append(measure.row(f"gpu_swap{name}", pauses, "ms", ratio=ratio, bar=Bar(1.0), note=note))
    return rows


def embedding(load: Workload) -> list[PerfRow]:
    """Tokens per second through the model in batches sorted by length, against one batch without padding."""
    model = _model(load)
    draw = torch.Generator().manual_seed(0)
    top = 32 if load.small else 512
    lengths = sorted(torch.randint(top // 8, top, (16 if load.small else 256,), generator=draw).tolist())
    batches = [lengths[i : i + 16] for i in range(0, len(lengths), 16)]
    even = [[sum(lengths) // len(lengths)] * 16 for _ in batches]

    def through(sizes: list[list[int]]) -> float:
        _wait(model.device)
        began = time.perf_counter()
        for batch in sizes:
            model.hidden(torch.zeros(len(batch), max(batch), dtype=torch.long, device=model.device))
        _wait(model.device)
        return time.perf_counter() - began

    times = measure.alternate({"sorted": lambda: through(batches), "even": lambda: through(even)}, load.repeats)
    speeds = [sum(lengths) / spent for spent in times["sorted"]]
    ratio = measure.ratio(times["even"], times["sorted"])
    return [measure.row("gpu_embedding", speeds, "token/s", ratio=ratio, bar=Bar(0.8, least=True))]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _bandwidth(device: torch.device, small: bool) -> float:
    """Bytes per second that a large copy reads and writes."""
    size = 2**22 if small else _COPY_BYTES
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    _wait(device)
    began = time.perf_counter()
    target.copy_(source)
    _wait(device)
    return 2 * size / (time.perf_counter() - began)
