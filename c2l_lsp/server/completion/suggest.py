"""From a place in a document to candidate texts: debounce, reuse, ask the engine, compute the next one ahead.

One request per document is at work; a newer one ends it, and the older is answered with None. Knows the engine by two
methods and nothing of LSP. Texts here have the document's own line endings; the engine sees \\n only.
"""

from __future__ import annotations

import asyncio
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
from c2l_lsp.server.completion.items import covered
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.transport.connection import EngineTimeout
from c2l_lsp.server.transport.protocol import Reason
from c2l_lsp.server.workspace.documents import sendable

log = logging.getLogger("c2l.complete")
_SLACK = 1.5
_BLOCK = 1024
_AHEAD_DELAY = 0.05
_WHY = {LEFT_OUT: Reason.LEFT_OUT, UNSURE: Reason.UNSURE}


class Engine(Protocol):
    """What this module needs of the engine client."""

    async def ready(self, timeout: float) -> bool: ...  # noqa: D102

    async def complete(self, params: Complete, timeout: float) -> Completion: ...  # noqa: D102

    def wake(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Query:
    """One request: a place, and the settings that hold there. `suffix` starts at the cursor."""

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

    @property
    def rest_of_line(self) -> str:
        """What follows the cursor on its line."""
        return self.suffix.split("\n", 1)[0].split("\r", 1)[0]


@dataclass(frozen=True)
class Answer:
    """What a request gets: a result, or the reason why there is none."""

    given: Suggestion | None = None
    reason: Reason | None = None


class Suggester:
    """Answers queries. Kept results count for one epoch of a folder: until its adapter changes."""

    def __init__(self, engine: Engine, shown: AcceptanceTracker, statistics: Statistics) -> None:
        self._engine = engine
        self._epochs: dict[str, int] = {}
        self._shown = shown
        self._statistics = statistics
        self._ids = itertools.count(1)
        self._working: dict[str, asyncio.Task[Completion | Reason]] = {}
        self._ahead: tuple[bytes, asyncio.Task[Completion | Reason]] | None = None
        self._results: OrderedDict[bytes, Completion] = OrderedDict()
        self._paces: dict[str, AdaptiveDebounce] = {}

    async def suggest(self, query: Query) -> Answer | None:
        """The answer, or None if a newer request for the document overtook this one."""
        self._supersede(query.uri)
        if not query.invoked and not query.must_start:
            typed = self._shown.typed_through(query.uri, query.prefix, query.suffix, query.adapter)
            if typed is not None:
                self._statistics.requested("typed")
                return Answer(typed)
        params = parameters(query)
        cached = self._results.get(self._key(params))
        if cached is not None:
            self._results.move_to_end(self._key(params))
            return self._answer(query, cached, "cache")
        outcome = await self._work(query, params)
        if not query.invoked:
            self._pace(query.uri).note(overtaken=outcome is None)
        if outcome is None:
            self._statistics.superseded()
            return None
        return self._answer(query, outcome, "engine")

    def adapter_changed(self, folder: str) -> None:
        """Another adapter is live: results kept so far are of no use any more. What is shown lives on."""
        self._epochs[folder] = self._epochs.get(folder, 0) + 1

    def forget(self, uri: str) -> None:
        """The document was closed."""
        self._supersede(uri)
        self._paces.pop(uri, None)
        self._shown.forget(uri)

    def stop(self) -> None:
        """End all work."""
        for uri in list(self._working):
            self._supersede(uri)
        if self._ahead is not None:
            self._ahead[1].cancel()

    def _pace(self, uri: str) -> AdaptiveDebounce:
        return self._paces.setdefault(uri, AdaptiveDebounce())

    def _supersede(self, uri: str) -> None:
        work = self._working.pop(uri, None)
        if work is not None:
            work.cancel()

    async def _work(self, query: Query, params: Complete) -> Completion | Reason | None:
        work = self._adopt_ahead(params) or asyncio.ensure_future(self._fetch(query, params))
        self._working[query.uri] = work
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:  # the editor cancelled, as VS Code does at each keystroke
            work.cancel()
            if not query.invoked:
                self._pace(query.uri).note(overtaken=True)
            raise
        finally:
            if self._working.get(query.uri) is work:
                del self._working[query.uri]
        return None if work.cancelled() else work.result()

    async def _fetch(self, query: Query, params: Complete) -> Completion | Reason:
        budget = params.max_latency_ms / 1000
        self._engine.wake()
        if not query.invoked:
            await asyncio.sleep(self._pace(query.uri).wait(query.settings.completion.debounce_ms))
        if not await self._engine.ready(budget if query.invoked else 0.0):
            return Reason.STARTING
        began, key = asyncio.get_running_loop().time(), self._key(params)
        outcome = await self._ask(params, budget + _SLACK)
        if isinstance(outcome, Completion):
            took = (asyncio.get_running_loop().time() - began) * 1000
            self._statistics.latency(took, adapted=outcome.generation > 0)
            self._keep(key, params, outcome, query.settings.completion.cache_size)
        return outcome

    async def _ask(self, params: Complete, timeout: float) -> Completion | Reason:
        try:
            return await self._engine.complete(params, timeout)
        except EngineTimeout:
            return Reason.TIMEOUT
        except C2LError as error:
            log.warning("A completion failed: %s", error)
            return Reason.ENGINE

    def _answer(self, query: Query, outcome: Completion | Reason, source: str) -> Answer:
        if isinstance(outcome, Reason):
            self._statistics.withheld(outcome.value)
            return Answer(reason=outcome)
        texts = tuple(dict.fromkeys(text for raw in outcome.texts if (text := _shaped(raw, query))))
        if not texts:
            reason = _WHY.get(outcome.reason, Reason.EMPTY)
            self._statistics.withheld(reason.value)
            return Answer(reason=reason)
        number = next(self._ids)
        ids = tuple(f"{number}-{index}" for index in range(len(texts)))
        given = Suggestion(query.uri, query.prefix, query.suffix, texts, ids, source, outcome, query.adapter)
        self._statistics.requested(source)
        self._shown.show(given)
        self._look_ahead(query, texts[0])
        return Answer(given)

    # --- results kept for later, and computed before they are asked for ---

    def _key(self, params: Complete) -> bytes:
        plain = msgspec.json.encode(params) + str(self._epochs.get(params.folder, 0)).encode()
        return hashlib.blake2b(plain, digest_size=16).digest()

    def _keep(self, key: bytes, params: Complete, answer: Completion, size: int) -> None:
        if key != self._key(params) or answer.reason == LEFT_OUT:
            return  # computed under nobody knows which adapter; or the user may let the file in at any time
        self._results[key] = answer
        while len(self._results) > size:
            self._results.popitem(last=False)

    def _look_ahead(self, query: Query, text: str) -> None:
        completion = query.settings.completion
        if not completion.speculative or not completion.cache_size or query.must_start:
            return
        taken = covered(text, query.rest_of_line)
        after = replace(query, prefix=query.prefix + text, suffix=query.suffix[taken:], invoked=False)
        params = parameters(after)
        if self._ahead is not None:
            self._ahead[1].cancel()
        if self._key(params) not in self._results:
            self._ahead = self._key(params), asyncio.ensure_future(self._fetch_ahead(after, params))

    async def _fetch_ahead(self, query: Query, params: Complete) -> Completion | Reason:
        await asyncio.sleep(_AHEAD_DELAY)
        if not await self._engine.ready(0.0):
            return Reason.STARTING
        key = self._key(params)
        outcome = await self._ask(params, params.max_latency_ms / 1000 + _SLACK)
        if isinstance(outcome, Completion):
            self._keep(key, params, outcome, query.settings.completion.cache_size)
        return outcome

    def _adopt_ahead(self, params: Complete) -> asyncio.Task[Completion | Reason] | None:
        """The look-ahead that computes just this; any other one makes way."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        key, task = ahead
        if key == self._key(params) and not task.done():
            return task
        task.cancel()
        return None


def parameters(query: Query) -> Complete:
    """The request to the engine. Text is clipped to what could fit into the prompt, at places that stay put."""
    completion, tokens = query.settings.completion, query.settings.context.max_tokens
    prefix, suffix = clip(query.prefix, query.suffix, tokens)
    return Complete(
        folder=query.folder,
        path=query.path,
        language=query.language,
        prefix=sendable(prefix),
        suffix=sendable(suffix),
        invoked=query.invoked,
        adapter=query.adapter,
        candidates=completion.candidates if query.invoked else 1,
        must_start=sendable(query.must_start),
        max_new_tokens=completion.max_new_tokens,
        max_latency_ms=completion.max_latency_invoked_ms if query.invoked else completion.max_latency_ms,
        multiline=completion.multiline,
        max_context_tokens=tokens,
        min_confidence=0.0 if query.invoked else completion.min_confidence,
    )


def clip(prefix: str, suffix: str, max_tokens: int) -> tuple[str, str]:
    """At most 8 characters per token before and 4 after. The start moves in blocks: the engine reuses a same start."""
    surplus = len(prefix) - max(8 * max_tokens, 2 * _BLOCK)
    if surplus > 0:
        start = -(-surplus // _BLOCK) * _BLOCK
        line = prefix.find("\n", start, start + _BLOCK)
        prefix = prefix[line + 1 if line >= 0 else start :]
    return prefix, suffix[: 4 * max_tokens]


def _shaped(text: str, query: Query) -> str:
    """A candidate as the document would have it: its line endings, no blank tail, nothing if only blank."""
    text = text.rstrip("\n")
    if not text.strip():
        return ""
    return text.replace("\n", query.eol) if query.eol != "\n" else text
