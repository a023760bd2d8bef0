"""The peers: transformers and llama.cpp, with greedy decoding, the same weights and the same token ids."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch

from c2l_lab.benchmarks.perf import gguf
from c2l_lsp.engine.completion.decode import DRAFT, Decoder
from c2l_lsp.engine.completion.draft import DraftSource
from c2l_lsp.errors import RequestCancelled
from c2l_lsp.model.adapter.kv_sequence import sequence_reader
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel

_PORTION = 256  # tokens of a prompt between two checks for cancellation


class Peer(Protocol):
    """A greedy decoder."""

    def decode(self, ids: list[int], count: int) -> tuple[list[int], float]:
        """The next `count` greedy tokens, and the seconds per token after prefill."""


class Ours:
    """The engine's decoder; `draft` 0 is plain decoding."""

    def __init__(self, model: BaseModel, draft: int = DRAFT, draft_source: DraftSource | None = None) -> None:
        slot = AdapterSlot(model)
        self.decoder = Decoder(model, slot, sequence_reader(model, slot), draft, time.perf_counter)
        self._draft_source = draft_source

    def decode(self, ids: list[int], count: int) -> tuple[list[int], float]:
        """See Peer."""
        stream = self.decoder.stream(self.decoder.prefill(ids), draft_source=self._draft_source)
        found = [next(stream).token]
        began = time.perf_counter()
        found += [step.token for step in islice(stream, count - 1)]
        return found, (time.perf_counter() - began) / (count - 1)


class Transformers:
    """`generate` of the model's own class, in one dtype."""

    def __init__(self, model: BaseModel, dtype: torch.dtype) -> None:
        import copy

        self._lm = model.lm if model.dtype == dtype else copy.deepcopy(model.lm).to(dtype)
        self._device = model.device

    def decode(self, ids: list[int], count: int) -> tuple[list[int], float]:
        """See Peer. The time of prefill and first token is subtracted."""
        first, short = self._generate(ids, 1)
        found, long = self._generate(ids, count)
        del first
        return found, max(long - short, 1e-9) / (count - 1)

    @torch.inference_mode()
    def _generate(self, ids: list[int], count: int) -> tuple[list[int], float]:
        given = torch.tensor([ids], device=self._device)
        began = time.perf_counter()
        found = self._lm.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=count, min_new_tokens=count, do_sample=False
        )
        return found[0, len(ids) :].tolist(), time.perf_counter() - began


def has_llama() -> bool:
    """Whether llama.cpp and its file writer are installed (extra `perf`)."""
    return all(importlib.util.find_spec(name) is not None for name in ("llama_cpp", "gguf"))


class Llama:
    """llama.cpp with the exported weights. It reuses the KV cache of the longest common prefix."""

    def __init__(self, model: BaseModel, kind: str, folder: Path, threads: int) -> None:
        import llama_cpp

        path = folder / f"{model.digest[:16]}-{kind}.gguf"
        if not path.is_file():
            part = path.with_suffix(".part")
            gguf.export(model, part, kind)
            part.replace(path)
        self._llama: Any = llama_cpp.Llama(
            str(path), n_ctx=model.max_context, n_batch=model.max_context, n_threads=threads, n_threads_batch=threads,
            logits_all=False, verbose=False,
        )  # fmt: skip
        self._ids: list[int] = []

    def read(self, ids: list[int], cancelled: Callable[[], bool] = lambda: False) -> int:
        """Prefill a prompt; the number of reused tokens. RequestCancelled between two portions, as in our decoder."""
        shared = 0
        for mine, yours in zip(self._ids, ids[:-1], strict=False):
            if mine != yours:
                break
            shared += 1
        self._llama.n_tokens = shared  # the next eval overwrites the KV cache from here on
        self._ids = ids[:shared]
        for start in range(shared, len(ids), _PORTION):
            if start > shared and cancelled():
                raise RequestCancelled("The completion was cancelled while its prompt was read.")
            part = ids[start : start + _PORTION]
            self._llama.eval(part)
            self._ids += part
        return shared

    def step(self, token: int) -> None:
        """Append one token."""
        self._llama.eval([token])
        self._ids.append(token)

    def scores(self) -> Any:  # noqa: ANN401 - a numpy array
        """The logits [vocabulary] after the last token; a view that the next step overwrites."""
        import numpy as np

        context = self._llama._ctx
        return np.ctypeslib.as_array(context.get_logits_ith(-1), shape=(self._llama.n_vocab(),))

    def decode(self, ids: list[int], count: int) -> tuple[list[int], float]:
        """See Peer."""
        self.read(ids)
        found = [int(self.scores().argmax())]
        began = time.perf_counter()
        while len(found) < count:
            self.step(found[-1])
            found.append(int(self.scores().argmax()))
        return found, (time.perf_counter() - began) / (count - 1)


def made(model: BaseModel, folder: Path, threads: int) -> dict[str, Callable[[], Peer]]:
    """The installed peers: name → constructor."""
    found: dict[str, Callable[[], Peer]] = {}
    found["transformers/fp32"] = lambda: Transformers(model, torch.float32)
    found["transformers/bf16"] = lambda: Transformers(model, torch.bfloat16)
    if has_llama():
        for kind in ("BF16", "Q8_0"):
            found[f"llama.cpp/{kind}"] = lambda kind=kind: Llama(model, kind, folder, threads)  # type: ignore[misc]
    return found
