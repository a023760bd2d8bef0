"""Rows about decoding: speed against peers, prefix reuse, and the loss through int8."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from functools import partial

import torch

from c2l_lab.benchmarks.perf import measure, peers
from c2l_lab.benchmarks.perf.measure import Bar, PerfRow
from c2l_lab.benchmarks.perf.workload import Workload
from c2l_lsp.engine.completion.decode import Decoder
from c2l_lsp.model.adapter.forward import NativeReader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.model.runtime.fusion import unsupported_reason
from c2l_lsp.model.runtime.quantized_linear import int8_is_faster

BARS = {"transformers": Bar(0.40), "llama.cpp/BF16": None, "llama.cpp/Q8_0": Bar(1.0)}
_TAIL = 20  # tokens at the end of a prompt that change


def decode(load: Workload) -> list[PerfRow]:
    """ms per token: without drafts against transformers in its faster dtype, with drafts against llama.cpp."""
    count, length = (8, 64) if load.small else (48, min(600, load.model.max_context - 64))
    prompts = load.prompts(2 if load.small else 5, length)
    makers = peers.made(load.model, load.work, load.threads)
    plain, quick = peers.Ours(load.model, draft=0), peers.Ours(load.model)
    theirs = {name: maker() for name, maker in makers.items()}
    sides: dict[str, peers.Peer] = {"ours, plain": plain, "ours": quick, **theirs}
    times: dict[str, list[float]] = {name: [] for name in sides}
    agreed: dict[str, list[float]] = {name: [] for name in sides}
    each = max(1, math.ceil(load.repeats / len(prompts)))
    for ids in prompts:
        want, _ = plain.decode(ids, count)  # also the warm-up
        actions = {name: partial(_one, peer, ids, count, want, agreed[name]) for name, peer in sides.items()}
        for name, values in measure.alternate(actions, each).items():
            times[name] += values
    return _judged(times, {name: statistics.mean(values) for name, values in agreed.items()})


def _one(peer: peers.Peer, ids: list[int], count: int, want: Sequence[int], agreed: list[float]) -> float:
    if isinstance(peer, peers.Ours):
        peer.decoder.clear_cache()
    found, spent = peer.decode(ids, count)
    agreed.append(sum(a == b for a, b in zip(found, want, strict=True)) / count)
    return spent * 1e3


def _judged(times: dict[str, list[float]], agreed: dict[str, float]) -> list[PerfRow]:
    unit = "ms/token"
    rows = [measure.row(f"decode/{name}", times[name], unit) for name in ("ours, plain", "ours")]
    both = [name for name in times if name.startswith("transformers")]
    best = min(both, key=lambda name: statistics.median(times[name]))
    for name in both:
        ratio = measure.ratio(times["ours, plain"], times[name])
        bar = BARS["transformers"] if name == best else None
        note = f"ours without drafts, relative to it; {agreed[name]:.0%} of tokens equal"
        rows.append(measure.row(f"decode/{name}", times[name], unit, ratio=ratio, bar=bar, note=note))
    for name in ("llama.cpp/BF16", "llama.cpp/Q8_0"):
        if name not in times:
            rows.append(measure.absent(f"decode/{name}", unit, BARS[name]))
            continue
        ratio = measure.ratio(times["ours"], times[name])
        plain = measure.ratio(times["ours, plain"], times[name])
        note = f"ours with drafts, relative to it; without {plain:.2f}; {agreed[name]:.0%} of tokens equal"
        rows.append(measure.row(f"decode/{name}", times[name], unit, ratio=ratio, bar=BARS[name], note=note))
    return rows


def prefix_reuse(load: Workload) -> list[PerfRow]:
    """Prefill after the last tokens of a prompt changed, against prefill of the whole prompt."""
    length = 128 if load.small else min(1024, load.model.max_context - 64)
    (ids,) = load.prompts(1, length)
    decoder = Decoder(load.model, AdapterSlot(load.model), draft=0)
    other = list(reversed(ids[-_TAIL:]))
    turn = [False]

    def whole() -> float:
        decoder.clear_cache()
        return measure.seconds(lambda: decoder.prefill(ids)) * 1e3

    def again() -> float:
        turn[0] = not turn[0]
        tail = other if turn[0] else ids[-_TAIL:]
        return measure.seconds(lambda: decoder.prefill([*ids[:-_TAIL], *tail])) * 1e3

    times = measure.alternate({"whole": whole, "again": again}, load.repeats)
    ratio = measure.ratio(times["again"], times["whole"])
    note = f"{length} tokens, the last {_TAIL} changed; whole {statistics.median(times['whole']):.3g} ms"
    return [measure.row("prefix_reuse", times["again"], "ms", ratio=ratio, bar=Bar(1 / 15), note=note)]


def int8_loss(load: Workload) -> list[PerfRow]:
    """Bits per byte with the int8 weights, against the original weights, on the repositories' files."""
    if not int8_is_faster(load.model.lm) or unsupported_reason(load.model.lm):
        return [measure.absent("int8_loss", "bits/byte", None, "decode steps are not int8 here")]
    model, slot = load.model, AdapterSlot(load.model)
    exact, quick = (NativeReader(model.lm, slot, int8=int8) for int8 in (False, True))
    bits: dict[bool, float] = {False: 0.0, True: 0.0}
    size, same, seen = 0, 0, 0
    for text in load.texts(2 if load.small else 40):
        ids = [model.start_id, *model.encode(text)[:400]]
        size += len(model.decode(ids[1:]).encode())
        found = {int8: _scores(reader, ids) for int8, reader in ((False, exact), (True, quick))}
        for int8, scores in found.items():
            picked = scores.gather(1, torch.tensor(ids[1:])[:, None])
            bits[int8] -= float(picked.sum()) / math.log(2)
        same += int((found[False].argmax(-1) == found[True].argmax(-1)).sum())
        seen += len(ids) - 1
    note = f"original weights {bits[False] / size:.4f}; {same / seen:.1%} of the most likely tokens equal"
    ratio = bits[True] / bits[False]
    return [measure.row("int8_loss", [bits[True] / size], "bits/byte", ratio=ratio, bar=Bar(1.005), note=note)]


@torch.inference_mode()
def _scores(reader: NativeReader, ids: list[int]) -> torch.Tensor:
    """Log-probabilities [n − 1, vocabulary] of the next token after each token, from decode steps."""
    text = reader.new_sequence()
    rows = [text.decode(ids[at : at + 100]) for at in range(0, len(ids) - 1, 100)]
    return torch.log_softmax(reader.logits(torch.cat(rows), step=True).float(), -1)[: len(ids) - 1]


def step_ms(model: BaseModel, decoder: Decoder, ids: list[int], count: int) -> float:
    """ms of one decode step after a prompt."""
    stream = decoder.stream(decoder.prefill(ids))
    next(stream)
    next(stream)
    began = time.perf_counter()
    for _ in range(count):
        next(stream)
    return (time.perf_counter() - began) / count * 1e3
