"""Debounce, superseding, caching, prefetching and typing along, against a small fake engine."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from c2l_lsp.config import Settings, merge
from c2l_lsp.engine import wire
from c2l_lsp.errors import EngineError
from c2l_lsp.server.completion.acceptance import AcceptanceTracker
from c2l_lsp.server.completion.suggest import Answer, Query, Suggester, clip, to_request
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.transport.connection import EngineTimeout
from c2l_lsp.server.transport.protocol import Reason


class FakeEngine:
    """Answers the n-th request with `+n` after `delay` seconds."""

    def __init__(self) -> None:
        self.requests: list[wire.Complete] = []
        self.cancelled = 0
        self.delay = 0.0
        self.is_ready = True
        self.wake_calls = 0
        self.error: Exception | None = None
        self.texts: list[str] | None = None
        self.reason = ""
        self.replaced: list[int] = []

    async def wait_ready(self, timeout: float) -> bool:
        if not self.is_ready:
            await asyncio.sleep(timeout)
        return self.is_ready

    def wake(self) -> None:
        self.wake_calls += 1

    async def complete(self, params: wire.Complete, timeout: float) -> wire.Completion:
        self.requests.append(params)
        number = len(self.requests)
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        texts = [f"+{number}"] if self.texts is None else self.texts
        return wire.Completion(
            texts=texts, generation=1, prompt_tokens=1, new_tokens=1, ms=wire.Timing(total=1.0), reason=self.reason,
            replaced=self.replaced,
        )  # fmt: skip


def settings_with(**values: object) -> Settings:
    plain = {"completion.debounceMs": 0, "completion.speculative": False} | values
    settings, errors = merge(Settings(), plain, source="test", machine=True)
    assert not errors
    return settings


def query(prefix: str = "a", suffix: str = "", *, uri: str = "u", invoked: bool = False, **more: object) -> Query:
    settings = settings_with(**more.pop("values", {}))
    base = Query(uri, "python", "/w", "a.py", prefix, suffix, "\n", invoked, adapter=True, settings=settings)
    return dataclasses.replace(base, **more)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def statistics(tmp_path: Path) -> Statistics:
    return Statistics(tmp_path / "statistics.json")


@pytest.fixture
def suggester(engine: FakeEngine, statistics: Statistics) -> Suggester:
    return Suggester(engine, AcceptanceTracker(statistics), statistics)


def texts(answer: Answer | None) -> tuple[str, ...]:
    assert answer is not None and answer.suggestion is not None
    return answer.suggestion.texts


async def test_request_carries_the_settings(suggester: Suggester, engine: FakeEngine) -> None:
    first = query("x = ", ")", values={"completion.maxNewTokens": 5, "completion.multiline": "never"})
    assert texts(await suggester.suggest(first)) == ("+1",)
    params = engine.requests[0]
    assert (params.prefix, params.suffix, params.folder, params.path) == ("x = ", ")", "/w", "a.py")
    assert (params.max_new_tokens, params.multiline, params.candidates) == (5, "never", 1)
    assert params.max_latency_ms == 300
    await suggester.suggest(query(invoked=True))
    assert [request.min_confidence for request in engine.requests] == [-1.0, -1.0]  # the model's own
    assert (engine.requests[1].candidates, engine.requests[1].max_latency_ms) == (3, 2000)


async def test_newer_request_cancels_the_older_one_of_its_document(
    suggester: Suggester, engine: FakeEngine, statistics: Statistics
) -> None:
    engine.delay = 0.2
    older = asyncio.ensure_future(suggester.suggest(query("a")))
    other = asyncio.ensure_future(suggester.suggest(query("a", uri="other")))
    await asyncio.sleep(0.05)
    newer = asyncio.ensure_future(suggester.suggest(query("b")))
    assert await older is None
    assert texts(await newer) == ("+3",)
    assert texts(await other) == ("+2",)
    assert engine.cancelled == 1
    assert statistics.totals.superseded == 1


async def test_cancelled_request_is_cancelled_in_the_engine(suggester: Suggester, engine: FakeEngine) -> None:
    engine.delay = 5
    task = asyncio.ensure_future(suggester.suggest(query()))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert engine.cancelled == 1


async def test_empty_answer_gives_the_reason_of_the_engine(suggester: Suggester, engine: FakeEngine) -> None:
    engine.texts = []
    reasons = {"": Reason.EMPTY, wire.UNSURE: Reason.UNSURE, wire.LEFT_OUT: Reason.LEFT_OUT}
    for number, (engine.reason, reason) in enumerate(reasons.items()):
        answer = await suggester.suggest(query(str(number)))
        assert answer is not None and answer.reason is reason


async def test_debounce_grows_while_requests_are_superseded(suggester: Suggester, engine: FakeEngine) -> None:
    values = {"completion.debounceMs": 50, "completion.cacheSize": 0}
    clock = asyncio.get_running_loop().time

    async def elapsed() -> float:
        started_at = clock()
        await suggester.suggest(query("last", values=values))
        return clock() - started_at

    first = await elapsed()
    burst = [asyncio.ensure_future(suggester.suggest(query(str(at), values=values))) for at in range(30)]
    assert [await one for one in burst[:-1]] == [None] * 29
    await burst[-1]
    assert first > 0.045
    assert await elapsed() > 0.08  # nearly twice the setting


async def test_debounce_is_for_automatic_requests_only(suggester: Suggester, engine: FakeEngine) -> None:
    slow = {"completion.debounceMs": 5000}
    waiting = asyncio.ensure_future(suggester.suggest(query("a", values=slow)))
    await asyncio.sleep(0.05)
    assert engine.requests == []
    assert texts(await asyncio.wait_for(suggester.suggest(query("a", invoked=True, values=slow)), 2)) == ("+1",)
    assert await waiting is None


async def test_result_of_the_same_request_is_cached(suggester: Suggester, engine: FakeEngine) -> None:
    first = await suggester.suggest(query("a", invoked=True))
    again = await suggester.suggest(query("a", invoked=True))
    assert texts(first) == texts(again)
    assert again.suggestion.source == "cache"
    assert len(engine.requests) == 1
    for change in ({"suffix": "x"}, {"language": "go"}, {"adapter": False}, {"must_start": "m"}):
        await suggester.suggest(query("a", invoked=True, **change))
    assert len(engine.requests) == 5


async def test_new_adapter_invalidates_the_cache_of_its_folder(suggester: Suggester, engine: FakeEngine) -> None:
    await suggester.suggest(query("a", invoked=True))
    suggester.adapter_changed("/other")
    await suggester.suggest(query("a", invoked=True))
    assert len(engine.requests) == 1
    suggester.adapter_changed("/w")
    assert texts(await suggester.suggest(query("a", invoked=True))) == ("+2",)


async def test_result_computed_during_a_change_of_adapter_is_not_cached(
    suggester: Suggester, engine: FakeEngine
) -> None:
    engine.delay = 0.1
    task = asyncio.ensure_future(suggester.suggest(query("a", invoked=True)))
    await asyncio.sleep(0.02)
    suggester.adapter_changed("/w")
    assert texts(await task) == ("+1",)
    assert texts(await suggester.suggest(query("a", invoked=True))) == ("+2",)


async def test_least_recently_used_result_is_evicted(suggester: Suggester, engine: FakeEngine) -> None:
    small = {"completion.cacheSize": 2}
    for prefix in ("a", "b", "a", "c", "a", "b"):
        await suggester.suggest(query(prefix, invoked=True, values=small))
    assert [params.prefix for params in engine.requests] == ["a", "b", "c", "b"]


async def test_typing_along_sends_no_request(suggester: Suggester, engine: FakeEngine) -> None:
    engine.texts = ["range(10):"]
    first = await suggester.suggest(query("for i in ", "\n"))
    then = await suggester.suggest(query("for i in ra", "\n"))
    closed = await suggester.suggest(query("for i in range(10", "):\n"))
    assert texts(then) == ("nge(10):",)
    assert texts(closed) == ("):",)
    assert then.suggestion.ids == first.suggestion.ids
    assert len(engine.requests) == 1
    await suggester.suggest(query("for i in rb", "\n"))
    await suggester.suggest(query("for i in range(10):", "\n"))
    await suggester.suggest(query("for i in ", "other\n"))
    assert len(engine.requests) == 4


async def test_request_without_adapter_is_not_answered_from_one_with_adapter(
    suggester: Suggester, engine: FakeEngine
) -> None:
    assert texts(await suggester.suggest(query("a"))) == ("+1",)
    assert texts(await suggester.suggest(query("a", adapter=False))) == ("+2",)


async def test_next_completion_is_prefetched(suggester: Suggester, engine: FakeEngine) -> None:
    ahead = {"completion.speculative": True}
    engine.texts, engine.replaced = ["b)"], [1]
    await suggester.suggest(query("f(a", ")\n", values=ahead))
    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(engine.requests) == 2:
            break
    assert (engine.requests[1].prefix, engine.requests[1].suffix) == ("f(ab)", "\n")
    await asyncio.sleep(0.02)
    after = await suggester.suggest(query("f(ab)", "\n", values=ahead))
    assert after.suggestion.source == "cache"
    suggester.stop()


async def test_running_prefetch_answers_a_matching_request(suggester: Suggester, engine: FakeEngine) -> None:
    ahead = {"completion.speculative": True}
    await suggester.suggest(query("a", values=ahead))
    engine.delay = 0.2
    await asyncio.sleep(0.1)
    assert len(engine.requests) == 2
    assert texts(await suggester.suggest(query("a+1", values=ahead))) == ("+2",)
    assert engine.cancelled == 0
    suggester.stop()


async def test_running_prefetch_is_cancelled_by_another_request(suggester: Suggester, engine: FakeEngine) -> None:
    ahead = {"completion.speculative": True}
    await suggester.suggest(query("a", values=ahead))
    engine.delay = 5
    await asyncio.sleep(0.1)
    other = asyncio.ensure_future(suggester.suggest(query("zzz", values=ahead)))
    await asyncio.sleep(0.05)
    assert engine.cancelled == 1
    other.cancel()
    suggester.stop()


@pytest.mark.parametrize(("error", "reason"), [(EngineError("x"), Reason.ENGINE), (EngineTimeout("x"), Reason.TIMEOUT)])
async def test_engine_errors_become_reasons(
    suggester: Suggester, engine: FakeEngine, error: Exception, reason: Reason
) -> None:
    engine.error = error
    assert await suggester.suggest(query()) == Answer(reason=reason)
    engine.error, engine.texts = None, ["  \n", ""]
    assert await suggester.suggest(query("b")) == Answer(reason=Reason.EMPTY)


async def test_only_an_explicit_request_waits_for_the_engine_to_start(
    suggester: Suggester, engine: FakeEngine, statistics: Statistics
) -> None:
    engine.is_ready = False
    assert await suggester.suggest(query()) == Answer(reason=Reason.STARTING)
    assert engine.wake_calls == 1
    task = asyncio.ensure_future(suggester.suggest(query(invoked=True)))
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    assert statistics.totals.reasons == {"starting": 1}


async def test_candidates_get_the_line_endings_of_the_document_and_no_duplicates(
    suggester: Suggester, engine: FakeEngine
) -> None:
    engine.texts = ["a\n    b\n", "a\n    b", "c"]
    assert texts(await suggester.suggest(query(eol="\r\n"))) == ("a\r\n    b", "c")


def test_clipped_prefix_keeps_its_start_while_typing() -> None:
    lines = "".join(f"line {number}\n" for number in range(40_000))
    starts = {lines.index(clip(lines + "x" * n, "", 100)[0].split("\n", 1)[0]) for n in range(200)}
    assert len(starts) <= 2
    prefix, suffix = clip(lines, lines, 100)
    assert prefix.startswith("line ")
    assert lines.endswith(prefix)
    assert 255 * 1024 <= len(prefix) <= 256 * 1024
    assert len(suffix) == 128 * 1024
    assert clip("ab", "cd", 100) == ("ab", "cd")


async def test_a_text_replaces_what_the_engine_says_and_what_the_editor_closed(
    suggester: Suggester, engine: FakeEngine
) -> None:
    engine.texts, engine.replaced = ["\n    g(a),\n)"], [1]
    answer = await suggester.suggest(query("f(", ")"))
    assert answer is not None and answer.suggestion is not None
    assert answer.suggestion.replaced == (1,)
    typed = await suggester.suggest(query("f(\n    g(", "))"))
    assert typed is not None and typed.suggestion is not None
    assert (typed.suggestion.texts, typed.suggestion.replaced) == (("a),\n)",), (2,))


def test_engine_receives_newline_endings() -> None:
    params = to_request(query("a\r\nb\r", "c\r\n", must_start="d\r\n"))
    assert (params.prefix, params.suffix, params.must_start) == ("a\nb\n", "c\n", "d\n")


@pytest.fixture
def quick_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c2l_lsp.server.completion.suggest._READ_AHEAD_DELAY", 0.01)


async def until(holds: Callable[[], object]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen within 2.5 s")


async def test_the_place_where_the_cursor_rests_is_read_once(suggester, engine, quick_rest):
    for prefix in ("a", "ab", "abc"):
        suggester.read_ahead(query(prefix))
    await until(lambda: engine.requests)
    (asked,) = engine.requests
    assert asked.read_only and asked.prefix == "abc"
    assert engine.wake_calls == 0, "an unloaded model stays unloaded while nobody types"


async def test_a_completion_ends_reading_ahead(suggester, engine, quick_rest):
    engine.delay = 60.0
    suggester.read_ahead(query("a"))
    await until(lambda: engine.requests)
    engine.delay = 0.0
    assert texts(await suggester.suggest(query("ab"))) == ("+2",)
    assert engine.cancelled == 1
    assert not engine.requests[1].read_only


async def test_nothing_is_read_ahead_of_a_running_completion_or_against_the_setting(suggester, engine, quick_rest):
    suggester.read_ahead(query("a", values={"completion.readAhead": False}))
    await asyncio.sleep(0.05)
    engine.delay = 0.2
    running = asyncio.ensure_future(suggester.suggest(query("ab")))
    await until(lambda: engine.requests)
    suggester.read_ahead(query("ab"))
    assert texts(await running) == ("+1",)
    assert [asked.read_only for asked in engine.requests] == [False]


async def test_a_failure_while_reading_ahead_is_nobodys_concern(suggester, engine, quick_rest):
    engine.error = EngineError("it ended")
    suggester.read_ahead(query("a"))
    await until(lambda: engine.requests)
    engine.error = None
    assert texts(await suggester.suggest(query("ab"))) == ("+2",)
