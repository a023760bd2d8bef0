"""Computes suggestions: debounces, reuses results, asks the engine, prefetches the next completion, and reads ahead.

One request per document runs at a time; a newer one cancels it and the older one returns None. Texts here use the
document's line endings; the engine sees \\n only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from c2l_lsp.config import Settings
from c2l_lsp.engine.wire import LEFT_OUT, UNSURE, Complete, Completion
from c2l_lsp.errors import C2LError
from c2l_lsp.server.completion.acceptance import AcceptanceTracker, Suggestion
from c2l_lsp.server.completion.debounce import AdaptiveDebounce
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.transport.connection import EngineTimeout
from c2l_lsp.server.transport.protocol import Reason
from c2l_lsp.server.workspace.documents import to_engine_text

log = logging.getLogger("c2l.complete")
_TIMEOUT_SLACK = 1.5  # seconds beyond the latency limit that the engine itself keeps
_CLIP_BLOCK = 1024  # characters
_MOST_BEFORE, _MOST_AFTER = 256 * 1024, 128 * 1024  # characters
_PREFETCH_DELAY = 0.05
_READ_AHEAD_DELAY = 0.15  # the cursor rests
_READ_AHEAD_TIMEOUT = 120.0
_REASONS = {LEFT_OUT: Reason.LEFT_OUT, UNSURE: Reason.UNSURE}


class Engine(Protocol):
    """The methods of the engine client that are used here."""

    async def wait_ready(self, timeout: float) -> bool: ...  # noqa: D102

    async def complete(self, params: Complete, timeout: float) -> Completion: ...  # noqa: D102

    def wake(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Query:
    """One completion request with its effective settings. `suffix` starts at the cursor.

    `earlier_cells`, `later_cells`: the text of a notebook around the cell that the request is for.
    """

    uri: str
    language: str
    folder: str
    path: str
    prefix: str
    suffix: str
    eol: str
    invoked: bool
    adapter: bool
    settings: Settings
    must_start: str = ""
    earlier_cells: str = ""
    later_cells: str = ""


@dataclass(frozen=True)
class Answer:
    """A suggestion, or the reason why there is none."""

    suggestion: Suggestion | None = None
    reason: Reason | None = None


class Suggester:
    """Answers queries. Cached results are valid until the adapter of their folder changes."""

    def __init__(self, engine: Engine, acceptance: AcceptanceTracker, statistics: Statistics) -> None:
        self._engine = engine
        self._adapter_versions: dict[str, int] = {}
        self._acceptance = acceptance
        self._statistics = statistics
        self._ids = itertools.count(1)
        self._running: dict[str, asyncio.Task[Completion | Reason]] = {}
        self._prefetch: tuple[bytes, asyncio.Task[Completion | Reason]] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._cache: OrderedDict[bytes, Completion] = OrderedDict()
        self._debounces: dict[str, AdaptiveDebounce] = {}

    async def suggest(self, query: Query) -> Answer | None:
        """Answer a query; None if a newer query for the same document superseded it."""
        self._supersede(query.uri)
        self._stop_reading()
        if not query.invoked and not query.must_start:
            remainder = self._acceptance.remainder(query.uri, query.prefix, query.suffix, query.adapter)
            if remainder is not None:
                self._statistics.record_completion("typed")
                return Answer(remainder)
        params = to_request(query)
        cached = self._cache.get(self._key(params))
        if cached is not None:
            self._cache.move_to_end(self._key(params))
            return self._answer(query, cached, "cache")
        result = await self._run(query, params)
        if not query.invoked:
            self._debounce(query.uri).record(superseded=result is None)
        if result is None:
            self._statistics.record_superseded()
            return None
        return self._answer(query, result, "engine")

    def read_ahead(self, query: Query) -> None:
        """Let the engine read the prompt of a place where the cursor rests, so that the next key adds its tokens only.

        Every completion ends it; what was read until then stays in the engine's KV cache.
        """
        self._stop_reading()
        if query.settings.completion.read_ahead:
            self._reading = asyncio.ensure_future(self._read(query))

    async def _read(self, query: Query) -> None:
        await asyncio.sleep(_READ_AHEAD_DELAY)
        if self._running or not await self._engine.wait_ready(0.0):
            return
        with contextlib.suppress(EngineTimeout, C2LError):
            await self._engine.complete(msgspec.structs.replace(to_request(query), read_only=True), _READ_AHEAD_TIMEOUT)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    def adapter_changed(self, folder: str) -> None:
        """Invalidate the cached results of a folder. The suggestion on display stays active."""
        self._adapter_versions[folder] = self._adapter_versions.get(folder, 0) + 1

    def forget(self, uri: str) -> None:
        """Cancel and drop everything about a closed document."""
        self._supersede(uri)
        self._debounces.pop(uri, None)
        self._acceptance.forget(uri)

    def stop(self) -> None:
        """Cancel all requests."""
        for uri in list(self._running):
            self._supersede(uri)
        self._stop_reading()
        if self._prefetch is not None:
            self._prefetch[1].cancel()

    def _debounce(self, uri: str) -> AdaptiveDebounce:
        return self._debounces.setdefault(uri, AdaptiveDebounce())

    def _supersede(self, uri: str) -> None:
        task = self._running.pop(uri, None)
        if task is not None:
            task.cancel()

    async def _run(self, query: Query, params: Complete) -> Completion | Reason | None:
        task = self._take_prefetch(params) or asyncio.ensure_future(self._fetch(query, params))
        self._running[query.uri] = task
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:  # by the editor; VS Code does so at each keystroke
            task.cancel()
            if not query.invoked:
                self._debounce(query.uri).record(superseded=True)
            raise
        finally:
            if self._running.get(query.uri) is task:
                del self._running[query.uri]
        return None if task.cancelled() else task.result()

    async def _fetch(self, query: Query, params: Complete) -> Completion | Reason:
        budget = params.max_latency_ms / 1000
        self._engine.wake()
        if not query.invoked:
            await asyncio.sleep(self._debounce(query.uri).delay(query.settings.completion.debounce_ms))
        if not await self._engine.wait_ready(budget if query.invoked else 0.0):
            return Reason.STARTING
        started_at, key = asyncio.get_running_loop().time(), self._key(params)
        result = await self._ask(params, budget + _TIMEOUT_SLACK)
        if isinstance(result, Completion):
            elapsed_ms = (asyncio.get_running_loop().time() - started_at) * 1000
            self._statistics.record_latency(elapsed_ms, adapted=result.generation > 0)
            self._store(key, params, result, query.settings.completion.cache_size)
        return result

    async def _ask(self, params: Complete, timeout: float) -> Completion | Reason:
        try:
            return await self._engine.complete(params, timeout)
        except EngineTimeout:
            return Reason.TIMEOUT
        except C2LError as error:
            log.warning("A completion failed: %s", error)
            return Reason.ENGINE

    def _answer(self, query: Query, result: Completion | Reason, source: str) -> Answer:
        if isinstance(result, Reason):
            self._statistics.record_no_completion(result.value)
            return Answer(reason=result)
        pairs = zip(result.texts, result.replaced or [0] * len(result.texts), strict=True)
        found = {text: replaced for raw, replaced in reversed(list(pairs)) if (text := _to_document_text(raw, query))}
        texts, replaces = tuple(reversed(found)), tuple(reversed(found.values()))
        if not texts:
            reason = _REASONS.get(result.reason, Reason.EMPTY)
            self._statistics.record_no_completion(reason.value)
            return Answer(reason=reason)
        number = next(self._ids)
        ids = tuple(f"{number}-{index}" for index in range(len(texts)))
        suggestion = Suggestion(
            query.uri, query.prefix, query.suffix, texts, ids, source, result, query.adapter, replaces
        )
        self._statistics.record_completion(source)
        self._acceptance.track(suggestion)
        self._start_prefetch(query, texts[0], replaces[0])
        return Answer(suggestion)

    # --- cache and prefetch ---

    def _key(self, params: Complete) -> bytes:
        content = msgspec.json.encode(params) + str(self._adapter_versions.get(params.folder, 0)).encode()
        return hashlib.blake2b(content, digest_size=16).digest()

    def _store(self, key: bytes, params: Complete, completion: Completion, size: int) -> None:
        if key != self._key(params) or completion.reason == LEFT_OUT:
            return  # the adapter changed meanwhile; or the file is excluded, which the user may change at any time
        self._cache[key] = completion
        while len(self._cache) > size:
            self._cache.popitem(last=False)

    def _start_prefetch(self, query: Query, text: str, replaced: int) -> None:
        completion = query.settings.completion
        if not completion.speculative or not completion.cache_size or query.must_start:
            return
        after = replace(query, prefix=query.prefix + text, suffix=query.suffix[replaced:], invoked=False)
        params = to_request(after)
        if self._prefetch is not None:
            self._prefetch[1].cancel()
        if self._key(params) not in self._cache:
            self._prefetch = self._key(params), asyncio.ensure_future(self._fetch_next(after, params))

    async def _fetch_next(self, query: Query, params: Complete) -> Completion | Reason:
        await asyncio.sleep(_PREFETCH_DELAY)
        if not await self._engine.wait_ready(0.0):
            return Reason.STARTING
        key = self._key(params)
        result = await self._ask(params, params.max_latency_ms / 1000 + _TIMEOUT_SLACK)
        if isinstance(result, Completion):
            self._store(key, params, result, query.settings.completion.cache_size)
        return result

    def _take_prefetch(self, params: Complete) -> asyncio.Task[Completion | Reason] | None:
        """The running prefetch if it is for this request; otherwise it is cancelled."""
        prefetch, self._prefetch = self._prefetch, None
        if prefetch is None:
            return None
        key, task = prefetch
        if key == self._key(params) and not task.done():
            return task
        task.cancel()
        return None


def to_request(query: Query) -> Complete:
    """The engine request for a query, with the text clipped to what the engine may need."""
    completion, tokens = query.settings.completion, query.settings.context.max_tokens
    prefix, suffix = clip(query.earlier_cells + query.prefix, query.suffix + query.later_cells, tokens)
    return Complete(
        folder=query.folder,
        path=query.path,
        language=query.language,
        prefix=to_engine_text(prefix),
        suffix=to_engine_text(suffix),
        invoked=query.invoked,
        adapter=query.adapter,
        candidates=completion.candidates if query.invoked else 1,
        must_start=to_engine_text(query.must_start),
        max_new_tokens=completion.max_new_tokens,
        max_latency_ms=completion.max_latency_invoked_ms if query.invoked else completion.max_latency_ms,
        multiline=completion.multiline,
        max_context_tokens=tokens,
        min_confidence=completion.min_confidence,
    )


def clip(prefix: str, suffix: str, max_tokens: int) -> tuple[str, str]:
    """Clip the text around the cursor to what a prompt can hold and to what brackets and quotes are read from.

    Whether a string is open depends on the text from the beginning of the file, so nearly all files pass whole. The
    start of a clipped prefix moves in blocks, so that consecutive requests share it and the engine reuses its KV cache.
    """
    surplus = len(prefix) - max(8 * max_tokens, _MOST_BEFORE)
    if surplus > 0:
        start = -(-surplus // _CLIP_BLOCK) * _CLIP_BLOCK
        line = prefix.find("\n", start, start + _CLIP_BLOCK)
        prefix = prefix[line + 1 if line >= 0 else start :]
    return prefix, suffix[: max(4 * max_tokens, _MOST_AFTER)]


def _to_document_text(text: str, query: Query) -> str:
    """A candidate with the document's line endings and without trailing newlines; "" if it is blank."""
    text = text.rstrip("\n")
    if not text.strip():
        return ""
    return text.replace("\n", query.eol) if query.eol != "\n" else text
