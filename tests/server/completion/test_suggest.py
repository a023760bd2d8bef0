"""Debounce, superseding, reuse, looking ahead, typing through: against an engine that is a few lines of Python."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from c2l_lsp.config import Settings, merge
from c2l_lsp.engine import wire
from c2l_lsp.errors import EngineError
from c2l_lsp.server.completion.acceptance import AcceptanceTracker
from c2l_lsp.server.completion.suggest import Answer, Query, Suggester, clip, parameters
from c2l_lsp.server.reporting.statistics import Statistics
from c2l_lsp.server.transport.connection import EngineTimeout
from c2l_lsp.server.transport.protocol import Reason


class Engine:
    """Answers `+n` for the n-th question, after `delay`."""

    def __init__(self) -> None:
        self.asked: list[wire.Complete] = []
        self.cancelled = 0
        self.delay = 0.0
        self.up = True
        self.woken = 0
        self.fault: Exception | None = None
        self.texts: list[str] | None = None
        self.reason = ""

    async def ready(self, timeout: float) -> bool:
        if not self.up:
            await asyncio.sleep(timeout)
        return self.up

    def wake(self) -> None:
        self.woken += 1

    async def complete(self, params: wire.Complete, timeout: float) -> wire.Completion:
        self.asked.append(params)
        number = len(self.asked)
        try:
            await asyncio.sleep(self.delay)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.fault is not None:
            raise self.fault
        texts = [f"+{number}"] if self.texts is None else self.texts
        return wire.Completion(
            texts=texts, generation=1, prompt_tokens=1, new_tokens=1, ms=wire.Timing(total=1.0), reason=self.reason
        )


def made(**values: object) -> Settings:
    plain = {"completion.debounceMs": 0, "completion.speculative": False} | values
    settings, errors = merge(Settings(), plain, source="test", machine=True)
    assert not errors
    return settings


def query(prefix: str = "a", suffix: str = "", *, uri: str = "u", invoked: bool = False, **more: object) -> Query:
    settings = made(**more.pop("values", {}))
    base = Query(uri, "python", "/w", "a.py", prefix, suffix, "\n", invoked, adapter=True, settings=settings)
    return dataclasses.replace(base, **more)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def statistics(tmp_path: Path) -> Statistics:
    return Statistics(tmp_path / "statistics.json")


@pytest.fixture
def suggester(engine: Engine, statistics: Statistics) -> Suggester:
    return Suggester(engine, AcceptanceTracker(statistics), statistics)


def texts(answer: Answer | None) -> tuple[str, ...]:
    assert answer is not None and answer.given is not None
    return answer.given.texts


async def test_a_question_goes_out_with_the_settings(suggester: Suggester, engine: Engine) -> None:
    asked = query("x = ", ")", values={"completion.maxNewTokens": 5, "completion.multiline": "never"})
    assert texts(await suggester.suggest(asked)) == ("+1",)
    params = engine.asked[0]
    assert (params.prefix, params.suffix, params.folder, params.path) == ("x = ", ")", "/w", "a.py")
    assert (params.max_new_tokens, params.multiline, params.candidates) == (5, "never", 1)
    assert params.max_latency_ms == 300
    await suggester.suggest(query(invoked=True))
    assert [asked.min_confidence for asked in engine.asked[:2]] == [0.1, 0.0]  # asked for, every guess is given
    assert (engine.asked[1].candidates, engine.asked[1].max_latency_ms) == (3, 2000)


async def test_a_newer_question_ends_the_older(suggester: Suggester, engine: Engine, statistics: Statistics) -> None:
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


async def test_an_editor_that_cancels_ends_the_work(suggester: Suggester, engine: Engine) -> None:
    engine.delay = 5
    asked = asyncio.ensure_future(suggester.suggest(query()))
    await asyncio.sleep(0.05)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await asyncio.sleep(0)
    assert engine.cancelled == 1


async def test_why_nothing_is_shown_is_told(suggester: Suggester, engine: Engine) -> None:
    engine.texts = []
    reasons = {"": Reason.EMPTY, wire.UNSURE: Reason.UNSURE, wire.LEFT_OUT: Reason.LEFT_OUT}
    for number, (engine.reason, reason) in enumerate(reasons.items()):
        answer = await suggester.suggest(query(str(number)))
        assert answer is not None and answer.reason is reason


async def test_whoever_types_on_is_waited_for_longer(suggester: Suggester, engine: Engine) -> None:
    values = {"completion.debounceMs": 50, "completion.cacheSize": 0}
    clock = asyncio.get_running_loop().time

    async def took() -> float:
        began = clock()
        await suggester.suggest(query("last", values=values))
        return clock() - began

    first = await took()
    burst = [asyncio.ensure_future(suggester.suggest(query(str(at), values=values))) for at in range(30)]
    assert [await one for one in burst[:-1]] == [None] * 29
    await burst[-1]
    assert first > 0.045
    assert await took() > 0.08  # nearly twice the setting; a sleep is never shorter than asked


async def test_debounce_is_for_automatic_requests_only(suggester: Suggester, engine: Engine) -> None:
    slow = {"completion.debounceMs": 5000}
    waiting = asyncio.ensure_future(suggester.suggest(query("a", values=slow)))
    await asyncio.sleep(0.05)
    assert engine.asked == []
    assert texts(await asyncio.wait_for(suggester.suggest(query("a", invoked=True, values=slow)), 2)) == ("+1",)
    assert await waiting is None


async def test_the_same_place_is_computed_once(suggester: Suggester, engine: Engine) -> None:
    first = await suggester.suggest(query("a", invoked=True))
    again = await suggester.suggest(query("a", invoked=True))
    assert texts(first) == texts(again)
    assert again.given.source == "cache"
    assert len(engine.asked) == 1
    for change in ({"suffix": "x"}, {"language": "go"}, {"adapter": False}, {"must_start": "m"}):
        await suggester.suggest(query("a", invoked=True, **change))
    assert len(engine.asked) == 5


async def test_another_adapter_makes_kept_results_useless(suggester: Suggester, engine: Engine) -> None:
    await suggester.suggest(query("a", invoked=True))
    suggester.adapter_changed("/other")
    await suggester.suggest(query("a", invoked=True))
    assert len(engine.asked) == 1
    suggester.adapter_changed("/w")
    assert texts(await suggester.suggest(query("a", invoked=True))) == ("+2",)


async def test_a_result_across_a_change_of_adapter_is_not_kept(suggester: Suggester, engine: Engine) -> None:
    engine.delay = 0.1
    asked = asyncio.ensure_future(suggester.suggest(query("a", invoked=True)))
    await asyncio.sleep(0.02)
    suggester.adapter_changed("/w")
    assert texts(await asked) == ("+1",)
    assert texts(await suggester.suggest(query("a", invoked=True))) == ("+2",)


async def test_the_oldest_result_makes_room(suggester: Suggester, engine: Engine) -> None:
    small = {"completion.cacheSize": 2}
    for prefix in ("a", "b", "a", "c", "a", "b"):
        await suggester.suggest(query(prefix, invoked=True, values=small))
    assert [params.prefix for params in engine.asked] == ["a", "b", "c", "b"]


async def test_typing_along_asks_nothing(suggester: Suggester, engine: Engine) -> None:
    engine.texts = ["range(10):"]
    first = await suggester.suggest(query("for i in ", "\n"))
    then = await suggester.suggest(query("for i in ra", "\n"))
    closed = await suggester.suggest(query("for i in range(10", "):\n"))
    assert texts(then) == ("nge(10):",)
    assert texts(closed) == ("):",)
    assert then.given.ids == first.given.ids
    assert len(engine.asked) == 1
    await suggester.suggest(query("for i in rb", "\n"))
    await suggester.suggest(query("for i in range(10):", "\n"))
    await suggester.suggest(query("for i in ", "other\n"))
    assert len(engine.asked) == 4


async def test_switching_the_adapter_is_seen_at_the_same_place(suggester: Suggester, engine: Engine) -> None:
    assert texts(await suggester.suggest(query("a"))) == ("+1",)
    assert texts(await suggester.suggest(query("a", adapter=False))) == ("+2",)


async def test_the_next_completion_is_computed_ahead(suggester: Suggester, engine: Engine) -> None:
    ahead = {"completion.speculative": True}
    engine.texts = ["b)"]
    await suggester.suggest(query("f(a", ")\n", values=ahead))
    for _ in range(100):
        await asyncio.sleep(0.01)
        if len(engine.asked) == 2:
            break
    assert (engine.asked[1].prefix, engine.asked[1].suffix) == ("f(ab)", "\n")
    await asyncio.sleep(0.02)
    after = await suggester.suggest(query("f(ab)", "\n", values=ahead))
    assert after.given.source == "cache"
    suggester.stop()


async def test_a_look_ahead_at_work_is_taken_over(suggester: Suggester, engine: Engine) -> None:
    ahead = {"completion.speculative": True}
    await suggester.suggest(query("a", values=ahead))
    engine.delay = 0.2
    await asyncio.sleep(0.1)
    assert len(engine.asked) == 2
    assert texts(await suggester.suggest(query("a+1", values=ahead))) == ("+2",)
    assert engine.cancelled == 0
    suggester.stop()


async def test_a_look_ahead_makes_way(suggester: Suggester, engine: Engine) -> None:
    ahead = {"completion.speculative": True}
    await suggester.suggest(query("a", values=ahead))
    engine.delay = 5
    await asyncio.sleep(0.1)
    other = asyncio.ensure_future(suggester.suggest(query("zzz", values=ahead)))
    await asyncio.sleep(0.05)
    assert engine.cancelled == 1
    other.cancel()
    suggester.stop()


@pytest.mark.parametrize(("fault", "reason"), [(EngineError("x"), Reason.ENGINE), (EngineTimeout("x"), Reason.TIMEOUT)])
async def test_faults_are_reasons(suggester: Suggester, engine: Engine, fault: Exception, reason: Reason) -> None:
    engine.fault = fault
    assert await suggester.suggest(query()) == Answer(reason=reason)
    engine.fault, engine.texts = None, ["  \n", ""]
    assert await suggester.suggest(query("b")) == Answer(reason=Reason.EMPTY)


async def test_an_engine_that_is_not_up_is_woken_and_waited_for_only_on_request(
    suggester: Suggester, engine: Engine, statistics: Statistics
) -> None:
    engine.up = False
    assert await suggester.suggest(query()) == Answer(reason=Reason.STARTING)
    assert engine.woken == 1
    asked = asyncio.ensure_future(suggester.suggest(query(invoked=True)))
    await asyncio.sleep(0.05)
    assert not asked.done()
    asked.cancel()
    assert statistics.totals.reasons == {"starting": 1}


async def test_the_documents_endings_and_equal_candidates(suggester: Suggester, engine: Engine) -> None:
    engine.texts = ["a\n    b\n", "a\n    b", "c"]
    assert texts(await suggester.suggest(query(eol="\r\n"))) == ("a\r\n    b", "c")


def test_clipping_keeps_its_start_while_one_types() -> None:
    lines = "".join(f"line {number}\n" for number in range(5000))
    starts = {lines.index(clip(lines + "x" * n, "", 100)[0].split("\n", 1)[0]) for n in range(200)}
    assert len(starts) <= 2
    prefix, suffix = clip(lines, lines, 100)
    assert prefix.startswith("line ")
    assert lines.endswith(prefix)
    assert 1024 <= len(prefix) <= 3 * 1024
    assert len(suffix) == 400
    assert clip("ab", "cd", 100) == ("ab", "cd")


def test_the_engine_sees_plain_line_endings() -> None:
    params = parameters(query("a\r\nb\r", "c\r\n", must_start="d\r\n"))
    assert (params.prefix, params.suffix, params.must_start) == ("a\nb\n", "c\n", "d\n")
