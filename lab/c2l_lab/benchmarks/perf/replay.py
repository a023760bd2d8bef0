"""Keystroke to ghost text: replays typing in real time through the server's suggester, with our engine or a peer.

Both sides use the same prompts, stop rules, KV cache reuse, result cache and reuse of shown suggestions. There is no
debounce, because it would add the same time to both sides and bring the ratio closer to 1. Nothing is accepted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from c2l_lab.benchmarks.perf.peers import Llama
from c2l_lab.benchmarks.perf.typing import Place
from c2l_lsp.config import Settings, merge
from c2l_lsp.engine import wire
from c2l_lsp.engine.completion.complete import Completer
from c2l_lsp.engine.completion.decode import Decoder, Prefilled
from c2l_lsp.engine.completion.draft import DraftSource
from c2l_lsp.engine.completion.greedy import DecodedToken, GreedySelector
from c2l_lsp.model.adapter.lora import AdapterSlot
from c2l_lsp.model.lm.base import BaseModel
from c2l_lsp.server.completion.acceptance import AcceptanceTracker
from c2l_lsp.server.completion.suggest import Query, Suggester
from c2l_lsp.server.reporting.statistics import Statistics

_STEP = {"completion.debounceMs": 0, "completion.maxLatencyMs": 2000}

Cancelled = Callable[[], bool]


class Completions(Protocol):
    """A completer."""

    def complete(self, request: wire.Complete, cancelled: Cancelled) -> wire.Completion:
        """The completion. RequestCancelled as soon as `cancelled` returns true."""


class OurSide:
    """The engine's completer, without an adapter."""

    def __init__(self, model: BaseModel) -> None:
        self._completer = Completer(model, Decoder(model, AdapterSlot(model), clock=time.perf_counter))

    def complete(self, request: wire.Complete, cancelled: Cancelled) -> wire.Completion:
        """See Completions."""
        return self._completer.complete(request, generation=0, kv_key="", cancelled=cancelled)


class LlamaSide:
    """The same completer with llama.cpp as its decoder: same prompts, same confidence and stop rules."""

    def __init__(self, model: BaseModel, llama: Llama) -> None:
        self._completer = Completer(model, _LlamaDecoder(model, llama))

    def complete(self, request: wire.Complete, cancelled: Cancelled) -> wire.Completion:
        """See Completions."""
        return self._completer.complete(request, generation=0, kv_key="", cancelled=cancelled)


class _LlamaDecoder:
    """Greedy decoding by llama.cpp with the interface of `Decoder`, without drafts."""

    def __init__(self, model: BaseModel, llama: Llama) -> None:
        self._model, self._llama, self._greedy = model, llama, GreedySelector(model.token_bytes)

    def prefill(
        self, ids: list[int], kv_key: str = "", forced_prefix: str = "", cancelled: Cancelled = lambda: False
    ) -> Prefilled:
        """Prefill a prompt. llama.cpp has one KV cache and ignores `kv_key`."""
        del kv_key
        reused = self._llama.read(ids, cancelled)
        return Prefilled(None, self._logits(), len(ids), reused, forced_prefix.encode())

    def top_tokens(self, start: Prefilled, count: int) -> list[int]:
        """The most likely first tokens of a completion."""
        return self._greedy.top_tokens(start.logits, start.forced_prefix, count)

    def stream(
        self, start: Prefilled, first: int | None = None, draft_source: DraftSource | None = None
    ) -> Iterator[DecodedToken]:
        """Greedy tokens."""
        del draft_source
        forced_prefix, chunks = start.forced_prefix, self._model.token_bytes
        while True:
            (step,) = self._greedy.select(self._logits()[None], forced_prefix, first)
            yield step
            first = None
            if forced_prefix and chunks is not None:
                forced_prefix = forced_prefix[len(chunks[step.token]) :]
            self._llama.step(step.token)

    def _logits(self) -> Tensor:
        return torch.from_numpy(self._llama.scores())


@dataclass
class Latencies:
    """The latencies of a replay: seconds from a key to its ghost text, by source, and the keys without ghost text.

    answered: keys whose request the engine answered.
    saved: the number of keys served without a request.
    superseded: keys whose request was cancelled by the next key; the time until then.
    empty: the number of answers without a text.
    """

    answered: list[float] = field(default_factory=list)
    saved: int = 0
    superseded: list[float] = field(default_factory=list)
    empty: int = 0

    @property
    def waits(self) -> list[float]:
        """The latencies that depend on the engine: answered and cancelled requests."""
        return [*self.answered, *self.superseded]


def replay(side: Completions, places: Sequence[Place], settings: Settings, folder: Path, speed: float) -> Latencies:
    """Replay all places, one after the other."""
    return asyncio.run(_replay(side, places, settings, folder, speed))


async def _replay(
    side: Completions, places: Sequence[Place], settings: Settings, folder: Path, speed: float
) -> Latencies:
    quick, _ = merge(settings, _STEP, source="bench perf", machine=True)
    latencies = Latencies()
    with ThreadPoolExecutor(1) as pool:
        for number, place in enumerate(places):
            statistics = Statistics(folder / "statistics.json")
            suggester = Suggester(_EngineAdapter(side, pool), AcceptanceTracker(statistics), statistics)
            await _type(suggester, place, f"file:///{number}.py", quick, latencies, speed)
            suggester.stop()
            await asyncio.sleep(0)
    return latencies


async def _type(
    suggester: Suggester, place: Place, uri: str, settings: Settings, latencies: Latencies, speed: float
) -> None:
    prefix, waiting = place.prefix, list[asyncio.Task[None]]()
    for key in place.keys:
        await asyncio.sleep(key.wait_s / speed)
        prefix += key.text
        query = Query(uri, "python", "", place.path, prefix, place.suffix, "\n", False, False, settings)
        waiting.append(asyncio.ensure_future(_ask(suggester, query, latencies)))
    await asyncio.gather(*waiting)


async def _ask(suggester: Suggester, query: Query, latencies: Latencies) -> None:
    began = time.perf_counter()
    answer = await suggester.suggest(query)
    spent = time.perf_counter() - began
    if answer is None:
        latencies.superseded.append(spent)
    elif answer.suggestion is None:
        latencies.empty += 1
        latencies.answered.append(spent)
    elif answer.suggestion.source == "engine":
        latencies.answered.append(spent)
    else:
        latencies.saved += 1


class _EngineAdapter:
    """Adapts a side to the interface of the engine client: one request at a time, in a thread, cancelled by a flag."""

    def __init__(self, side: Completions, pool: ThreadPoolExecutor) -> None:
        self._side, self._pool = side, pool

    async def wait_ready(self, timeout: float) -> bool:
        """Always ready."""
        del timeout
        return True

    def wake(self) -> None:
        """Does nothing."""

    async def complete(self, params: wire.Complete, timeout: float) -> wire.Completion:
        """Run the request in the thread."""
        del timeout
        gone = False
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._pool, lambda: self._side.complete(params, lambda: gone))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            gone = True
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise
